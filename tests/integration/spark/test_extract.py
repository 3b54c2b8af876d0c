"""`extract_udf` on Spark: typed fields, their citations, what fails, and table jobs."""

import json
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import (
    ConfigError,
    Policy,
    chat_udf,
    estimate,
    extract_udf,
    observe_usage,
    preflight,
    progress,
    usage_report,
)
from spark_llm.serving import ChatRequest, Faults, LocalEndpoints, SmolLM2
from tests.integration.spark.asking import Ask, Run, endpoint, written
from tests.support.reply_model import ReplyModel

FIELDS = "name STRING COMMENT 'of the sender', total DECIMAL(6,2), due DATE, paid BOOLEAN NOT NULL"
MAIL = "\N{SLIGHTLY SMILING FACE} I am Ann.\n\nThe total of\n  19.90 EUR is due on 2026-03-01."
FOUND = {"name": ("Ann", "I am Ann"), "total": (19.9, "total of 19.90 EUR"), "due": ("2026-03-01", "due in March")}
NOTHING = (None, None, None, None, None)


def reply(request: ChatRequest) -> str:
    """Return what the mail says, in the form that the request asks for; to "ignore" an answer of another form."""
    fields = (request.response_format or {})["json_schema"]["schema"]["properties"]
    if "ignore" in request.messages[1].text:
        return "The total is 19.90 EUR."
    cites = "quote" in fields["paid"].get("properties", {})
    values = {**FOUND, "paid": (False, None)}
    if "nothing" in request.messages[1].text:
        values = {"paid": (False, "made up")}
    return json.dumps(
        {name: {"value": value, "quote": quote} if cites else value for name, (value, quote) in values.items()}
    )


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """An endpoint that extracts."""
    with LocalEndpoints({"chat": ReplyModel(reply)}) as started:
        yield started


def mails(spark: SparkSession, *texts: str | None) -> Any:  # noqa: ANN401 -- a DataFrame
    """Return mails, numbered from 0, in one partition."""
    df = spark.createDataFrame(list(enumerate(texts)), "id INT, mail STRING")
    return df.repartition(1).sortWithinPartitions("id")


