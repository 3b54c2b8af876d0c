"""The MLflow run of a table job, in a store of MLflow's own client, and against servers that are down."""

import json
import logging
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spark_llm.enrich.mlflow_run import MAX_PARAM_BYTES, check_installed, metrics_of, parameters_of, recorded
from spark_llm.enrich.report import EnrichReport
from spark_llm.errors import ConfigError, JobFailedError
from spark_llm.metering.tally import TOKENS
from tests.support.tracking import STOPPED, MLflow, tracked_at

if TYPE_CHECKING:
    from mlflow.entities import Run

DONE = replace(STOPPED, stopped=None, columns=dict(zip(("mood", "été!"), STOPPED.columns.values(), strict=True)))
RECIPE = {
    "key": ["region", "id"],
    "columns": {
        "mood": {
            "task": "chat",
            "endpoint": "https://h/v1?key=***",
            "instructions": "é" * 5_000,
            "parameters": {"n": 1},
        }
    },
}


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MLflow]:
    """MLflow with a folder for the runs: its client alone has no database."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with tracked_at((tmp_path / "runs").as_uri()) as mlflow:
        yield mlflow


def record(mlflow: MLflow, report: EnrichReport = DONE, recipe: Mapping[str, Any] = RECIPE) -> "Run":
    """Record a job that ends with this report, and return its MLflow run."""
    assert report is recorded(report.target, report.run, recipe, lambda: report)
    return last_run(mlflow)


def last_run(mlflow: MLflow) -> "Run":
    """Return the run that began last."""
    order = ["attributes.start_time DESC"]
    run: Run = mlflow.search_runs(search_all_experiments=True, order_by=order, output_format="list")[0]
    return run


@pytest.mark.waits
def test_a_run_has_the_recipe_and_the_report(mlflow: MLflow, tmp_path: Path) -> None:
    """Long texts are cut, the whole recipe and the report as a page are artifacts; names have what MLflow takes."""
    run = record(mlflow)

    assert "FINISHED" == run.info.status
    assert {"spark_llm.run": DONE.run, "spark_llm.target": DONE.target}.items() <= run.data.tags.items()
    assert ("region, id", '{"n": 1}') == (run.data.params["key"], run.data.params["mood.parameters"])
    assert MAX_PARAM_BYTES - 2 <= len(run.data.params["mood.instructions"].encode()) <= MAX_PARAM_BYTES
    rows = {"rows": 48_000, "asked": 12_000, "answered": 11_989, "failed": 11, "left": 1_234, "skipped": 34_766}
    sums = {name: getattr(DONE, name) for name in (*TOKENS[:4], "requests", "usd", "seconds")}
    columns = {"failed.timeout": 3, "mood.failed_timeout": 2, "mood.total_tokens": 1_034_567, "été_.asked": 1_200}
    expected = {**rows, **sums, **columns}
    assert expected == {name: run.data.metrics[name] for name in expected}
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, dst_path=str(tmp_path / "here")))
    assert RECIPE == json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    assert DONE._repr_html_() == (folder / "report.html").read_text(encoding="utf-8")


def test_a_job_that_stops_or_fails_is_a_failed_run(mlflow: MLflow, caplog: pytest.LogCaptureFixture) -> None:
    """A stopped job has its numbers and the reason; a job that raises still raises, and MLflow's log is silent."""
    stopped = record(mlflow, replace(DONE, stopped="the budget is spent"))
    assert ("FAILED", "the budget is spent") == (stopped.info.status, stopped.data.tags["spark_llm.stopped"])
    assert 48_000 == stopped.data.metrics["rows"]

    def job() -> EnrichReport:
        raise JobFailedError("Another run has taken over.", "wait.")

    with pytest.raises(JobFailedError):
        recorded("t", "f" * 12, RECIPE, job)
    failed = last_run(mlflow)
    assert ("FAILED", "f" * 12, {}) == (failed.info.status, failed.data.tags["spark_llm.run"], failed.data.metrics)
    assert [] == [each for each in caplog.records if each.name.startswith("spark_llm")]


def test_the_run_is_a_child_of_the_active_one(mlflow: MLflow) -> None:
    """It is in its parent's experiment, and the parent stays active and open."""
    experiment = mlflow.create_experiment("nightly")
    with mlflow.start_run(experiment_id=experiment) as parent:
        child = record(mlflow)
        active = mlflow.active_run()
        assert parent.info.run_id == active.info.run_id == child.data.tags["mlflow.parentRunId"]
        assert "RUNNING" == mlflow.get_run(parent.info.run_id).info.status
    assert (experiment, "FINISHED") == (child.info.experiment_id, child.info.status)


def test_many_columns_fit(mlflow: MLflow) -> None:
    """MLflow takes 100 parameters in one call; a job may have more."""
    columns = {f"c{number}": {"task": "chat", "endpoint": "e", "model": "m"} for number in range(60)}

    assert 181 == len(record(mlflow, recipe={"key": ["id"], "columns": columns}).data.params)


def test_a_server_that_refuses_is_one_warning(
    mlflow: MLflow,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The job has its report; a password in the URL does not show."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://user:s3cret-word@127.0.0.1:9")

    assert DONE is recorded("t", "r", RECIPE, lambda: DONE)
    [warning] = [each for each in caplog.records if each.name.startswith("spark_llm")]
    assert logging.WARNING == warning.levelno
    assert "Hint: " in warning.message
    assert "s3cret" not in warning.message


def test_a_server_that_does_not_answer_is_not_waited_for(
    mlflow: MLflow,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The job ends after the limit, whatever time MLflow allows itself; what MLflow raises later is not logged."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        mlflow.set_tracking_uri(f"http://127.0.0.1:{silent.getsockname()[1]}")

        assert DONE is recorded("t", "r", RECIPE, lambda: DONE, wait_s=0.1)
        [recorder] = [each for each in threading.enumerate() if each.name == "spark_llm mlflow"]
    recorder.join(20.0)
    [warning] = [each for each in caplog.records if each.name.startswith("spark_llm")]
    assert not recorder.is_alive()
    assert "did not answer within 0.1 s" in warning.message


def test_a_package_that_is_missing_raises_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint says what to install."""
    check_installed()
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"not installed. Hint: pip install 'spark-llm-endpoints\[mlflow\]'"):
        check_installed()


def test_numbers_that_are_unknown_are_left_out() -> None:
    """Without prices there is no cost, and columns whose names MLflow takes for one share a parameter."""
    names = dict(metrics_of(replace(DONE, usd=None, rows=None)))
    twice = {"key": ["id"], "columns": {"a/b": {"task": "chat"}, "a:b": {"task": "embed"}}}

    assert not {"usd", "rows", "skipped", "started_at", "out", "usd_at_once"} & names.keys()
    assert {"key": "id", "a_b.task": "embed"} == dict(parameters_of(twice))
    submitted = dict(metrics_of(replace(DONE, out=3, out_batches=1, usd_at_once=0.5)))
    assert (3, 1, 0.5) == tuple(submitted[name] for name in ("out", "out_batches", "usd_at_once"))
