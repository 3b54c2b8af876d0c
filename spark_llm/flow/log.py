"""Decides which changes of an endpoint's flow are logged.

Each quantity has at most one line a second; changes within that second are part of the next line. The time is an
argument, and the caller writes the lines.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from spark_llm.flow.controller import FlowController
from spark_llm.flow.reasons import REASONS, Reason

MIN_INTERVAL_S = 1.0  # between two lines about one quantity
DEBUG, INFO = 10, 20  # as `logging` numbers its levels


class Flow(NamedTuple):
    """The state of an endpoint's flow control at one moment."""

    window: int = 1  # the most requests in flight
    rate_per_s: float | None = None  # the rate that refusals taught
    saturation: float | None = None  # the requests in flight beyond which throughput does not grow
    outage_since: float | None = None
    paused_until: float = 0.0  # by Retry-After
    limited_by: Reason | None = None  # what keeps more requests from going
    wire_formats: tuple[tuple[str, int], ...] = ()  # of each task that does not use the first

    @classmethod
    def of(
        cls, controller: FlowController, limited_by: Reason | None, wire_formats: tuple[tuple[str, int], ...]
    ) -> "Flow":
        """Return the state of a controller."""
        limiter = controller.limiter
        return cls(
            limiter.window,
            limiter.rate_per_s,
            limiter.saturation,
            controller.outage_since,
            controller.paused_until,
            limited_by,
            wire_formats,
        )


def _rate_message(new: float | None) -> str:
    return "no learned rate any more" if new is None else f"learned a rate of {new:.2g} requests/s"


def _saturation_message(new: float | None) -> str:
    return "no saturation any more" if new is None else f"saturated at {new:.0f} requests in flight"


def _outage_message(new: float | None) -> str:
    return "the outage ended" if new is None else "an outage began: only faults came back, so only probes are sent"


def _wire_formats_message(new: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{task} uses wire format {number}" for task, number in new) or "back to the first wire format"


# By quantity, the message for a new value, from the old one, the new one and the time.
_MESSAGES: Mapping[str, Callable[[Any, Any, float], str]] = {
    "window": lambda old, new, _: f"window {old} -> {new}",
    "rate_per_s": lambda _, new, __: _rate_message(new),
    "saturation": lambda _, new, __: _saturation_message(new),
    "outage_since": lambda _, new, __: _outage_message(new),
    "paused_until": lambda _, new, now: f"paused for {new - now:.1f} s by Retry-After",
    "limited_by": lambda _, new, __: f"limited by {REASONS[new]}" if new else "nothing to send",
    "wire_formats": lambda _, new, __: _wire_formats_message(new),
}


class FlowLog:
    """The last logged values of one engine."""

    def __init__(self) -> None:
        """Begin with nothing logged."""
        self._logged: dict[str, Any] = Flow()._asdict()
        self._logged_at = dict.fromkeys(Flow._fields, float("-inf"))

    def changes(self, flow: Flow, now: float) -> Iterator[tuple[int, str]]:
        """Yield the level and the message of each line that is due: INFO, or DEBUG for what changes all the time."""
        for name, new in flow._asdict().items():
            old = self._logged[name]
            if new != old and now - self._logged_at[name] >= MIN_INTERVAL_S:
                self._logged_at[name], self._logged[name] = now, new
                is_frequent = name == "limited_by" or (name == "window" and new > old)
                yield DEBUG if is_frequent else INFO, _MESSAGES[name](old, new, now)
