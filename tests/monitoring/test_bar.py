"""Progress in a terminal, in a notebook and in a log; an error in showing it never fails the job."""

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.livecounts.flows import CurrentFlow
from spark_llm.metering.tally import Tally
from spark_llm.monitoring.bar import LINE_EVERY_S, Progress
from tests.conftest import ROOT

FAILED = Tally(100, {"timeout": 3, "rate_limited": 9}, 900, 100, 0, 1_000, 130)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now_s


class Chunk:
    """The live counts of a chunk, which the test sets."""

    def __init__(self) -> None:
        self.done = 0
        self.tallies: dict[str, Tally] = {}
        self.told: CurrentFlow | None = None

    def rows(self) -> int:
        """Return how many rows are done."""
        return self.done

    def counts(self) -> dict[str, Tally]:
        """Return the tallies, by column."""
        return self.tallies

    def flow(self) -> CurrentFlow | None:
        """Return the flow of the job's requests."""
        return self.told

    def end(self) -> None:
        """Set the counts to zero."""
        self.done, self.tallies = 0, {}


def per_million(tallies: Mapping[str, Tally]) -> float:
    """Return the cost at one dollar for a million tokens."""
    return sum(tally.total_tokens for tally in tallies.values()) / 1e6


def no_price(tallies: Mapping[str, Tally]) -> None:
    """Return None: the price is not known."""


class Broken(io.StringIO):
    """A pipe whose reader has ended."""

    def write(self, text: str) -> int:
        """Raise what a broken pipe raises."""
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        """Raise what a broken pipe raises."""
        raise BrokenPipeError(32, "Broken pipe")


class BrokenTerminal(Broken):
    """A terminal that was closed."""

    def isatty(self) -> bool:
        """Return that it is a terminal."""
        return True


