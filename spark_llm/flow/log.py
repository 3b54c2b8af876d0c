"""Which changes of an endpoint's flow are worth a line in a log. Knows no clock and no logger: `now` is an argument.

A quantity has one line a second at most; what changes within that second is part of the next line.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

BETWEEN_S = 1.0  # two lines about one quantity
DEBUG, INFO = 10, 20  # as `logging` numbers its levels


class Flow(NamedTuple):
    """How an endpoint is asked at one moment."""

    window: int = 1  # the most requests in flight
    per_s: float | None = None  # the rate that refusals taught
    saturation: float | None = None  # the requests in flight beyond which throughput does not grow
    outage_since: float | None = None
    held_until: float = 0.0  # by Retry-After
    forms: tuple[tuple[str, int], ...] = ()  # the wire form of each task that is not asked in its first


def _of_rate(new: float | None) -> str:
    return "no learned rate any more" if new is None else f"learned a rate of {new:.2g} requests/s"


def _of_saturation(new: float | None) -> str:
    return "no saturation any more" if new is None else f"saturated at {new:.0f} requests in flight"


def _of_outage(new: float | None) -> str:
    return "the outage ended" if new is None else "an outage began: only faults came back, so only probes are sent"


def _of_forms(new: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{task} is asked in wire form {form}" for task, form in new) or "asked in the first wire form"


# The words for a quantity's new value, after its old one, at this time.
_WORDS: Mapping[str, Callable[[Any, Any, float], str]] = {
    "window": lambda old, new, _: f"window {old} -> {new}",
    "per_s": lambda _, new, __: _of_rate(new),
    "saturation": lambda _, new, __: _of_saturation(new),
    "outage_since": lambda _, new, __: _of_outage(new),
    "held_until": lambda _, new, now: f"paused for {new - now:.1f} s by Retry-After",
    "forms": lambda _, new, __: _of_forms(new),
}


class FlowLog:
    """The lines of one engine."""

    def __init__(self) -> None:
        """Begin with nothing logged."""
        self._logged: dict[str, Any] = Flow()._asdict()
        self._at = dict.fromkeys(Flow._fields, float("-inf"))

    def changes(self, flow: Flow, now: float) -> Iterator[tuple[int, str]]:
        """Yield the level and the words of each line that is due: DEBUG for a window that grows, else INFO."""
        for name, new in flow._asdict().items():
            old = self._logged[name]
            if new != old and now - self._at[name] >= BETWEEN_S:
                self._at[name], self._logged[name] = now, new
                yield DEBUG if name == "window" and new > old else INFO, _WORDS[name](old, new, now)
