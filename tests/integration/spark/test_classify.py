"""Classification with its options in SQL, as functions of columns, and in table jobs."""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from spark_llm import ConfigError, chat_udf, register_ai_functions
from spark_llm import functions as ai
from spark_llm.ai.udf import chat_function
from spark_llm.serving import LocalEndpoints
from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import ChatRequest
from spark_llm.serving.protocol.values import Choice, Texts, Usage
from tests.integration.spark.asking import Run, endpoint, written

pytestmark = pytest.mark.on_connect
MOODS = {"angry": "the customer complains", "happy": "the customer is glad"}
ROWS = ["It broke.", "It works.", None]


class Scored:
    """A model that is three parts sure of the first label, gives its reason, and may refuse logprobs."""

    name = "scored"

    def __init__(self, refuses: str | None = None) -> None:
        """Refuse logprobs with this message, if there is one."""
        self.refuses = refuses

    async def chat(self, request: ChatRequest) -> Texts:
        """Return the first label."""
        if self.refuses is not None and "logprobs" in request.body:
            raise Refused.bad_request(self.refuses)
        assert request.response_format is not None
        answer: dict[str, Any] = {}
        for name, field in request.response_format["json_schema"]["schema"]["properties"].items():
            kinds = field.get("enum") or field.get("items", {}).get("enum")
            answer[name] = "Why not." if kinds is None else kinds[0] if "enum" in field else kinds[::-1]
        text = json.dumps(answer)
        logprobs = _logprobs(text) if request.logprobs else None
        return Texts([Choice(text, logprobs=logprobs)], Usage(7, 3))


def _logprobs(text: str) -> list[dict[str, Any]]:
    """Return a token for each character; each other label begins with "h"."""
    return [
        {
            "token": character,
            "logprob": math.log(0.75),
            "bytes": list(character.encode()),
            "top_logprobs": [
                {"token": character, "logprob": math.log(0.6), "bytes": list(character.encode())},
                {"token": "h", "logprob": math.log(0.2), "bytes": [104]},
            ],
        }
        for character in text
    ]


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """The model, and two that refuse logprobs: one names them, one does not."""
    models = {"chat": Scored(), "named": Scored("Unknown parameter: 'logprobs'."), "unnamed": Scored("Bad request.")}
    with LocalEndpoints(models) as started:
        yield started


