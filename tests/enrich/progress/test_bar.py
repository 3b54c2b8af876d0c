"""Progress: what is shown in a terminal, in a notebook and in a log, and that showing never breaks the job."""

import fcntl
import io
import os
import pty
import re
import select
import struct
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.enrich.progress.bar import LINE_EVERY_S, Progress
from spark_llm.metering.tally import Tally

FAILED = Tally(100, {"timeout": 3, "rate_limited": 9}, 900, 100, 0, 1_000, 130)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


class Chunk:
    """A chunk that is running, as far as it is told to be."""

    def __init__(self) -> None:
        self.done = 0
        self.tallies: dict[str, Tally] = {}

    def rows(self) -> int:
        """Return how many rows are done."""
        return self.done

    def counts(self) -> dict[str, Tally]:
        """Return what they came to."""
        return self.tallies

    def end(self) -> None:
        """Forget it."""
        self.done, self.tallies = 0, {}


def per_million(tallies: Mapping[str, Tally]) -> float:
    """Return a dollar for a million tokens."""
    return sum(tally.total_tokens for tally in tallies.values()) / 1e6


def free(tallies: Mapping[str, Tally]) -> None:
    """Know no price."""


class Broken(io.StringIO):
    """A stream that nobody reads any more."""

    def write(self, text: str) -> int:
        """Fail."""
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        """Fail."""
        raise BrokenPipeError(32, "Broken pipe")


class BrokenTerminal(Broken):
    """A terminal that was closed."""

    def isatty(self) -> bool:
        """Claim to be one."""
        return True


