"""Conditions and scores as columns of table jobs."""

import json
from collections.abc import Callable, Iterator

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import functions as ai
from spark_llm.serving import LocalEndpoints
from spark_llm.serving.protocol.requests import ChatRequest
from tests.integration.spark.asking import Run, endpoint
from tests.support.reply_model import ReplyModel, last_message

pytestmark = pytest.mark.on_connect


def judged(request: ChatRequest) -> str:
    """Return whether the message has the word "broke", and its length in tens."""
    [(name, field)] = (request.response_format or {})["json_schema"]["schema"]["properties"].items()
    message = last_message(request)
    return json.dumps({name: "broke" in message if field["type"] == "boolean" else len(message) // 10})


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """A chat model that judges by `judged`."""
    with LocalEndpoints({"chat": ReplyModel(judged)}) as started:
        yield started


@pytest.mark.slow
def test_a_job_judges_rows_once(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """A second run asks nothing; another condition asks each row again; a changed column asks its row."""
    rows = [(1, "It broke.", 1.5), (2, "It works.", None), (3, None, 2.0)]
    chat = endpoint(endpoints)
    both = F.struct("t", F.col("price").cast("string").alias("price"))

    def columns(condition: str) -> dict[str, object]:
        score = ai.llm_score(both, "How good is {t}?", 0, 5, chat=chat)
        return {"faulty": ai.llm_filter("t", condition, chat=chat), "liking": score}

    def asked(changed: list[tuple[int, str | None, float | None]], condition: str = "it broke") -> int:
        source = spark.createDataFrame(changed, "id INT, t STRING, price DOUBLE")
        return run(source, place("target"), columns(condition))[0]

    assert [4, 0, 2] == [asked(rows), asked(rows), asked(rows, "it failed")]
    assert 2 == asked([(1, "It broke again.", 1.5), *rows[1:]], "it failed")

    written = spark.table(place("target")).orderBy("id").select("faulty.parsed", "liking.parsed").collect()
    assert [(True, 2.0), (False, 2.0), (None, None)] == [tuple(row) for row in written]
