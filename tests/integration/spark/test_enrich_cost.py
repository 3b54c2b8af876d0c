"""What a table job costs besides its requests: stages of Spark, and calls from Python to Java."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pytest
from pyspark import TaskContext
from pyspark.sql import SparkSession

from spark_llm.serving import LocalEndpoints
from tests.conftest import SessionKind
from tests.integration.spark.asking import Run, chat, texts


class _Calls(logging.Handler):
    """Counts the commands that Py4J logs, but for those that free an object, which come when Python collects."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        self.count += message.startswith("Command to send: ") and not message.startswith("Command to send: m\nd\n")


@contextmanager
def calls_to_java() -> Iterator[_Calls]:
    """Count them in the block; on Connect there are none."""
    log, calls = logging.getLogger("py4j.clientserver"), _Calls()
    level, propagates = log.level, log.propagate
    log.addHandler(calls)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield calls
    finally:
        log.removeHandler(calls)
        log.setLevel(level)
        log.propagate = propagates


def next_stage(spark: SparkSession) -> int:
    """Return the number of a new stage. Spark numbers all stages of an application, on every kind of session."""

    def number(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        task = TaskContext.get()
        assert task is not None
        for _ in batches:
            yield pa.RecordBatch.from_pydict({"stage": pa.array([task.stageId()])})

    return int(spark.range(0, 1, 1, 1).mapInArrow(number, "stage long").collect()[0]["stage"])


@pytest.mark.one_kind
def test_a_run_takes_few_stages_and_few_calls(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run, session_kind: SessionKind
) -> None:
    """A run of one chunk into a new table, then one with nothing to do; each stage takes a short run 30 ms and more.

    Delta takes most of them: to read its log, to MERGE, and to commit. A call takes 0.05 ms, and a `Column` ten of
    them.
    """
    source, columns, target, costs = texts(spark, 50), {"answer": chat(endpoints)("text")}, place("target"), []
    for _ in range(2):
        before = next_stage(spark)
        with calls_to_java() as calls:
            requests, _ = run(source, target, columns)
        costs.append((requests, next_stage(spark) - before - 1, calls.count))
    (first, first_stages, first_calls), (second, idle_stages, idle_calls) = costs

    assert (45, 0) == (first, second)
    assert (True, True) == (10 < first_stages <= 32, 4 < idle_stages <= 8), costs
    if session_kind == "classic":  # counted 910 and 550; with expressions of `Column` they were 3,980 and 1,730
        assert (True, True) == (500 < first_calls < 1_100, 300 < idle_calls < 700), costs