def test_options_have_names_in_sql(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Each is optional."""
    query = """SELECT ai_classify(t, array('angry', 'happy'), instructions => 'Irony is angry.') AS one,
        ai_classify(t, array('angry', 'happy'), descriptions => map('angry', 'bad'), rationale => true,
          examples => array(named_struct('content', 'It broke.', 'label', 'angry'))) AS other,
        ai_classify_multi(t, labels => array('angry', 'happy'), rationale => true) AS several
        FROM classify_rows"""
    *rows, empty = found_in_sql(spark, endpoints, query)

    assert [("angry", "angry", ["angry", "happy"])] * 2 == [tuple(row) for row in rows]
    assert (None, None, None) == tuple(empty)
    assert 2 * 3 == endpoints.stats.requests


def test_options_have_an_order_in_sql(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """The function and its twin take them by place, empty ones too, or labels as a map."""
    options = "map('angry', 'bad'), 'Be brief.', array(struct('It broke.' AS content, 'angry' AS label))"
    query = f"""SELECT ai_classify(t, array('angry', 'happy'), {options}) AS value,
        llm_classify(t, array('angry', 'happy'), {options}, true, true) AS twin,
        llm_classify(t, array('angry', 'happy'), map(), '', array()) AS plain,
        llm_classify_multi(t, map('angry', 'bad', 'happy', 'good'), map(), '', array(), true) AS twins
        FROM classify_rows"""
    *rows, empty = found_in_sql(spark, endpoints, query)

    for row in rows:
        twin = row["twin"]
        assert "angry" == row["value"]
        assert ("angry", pytest.approx(0.75), "Why not.") == (twin["parsed"], twin["confidence"], twin["rationale"])
        assert ("angry", None, None) == tuple(row["plain"][name] for name in ("parsed", "confidence", "rationale"))
        assert (["angry", "happy"], "Why not.") == (row["twins"]["parsed"], row["twins"]["rationale"])
    assert empty["value"] is None
    assert 2 * 4 == endpoints.stats.requests


def found_in_sql(spark: SparkSession, endpoints: LocalEndpoints, query: str) -> list[Row]:
    """Return the rows of a query on `ROWS`, the one of the null last."""
    register_ai_functions(spark, chat=endpoint(endpoints))
    spark.createDataFrame([(row,) for row in ROWS], "t STRING").createOrReplaceTempView("classify_rows")
    return sorted(spark.sql(query).collect(), key=lambda row: row[0] is None)


@pytest.mark.parametrize("name", ["named", "unnamed"])
def test_a_refusal_of_logprobs_fails_no_row(name: str, spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Each row is answered, without confidence; three refusals show that it is so for all."""
    column = ai.llm_classify("t", MOODS, confidence=True, chat=endpoint(endpoints, name))
    df = spark.range(20).select(F.concat(F.lit("row "), F.col("id").cast("string")).alias("t")).coalesce(1)
    rows = df.select(column.alias("answer")).select("answer.*").collect()

    assert [("angry", None, None)] * 20 == [(row["parsed"], row["confidence"], row["error"]) for row in rows]
    assert endpoints.stats.requests <= 20 + 4


def test_options_are_values_or_columns(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Labels as a mapping, examples as pairs; a column's mistake is its row's error."""
    chat = chat_udf(endpoint(endpoints), extra_body={"logprobs": True, "top_logprobs": 5})
    df = spark.createDataFrame(
        [("It broke.", {"angry": "bad"}, True), ("It works.", {"angry": None}, False)],
        "t STRING, moods MAP<STRING, STRING>, explain BOOLEAN",
    )
    examples: list[Any] = [("It broke.", "angry"), {"content": "It works.", "label": "happy"}]
    rows = df.select(
        ai.llm_classify("t", MOODS, examples=examples, instructions=F.col("t"), chat=chat).alias("constant"),
        ai.llm_classify("t", F.col("moods"), rationale=F.col("explain"), chat=chat).alias("column"),
        ai.ai_classify_multi("t", MOODS, rationale=True, chat=chat).alias("several"),
    ).collect()

    assert [("angry", pytest.approx(0.75))] * 2 == [
        (r["constant"]["parsed"], r["constant"]["confidence"]) for r in rows
    ]
    assert ("angry", "Why not.") == (rows[0]["column"]["parsed"], rows[0]["column"]["rationale"])
    assert "the description of 'angry' is null" in rows[1]["column"]["error"]["message"]
    assert [["angry", "happy"]] * 2 == [row["several"] for row in rows]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"labels": {"angry": None}}, "ai_classify: the description of 'angry' is null"),
        ({"labels": ["angry"], "examples": [("It broke.", "sad")]}, "'sad', which is not among the labels"),
        ({"labels": ["angry"], "examples": ["It broke."]}, "is not a list of structs of content and label"),
        ({"labels": ["angry"], "confidence": "yes"}, "confidence='yes' is not a boolean"),
        ({"labels": {}}, "the list of labels is empty"),
    ],
)
def test_wrong_constants_raise_at_the_call(options: dict[str, Any], expected: str, spark: SparkSession) -> None:
    """Nothing is sent, and the message ends in a hint."""
    with pytest.raises(ConfigError, match="Hint: ") as raised:
        ai.llm_classify(F.lit("x"), chat="http://127.0.0.1:9/v1/chat/completions", **options)
    assert expected in str(raised.value)


def test_pandas_udfs_take_the_same(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """As on Spark before 4.1: maps and structs are pandas' own."""
    names = ["descriptions", "instructions", "examples", "rationale", "confidence"]
    udf = chat_function("classify", chat_udf(endpoint(endpoints)), names).for_version("3.5.0")
    examples = F.array(F.struct(F.lit("x").alias("content"), F.lit("happy").alias("label")))
    moods = F.create_map(*map(F.lit, ("angry", "bad", "happy", "good")))
    nothing = F.lit(None).cast("map<string,string>")
    df = spark.createDataFrame([("It broke.",)], "t STRING")
    answer, null = (
        df.select(udf("t", moods, described, F.lit(""), examples, F.lit(True), F.lit(True)).alias("a")).collect()[0][
            "a"
        ]
        for described in (F.create_map().cast("map<string,string>"), nothing)
    )

    assert ("angry", "Why not.") == (answer["parsed"], answer["rationale"])
    assert 0.75 == pytest.approx(answer["confidence"])
    assert null["parsed"] is None
    assert 1 == endpoints.stats.requests


@pytest.mark.slow
def test_a_job_fills_labels_of_a_map(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """A second run asks nothing; another description asks each row again."""
    source, target = spark.createDataFrame([(1, "It broke."), (2, "It works.")], "id INT, t STRING"), place("target")
    moods = (MOODS, MOODS, {**MOODS, "angry": "bad"})
    columns = [
        ai.llm_classify("t", labels, examples=[("It broke.", "angry")], confidence=True, chat=endpoint(endpoints))
        for labels in moods
    ]

    assert [2, 0, 2] == [run(source, target, {"mood": column})[0] for column in columns]
    assert [0.75] * 2 == [round(row[0], 6) for row in spark.table(target).select("mood.confidence").collect()]


@pytest.mark.slow
def test_a_table_of_the_version_before_gets_the_new_fields(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """Its rows are not asked again."""
    source = spark.createDataFrame([(1, "It broke."), (2, "It works.")], "id INT, t STRING")
    columns, target = {"mood": ai.llm_classify("t", ["angry", "happy"], chat=endpoint(endpoints))}, place("target")
    run(source, place("now"), columns)
    older = F.col("mood").dropFields("confidence", "rationale")
    written(spark.table(place("now")).withColumn("mood", older), target)
    requests, report = run(source, target, columns)

    note = "mood is of an older version: 'confidence', 'rationale' were added."
    assert (0, (note,)) == (requests, report.notes)
    assert ["confidence", "rationale"] == spark.table(target).select("mood.*").columns[-2:]
