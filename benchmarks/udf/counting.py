"""The CPU time that counting for `progress` adds to a row: of chats, and of embeddings, whose rows cost least."""

import gc
import os
import socket
import time
from statistics import median

import pyarrow as pa

from benchmarks.support.endpoint_process import CHAT, EMBEDDINGS, endpoint_process
from benchmarks.support.figures import Figure, Goal
from spark_llm import Endpoint, Policy, schemas
from spark_llm.engine.engine import Engine
from spark_llm.livecounts.counts import Address, Reporter
from spark_llm.livecounts.datagrams import Sender
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.task import Task
from spark_llm.udf.columns import to_arrow
from spark_llm.udf.spark_types import arrow_type

CHUNK_ROWS = 10_000  # as Spark cuts Arrow batches
TYPES = {"chat": arrow_type(schemas.CHAT), "embed": arrow_type(schemas.EMBED)}
FULL = {"rounds": 5, "chat": 20_000, "embed": 40_000}
SHORT = {"rounds": 1, "chat": 500, "embed": 500}


def measure(*, short: bool) -> list[Figure]:
    """Count the results of an engine at zero latency, and send the counts to a socket."""
    size = SHORT if short else FULL
    with endpoint_process() as endpoint:
        return [
            _figure("CPU time that progress(spark) adds to a chat", Chat(), endpoint.url(CHAT), 64, size),
            _figure("… to an embedding", Embed(), endpoint.url(EMBEDDINGS), 8, size, goal=2),
        ]


def _figure(name: str, task: Task, url: str, in_flight: int, size: dict[str, int], *, goal: int = 1) -> Figure:
    rows = size[task.name]
    route = Endpoint(url, token="none").resolve(task.route, {})  # noqa: S106 -- the endpoint takes any
    engine = Engine(route, Policy(max_in_flight=in_flight))
    _counting_and_row_us(engine, task, rows)
    gc.disable()
    rounds = [_counting_and_row_us(engine, task, rows) for _ in range(size["rounds"])]
    gc.enable()
    engine.close()
    counting_us, row_us = (median(times) for times in zip(*rounds, strict=True))
    return Figure(
        name,
        [100 * counting / row for counting, row in rounds],
        f"{counting_us:.2f} µs",
        f"{row_us:.0f} µs",
        Goal(at_most=goal),
        unit="%",
        digits=2,
        note=f"Counting: {rows:,} rows of {task.name} in one process, at zero latency, from texts to Arrow batches "
        "that nobody reads; Spark's own part of the work, about as much for an embedding, is left out. Thread time of "
        "counting and sending, of the CPU time of the process. It is taken after the conversion to Arrow, which reads "
        "the same results, and without Python's garbage collector, which runs in whatever line allocates next.",
    )


def _counting_and_row_us(engine: Engine, task: Task, rows: int) -> tuple[float, float]:
    """Return the CPU time of counting a row, and of all of a row, in microseconds."""
    texts = [f"row {number}" for number in range(rows)]
    batches = (texts[start : start + CHUNK_ROWS] for start in range(0, rows, CHUNK_ROWS))
    counting_s, answered, began_s = 0.0, 0, time.process_time()
    schema = pa.schema([("answer", TYPES[task.name])])
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as driver,
        pa.OSFile(os.devnull, "wb") as sink,
        pa.ipc.new_stream(sink, schema) as spark,
    ):
        driver.bind(("127.0.0.1", 0))
        host, port = driver.getsockname()
        reporter = Reporter(Address(host, port, b"s" * 16), Sender(1, 2, 3, 4, 5))
        for chunk in engine.stream(task, batches):
            spark.write_batch(pa.record_batch([to_arrow(chunk, TYPES[task.name])], schema=schema))
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
