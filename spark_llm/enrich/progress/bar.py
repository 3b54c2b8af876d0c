"""Progress: a live bar in a terminal and in a notebook, and one line a minute where nobody looks."""

import contextlib
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TextIO

from spark_llm.metering.tally import Tally, total_of
from spark_llm.text.format import by_kind, dollars, span

DRAW_EVERY_S = 0.5
LINE_EVERY_S = 60.0
_JOIN_S = 5.0  # a thread may sit in a notebook's widget, whose page has gone
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} rows [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"


class RunningTotals(Protocol):
    """What is known of the chunk that is running, while it runs."""

    def rows(self) -> int:
        """Return how many of its rows are done."""

    def counts(self) -> Mapping[str, Tally]:
        """Return what they came to, by column."""

    def end(self) -> None:
        """Forget it."""


class State(NamedTuple):
    """How far a job is."""

    rows: int
    total: int
    seconds: float
    tally: Tally
    usd: float | None

    @property
    def rate(self) -> float | None:
        """Rows a second since it began; None before the first."""
        return self.rows / self.seconds if self.rows and self.seconds > 0 else None

    @property
    def words(self) -> str:
        """What the rows came to; nothing is said of what is not there."""
        failed = sum(self.tally.failed.values())
        return ", ".join(
            [
                *([f"{self.tally.total_tokens:,} tokens"] if self.tally.total_tokens else []),
                *([f"{failed:,} failed ({by_kind(self.tally.failed)})"] if failed else []),
                *([dollars(self.usd)] if self.usd is not None else []),
            ]
        )

    def line(self, *, at_the_end: bool = False) -> str:
        """Return all of it in a line."""
        rate = self.rate
        left = (self.total - self.rows) / rate if rate else 0.0
        when = f"in {span(self.seconds)}" if at_the_end else f"{span(left)} left" if left else ""
        pace = "" if rate is None else f"{rate:,.0f} rows/s" if rate >= 10 else f"{rate:.1f} rows/s"
        parts = [f"{self.rows:,} of {self.total:,} rows", pace, self.words, when]
        return "spark_llm: " + ", ".join(filter(None, parts))


class Progress:
    """Shows how far a job is, from where its `with` begins to where it ends; nothing that fails here fails the job.

    >>> with Progress(rows, live, cost, enabled=True) as progress:
    ...     for number, chunk in enumerate(chunks):
    ...         live.begin(number)
    ...         progress.settled(chunk.rows, ask(chunk))
    """

    def __init__(
        self,
        total: int,
        live: RunningTotals,
        cost: Callable[[Mapping[str, Tally]], float | None],
        *,
        enabled: bool,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ) -> None:
        """Show `total` rows on a stream, standard error unless given.

        `live` tells of the chunk that is running; `cost` says what tallies cost in US dollars, None where it is not
        known. Without `enabled`, nothing is shown, and neither are notes.
        """
        self._total = total
        self._live = live
        self._cost = cost
        self._enabled = enabled and total > 0
        self._clock = clock
        self._stream = _Unfailing(stream or sys.stderr)
        self._lock = threading.Lock()
        self._rows = 0
        self._tallies: dict[str, Tally] = {}
        self._began = 0.0
        self._display: _Bar | _Lines | None = None
        self._ended = threading.Event()
        self._artist = threading.Thread(target=self._draw_on, name="spark_llm-progress", daemon=True)

    def __enter__(self) -> "Progress":  # noqa: PYI034 -- typing.Self came with Python 3.11
        self._began = self._clock()
        if self._enabled:
            with contextlib.suppress(Exception):  # a bar, or none
                self._display = _display(self._stream, self._total)
                self._artist.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        with contextlib.suppress(Exception):
            if self._artist.is_alive():
                self._artist.join(_JOIN_S)
            if self._display is not None and not self._artist.is_alive():
                self._display.close(self.state())

    def settled(self, rows: int, tallies: Mapping[str, Tally]) -> None:
        """Count a chunk that is finished, exactly; what was known of it live is forgotten."""
        with self._lock:
            self._live.end()
            self._rows += rows
            self._tallies = _sums(self._tallies, tallies)

    def note(self, text: str) -> None:
        """Say something above the bar."""
        with contextlib.suppress(Exception):
            if self._display is not None:
                self._display.note(f"spark_llm: {text}")

    def state(self) -> State:
        """Return how far the job is."""
        with self._lock:
            tallies = _sums(self._tallies, self._live.counts())
            rows = min(self._total, self._rows + self._live.rows())
        return State(rows, self._total, self._clock() - self._began, total_of(tallies.values()), self._cost(tallies))

    def draw(self) -> None:
        """Show how far the job is now."""
        with contextlib.suppress(Exception):
            if self._display is not None:
                self._display.show(self.state())

    def _draw_on(self) -> None:
        while not self._ended.wait(DRAW_EVERY_S):
            self.draw()


class _Bar:
    """tqdm's bar: in a terminal, and a widget in a notebook."""

    def __init__(self, stream: Any, total: int) -> None:  # noqa: ANN401 -- what can be written to
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a notebook without widgets; it shows text there
            from tqdm.auto import tqdm

        # Rows a second on average: chunks come in bursts, with a pause for each MERGE.
        self._bar = tqdm(
            total=total, unit=" rows", file=stream, bar_format=_BAR, dynamic_ncols=True, smoothing=0, miniters=0
        )
        self._lock: Any = tqdm.get_lock()  # type: ignore[no-untyped-call]  # it has no types

    def show(self, state: State) -> None:
        """Draw it anew."""
        self._bar.n = state.rows
        self._bar.set_postfix_str(state.words, refresh=False)
        with self._lock:  # its own refresh() keeps the lock when drawing fails
            self._bar.display()

    def note(self, text: str) -> None:
        """Write a line above it."""
        self._bar.write(text, file=self._bar.fp)

    def close(self, state: State) -> None:
        """Leave it as it was at the end."""
        self.show(state)
        self._bar.close()


class _Lines:
    """Lines, for a log."""

    def __init__(self, stream: "_Unfailing") -> None:
        self._stream = stream
        self._due = LINE_EVERY_S

    def show(self, state: State) -> None:
        """Write a line, when a minute has passed."""
        if state.seconds >= self._due:
            self._due = state.seconds + LINE_EVERY_S
            self.note(state.line())

    def note(self, text: str) -> None:
        """Write a line."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self, state: State) -> None:
        """Write how it ended."""
        self.note(state.line(at_the_end=True))


class _Unfailing:
    """A stream that nobody may be reading: writing to it never raises."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # Python has no standard error where there is no console

    def write(self, text: str) -> None:
        """Write what can be written."""
        with contextlib.suppress(Exception):
            if self._stream is not None:
                self._stream.write(text)

    def flush(self) -> None:
        """Send what can be sent."""
        with contextlib.suppress(Exception):
            if self._stream is not None:
                self._stream.flush()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the stream has
        return getattr(self._stream, name)


def _display(stream: _Unfailing, total: int) -> _Bar | _Lines:
    interactive = _in_a_notebook()
    with contextlib.suppress(Exception):  # a stream that is closed, or none
        interactive = interactive or stream.isatty()
    return _Bar(stream, total) if interactive else _Lines(stream)


def _in_a_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # a notebook's kernel has loaded it
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def _sums(one: Mapping[str, Tally], other: Mapping[str, Tally]) -> dict[str, Tally]:
    return {name: one.get(name, Tally()).plus(other.get(name, Tally())) for name in {**one, **other}}