@contextmanager
def terminal(columns: int = 160) -> Iterator[tuple[TextIO, int]]:
    """Open a terminal: what a program writes to, and what a person reads from."""
    reads, writes = pty.openpty()
    fcntl.ioctl(writes, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    with open(writes, "w", encoding="utf-8") as stream:  # noqa: PTH123 -- a descriptor
        try:
            yield stream, reads
        finally:
            os.close(reads)


def seen(reads: int, words: str) -> str:
    """Return what is on the terminal since it was last looked at, up to these words, or all where they do not come."""
    there = b""
    while words.encode() not in there and select.select([reads], [], [], 10.0)[0]:
        there += os.read(reads, 65_536)
    return there.decode(errors="replace")  # it may end within a letter


def test_a_log_gets_a_line_a_minute_and_one_at_the_end() -> None:
    """With rows, rows a second, tokens, errors by kind, cost and the time that is left."""
    clock, chunk, log = Clock(), Chunk(), io.StringIO()
    with Progress(48_000, chunk, per_million, enabled=True, clock=clock, stream=log) as progress:
        progress.draw()
        clock.now_s += LINE_EVERY_S / 2
        progress.draw()
        clock.now_s += LINE_EVERY_S / 2
        progress.draw()
        clock.now_s += 65.0
        progress.settled(11_000, {"mood": Tally(10_900, total_tokens=1_232_567)})
        chunk.done, chunk.tallies = 1_000, {"mood": FAILED, "vector": Tally(1_000, total_tokens=1_000)}
        progress.draw()
        progress.draw()
        progress.note("waiting for another run.")
        clock.now_s += 375.0
        progress.settled(37_000, {"mood": FAILED})
    assert """\
spark_llm: 0 of 48,000 rows, $0.00
spark_llm: 12,000 of 48,000 rows, 96 rows/s, 1,234,567 tokens, 12 failed (9 rate_limited, 3 timeout), \
$1.23, 6 min 15 s left
spark_llm: waiting for another run.
spark_llm: 48,000 of 48,000 rows, 96 rows/s, 1,233,567 tokens, 12 failed (9 rate_limited, 3 timeout), \
$1.23, in 8 min 20 s
""" == log.getvalue()


def test_without_prices_no_cost_is_told() -> None:
    """Nor are tokens where none were reported, and a slow rate has a digit after its point."""
    clock, log = Clock(), io.StringIO()
    with Progress(10, Chunk(), free, enabled=True, clock=clock, stream=log) as progress:
        clock.now_s += 20.0
        progress.settled(5, {"mood": Tally(5)})

    assert "spark_llm: 5 of 10 rows, 0.2 rows/s, in 20 s\n" == log.getvalue()


def test_a_finished_chunk_takes_the_place_of_what_was_known_of_it_live() -> None:
    """Its rows are counted once, and late news of it are none."""
    chunk = Chunk()
    progress = Progress(100, chunk, free, enabled=False)
    states = [progress.state()]
    chunk.done, chunk.tallies = 7, {"mood": Tally(7, {"timeout": 1})}
    states.append(progress.state())
    progress.settled(10, {"mood": Tally(10, {"timeout": 2})})
    states.append(progress.state())
    chunk.done, chunk.tallies = 4, {"mood": Tally(4, {"timeout": 1}), "topic": Tally(4)}
    states.append(progress.state())
    progress.settled(10, {"mood": Tally(10)})
    states.append(progress.state())

    assert [0, 7, 10, 14, 20] == [state.rows for state in states]
    assert [{}, {"timeout": 1}, {"timeout": 2}, {"timeout": 3}, {"timeout": 2}] == [
        each.tally.failed for each in states
    ]


@given(st.integers(0, 50), st.integers(0, 100), st.lists(st.integers(0, 30), max_size=5))
def test_no_more_rows_are_done_than_there_are(total: int, live: int, settled: list[int]) -> None:
    """Though a partition that is asked twice may have been heard twice."""
    chunk = Chunk()
    progress = Progress(total, chunk, free, enabled=False)
    for rows in settled:
        progress.settled(rows, {})
    chunk.done = live

    assert min(total, sum(settled) + live) == progress.state().rows


def test_a_terminal_gets_a_bar() -> None:
    """With rows, rows a second, tokens, errors by kind and cost; a note stands above it, and it stays when it ends."""
    chunk = Chunk()
    with terminal() as (stream, reads), Progress(200, chunk, per_million, enabled=True, stream=stream) as progress:
        began = seen(reads, "?")
        chunk.done, chunk.tallies = 100, {"mood": FAILED}
        progress.draw()
        drawn = seen(reads, "$0.0010]")
        progress.note("hello")
        noted = seen(reads, "hello\r\n")
        progress.settled(200, {"mood": FAILED.plus(FAILED)})
        progress.__exit__(None, None, None)
        ended = seen(reads, "]\r\n")

    assert "| 0/200 rows [00:00<?" in began
    assert re.search(r" 50%\|█+[^|]*\| 100/200 rows \[[\d:]+<[\d:]+, +[\d.,]+ rows/s, 1,000 tokens, 12 failed", drawn)
    assert "12 failed (9 rate_limited, 3 timeout), $0.0010]" in drawn
    assert "spark_llm: hello\r\n" in noted
    assert re.search(r"100%\|█+\| 200/200 rows .*2,000 tokens, 24 failed.*\r\n$", ended)


def test_it_draws_by_itself() -> None:
    """Also within a chunk, while the job's thread waits for Spark."""
    chunk = Chunk()
    with terminal() as (stream, reads), Progress(200, chunk, free, enabled=True, stream=stream):
        chunk.done = 100
        drawn = seen(reads, "100/200")

    assert "100/200 rows" in drawn
    assert [] == [thread for thread in threading.enumerate() if thread.name == "spark_llm-progress"]


@pytest.mark.parametrize("stream", [Broken(), BrokenTerminal()], ids=["log", "terminal"])
def test_a_broken_stream_breaks_no_job(stream: TextIO) -> None:
    """The job goes on, and another thread's bars go on."""
    clock = Clock()
    with Progress(10, Chunk(), free, enabled=True, clock=clock, stream=stream) as progress:
        for _ in range(3):
            clock.now_s += LINE_EVERY_S
            progress.draw()
            progress.note("hello")
        progress.settled(10, {})
    with terminal() as (alive, reads):
        other = threading.Thread(target=shown, args=(alive,))
        other.start()
        other.join(10)

        assert "10/10 rows" in seen(reads, "10/10 rows")


def shown(stream: TextIO) -> None:
    """Show a job of ten rows."""
    with Progress(10, Chunk(), free, enabled=True, stream=stream) as progress:
        progress.settled(10, {})


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_stream_that_is_closed_or_absent_breaks_no_job(*, is_closed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no console, Python has no standard error."""
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed if is_closed else None)
    with Progress(10, Chunk(), free, enabled=True) as progress:
        progress.draw()
        progress.note("hello")
        progress.settled(10, {})

    assert 10 == progress.state().rows


def test_a_cost_that_fails_breaks_no_job() -> None:
    """Nothing is shown then, and what the job raises is raised."""

    def cost(tallies: Mapping[str, Tally]) -> float:
        raise KeyError(str(tallies))

    def job() -> None:
        with Progress(10, Chunk(), cost, enabled=True, stream=log) as progress:
            progress.draw()
            progress.settled(1, {})
            raise ZeroDivisionError

    log = io.StringIO()
    with pytest.raises(ZeroDivisionError):
        job()

    assert "" == log.getvalue()


@pytest.mark.parametrize(("total", "enabled"), [(10, False), (0, True)])
def test_nothing_is_shown_where_nobody_asked_or_nothing_is_to_do(*, total: int, enabled: bool) -> None:
    """No bar, no line and no note."""
    log = io.StringIO()
    with Progress(total, Chunk(), free, enabled=enabled, stream=log) as progress:
        progress.draw()
        progress.note("hello")

    assert "" == log.getvalue()


@pytest.mark.waits
def test_a_notebook_gets_a_bar() -> None:
    """Its kernel's standard error is no terminal, and somebody looks all the same."""
    import nbclient
    import nbformat

    source = """\
from spark_llm.enrich.progress.bar import Progress
from tests.enrich.progress.test_bar import Chunk, free
with Progress(200, Chunk(), free, enabled=True) as progress:
    progress.note("hello")
    progress.settled(200, {})
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    root = str(Path(__file__).parents[3])
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": root}}).execute()
    shown = "".join(str(output) for output in notebook.cells[0].outputs)

    assert "spark_llm: hello" in shown
    assert "200/200 rows" in shown
    assert "Warning" not in shown


@pytest.mark.slow
def test_a_stream_that_takes_nothing_holds_up_no_job() -> None:
    """A thread that is stuck in a notebook's widget, say, is left where it is."""
    drawing, stuck = threading.Event(), threading.Event()

    class Stuck(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            if threading.current_thread() is not running:  # the bar is drawn, and drawn anew by a thread of its own
                drawing.set()
                stuck.wait()
            return len(text)

    def job() -> None:
        with Progress(10, Chunk(), free, enabled=True, stream=Stuck()):
            drawing.wait()

    running = threading.Thread(target=job, daemon=True)
    running.start()
    running.join(30)
    assert not running.is_alive()
    stuck.set()
