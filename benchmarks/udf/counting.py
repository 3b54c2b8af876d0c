"""The CPU time that counting for `progress` adds to a row: of chats, and of embeddings, whose rows cost least."""

import socket
import time
from statistics import median

from benchmarks.support.endpoint_process import CHAT, EMBEDDINGS, endpoint_process
from benchmarks.support.figures import Figure, Goal
from spark_llm import Endpoint, Policy
from spark_llm.engine.engine import Engine
from spark_llm.livecounts.counts import Address, Reporter
from spark_llm.livecounts.datagrams import Sender
from spark_llm.protocol.chat import Chat
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.task import Task

CHUNK_ROWS = 10_000  # as Spark cuts Arrow batches
FULL = {"rounds": 5, "chat": 20_000, "embed": 40_000}
SHORT = {"rounds": 1, "chat": 500, "embed": 500}


def measure(*, short: bool) -> list[Figure]:
    """Count the results of an engine at zero latency, and send the counts to a socket."""
    size = SHORT if short else FULL
    with endpoint_process() as endpoint:
        return [
            _figure("CPU time that progress(spark) adds to a chat", Chat(), endpoint.url(CHAT), 64, size),
            _figure("… to an embedding", Embed(), endpoint.url(EMBEDDINGS), 8, size),
        ]


def _figure(name: str, task: Task, url: str, in_flight: int, size: dict[str, int]) -> Figure:
    rows = size[task.name]
    route = Endpoint(url, token="none").resolve(task.route, {})  # noqa: S106 -- the endpoint takes any
    engine = Engine(route, Policy(max_in_flight=in_flight))
    _counting_and_row_us(engine, task, rows)
    rounds = [_counting_and_row_us(engine, task, rows) for _ in range(size["rounds"])]
    engine.close()
    counting_us, row_us = (median(times) for times in zip(*rounds, strict=True))
    return Figure(
        name,
        [100 * counting / row for counting, row in rounds],
        f"{counting_us:.2f} µs",
        f"{row_us:.0f} µs",
        Goal(at_most=1),
        unit="%",
        digits=2,
        note=f"Counting: {name.removeprefix('… ')}, zero latency, {rows:,} rows in one process without Spark. Thread "
        "time of counting and sending, of the CPU time of the process.",
    )


def _counting_and_row_us(engine: Engine, task: Task, rows: int) -> tuple[float, float]:
    """Return the CPU time of counting a row, and of all of a row, in microseconds."""
    texts = [f"row {number}" for number in range(rows)]
    batches = (texts[start : start + CHUNK_ROWS] for start in range(0, rows, CHUNK_ROWS))
    counting_s, answered, began_s = 0.0, 0, time.process_time()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as driver:
        driver.bind(("127.0.0.1", 0))
        host, port = driver.getsockname()
        reporter = Reporter(Address(host, port, b"s" * 16), Sender(1, 2, 3, 4, 5))
        for chunk in engine.stream(task, batches):
            before_s = time.thread_time()
            reporter.add("udf", chunk)
            counting_s += time.thread_time() - before_s
            answered += sum(result is not None and result.error is None for result in chunk)
        before_s = time.thread_time()
        reporter.close(ended=True)
        counting_s += time.thread_time() - before_s
    if answered != rows:
        raise RuntimeError(f"{rows - answered} rows were not answered. Hint: print their errors.")
    return 1e6 * counting_s / rows, 1e6 * (time.process_time() - began_s) / rows