@contextmanager
def terminal(columns: int = 160) -> Iterator[tuple[TextIO, int]]:
    """Open a pseudo-terminal: a stream for the program, and a descriptor to read what it shows."""
    reads, writes = pty.openpty()
    fcntl.ioctl(writes, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    with open(writes, "w", encoding="utf-8") as stream:  # noqa: PTH123 -- a descriptor
        try:
            yield stream, reads
        finally:
            os.close(reads)


def read_until(reads: int, text: str) -> str:
    """Return new output of the terminal up to this text; all of it where the text does not come in 10 s."""
    output = b""
    while text.encode() not in output and select.select([reads], [], [], 10.0)[0]:
        output += os.read(reads, 65_536)
    return output.decode(errors="replace")  # it may end within a character


def test_a_log_gets_a_line_a_minute_and_one_at_the_end() -> None:
    """A line has rows, tokens, errors by kind, cost, the times elapsed and left, and rows a second."""
    clock, chunk, log = Clock(), Chunk(), io.StringIO()
    with Progress(48_000, chunk, per_million, enabled=True, clock=clock, stream=log) as progress:
        progress.draw()
        clock.now_s += LINE_EVERY_S / 2
        progress.draw()
        clock.now_s += LINE_EVERY_S / 2
        progress.draw()
        clock.now_s += 65.0
        progress.finish_chunk(11_000, {"mood": Tally(10_900, total_tokens=1_232_567)})
        chunk.done, chunk.tallies = 1_000, {"mood": FAILED, "vector": Tally(1_000, total_tokens=1_000)}
        progress.draw()
        progress.draw()
        progress.note("waiting for another run.")
        clock.now_s += 375.0
        progress.finish_chunk(37_000, {"mood": FAILED})
    assert """\
spark_llm: 0 of 48000 rows, $0.00 [01:00<?, ? rows/s]
spark_llm: 12000 of 48000 rows, 1,234,567 tokens, 12 failed (9 rate_limited, 3 timeout), $1.23 \
[02:05<06:15, 96.00 rows/s]
spark_llm: waiting for another run.
spark_llm: 48000 of 48000 rows, 1,233,567 tokens, 12 failed (9 rate_limited, 3 timeout), $1.23 \
[08:20<00:00, 96.00 rows/s]
""" == log.getvalue()


def test_a_line_leaves_out_what_is_not_known() -> None:
    """Without prices a line has no cost; without reported tokens it has no tokens."""
    clock, log = Clock(), io.StringIO()
    with Progress(10, Chunk(), no_price, enabled=True, clock=clock, stream=log) as progress:
        clock.now_s += 20.0
        progress.finish_chunk(5, {"mood": Tally(5)})

    assert "spark_llm: 5 of 10 rows [00:20<00:20,  0.25 rows/s]\n" == log.getvalue()


def test_a_line_without_a_total_has_no_share_of_it() -> None:
    """A block does not know how many rows will come; what else there is to say comes last."""
    clock, block, log = Clock(), Chunk(), io.StringIO()
    with Progress(None, block, other=lambda: "3 of 8 Spark tasks", clock=clock, stream=log) as progress:
        clock.now_s += LINE_EVERY_S
        block.done, block.tallies = 12_000, {"chat_udf": FAILED}
        progress.draw()

    assert (
        2
        * (
            "spark_llm: 12000 rows, 1,000 tokens, 12 failed (9 rate_limited, 3 timeout), 3 of 8 Spark tasks"
            " [01:00, 200.00 rows/s]\n"
        )
        == log.getvalue()
    )


def test_a_block_without_counts_shows_nothing() -> None:
    """It may hold other work, or a table job with a bar of its own; a terminal gets a bar with the first count."""
    clock, block, log = Clock(), Chunk(), io.StringIO()
    with Progress(None, block, clock=clock, stream=log):
        pass
    with terminal() as (stream, reads), Progress(None, block, clock=clock, stream=stream) as progress:
        progress.draw()
        silent = not select.select([reads], [], [], 0)[0]
        clock.now_s += 50.0
        block.done = 100
        progress.draw()
        drawn = read_until(reads, "rows/s]")

    assert ("", True) == (log.getvalue(), silent)
    assert re.search(r"100 rows \[00:5\d, +(2.00|1.9\d) rows/s\]", drawn)


def test_a_block_gives_way_to_a_job_with_a_total() -> None:
    """A table job inside it has a bar of its own: there is one at a time."""
    clock, block, log = Clock(), Chunk(), io.StringIO()
    with Progress(None, block, clock=clock, stream=log) as progress:
        block.done, clock.now_s = 5, clock.now_s + LINE_EVERY_S
        with Progress(10, Chunk(), clock=clock, stream=io.StringIO()):
            progress.draw()
            during, gave_way = log.getvalue(), progress.gave_way
        progress.draw()

    assert ("", True) == (during, gave_way)
    assert 2 * "spark_llm: 5 rows [01:00,  0.08 rows/s]\n" == log.getvalue()


def test_a_line_says_what_limits_the_job() -> None:
    """It comes last; a host that falls silent takes it away."""
    clock, chunk, log = Clock(), Chunk(), io.StringIO()
    with Progress(100, chunk, per_million, enabled=True, clock=clock, stream=log) as progress:
        clock.now_s += LINE_EVERY_S
        chunk.done, chunk.tallies = 60, {"mood": Tally(60, total_tokens=240)}
        chunk.told = CurrentFlow(38, 40, {"llama": "refusals"})
        progress.draw()
        chunk.told = None

    assert """\
spark_llm: 60 of 100 rows, 240 tokens, $0.0002, 38 in flight of 40 · limited by the endpoint's 429s and 503s \
[01:00<00:40,  1.00 rows/s]
spark_llm: 60 of 100 rows, 240 tokens, $0.0002 [01:00<00:40,  1.00 rows/s]
""" == log.getvalue()


def test_exact_counts_replace_live_counts() -> None:
    """The rows of a finished chunk count once."""
    chunk = Chunk()
    progress = Progress(100, chunk, no_price, enabled=False)
    states = [progress.state()]
    chunk.done, chunk.tallies = 7, {"mood": Tally(7, {"timeout": 1})}
    states.append(progress.state())
    progress.finish_chunk(10, {"mood": Tally(10, {"timeout": 2})})
    states.append(progress.state())
    chunk.done, chunk.tallies = 4, {"mood": Tally(4, {"timeout": 1}), "topic": Tally(4)}
    states.append(progress.state())
    progress.finish_chunk(10, {"mood": Tally(10)})
    states.append(progress.state())

    assert [0, 7, 10, 14, 20] == [state.rows for state in states]
    assert [{}, {"timeout": 1}, {"timeout": 2}, {"timeout": 3}, {"timeout": 2}] == [
        each.tally.failed for each in states
    ]


@given(st.integers(0, 50), st.integers(0, 100), st.lists(st.integers(0, 30), max_size=5))
def test_no_more_rows_are_done_than_there_are(total: int, live: int, settled: list[int]) -> None:
    """Rows done never exceed the total, although a repeated partition may report its rows twice."""
    chunk = Chunk()
    progress = Progress(total, chunk, no_price, enabled=False)
    for rows in settled:
        progress.finish_chunk(rows, {})
    chunk.done = live

    assert min(total, sum(settled) + live) == progress.state().rows


def test_a_terminal_gets_a_bar() -> None:
    """A bar has rows, rows a second, tokens, errors by kind and cost; notes go above it, and it stays at the end."""
    chunk = Chunk()
    with terminal() as (stream, reads), Progress(200, chunk, per_million, enabled=True, stream=stream) as progress:
        began = read_until(reads, "?")
        chunk.done, chunk.tallies = 100, {"mood": FAILED}
        progress.draw()
        drawn = read_until(reads, "$0.0010]")
        progress.note("hello")
        noted = read_until(reads, "hello\r\n")
        progress.finish_chunk(200, {"mood": FAILED.plus(FAILED)})
        progress.__exit__(None, None, None)
        ended = read_until(reads, "]\r\n")

    assert "| 0/200 rows [00:00<?" in began
    assert re.search(r" 50%\|█+[^|]*\| 100/200 rows \[[\d:]+<[\d:]+, +[\d.,]+ rows/s, 1,000 tokens, 12 failed", drawn)
    assert "12 failed (9 rate_limited, 3 timeout), $0.0010]" in drawn
    assert "spark_llm: hello\r\n" in noted
    assert re.search(r"100%\|█+\| 200/200 rows .*2,000 tokens, 24 failed.*\r\n$", ended)


@pytest.mark.waits
def test_a_thread_draws_while_a_chunk_runs() -> None:
    """The bar moves within a chunk, while the job waits for Spark; the thread ends with the job."""
    chunk = Chunk()
    with terminal() as (stream, reads), Progress(200, chunk, no_price, enabled=True, stream=stream):
        chunk.done = 100
        drawn = read_until(reads, "100/200")

    assert "100/200 rows" in drawn
    assert [] == [thread for thread in threading.enumerate() if thread.name == "spark_llm-progress"]


@pytest.mark.parametrize("stream", [Broken(), BrokenTerminal()], ids=["log", "terminal"])
def test_a_broken_stream_fails_no_job(stream: TextIO) -> None:
    """The job goes on, and so do the bars of other threads."""
    clock = Clock()
    with Progress(10, Chunk(), no_price, enabled=True, clock=clock, stream=stream) as progress:
        for _ in range(3):
            clock.now_s += LINE_EVERY_S
            progress.draw()
            progress.note("hello")
        progress.finish_chunk(10, {})
    with terminal() as (alive, reads):
        other = threading.Thread(target=show_ten_rows, args=(alive,))
        other.start()
        other.join(10)

        assert "10/10 rows" in read_until(reads, "10/10 rows")


def show_ten_rows(stream: TextIO) -> None:
    """Show the progress of a job of ten rows."""
    with Progress(10, Chunk(), no_price, enabled=True, stream=stream) as progress:
        progress.finish_chunk(10, {})


ON_STDERR = """\
import sys
from spark_llm.monitoring.bar import Progress
from tests.monitoring.test_bar import Chunk, no_price
{close}
with Progress(10, Chunk(), no_price, enabled=True) as progress:
    progress.draw()
    progress.note("hello")
    progress.finish_chunk(10, {{}})
print(progress.state().rows)
"""


@pytest.mark.waits
@pytest.mark.parametrize(
    ("close", "shell"), [("sys.stderr.close()", 'exec "$0" "$@"'), ("", 'exec "$0" "$@" 2>&-')], ids=["closed", "none"]
)
def test_a_closed_or_absent_stderr_fails_no_job(close: str, shell: str) -> None:
    """A process without a console has no standard error: `sys.stderr` is None there."""
    command = ["sh", "-c", shell, sys.executable, "-c", ON_STDERR.format(close=close)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)

    assert "10\n" == done.stdout


def test_an_error_in_the_cost_fails_no_job() -> None:
    """Nothing is shown then, and the job's own error is raised."""

    def cost(tallies: Mapping[str, Tally]) -> float:
        raise KeyError(str(tallies))

    def job() -> None:
        with Progress(10, Chunk(), cost, enabled=True, stream=log) as progress:
            progress.draw()
            progress.finish_chunk(1, {})
            raise ZeroDivisionError

    log = io.StringIO()
    with pytest.raises(ZeroDivisionError):
        job()

    assert "" == log.getvalue()


@pytest.mark.parametrize(("total", "enabled"), [(10, False), (0, True)])
def test_nothing_is_shown_if_it_is_off_or_there_are_no_rows(*, total: int, enabled: bool) -> None:
    """There is no bar, no line, no note and no thread."""
    log = io.StringIO()
    with Progress(total, Chunk(), no_price, enabled=enabled, stream=log) as progress:
        progress.draw()
        progress.note("hello")
        threads = [thread.name for thread in threading.enumerate()]

    assert "" == log.getvalue()
    assert "spark_llm-progress" not in threads


@pytest.mark.waits
@pytest.mark.parametrize(("total", "shown_rows"), [(200, "200/200 rows"), (None, "200 rows [")])
def test_a_notebook_gets_a_bar(total: int | None, shown_rows: str) -> None:
    """A notebook gets a bar although its standard error is not a terminal."""
    import nbclient
    import nbformat

    source = """\
from spark_llm.monitoring.bar import Progress
from tests.monitoring.test_bar import Chunk, no_price
with Progress({total}, Chunk(), no_price) as progress:
    progress.note("hello")
    progress.finish_chunk(200, {{}})
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.format(total=total))])
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": ROOT}}).execute()
    shown = "".join(str(output) for output in notebook.cells[0].outputs)

    assert "spark_llm: hello" in shown
    assert shown_rows in shown
    assert "Warning" not in shown


@pytest.mark.slow
def test_a_stream_that_blocks_holds_up_no_job() -> None:
    """The job leaves the thread after 5 s, for example one that hangs in a notebook's widget."""
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
        with Progress(10, Chunk(), no_price, enabled=True, stream=Stuck()):
            drawing.wait()

    running = threading.Thread(target=job, daemon=True)
    running.start()
    running.join(30)
    assert not running.is_alive()
    stuck.set()
