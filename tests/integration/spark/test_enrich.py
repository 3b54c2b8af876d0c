"""Tables that are filled from an endpoint that counts: which rows are asked, written, and never paid twice."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from spark_llm import ConfigError, Policy, chat_udf, embed_udf, estimate
from spark_llm.enrich.api import enrich_stream, enrich_table
from spark_llm.enrich.report import EnrichReport
from spark_llm.enrich.staging import Staging
from spark_llm.enrich.table import Table
from spark_llm.functions import llm_summarize
from spark_llm.metering.budget import Budget
from spark_llm.serving import Capacity, Faults, LocalEndpoints
from tests.conftest import ROOT
from tests.integration.spark.asking import Run, chat, endpoint, texts, written


@pytest.mark.one_kind
def test_only_pending_rows_are_asked(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """New and changed rows and rows with a retryable error are asked; answered rows and nulls are not."""
    source, target = written(texts(spark, 50), place("source")), place("target")
    asked = chat_udf(endpoint(endpoints), policy=Policy(max_tries=1))
    endpoints.faults = Faults("ok*5 500*3")
    requests, report = run(source, target, {"answer": asked("text")})
    assert (45, 45, 42, {"unavailable": 3}) == (requests, report.asked, report.answered, dict(report.failed))
    assert (50, 0, None) == (report.rows, report.left, report.stopped)
    assert (None, None) == (report.limits, report.flow)  # without limits and without a bar no host tells anything

    failed = spark.table(target).where("answer.error IS NOT NULL").select("id").collect()
    changed = [n for n in range(50) if n % 10 != 9 and Row(id=n) not in failed][:7]
    spark.sql(f"UPDATE {source} SET text = concat(text, '!') WHERE id IN ({', '.join(map(str, changed))})")
    spark.sql(f"INSERT INTO {source} SELECT id + 100, concat('row ', id + 100), 'y' FROM range(5)")
    requests, report = run(source, target, {"answer": asked("text")})
    assert (15, 15, 0, 55) == (requests, report.asked, report.left, report.rows)

    assert 0 == run(source, target, {"answer": asked("text")})[0]
    rows = spark.table(source).join(spark.table(target).select("id", "answer", "team"), "id").collect()
    assert 55 == len(rows)
    assert all((row["answer"] and row["answer"]["text"]) == row["text"] for row in rows)


@pytest.mark.slow
@pytest.mark.one_kind
def test_the_report_says_who_kept_the_limits(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """The driver allots them, and is told what limits the job."""
    endpoints.latency_s = 0.2
    limited = chat_udf(endpoint(endpoints), policy=Policy(max_in_flight=2))
    _, kept = run(texts(spark, 30), place("limited"), {"answer": limited("text")})
    assert 2 == endpoints.stats.max_in_flight

    assert "shared over the cluster by the driver (1 host)" == kept.limits
    assert kept.flow is not None
    assert (2, 2) == (kept.flow.peak_in_flight, kept.flow.window)
    assert "max_in_flight" in kept.flow.limited_by


@pytest.mark.slow
@pytest.mark.one_kind
def test_the_report_says_what_limited_the_requests(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str]
) -> None:
    """Workers find out what the endpoint takes, and tell the driver."""
    endpoints.latency_s, endpoints.capacity = 0.2, Capacity(concurrency=4)
    report = enrich_table(spark, texts(spark, 60), place("target"), "id", {"answer": chat(endpoints)("text")})

    assert report.flow is not None
    assert "refusals" in report.flow.limited_by
    assert 0 < report.flow.peak_in_flight <= 16  # slow start doubles past four
    assert f"in flight  {report.flow}" in str(report)


@pytest.mark.slow
def test_a_change_of_case_asks_nothing_and_another_prompt_asks_all(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """Names in another case are the same names, and a new column of the source is filled without a request."""
    source, target = written(texts(spark, 50), place("source")), place("target")
    asked = chat(endpoints)
    assert 45 == run(source, target, {"answer": asked("text")})[0]

    loud = spark.table(source).select(F.col("id").alias("ID"), F.col("text").alias("TEXT"), F.lit("en").alias("Lang"))
    requests, report = run(loud, target, {"ANSWER": asked("Text")}, key="Id", retry_errors=False)
    assert (0, 0, 50) == (requests, report.asked, report.skipped)
    assert ["id", "text", "team", "answer", "answer_fingerprint", "Lang"] == spark.table(target).columns
    assert 50 == spark.table(target).where("lang = 'en' AND team = 'x'").count()
    assert [True] == [note.startswith("'Lang' is new in the source, and was added to ") for note in report.notes]
    requests, nothing = run(spark.table(source).where("false"), target, {"answer": asked("text")})
    assert (0, 0, 0) == (requests, nothing.rows, nothing.deleted)
    again = chat_udf(endpoint(endpoints), system="Be brief.", policy=Policy(max_in_flight=4))
    assert 45 == run(source, target, {"answer": again("text")}, chunk_rows=20)[0]
    assert {50} == {spark.table(target).count(), spark.table(target).select("id").distinct().count()}


@pytest.mark.slow
def test_columns_are_asked_one_by_one_and_kept_beside_the_source(
    spark: SparkSession, endpoints: LocalEndpoints, run: Run
) -> None:
    """A new column asks only itself; carried columns follow the source; the run's own tables are removed."""
    spark.sql("DROP TABLE IF EXISTS enriched")
    rows = texts(spark, 20).withColumn("tags", F.create_map(F.lit("a"), "id"))
    columns = {"brief": llm_summarize("text", chat=chat(endpoints))}
    _, first = run(rows, "enriched", columns)
    columns["vector"] = embed_udf(endpoint(endpoints, "embed"))("text")
    requests, second = run(rows, "enriched", columns, runs_table="runs", prices={"brief": (1, 2), "vector": 0.1})

    assert (18, 18) == (first.asked, second.columns["vector"].asked)
    assert 0 == second.columns["brief"].asked
    assert requests == second.requests <= 4
    assert ["id", "text", "team", "tags", "brief", "brief_fingerprint", "vector", "vector_fingerprint"] == spark.table(
        "enriched"
    ).columns

    fewer = rows.where("id > 4").withColumn("team", F.when(F.col("id") == 5, "z").otherwise(F.col("team")))
    emptied = fewer.withColumn("text", F.when(F.col("id") != 6, F.col("text")))
    requests, third = run(emptied, "enriched", columns, on_missing="delete", runs_table="runs")
    assert (0, 5) == (requests, third.deleted)
    after = {row["id"]: row for row in spark.table("enriched").collect()}
    assert set(range(5, 20)) == set(after)
    assert ("z", "x") == (after[5]["team"], after[7]["team"])
    assert (None, None, None) == (after[6]["text"], after[6]["brief"], after[6]["brief_fingerprint"])
    assert "row 5" == after[5]["text"]
    assert [18, 0] == [row["asked"] for row in spark.table("runs").orderBy("started_at").collect()]
    tables = {row["tableName"] for row in spark.sql("SHOW TABLES").collect()}
    assert {"enriched", "runs"} == {name for name in tables if "enriched" in name or "runs" in name}