def test_fields_are_typed(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """Null and blank texts ask nothing, equal ones are asked once; an answer that never fits is asked for twice."""
    extract = ask(extract_udf(endpoint(endpoints), fields=FIELDS))
    df = mails(spark, MAIL, None, " \n", MAIL, "ignore it", "")
    rows = df.select(extract("mail").alias("r")).select("r.*").collect()
    found = ("Ann", Decimal("19.90"), date(2026, 3, 1), False)

    assert [found, None, None, found, None, None] == [row.parsed and tuple(row.parsed) for row in rows]
    assert [None, None, None, None, "schema_mismatch", None] == [row.error and row.error.kind for row in rows]
    assert "The total is 19.90 EUR." == rows[4].text
    assert 1 + 2 == endpoints.stats.requests
    assert endpoints.stats.total_tokens == sum(row.usage.total_tokens for row in rows if row.usage)


def test_each_field_has_its_citation(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """Places are those of Spark's `substring`; an invented quote has none, and a null value has nulls alone."""
    extract = ask(extract_udf(endpoint(endpoints), fields=FIELDS, citations=True))
    df = mails(spark, MAIL, "nothing", "ignore", None).select("mail", extract("mail").alias("r"))
    df.persist()
    mail, nothing, ignored, null = df.select("r.parsed", "r.error.kind").collect()
    parts = [
        F.expr(f"substring(mail, r.parsed.{name}.start + 1, r.parsed.{name}.stop - r.parsed.{name}.start)")
        for name in ("name", "total")
    ]
    cited = df.select(*parts).first()
    df.unpersist()

    assert ("Ann", "I am Ann", 2, 10, True) == tuple(mail.parsed.name)
    assert (Decimal("19.90"), "total of\n  19.90 EUR", 17, 37, True) == tuple(mail.parsed.total)
    assert (date(2026, 3, 1), "due in March", None, None, False) == tuple(mail.parsed.due)
    assert (False, None, None, None, False) == tuple(mail.parsed.paid)
    assert ("I am Ann", "total of\n  19.90 EUR") == tuple(cited or ())
    assert [NOTHING] * 3 == [tuple(nothing.parsed[name]) for name in ("name", "total", "due")]
    assert (False, "made up", None, None, False) == tuple(nothing.parsed.paid)
    assert [(None, "schema_mismatch"), (None, None)] == [tuple(ignored), tuple(null)]
    assert 1 + 1 + 2 == endpoints.stats.requests


def test_an_answer_that_fits_at_the_second_try_is_cited_in_the_rows_text(spark: SparkSession) -> None:
    """The conversation of the second request is not the text that is searched."""

    def second(request: ChatRequest) -> str:
        return '{"a": {"value": 4, "quote": "once more"}}' if len(request.messages) > 2 else '{"a": 4}'

    with LocalEndpoints({"chat": ReplyModel(second)}) as endpoints:
        extract = extract_udf(endpoint(endpoints), fields="a INT", citations=True)
        [row] = mails(spark, "Not once more.").select(extract("mail").alias("r")).select("r.*").collect()

    assert ((4, "once more", 4, 13, True), 2) == (tuple(row.parsed.a), row.attempts)


def test_texts_that_are_not_valid_are_searched_as_they_are_sent(spark: SparkSession) -> None:
    """Bytes that are no UTF-8 become replacement characters, for the model and for the search."""

    def echo(request: ChatRequest) -> str:
        return json.dumps({"a": {"value": 1, "quote": request.messages[1].text[2:]}})

    with LocalEndpoints({"chat": ReplyModel(echo)}) as endpoints:
        extract = extract_udf(endpoint(endpoints), fields="a INT", citations=True)
        df = spark.sql("SELECT CAST(X'6162FF6364' AS STRING) AS mail")
        [row] = df.select(extract("mail").alias("r")).select("r.parsed.a.*").collect()

    assert (1, "\N{REPLACEMENT CHARACTER}cd", 2, 5, True) == tuple(row)


def test_faults_are_data_and_are_tried_again(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """A server's faults end as they do with `chat_udf`, and the tokens add up."""
    endpoints.faults = Faults("ok*9 429@0.01*2 503@0.01 ok*9 400 ok*40")
    extract = ask(extract_udf(endpoint(endpoints), fields=FIELDS, citations=True))
    df = mails(spark, *(f"{MAIL} {number}" for number in range(40))).select(extract("mail").alias("r"))
    answers, usage = observe_usage(df, "r")
    rows = answers.select("r.*").collect()
    report: Any = usage.report()

    assert [39, 1] == [sum(row.parsed is not None for row in rows), sum(row.error is not None for row in rows)]
    assert {("Ann", "I am Ann", 2, 10, True)} == {tuple(row.parsed.name) for row in rows if row.parsed}
    assert (40, 39, {"invalid_request": 1}) == (report.rows, report.answered, dict(report.failed))
    assert (endpoints.stats.total_tokens, endpoints.stats.requests) == (report.total_tokens, report.attempts)


@pytest.mark.one_kind
def test_cached_answers_are_cited_as_new_ones(spark: SparkSession, endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """A second action asks nothing and has the same places."""
    model = chat_udf(endpoint(endpoints), policy=Policy(cache=str(tmp_path / "answers")))
    found = mails(spark, MAIL).select(extract_udf(model, fields=FIELDS, citations=True)("mail").alias("r"))
    rows = [found.select("r.parsed.*").collect() for _ in range(2)]

    assert rows[0] == rows[1]
    assert 17 == rows[1][0].total.start
    assert 1 == endpoints.stats.requests


@pytest.mark.one_kind
def test_it_works_in_sql_and_under_progress(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Spark registers it by any name, and a block counts it as `extract_udf`."""
    spark.udf.register("find", extract_udf(endpoint(endpoints), fields=FIELDS, citations=True))
    mails(spark, MAIL, None).createOrReplaceTempView("mails")
    with progress(spark) as watched:
        rows = spark.sql("SELECT found.parsed.total.value AS v FROM (SELECT find(mail) AS found FROM mails)").collect()

    assert [Decimal("19.90"), None] == [row.v for row in rows]
    assert (2, 1, 1) == (watched.rows, watched.answered, watched.requests)


@pytest.mark.one_kind
def test_an_endpoint_is_checked_with_the_fields(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """`preflight` sends the request of the UDF, from the driver and from an executor."""
    report = preflight(extract_udf(endpoint(endpoints), fields=FIELDS), spark)

    assert report.ok, report
    assert 2 == endpoints.stats.requests


@pytest.mark.one_kind
@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ("name", "fields='name' is not valid DDL"),
        ("STRING", "fields='STRING' is not "),
        ("ARRAY<STRING>", "fields='ARRAY<STRING>' is not "),
        ("a INT, a STRING", "a"),
        ("a BINARY", "a is binary"),
    ],
)
@pytest.mark.usefixtures("spark")
def test_ddl_of_no_fields_is_refused(fields: str, why: str) -> None:
    """When the UDF is built, with a hint."""
    with pytest.raises(ConfigError, match=why) as refused:
        extract_udf("https://host/invocations", fields=fields)

    assert refused.value.hint.endswith(".")


@pytest.mark.one_kind
def test_a_column_of_another_type_fails_the_query(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """A number or a conversation is no text; the error names the UDF, and nothing is asked."""
    extract = extract_udf(endpoint(endpoints), fields=FIELDS)
    conversation = F.expr("array(named_struct('role', 'user', 'content', mail))")
    for column, found in ((F.col("id"), "int"), (conversation, "(nd)?array")):
        with pytest.raises(Exception, match=f"extract_udf: The UDF takes one string column; it was called on {found}"):
            mails(spark, MAIL).select(extract(column)).collect()

    assert 0 == endpoints.stats.requests


@pytest.mark.slow
def test_a_table_job_asks_each_mail_once(
    spark: SparkSession, endpoints: LocalEndpoints, run: Run, place: Callable[[str], str]
) -> None:
    """A second run asks nothing, one with citations asks all anew; blank mails and nulls are never asked."""
    source = written(mails(spark, MAIL, f"{MAIL} 2", None, " \t", "nothing"), place("source"))
    model = chat_udf(endpoint(endpoints), max_tokens=100, policy=Policy(max_in_flight=4))

    def columns(*, citations: bool) -> Any:  # noqa: ANN401 -- a mapping of columns
        return {"found": extract_udf(model, fields=FIELDS, citations=citations)("mail")}

    estimated = estimate(spark, source, place("target"), "id", columns(citations=True), prices=1)
    sent, report = run(source, place("target"), columns(citations=True))
    again, _ = run(source, place("target"), columns(citations=True))
    rows = spark.table(place("target")).orderBy("id").collect()

    assert (3, 3, 0) == (sent, report.answered, again)
    assert estimated.columns["found"].rows == 3
    assert [True, True, None, None, None] == [row.found and row.found.parsed.name.supported for row in rows]
    assert "I am Ann" == rows[1].found.parsed.name.quote
    assert 3 == usage_report(spark.table(place("target")), "found").answered
    other, _ = run(source, place("plain"), columns(citations=False))
    assert 3 == other


@pytest.mark.slow
@pytest.mark.models
def test_a_real_model_finds_fields_and_quotes(spark: SparkSession) -> None:
    """The local model is weak: values have their types, and a supported quote is in the text, at its place."""
    invoice = (
        "INVOICE 4711\nFrom: Miller & Sons, 12 Mill Road\nTo: Ann Smith\nDate: 2026-02-28\n\n"
        "2 chairs\n\nTotal: 249.90 EUR\nPlease pay within 14 days."
    )
    with LocalEndpoints({"chat": SmolLM2()}) as endpoints:
        model = chat_udf(endpoint(endpoints), max_tokens=200, temperature=0)
        extract = extract_udf(model, fields="number INT, total DOUBLE", citations=True)
        [row] = mails(spark, invoice).select(extract("mail").alias("r")).select("r.*").collect()

    assert row.error is None, row
    for cited, kind in ((row.parsed.number, int), (row.parsed.total, float)):
        assert cited.value is None or isinstance(cited.value, kind)
        assert cited.value is None or cited.supported == (cited.start is not None)
        assert not cited.supported or invoice[cited.start : cited.stop] == cited.quote
    assert any(cited.supported for cited in row.parsed), row
