"""Tools and the Responses route on Spark: calls as columns, their results in conversations, tables, and the bill."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from pyspark.sql import Column, Row, SparkSession
from pyspark.sql import functions as F

from spark_llm import ConfigError, Endpoint, chat_udf, register, usage_report
from spark_llm.serving import Echo, Faults, LocalEndpoints, ServingEndpoint
from spark_llm.udf.model_udf import ModelUDF
from tests.integration.spark.asking import Ask, Run

CALLS = "array<struct<id:string,name:string,arguments:string>>"
TURN = f"struct<role:string,content:string,tool_calls:{CALLS},tool_call_id:string>"
NOW = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}


class LookUp(BaseModel):
    """Look an order up."""

    order: int


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """One model at both routes, and one that is served at the Responses route alone."""
    with LocalEndpoints({"chat": Echo(), "codex": ServingEndpoint(Echo(), tasks=["responses"])}) as running:
        yield running


def lookup(endpoints: LocalEndpoints, name: str = "chat", **options: Any) -> ModelUDF:  # noqa: ANN401 -- of a chat
    """Return a UDF with tools."""
    base = Endpoint(endpoints.openai_url, model=name, token=endpoints.token)
    return chat_udf(base, tools=[LookUp, NOW], **options)


def billed(rows: list[Row]) -> int:
    """Return the tokens of answers."""
    return sum(row["usage"]["total_tokens"] or 0 for row in rows if row["usage"])


@pytest.mark.parametrize("name", ["chat", "codex"])
def test_calls_are_a_column(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask, name: str) -> None:
    """Beside texts, at either route; with re-asks and faults the tokens add up to what the endpoint counted."""
    endpoints.faults = Faults("ok*4 503 500 ok garbage errorbody")
    said = [
        ("call", 'call LookUp {"order": 3}\ncall now {}'),
        ("text", "red"),
        ("broken", 'call LookUp {"order":'),
        ("null", None),
        *((f"row {number}", f'call LookUp {{"order": {number}}}') for number in range(12)),
    ]
    df = spark.createDataFrame(said, "id string, said string").repartition(1)
    answers = df.select("id", ask(lookup(endpoints, name))("said").alias("r")).select("id", "r.*").collect()
    rows = {row["id"]: row for row in answers}

    assert {None} == {row["error"] for row in answers}
    assert [("LookUp", '{"order": 3}'), ("now", "{}")] == [tuple(call)[1:] for call in rows["call"]["tool_calls"]]
    assert (None, "tool_calls") == (rows["call"]["text"], rows["call"]["finish_reason"])
    assert ("red", None) == (rows["text"]["text"], rows["text"]["tool_calls"])
    assert 2 <= rows["broken"]["attempts"]
    assert (None, None) == (rows["null"]["tool_calls"], rows["null"]["usage"])
    assert endpoints.stats.total_tokens == billed(answers)


def test_results_are_read_back(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """From a conversation, alone or in a template; one without its id is its row's error."""
    call = Row(id="call_1", name="now", arguments="{}")
    turns = [
        Row(role="user", content="When?", tool_calls=None, tool_call_id=None),
        Row(role="assistant", content=None, tool_calls=[call], tool_call_id=None),
    ]
    told, lost = (Row(role="tool", content="At 3.", tool_calls=None, tool_call_id=known) for known in ("call_1", None))
    df = spark.createDataFrame([(1, [*turns, told]), (2, [*turns, lost]), (3, None)], f"id int, turns array<{TURN}>")
    templated = lookup(endpoints, template="{turns}", system="Hour {hour}.")
    column: Column = ask(lookup(endpoints))("turns")
    struct = templated.argument(turns="turns", hour=F.lit("3"))
    rows = df.repartition(1).select("id", column.alias("r"), ask(templated)(struct).alias("t")).collect()
    rows.sort(key=lambda row: row["id"])

    assert ["At 3.", None, None] == [row["r"] and row["r"]["text"] for row in rows]
    assert "Hour 3.\nAt 3." == rows[0]["t"]["text"]
    assert ["invalid_request"] * 2 == [rows[1][name]["error"]["kind"] for name in ("r", "t")]
    assert "Message 3 is a tool's" in rows[1]["r"]["error"]["message"]
    assert 2 == endpoints.stats.requests


@pytest.mark.slow
@pytest.mark.one_kind
def test_a_table_keeps_calls(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """Rows of calls alone are answered rows; a column without tools has another type."""
    said = [(1, 'call LookUp {"order": 3}'), (2, "red"), (3, None)]
    source, target = spark.createDataFrame(said, "id int, said string"), place("orders")
    asked = lookup(endpoints)
    requests, report = run(source, target, {"answer": asked("said")})
    rows = {row["id"]: row["answer"] for row in spark.table(target).collect()}

    assert (2, 2, 0) == (requests, report.answered, sum(report.failed.values()))
    assert [Row(id=rows[1]["tool_calls"][0]["id"], name="LookUp", arguments='{"order": 3}')] == rows[1]["tool_calls"]
    assert (None, None, "red") == (rows[1]["text"], rows[2]["tool_calls"], rows[2]["text"])
    usage = usage_report(spark.table(target), "answer")
    assert (3, 2, {}) == (usage.rows, usage.answered, usage.failed)
    with pytest.raises(ConfigError, match="of another type"):
        run(source, target, {"answer": chat_udf(asked.endpoint)("said")})


@pytest.mark.one_kind
def test_sql_has_calls(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """A registered UDF has the field; `finish_reason` tells calls from texts."""
    register(spark, chat=lookup(endpoints, "codex"), prefix="tools_")
    query = "SELECT r.tool_calls[0].name, r.finish_reason FROM (SELECT tools_chat('call now {}') r)"

    assert [("now", "tool_calls")] == [tuple(row) for row in spark.sql(query).collect()]