@pytest.mark.slow
def test_a_table_is_filled_in_place(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """A target may be the source itself: it gets the columns for answers, and the others stay as they are."""
    tickets = written(texts(spark, 10).withColumnRenamed("id", "a.b"), place("in place"))

    assert 9 == run(tickets, tickets, {"answer": chat(endpoints)("text")}, key="`a.b`")[0]
    assert 0 == run(spark.table(tickets), tickets, {"answer": chat(endpoints)("text")}, key="`a.b`")[0]
    assert 9 == spark.table(tickets).where("answer.text = text").count()


@pytest.mark.slow
def test_the_sources_columns_may_change(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """A new column is filled, or the report says why not; another type is an error; a removed column stays."""
    rows, target = texts(spark, 10), place("target")
    answer = {"answer": chat(endpoints)("text")}
    run(rows, target, answer)
    requests, report = run(rows.withColumns({"a b": F.lit(1), "more": F.col("id").cast("int")}), target, answer)
    assert 0 == requests
    assert ["'a b' of the source was left out: ", "'more' is new in the source, "] == [
        re.sub(r"(: |, ).*", r"\1", note) for note in report.notes
    ]
    assert 10 == spark.table(target).where("more = id AND answer.text <=> text").count()

    with pytest.raises(ConfigError, match=r"'more' is int in .+, and bigint in the source\. Hint: "):
        run(rows.withColumn("more", F.col("id")), target, answer)
    narrow = rows.drop("team").withColumn("more", F.lit(7).cast("tinyint")).union(spark.sql("SELECT 99, 'new', 7"))
    requests, report = run(narrow, target, answer)
    assert (1, ()) == (requests, report.notes)
    assert {(7, "x"): 10, (7, None): 1} == {
        (row["more"], row["team"]): row["count"]
        for row in spark.table(target).groupBy("more", "team").count().collect()
    }


@pytest.mark.slow
def test_case_counts_where_the_session_says_so(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """With `spark.sql.caseSensitive` a source with `id` lacks the key `ID`; a table without case says so."""
    target = place("target")
    run(texts(spark, 10), target, {"answer": chat(endpoints)("text")})
    spark.conf.set("spark.sql.caseSensitive", "true")
    try:
        for options, words in (
            ({"key": "ID"}, "The source lacks the key 'ID'"),
            ({"columns": {"Answer": chat(endpoints)("text")}}, "Columns cannot be added"),
        ):
            with pytest.raises(ConfigError, match=words):
                run(texts(spark, 10), target, **({"columns": {"answer": chat(endpoints)("text")}} | options))
        two = texts(spark, 10).withColumn("Text", F.lit("another"))
        assert 0 == run(two.drop("Text"), target, {"answer": chat(endpoints)("text")})[0]
        estimated = estimate(spark, two, target, "id", {"answer": chat(endpoints)("text")})
        assert (10, 0) == (estimated.rows, estimated.to_ask)
    finally:
        spark.conf.unset("spark.sql.caseSensitive")
    assert 9 == endpoints.stats.requests


@pytest.mark.slow
def test_the_source_is_read_once(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """A source that asks an endpoint itself pays once for each row, although rows are counted, checked and sorted."""
    rows = (
        texts(spark, 40).where("text IS NOT NULL").repartition(2).withColumn("first", chat(endpoints)("text")["text"])
    )
    requests, report = run(
        rows, place("target"), {"answer": chat(endpoints)(F.concat(F.lit("again "), "first"))}, chunk_rows=10
    )

    assert (36, 36 + 36) == (report.asked, requests)


@pytest.mark.slow
def test_a_budget_stops_a_run(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """The report has the rows that are left, and the next run asks them; a broken endpoint stops a run early."""
    source, target = written(texts(spark, 100), place("source")), place("target")
    answer = {"answer": chat(endpoints)("text")}
    requests, report = run(source, target, answer, budget=Budget(rows=30), chunk_rows=20)
    assert (30, 30, 60) == (requests, report.asked, report.left)
    assert report.stopped is not None
    assert "30 rows" in report.stopped

    endpoints.faults = Faults("401*99")
    requests, report = run(source, target, {"answer": chat(endpoints)("text")}, chunk_rows=20)
    assert requests <= 20
    assert report.stopped is not None
    assert "unauthorized" in report.stopped
    endpoints.faults = Faults()
    assert 60 == run(source, target, answer)[0]
    assert 90 == spark.table(target).where("answer.text = text").count()


@pytest.mark.slow
def test_two_runs_at_once_pay_once(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """The second waits for the first, and finds all rows answered."""
    source, target = written(texts(spark, 100), place("source")), place("target")
    endpoints.latency_s = 0.01
    reports = list[EnrichReport]()
    runs = [
        threading.Thread(
            target=lambda: reports.append(
                enrich_table(spark, source, target, "id", {"answer": chat(endpoints)("text")}, progress=False)
            )
        )
        for _ in range(2)
    ]
    for each in runs:
        each.start()
    for each in runs:
        each.join()

    assert [0, 90] == sorted(report.asked for report in reports)
    assert 90 == endpoints.stats.requests


@pytest.mark.slow
def test_a_run_that_was_killed_is_not_waited_for(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """Its staged answers are merged and not asked again; a table that it had begun to create is created."""
    source, target = written(texts(spark, 20), place("source")), place("target")
    run(spark.table(source).where("id < 5"), target, {"answer": chat(endpoints)("text")})
    run(spark.table(source).where("id BETWEEN 10 AND 14"), place("other"), {"answer": chat(endpoints)("text")})
    folder = target.removeprefix("delta.`").removesuffix("`").replace("``", "`")
    (Path(folder).parent / "made" / "_delta_log").mkdir(parents=True)
    lease = f"delta.`{folder.replace('`', '``')}__spark_llm/lease`"
    with subprocess.Popen(
        [sys.executable, "-c", "from spark_llm.engine.process_identity import own_identity; print(own_identity())"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ROOT},
    ) as dead:
        identity = dead.communicate()[0].strip()
    spark.sql(f"ALTER TABLE {lease} RENAME COLUMN free TO held_by_x_{identity}")
    beside = Staging(spark, Table.named(spark, "target=", target), "delta", "x")
    left = spark.table(place("other")).select(
        F.struct("id").alias("key"),
        F.struct("text", "team").alias("carried"),
        F.struct("answer").alias("result"),
        F.struct(F.col("answer_fingerprint").alias("answer")).alias("fingerprints"),
        F.struct(F.lit(True).alias("answer")).alias("writes"),
        *(F.lit(False).alias(name) for name in ("changed", "deleted", "deferred")),
    )
    beside.write("answers", left, {})

    requests, report = run(source, target, {"answer": chat(endpoints)("text")})
    assert (18 - 5 - 5, 5, 20) == (requests, report.recovered, spark.table(target).count())
    assert 0 == run(source, place("made"), {"answer": chat(endpoints)("text")}, budget=Budget(seconds=0.001))[0]
    assert 2 == spark.table(place("made")).count()  # the ones that ask nothing


@pytest.mark.one_kind
@pytest.mark.parametrize("restart", ["checkpoint", pytest.param("another checkpoint", marks=pytest.mark.slow)])
def test_a_stream_asks_once(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], tmp_path: Path, restart: str
) -> None:
    """From its checkpoint a stream asks only new rows, and from another one no answered row again."""
    source, target = written(texts(spark, 20), place("source")), place("target")

    def stream(checkpoint: str) -> int:
        before = endpoints.stats.requests
        columns = {"answer": chat(endpoints)("text")}
        enrich_stream(spark, source, target, "id", columns, str(tmp_path / checkpoint)).awaitTermination()
        return endpoints.stats.requests - before

    assert 18 == stream("checkpoint")
    spark.sql(f"INSERT INTO {source} SELECT id + 100, concat('row ', id + 100), 'y' FROM range(5)")
    assert 5 == stream(restart)
    assert 23 == spark.table(target).where("answer.text = text").count()
