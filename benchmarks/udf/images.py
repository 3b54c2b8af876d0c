"""Images of a megabyte: a worker's memory beyond its batches, and the rate of the requests."""

import base64
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from benchmarks.support.baselines import bare_loop
from benchmarks.support.behaviours import Steady
from benchmarks.support.endpoint_process import CHAT, EndpointProcess
from benchmarks.support.figures import Figure, Goal, Rounds, speed_ratio
from benchmarks.support.session import PROMPT, ROOT, Bench, ColumnFunction, bench
from benchmarks.udf.memory import workers_mb
from spark_llm import Policy, chat_udf
from spark_llm.engine.loop_thread import new_event_loop

IN_FLIGHT = 16
IMAGE_MB = 1
FEW_ROWS, DEFAULT_ROWS = 4, 10_000  # of an Arrow batch
BATCH_MB = 64  # at most, by Spark's default from 4.1 on
LATENCY = Steady(median_s=0.5, sigma=0.2)
FULL = {"rounds": 3, "images": 200}
SHORT = {"rounds": 1, "images": 24}


def measure(*, short: bool) -> list[Figure]:
    """Return the memory beyond that of a UDF that passes its batches through, and the rate against a bare loop.

    Memory is left out on a system without /proc.
    """
    size = SHORT if short else FULL
    ours, bare = Rounds(size["images"]), Rounds(size["images"])
    with bench(1, _batches_of(FEW_ROWS)) as spark:
        ask = _asks(spark)
        spark.warm(ask, 2 * IN_FLIGHT)
        for _ in range(size["rounds"]):
            bare.seconds.append(_bare(spark.endpoint, size["images"]))
            ours.seconds.append(spark.time_job(ask, size["images"])[0])
    note = (
        f"Images: {size['images']} of {IMAGE_MB} MB, {IN_FLIGHT} in flight, latencies with a median of "
        f"{LATENCY.median_s} s, on `local[1]` in Arrow batches of {FEW_ROWS}. The bare loop sends the same bodies; its"
        " images are encoded before."
    )
    rate = f"images of {IMAGE_MB} MB, {IN_FLIGHT} in flight, against a bare aiohttp loop without Spark"
    return [speed_ratio(rate, ours, bare, Goal(at_least=0.9), note), *_memory(size["images"])]


def _memory(images: int) -> Iterator[Figure]:
    if not Path("/proc/self/status").exists():
        return
    for rows, most_mb in ((FEW_ROWS, 3 * IN_FLIGHT * IMAGE_MB), (DEFAULT_ROWS, 3 * IN_FLIGHT * IMAGE_MB + BATCH_MB)):
        ours, through = (_peak_mb(rows, images, udf) for udf in (_asks, _passes_through))
        yield Figure(
            f"… a worker's memory beyond its Arrow batches of {rows:,}",
            [ours - through],
            f"{ours:.0f} MB",
            f"{through:.0f} MB",
            Goal(at_most=most_mb),
            unit="MB",
            digits=0,
            note="Memory with images: the peaks are the workers' VmHWM. The baseline is a UDF that imports this library"
            " and returns the batches that it gets. Batches of 10,000 have 64 MB at most, by another setting of Spark."
            if rows == FEW_ROWS
            else "",
        )


def _batches_of(rows: int) -> dict[str, str]:
    return {"spark.sql.execution.arrow.maxRecordsPerBatch": str(rows)}


def _image(text: str) -> Column:
    """Return a column of bytes that begin as a JPEG, different for different texts of another column."""
    return F.expr(f"concat(X'FFD8FF', cast(repeat(md5({text}), {IMAGE_MB * 2**20 // 32}) AS BINARY))")


def _asks(spark: Bench) -> ColumnFunction:
    url, policy = spark.endpoint.url(CHAT, LATENCY), Policy(max_in_flight=IN_FLIGHT)
    chat = chat_udf(url, template="{photo}{text}", policy=policy)
    return lambda text: chat(photo=_image(text), text=text)


def _passes_through(_: Bench) -> ColumnFunction:
    def unchanged(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        import spark_llm.transport.http
        import spark_llm.udf.model_udf  # noqa: F401 -- a worker that asks has them in memory

        yield from batches

    vectorised: Any = arrow_udf  # its overloads need the eval type, which the hints imply
    passed = vectorised(unchanged, "binary")
    return lambda text: passed(_image(text))


def _peak_mb(batch_rows: int, images: int, function: Callable[[Bench], ColumnFunction]) -> float:
    """Run a job in a session of its own; return the peak memory of its only worker."""
    with bench(1, _batches_of(batch_rows)) as spark:
        rows = spark.prompts(images).select(function(spark)("prompt").alias("answer"))
        rows.write.format("noop").mode("overwrite").save()
        [peak] = workers_mb()
    return peak


def _bare(endpoint: EndpointProcess, images: int) -> float:
    command = [sys.executable, "-m", "benchmarks.udf.images", endpoint.url(CHAT, LATENCY), str(images)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    address, count = sys.argv[1], int(sys.argv[2])
    encoded = base64.b64encode(b"\xff\xd8\xff" + bytes(IMAGE_MB * 2**20)).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{encoded}"}}
    contents = [[image, {"type": "text", "text": f"{PROMPT}{number}"}] for number in range(count)]
    print(new_event_loop().run_until_complete(bare_loop(address, contents, IN_FLIGHT)))
