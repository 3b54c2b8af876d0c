"""A table job's run at a real MLflow tracking server, through MLflow's own client."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_llm import Budget, Endpoint, Policy, chat_udf, embed_udf, enrich_table, observe_usage, usage_report
from spark_llm.cli.main import main
from spark_llm.enrich.report import EnrichReport
from spark_llm.serving import Faults, LocalEndpoints
from tests.integration.clients.conftest import FindServer
from tests.integration.clients.servers import SERVER
from tests.support.formats import FORMAT, table
from tests.support.otlp_receiver import OTLPReceiver
from tests.support.tracking import MLflow, tracked_at

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture
def mlflow(find_server: FindServer) -> Iterator[MLflow]:
    """MLflow, which records at its server."""
    with tracked_at(find_server(SERVER).url) as mlflow:
        mlflow.set_experiment("reviews")
        yield mlflow


def recorded_run(mlflow: MLflow, report: EnrichReport) -> Any:  # noqa: ANN401 -- an mlflow.entities.Run
    """Return the MLflow run of a report."""
    [run] = mlflow.search_runs(filter_string=f"tags.`spark_llm.run` = '{report.run}'", output_format="list")
    return run


def test_a_job_is_a_run_at_the_tracking_server(
    mlflow: MLflow,
    spark: SparkSession,
    endpoints: LocalEndpoints,
    tmp_path: Path,
) -> None:
    """Its metrics equal the report and what the endpoint counted; no row and no token is at the server."""
    endpoints.faults = Faults("ok*3 429 503")
    key = f"{endpoints.invocations('chat')}?key=s3cret-word"
    chat = chat_udf(Endpoint(key, token=endpoints.token), system="Be brief.", policy=Policy(max_tries=9))
    embed = embed_udf(Endpoint(endpoints.invocations("embed"), token=endpoints.token))
    source = spark.range(200).selectExpr("id", "concat('private review ', id) AS text")
    columns = {"mood": chat("text"), "vector": embed("text")}
    target = table(FORMAT, tmp_path, "target")
    report = enrich_table(spark, source, target, "id", columns, prices=1.0, mlflow=True, progress=False)

    run, stats = recorded_run(mlflow, report), endpoints.stats
    assert "FINISHED" == run.info.status
    assert (200, 200, 0) == tuple(run.data.metrics[name] for name in ("asked", "answered", "failed"))
    assert stats.requests == run.data.metrics["requests"] == report.requests
    assert stats.total_tokens == run.data.metrics["total_tokens"] == report.total_tokens
    assert report.usd == run.data.metrics["usd"]
    assert ("Be brief.", "chat") == (run.data.params["mood.instructions"], run.data.params["mood.task"])
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, dst_path=str(tmp_path / "here")))
    assert report._repr_html_() == (folder / "report.html").read_text(encoding="utf-8")
    there = f"{run.to_dictionary()} {(folder / 'recipe.json').read_text(encoding='utf-8')}"
    assert not [secret for secret in (endpoints.token, "s3cret-word", "private review") if secret in there]

    target = table(FORMAT, tmp_path, "second")
    budget = Budget(rows=10)
    stopped = enrich_table(spark, source, target, "id", columns, budget=budget, mlflow=True, progress=False)
    run = recorded_run(mlflow, stopped)
    assert ("FAILED", stopped.stopped) == (run.info.status, run.data.tags["spark_llm.stopped"])
    assert (10, 190) == (run.data.metrics["asked"], run.data.metrics["left"])


def test_every_report_has_the_endpoints_numbers(
    mlflow: Any,  # noqa: ANN401 -- a module
    spark: SparkSession,
    endpoints: LocalEndpoints,
    receiver: OTLPReceiver,
    tmp_path: Path,
) -> None:
    """Rows, failures by kind, tokens and requests of 5,000 rows that were asked once, with refusals and failures."""
    count = 5_000
    endpoints.faults = Faults(" ".join(["ok*20 429@0.01*3 503@0.01*2 ok*30 400 ok*40 context ok*20"] * (count // 250)))
    chat = chat_udf(Endpoint(endpoints.invocations("chat"), token=endpoints.token))
    source = spark.range(count, numPartitions=2).selectExpr("id", "concat('row ', id) AS text")
    target = table(FORMAT, tmp_path, "all")
    report = enrich_table(spark, source, target, "id", {"mood": chat("text")}, mlflow=True, progress=False)
    rows, observing = observe_usage(spark.table(target), "mood")
    rows.write.format("noop").mode("overwrite").save()
    stats, usage, observed = endpoints.stats, usage_report(target, "mood"), observing.report()
    metrics = recorded_run(mlflow, report).data.metrics
    exported, tokens = receiver.total, receiver.last("gen_ai.client.token.usage")

    by_kind = {"invalid_request": stats.by_status[400] // 2, "context_length": stats.by_status[400] // 2}
    kinds = tuple(by_kind)
    assert observed == usage
    assert {count} == {
        *(report.asked, usage.asked, metrics["asked"], stats.by_status[200] + stats.by_status[400]),
        *(exported("spark_llm.rows"), exported("gen_ai.client.operation.duration")),
    }
    assert [by_kind] * 4 == [
        dict(report.failed),
        dict(usage.failed),
        {kind: metrics[f"failed.{kind}"] for kind in kinds},
        {kind: exported("spark_llm.rows", error_type=kind) for kind in kinds},
    ]
    assert {stats.requests} == {
        report.requests,
        usage.attempts,
        metrics["requests"],
        exported("spark_llm.requests"),
        exported("gen_ai.client.operation.duration") + exported("spark_llm.retries"),
    }
    assert {stats.prompt_tokens} == {
        *(report.prompt_tokens, usage.prompt_tokens, metrics["prompt_tokens"]),
        tokens[frozenset({("gen_ai.token.type", "input")})].sum,
    }
    assert {stats.completion_tokens} == {
        *(report.completion_tokens, usage.completion_tokens, metrics["completion_tokens"]),
        tokens[frozenset({("gen_ai.token.type", "output")})].sum,
    }
    assert {status: stats.by_status[status] for status in (400, 429, 503)} == {
        status: exported("spark_llm.refusals", http_response_status_code=status) for status in (400, 429, 503)
    }


@pytest.mark.usefixtures("mlflow")
def test_the_command_prints_the_report_alone(
    spark: SparkSession,
    endpoints: LocalEndpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """MLflow prints the address of its run, which goes to stderr: stdout is JSON."""
    monkeypatch.setenv("CHAT_TOKEN", endpoints.token)
    spark.range(3).selectExpr("id", "concat('row ', id) AS text").createOrReplaceTempView("tracked")
    file = tmp_path / "job.toml"
    lines = [
        *('source = "tracked"', f'target = "{table(FORMAT, tmp_path, "third")}"', 'key = "id"', "mlflow = true"),
        *("[endpoints.chat]", f'url = "{endpoints.invocations("chat")}"', 'token_env = "CHAT_TOKEN"'),
        *("[columns.answer]", 'task = "chat"', 'endpoint = "chat"', 'input = "text"'),
    ]
    file.write_text("\n".join(lines), encoding="utf-8")

    assert 0 == main(["enrich", str(file), "--json"])
    printed = capsys.readouterr()
    assert 3 == json.loads(printed.out)["answered"]
    assert "View run" in printed.err
