"""Telemetry: what is exported is what the report or the block has, and what the endpoint counted."""

import logging
import socket
import time
from collections.abc import Callable

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import Endpoint, Policy, chat_udf, embed_udf, progress
from spark_llm.livecounts.column_count import Count
from spark_llm.monitoring.telemetry.written_answers import operations
from spark_llm.protocol.values import Result, RowError, Usage
from spark_llm.serving import Faults, LocalEndpoints
from tests.integration.spark.asking import Run, chat, endpoint
from tests.support.otlp_receiver import OTLPReceiver, attributes

FAULTS = "ok*20 429@0.01*3 503@0.01*2 ok*30 400 ok*40 context ok*20"


@pytest.mark.one_kind
@pytest.mark.parametrize(("count", "chunk_rows"), [(250, 200), pytest.param(1_000, 400, marks=pytest.mark.slow)])
def test_what_is_exported_is_what_the_endpoint_counted(  # noqa: PLR0917 -- fixtures
    spark: SparkSession,
    endpoints: LocalEndpoints,
    run: Run,
    place: Callable[[str], str],
    receiver: OTLPReceiver,
    caplog: pytest.LogCaptureFixture,
    count: int,
    chunk_rows: int,
) -> None:
    """Rows, requests, refusals and tokens are equal, over several chunks with refusals and failures."""
    endpoints.faults = Faults(" ".join([FAULTS] * (count // 250)))
    source = spark.range(count, numPartitions=2).select("id", F.concat(F.lit("private "), "id").alias("text"))
    target = place("told")
    caplog.set_level(logging.DEBUG, "spark_llm.monitoring")
    requests, report = run(source, target, {"mood": chat(endpoints)("text")}, chunk_rows=chunk_rows)
    stats, tally = endpoints.stats, report.columns["mood"]
    chunks = -(-count // chunk_rows)
    assert chunks > sum(record.name == "spark_llm.monitoring" for record in caplog.records)  # that lost a datagram

    assert count == report.asked == receiver.total("spark_llm.rows")
    assert dict(tally.failed) == {
        kind: receiver.total("spark_llm.rows", error_type=kind) for kind in ("invalid_request", "context_length")
    }
    assert requests == report.requests == receiver.total("spark_llm.requests")
    assert count == receiver.total("gen_ai.client.operation.duration")
    assert requests - count == receiver.total("spark_llm.retries")
    assert {status: stats.by_status[status] for status in (400, 429, 503)} == {
        status: receiver.total("spark_llm.refusals", http_response_status_code=status) for status in (400, 429, 503)
    }
    tokens = {
        dict(each)["gen_ai.token.type"]: point for each, point in receiver.last("gen_ai.client.token.usage").items()
    }
    assert (stats.prompt_tokens, stats.completion_tokens) == (tokens["input"].sum, tokens["output"].sum)
    assert {report.answered} == {point.count for point in tokens.values()}
    durations = receiver.last("gen_ai.client.operation.duration").values()
    [latency_ms] = spark.sql(f"SELECT sum(mood.latency_ms) FROM {target}").first() or [0]
    assert pytest.approx(latency_ms / 1000) == sum(point.sum for point in durations)
    about = {pair for _, each in receiver.exports()[-1] for pair in each}
    assert {
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "databricks"),
        ("gen_ai.request.model", "chat"),
        ("server.address", "127.0.0.1"),
        ("spark_llm.column", "mood"),
        ("spark_llm.table", report.target),
    } <= about
    failed = [span for span in receiver.spans if span.name == "chat chat"]
    assert sum(tally.failed.values()) == len(failed)
    assert {"enrich_table"} == {span.name for span in receiver.spans} - {"chat chat"}
    assert {"invalid_request", "context_length"} == {dict(attributes(span.attributes))["error.type"] for span in failed}
    assert not [text for text in map(str, [*receiver.metrics, *receiver.spans]) if "private" in text]


def test_a_progress_block_exports_the_rows_of_its_queries(
    spark: SparkSession, endpoints: LocalEndpoints, receiver: OTLPReceiver
) -> None:
    """Each UDF has its name and whom it asks, and no secret of its URL."""
    endpoints.faults = Faults("ok*5 503@0.01 ok*5 400")
    texts = spark.range(40, numPartitions=1).select(F.concat(F.lit("private "), "id").alias("text"))
    secret = Endpoint(f"{endpoints.invocations('chat')}?key=hidden", token=endpoints.token)
    with progress(spark) as watched:
        texts.select(chat_udf(secret)("text")).write.format("noop").mode("overwrite").save()

    assert 40 == watched.udfs["chat_udf"].asked == receiver.total("spark_llm.rows")
    assert 1 == receiver.total("spark_llm.rows", error_type="invalid_request")
    assert 40 == receiver.total("gen_ai.client.operation.duration")
    assert endpoints.stats.requests == watched.requests == receiver.total("spark_llm.requests")
    [tokens] = [
        point.sum
        for about, point in receiver.last("gen_ai.client.token.usage").items()
        if ("gen_ai.token.type", "input") in about
    ]
    assert endpoints.stats.prompt_tokens == tokens
    about = {pair for _, each in receiver.exports()[-1] for pair in each}
    assert {
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "chat"),
        ("server.address", "127.0.0.1"),
        ("spark_llm.udf", "chat_udf"),
    } <= about
    assert ["progress"] == [span.name for span in receiver.spans]
    assert not [
        text for text in map(str, [*receiver.metrics, *receiver.spans]) if "private" in text or "hidden" in text
    ]


@pytest.mark.slow
@pytest.mark.one_kind
def test_rows_of_one_request_are_one_operation(
    spark: SparkSession, endpoints: LocalEndpoints, run: Run, place: Callable[[str], str], receiver: OTLPReceiver
) -> None:
    """A duplicate is none; tokens are those of the endpoint."""
    source = spark.range(200).select("id", F.concat(F.lit("row "), F.col("id") % 150).alias("text"))
    embed = embed_udf(endpoint(endpoints, "embed"), policy=Policy(batch_size=16))
    requests, report = run(source, place("batched"), {"vector": embed("text")})

    assert requests == receiver.total("gen_ai.client.operation.duration") == receiver.total("spark_llm.requests")
    assert 0 == receiver.total("spark_llm.retries")
    [tokens] = receiver.last("gen_ai.client.token.usage").values()
    assert endpoints.stats.total_tokens == tokens.sum == report.total_tokens
    assert endpoints.stats.rows_asked == tokens.count


@pytest.mark.slow
@pytest.mark.one_kind
def test_a_programs_provider_gets_the_counters(
    spark: SparkSession,
    endpoints: LocalEndpoints,
    run: Run,
    place: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is in the environment: the program has set the provider."""
    reader = InMemoryMetricReader()
    monkeypatch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", MeterProvider([reader]))
    source = spark.range(50).select("id", F.concat(F.lit("row "), "id").alias("text"))
    requests, report = run(source, place("provided"), {"mood": chat(endpoints)("text")})
    data = reader.get_metrics_data()
    assert data is not None
    counters = {
        metric.name: sum(point.value for point in metric.data.data_points if isinstance(point, NumberDataPoint))
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }

    assert (50, requests) == (counters["spark_llm.rows"], counters["spark_llm.requests"])
    assert report.total_tokens == counters["spark_llm.tokens"]


@pytest.mark.one_kind
def test_a_collector_that_is_down_does_no_harm(  # noqa: PLR0917 -- fixtures
    spark: SparkSession,
    endpoints: LocalEndpoints,
    run: Run,
    place: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The job is done, with one warning, and waits for it once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{probe.getsockname()[1]}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    source = spark.range(20).select("id", F.concat(F.lit("row "), "id").alias("text"))
    began_s = time.monotonic()
    _, report = run(source, place("alone"), {"mood": chat(endpoints)("text")})

    assert (20, None) == (report.answered, report.stopped)
    assert time.monotonic() - began_s < report.seconds + 6
    assert 1 == sum(record.levelno >= logging.WARNING and "Telemetry" in record.msg for record in caplog.records)


@pytest.mark.one_kind
def test_written_answers_have_the_operations_that_workers_count(spark: SparkSession) -> None:
    """Durations on a bound, rows without a request, and every kind of error are in the same buckets."""
    late = RowError("timeout", 504, "late", retryable=True)
    results = [
        *(Result(latency_ms=ms, usage=Usage(4, 1, 5), attempts=1, requests=1) for ms in (10.0, 10.5, 81_920.0, 1e6)),
        Result(usage=Usage(0, 0, 0)),
        Result(usage=Usage(70, None, 70), latency_ms=3.5, attempts=2),
        Result(error=late, latency_ms=640.0, attempts=2, requests=2),
        Result(error=RowError("cancelled", None, "no", retryable=True)),
    ]
    fields = {
        "usage": "struct<prompt_tokens:int,completion_tokens:int>",
        "latency_ms": "double",
        "attempts": "int",
        "error": "struct<kind:string>",
    }
    rows = [
        (
            (
                each.usage and (each.usage.prompt_tokens, each.usage.completion_tokens),
                each.latency_ms,
                each.attempts,
                each.error and (each.error.kind,),
            ),
            each.requests,
        )
        for each in results
    ]
    answer = f"struct<{','.join(f'{name}:{of}' for name, of in fields.items())}>"
    written = spark.createDataFrame(rows, f"answer {answer}, requests int").selectExpr(
        "struct(answer AS `a.b`) AS result", "struct(requests AS `a.b`) AS requests"
    )

    assert {"a.b": Count.of(results, operations=True).operations} == operations(written, ["a.b"])
    assert {"a.b": Count.of([], operations=True).operations} == operations(written.limit(0), ["a.b"])
