"""Predictions of a custom model behind MLflow's scoring server: rows a second against a bare loop, and row by row."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pandas as pd
import requests
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf

from benchmarks.support.figures import Figure, Goal, Rounds, speed_ratio
from benchmarks.support.scoring_server import COLUMNS, scoring_server
from benchmarks.support.session import ROOT, bench
from spark_llm import Policy, predict_udf
from spark_llm.engine.loop_thread import new_event_loop

IN_FLIGHT = 16
SIZES = (64, 500, 2_000, 5_000, 20_000)  # rows of the bare loop's requests
FULL = {"rounds": 3, "rows": 1_000_000, "trial": 100_000, "single": 5_000}
SHORT = {"rounds": 1, "rows": 20_000, "trial": 5_000, "single": 200}


def measure(*, short: bool) -> list[Figure]:
    """Return our rows a second over those of the best bare loop, and over those of a UDF that sends row by row."""
    size = SHORT if short else FULL
    ours, bare = Rounds(size["rows"]), Rounds(size["rows"])
    single = Rounds(size["single"])
    with scoring_server() as url, bench(1) as spark:
        predict = predict_udf(url, returns="DOUBLE", policy=Policy(max_in_flight=IN_FLIGHT))
        asked = predict(**{name: name for name in COLUMNS})
        one_by_one = _one_by_one(url)(F.struct(*COLUMNS))
        _check(_rows(spark.spark, size["trial"]), asked)
        _seconds(_rows(spark.spark, IN_FLIGHT), one_by_one)
        request_rows = min(SIZES, key=lambda rows: _bare(url, size["trial"], rows))
        for _ in range(size["rounds"]):
            bare.seconds.append(_bare(url, size["rows"], request_rows))
            ours.seconds.append(_seconds(_rows(spark.spark, size["rows"]), asked))
            single.seconds.append(_seconds(_rows(spark.spark, size["single"]), one_by_one))
    each = [(ours.rows / our_s) / (single.rows / s) for our_s, s in zip(ours.seconds, single.seconds, strict=True)]
    note = (
        f"Predictions: {size['rows']:,} rows of {len(COLUMNS)} doubles on `local[1]`, {IN_FLIGHT} requests in flight,"
        " against MLflow's scoring server with a linear model. The bare loop is an aiohttp client without Spark; of"
        f" requests with {', '.join(f'{rows:,}' for rows in SIZES)} rows those with {request_rows:,} were fastest."
        f" Row by row is a pandas UDF with requests, on {single.rows:,} rows."
    )
    return [
        speed_ratio("predictions of rows of 10 numbers, against the best bare loop", ours, bare, Goal(0.8), note),
        Figure("… against a UDF that sends a row a request", each, str(ours), str(single), Goal(20), digits=0),
    ]


def _rows(spark: SparkSession, rows: int) -> DataFrame:
    return spark.range(0, rows, 1, 1).select(*(F.rand(seed).alias(name) for seed, name in enumerate(COLUMNS)))


def _check(rows: DataFrame, asked: Column) -> None:
    """Raise `RuntimeError` if a row got no prediction, so that a fast failure does not count as fast."""
    if lost := rows.select(asked.alias("answer")).where("answer.prediction is null").count():
        raise RuntimeError(f"{lost} rows have no prediction. Hint: select the column itself to see why.")


def _seconds(rows: DataFrame, asked: Column) -> float:
    start_s = time.perf_counter()
    rows.select(asked.alias("answer")).write.format("noop").mode("overwrite").save()
    return time.perf_counter() - start_s


def _one_by_one(url: str) -> Any:  # noqa: ANN401 -- PySpark types a UDF as a function
    def predict(batches: Iterator[pd.DataFrame]) -> Iterator[pd.Series]:
        with requests.Session() as session:
            for batch in batches:
                found = []
                for row in batch.to_dict(orient="records"):
                    response = session.post(url, json={"dataframe_records": [row]}, timeout=60)
                    response.raise_for_status()
                    found.append(float(response.json()["predictions"][0]))
                yield pd.Series(found)

    vectorised: Any = pandas_udf  # its overloads need the eval type, which the hints imply
    return vectorised(predict, "double").asNondeterministic()


def _bare(url: str, rows: int, request_rows: int) -> float:
    command = [sys.executable, "-m", "benchmarks.udf.predictions", url, str(rows), str(request_rows)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


async def _bare_loop(url: str, rows: int, request_rows: int) -> float:
    """Send rows from numpy to predictions and nothing else; return the seconds, after a warm-up."""
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    table = np.random.default_rng(1).normal(size=(rows, len(COLUMNS)))
    predictions = 0

    async def work(client: aiohttp.ClientSession, starts: Iterator[int]) -> None:
        nonlocal predictions
        for start in starts:
            frame = {"columns": COLUMNS, "data": table[start : start + request_rows].tolist()}
            body = encode({"dataframe_split": frame})
            async with client.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
                found = decode(await response.read())["predictions"]
            predictions += len(found)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as client:
        for count in (rows // 10, rows):
            predictions, starts = 0, iter(range(0, count, request_rows))
            start_s = time.perf_counter()
            await asyncio.gather(*(work(client, starts) for _ in range(IN_FLIGHT)))
        if predictions < rows:
            raise RuntimeError(f"{rows - predictions} rows have no prediction.")
        return time.perf_counter() - start_s


if __name__ == "__main__":
    print(new_event_loop().run_until_complete(_bare_loop(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
