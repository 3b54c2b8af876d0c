"""The progress of a job on standard error: a bar in a terminal or a notebook, one line a minute in a log."""

import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TextIO
from weakref import WeakSet

from tqdm import tqdm

from spark_llm.livecounts.flows import CurrentFlow
from spark_llm.metering.tally import Tally, sums, total_of
from spark_llm.text.format import by_kind, dollars

DRAW_EVERY_S = 0.5
LINE_EVERY_S = 60.0
_JOIN_S = 5.0  # the thread may hang in the widget of a notebook whose page is closed
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} rows [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
_LINE = "spark_llm: {n_fmt} of {total_fmt} rows{postfix} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
_ENDLESS_BAR = "{n_fmt} rows [{elapsed}, {rate_noinv_fmt}{postfix}]"
_ENDLESS_LINE = "spark_llm: {n_fmt} rows{postfix} [{elapsed}, {rate_noinv_fmt}]"


class RunningTotals(Protocol):
    """Live counts of the chunk or block that is running."""

    def rows(self) -> int:
        """Return how many of its rows are done."""

    def counts(self) -> Mapping[str, Tally]:
        """Return its tallies, by column."""

    def flow(self) -> CurrentFlow | None:
        """Return the job's requests in flight, and what limits them; None where that is not known."""

    def end(self) -> None:
        """Set the counts to zero."""


class State(NamedTuple):
    """How far a job is.

    Attributes:
        rows: Rows that are done.
        tally: The sum of all columns' tallies.
        usd: The cost in US dollars; None where it is not known.
        flow: The requests in flight, and what limits them; None where that is not known.
        other: What else there is to say; empty for nothing.
    """

    rows: int
    tally: Tally
    usd: float | None
    flow: CurrentFlow | None = None
    other: str = ""

    @property
    def has_begun(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.rows or self.details)

    @property
    def details(self) -> str:
        """Tokens, errors by kind, rows that were not asked, cost, flow and the rest; each only where there is some."""
        failed = sum(self.tally.failed.values())
        parts = (
            f"{self.tally.total_tokens:,} tokens" if self.tally.total_tokens else "",
            f"{failed:,} failed ({by_kind(self.tally.failed)})" if failed else "",
            f"{self.tally.cancelled:,} not asked" if self.tally.cancelled else "",
            "" if self.usd is None else dollars(self.usd),
            "" if self.flow is None else str(self.flow),
            self.other,
        )
        return ", ".join(filter(None, parts))


class Progress:
    """Shows the progress of a job while its `with` block runs. An error in showing it never fails the job.

    >>> with Progress(rows, live, cost, enabled=True) as progress:
    ...     for number, chunk in enumerate(chunks):
    ...         live.begin(number)
    ...         progress.finish_chunk(chunk.rows, ask(chunk))
    """

    def __init__(
        self,
        total: int | None,
        live: RunningTotals,
        cost: Callable[[Mapping[str, Tally]], float | None] = lambda _: None,
        *,
        enabled: bool = True,
        other: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ) -> None:
        """Prepare the progress of `total` rows.

        Args:
            total: The rows of the job; nothing is shown for 0. Without it, nothing is shown before the first count, and
                while this process shows a job that has one.
            live: The live counts of the chunk or block that is running.
            cost: A function that returns the cost of tallies in US dollars, or None where it is not known.
            enabled: Whether to show anything; without it, no thread starts and notes are dropped.
            other: A function that returns what else there is to say; empty for nothing.
            clock: A function that returns the time in seconds.
            stream: A text stream to write to. Default: standard error.
        """
        self._total = total
        self._live = live
        self._cost = cost
        self._other = other
        self._enabled = enabled and total != 0
        self._clock = clock
        self._stream: Any = stream or sys.stderr  # None where Python has no console: writing raises, and is dropped
        self._lock = threading.Lock()
        self.gave_way = False  # to a job that has a total
        self._rows = 0
        self._tallies: dict[str, Tally] = {}
        self._began_s = 0.0
        self._next_line_s = LINE_EVERY_S
        self._is_watched = False  # in a terminal or a notebook
        self._bar: Any = None  # tqdm's
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw_until_the_end, name="spark_llm-progress", daemon=True)

    def __enter__(self) -> "Progress":  # noqa: PYI034 -- typing.Self came with Python 3.11
        self._began_s = self._clock()
        if self._enabled and self._total is not None:
            _WITH_TOTAL.add(self)
        self._attempt(self._open)
        return self

    def __exit__(self, *_: object) -> None:
        _WITH_TOTAL.discard(self)
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        if not self._thread.is_alive():
            self._attempt(self._close)
            self._enabled = False

    def finish_chunk(self, rows: int, tallies: Mapping[str, Tally]) -> None:
        """Add the exact counts of a finished chunk; they replace its live counts."""
        with self._lock:
            self._live.end()
            self._rows += rows
            self._tallies = sums(self._tallies, tallies)

    def note(self, text: str) -> None:
        """Write a line above the bar."""
        line = f"spark_llm: {text}"
        self._attempt(lambda: self._write_line(line) if self._bar is None else self._bar.write(line, file=self._stream))

    def state(self) -> State:
        """Return how far the job is."""
        with self._lock:
            tallies = sums(self._tallies, self._live.counts())
            rows = self._rows + self._live.rows()
        if self._total is not None:
            rows = min(self._total, rows)
        return State(rows, total_of(tallies.values()), self._cost(tallies), self._live.flow(), self._other())

    def draw(self) -> None:
        """Draw the bar; in a log, write a line if the last one is a minute old."""
        self._attempt(self._draw)

    def _attempt(self, show: Callable[[], None]) -> None:
        """Call `show` if progress is enabled. This is the one guard: whatever it raises is dropped."""
        if self._enabled:
            with suppress(Exception):
                show()

    def _open(self) -> None:
        self._is_watched = _is_notebook() or self._stream.isatty()
        if self._is_watched:
            self._draw()
        self._thread.start()

    def _close(self) -> None:
        try:
            state = self.state()
            if self._is_watched:
                self._draw()
            elif state.has_begun or self._total is not None:
                self._write_line(self._line(state))
        finally:
            if self._bar is not None:
                self._bar.close()  # else it fails once more when Python deletes it

    def _draw_until_the_end(self) -> None:
        while not self._ended.wait(DRAW_EVERY_S):
            self.draw()

    def _draw(self) -> None:
        if self._total is None and _WITH_TOTAL:
            self.gave_way = True
            return
        state = self.state()
        if self._total is None and not state.has_begun:
            self._began_s = self._clock()  # rows a second count from the first of them
        elif self._is_watched:
            self._draw_bar(state)
        elif self._clock() - self._began_s >= self._next_line_s:
            self._next_line_s = self._clock() - self._began_s + LINE_EVERY_S
            self._write_line(self._line(state))

    def _draw_bar(self, state: State) -> None:
        if self._bar is None:
            self._bar = _tqdm(self._stream, self._total)
        self._bar.start_t = time.time() - (self._clock() - self._began_s)  # by tqdm's clock
        self._bar.n = state.rows
        self._bar.set_postfix_str(state.details, refresh=False)
        with self._bar.get_lock():  # tqdm's refresh() keeps the lock when drawing fails
            self._bar.display()

    def _line(self, state: State) -> str:
        elapsed_s = self._clock() - self._began_s
        form = _ENDLESS_LINE if self._total is None else _LINE
        return tqdm.format_meter(
            state.rows, self._total or 0, elapsed_s, bar_format=form, unit=" rows", postfix=state.details
        )

    def _write_line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


_WITH_TOTAL: WeakSet[Progress] = WeakSet()  # those that are shown now


def _tqdm(stream: TextIO, total: int | None) -> Any:  # noqa: ANN401 -- a widget in a notebook, or tqdm's bar in a terminal
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a notebook without widgets, where it shows text
        from tqdm.auto import tqdm
    # smoothing=0: rows a second on average, since chunks come in bursts with a pause for each MERGE. delay: its first
    # drawing would be by refresh().
    form = _ENDLESS_BAR if total is None else _BAR
    return tqdm(
        total=total, unit=" rows", file=stream, bar_format=form, dynamic_ncols=True, smoothing=0, miniters=0, delay=1e-9
    )


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # a notebook's kernel has imported it
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
