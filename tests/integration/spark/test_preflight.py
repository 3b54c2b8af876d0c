"""`preflight` with a session: the checks of an executor, apart from those of the driver."""

import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_llm import ConfigError, Endpoint, Policy, chat_udf, complete_udf, embed_udf, preflight
from spark_llm._version import __version__
from spark_llm.auth.credentials import ClientCredentials
from spark_llm.readiness.executor import THREAD_NAME, run_executor_checks
from spark_llm.readiness.report import Check, Report
from spark_llm.readiness.target import Target, candidate_tasks
from spark_llm.serving import LocalEndpoints
from spark_llm.udf.model_udf import ModelUDF
from tests.conftest import ROOT, SessionKind
from tests.integration.spark.asking import chat, endpoint

pytestmark = pytest.mark.on_connect

EXECUTOR = ("packages", "address", "credentials", "request")


def executor_check(report: Report, name: str) -> Check:
    """Return the executor's check of that name."""
    [found] = [check for check in report.checks if (check.where, check.name) == ("executor", name)]
    return found


def outcomes(report: Report, where: str) -> list[str]:
    """Return the outcomes of the checks from there, in order."""
    return [check.outcome for check in report.checks if check.where == where]


@pytest.mark.parametrize(
    ("make", "name"),
    [(chat_udf, "chat"), (complete_udf, "complete"), (embed_udf, "embed")],
)
def test_a_ready_udf_is_ready_from_an_executor(
    spark: SparkSession, endpoints: LocalEndpoints, make: Callable[[Endpoint], ModelUDF], name: str
) -> None:
    """Packages, address, credentials and request pass there too, and the report hides the token."""
    report = preflight(make(endpoint(endpoints, name)), spark)

    assert report.ok, report
    assert (["passed"] * 4, ["passed"] * 4) == (outcomes(report, "driver"), outcomes(report, "executor"))
    assert f"spark_llm {__version__}" in executor_check(report, "packages").message
    assert executor_check(report, "request").message.startswith(f"{name} was answered in ")
    assert 2 == endpoints.stats.requests
    assert endpoints.token not in str(report) + report._repr_html_()


@pytest.mark.parametrize("folder", ["answers", "file/answers"])
def test_the_cache_folder_is_checked_where_it_is_used(
    spark: SparkSession, endpoints: LocalEndpoints, tmp_path: Path, folder: str
) -> None:
    """An executor opens and writes it: a UDF whose cache would be left out is not ready."""
    (tmp_path / "file").touch()
    cache = tmp_path / folder
    report = preflight(chat_udf(endpoint(endpoints), policy=Policy(cache=cache)), spark)
    check = executor_check(report, "cache")

    assert ("passed" if folder == "answers" else "failed") == check.outcome
    assert report.ok == (check.outcome == "passed")
    assert str(cache) in check.message
    assert ["passed"] * 4 == outcomes(report, "executor")[:4]
    if not report.ok:
        assert "Not a directory" in check.message
        assert "name a folder on a local disk" in check.hint


def test_an_executor_sends_the_udfs_own_parameters(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """The limit is one token in place of the user's."""
    udf = chat_udf(endpoint(endpoints), system="Be brief.", max_completion_tokens=64, temperature=0.0)

    assert preflight(udf, spark).ok
    bodies = [recorded.body for recorded in endpoints.requests if recorded.body is not None]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]
    assert [{"max_completion_tokens": 1, "temperature": 0.0, "messages": messages}] * 2 == bodies


def test_an_oauth_client_signs_in_on_the_executor(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """The driver and the executor each get a token."""
    client = ClientCredentials(endpoints.client_id, endpoints.client_secret, f"{endpoints.url}/oidc/v1/token")
    report = preflight(Endpoint(endpoints.invocations("embed"), token=client), spark)

    assert report.ok, report
    assert 2 == endpoints.tokens_issued
    assert endpoints.client_secret not in str(report)


def test_without_a_session_only_the_driver_is_checked(endpoints: LocalEndpoints) -> None:
    """An Endpoint and a UDF can both be checked."""
    for given in (endpoint(endpoints), chat(endpoints)):
        report = preflight(given)
        assert report.ok
        assert [] == outcomes(report, "executor")


def test_a_string_is_an_endpoint(endpoints: LocalEndpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up in the environment's workspace, and the task is found."""
    monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", endpoints.token)

    assert [True, True] == [preflight(given).ok for given in ("embed", endpoints.invocations("complete"))]


def test_a_failed_sign_in_is_in_the_report(
    endpoints: LocalEndpoints, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A profile that cannot sign in is a failed check and not an exception."""
    pytest.importorskip("databricks.sdk")
    profiles = tmp_path / "databrickscfg"
    profiles.write_text(f"[broken]\nhost = {endpoints.url}\nauth_type = no-such-login\n")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(profiles))
    monkeypatch.setenv("DATABRICKS_CONFIG_PROFILE", "broken")
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    report = preflight(chat_udf("chat"))

    assert not report.ok
    assert "the profile 'broken'" in report.failed[0].message
    assert ["failed", "skipped", "skipped", "skipped"] == outcomes(report, "driver")


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (7, {}, "An object of type int is not an endpoint."),
        ({"token": "t"}, {}, "An object of type dict is not an endpoint."),
        ("a b", {}, "is neither an endpoint's name nor a URL."),
        ("chat", {"spark": 7}, "An object of type int is not a Spark session."),
        ("chat", {"task": "sing"}, "Unknown task 'sing'."),
        ("chat", {"timeout_s": 0}, "timeout_s=0 is not a number of seconds"),
        ("chat", {"timeout_s": 31}, "timeout_s=31 is not a number of seconds"),
        ("chat", {"timeout_s": True}, "timeout_s=True is not a number of seconds"),
    ],
)
def test_an_invalid_argument_raises(given: Any, options: dict[str, Any], message: str) -> None:  # noqa: ANN401 -- every wrong type
    """Only arguments raise, and the message ends in a hint."""
    with pytest.raises(ConfigError, match=r" Hint: .+\.$") as raised:
        preflight(given, **options)

    assert message in str(raised.value)


def test_the_task_must_be_the_udfs_own(endpoints: LocalEndpoints) -> None:
    """A UDF has a task of its own."""
    assert preflight(chat(endpoints), task="chat").ok
    with pytest.raises(ConfigError, match="task='embed' does not match the UDF, whose task is 'chat'"):
        preflight(chat(endpoints), task="embed")


@pytest.mark.parametrize(
    ("token", "failed"),
    [("wrong", "request"), ("e30.eyJleHAiOjF9.x", "credentials")],  # the second says that it ended in 1970
)
def test_a_final_failure_is_not_repeated(
    spark: SparkSession, endpoints: LocalEndpoints, token: str, failed: str
) -> None:
    """A refused or expired token would fail there too; the packages are checked all the same."""
    report = preflight(Endpoint(endpoints.invocations("chat"), token=token), spark)

    assert ["passed", "passed", "skipped", "skipped"] == outcomes(report, "executor")
    assert f"not done: the {failed} check failed on the driver" == executor_check(report, "request").message
    assert [failed] == [check.name for check in report.failed]


def test_an_unknown_address_skips_the_executor(spark: SparkSession) -> None:
    """All checks of the executor are skipped."""
    report = preflight(Endpoint("http://far.example/v1", model="m"), spark)

    assert ["skipped"] * 4 == outcomes(report, "executor")


def test_an_unresolved_host_fails_on_both_places(spark: SparkSession) -> None:
    """Both failures have a row's message."""
    report = preflight(Endpoint("https://nowhere.invalid/v1", model="m"), spark, task="chat")
    [driver, executor] = report.failed

    assert ("address", "executor") == (executor.name, executor.where)
    assert driver.text == executor.text


class WorkerToken:
    """A token function that fails in the process that made it."""

    def __init__(self, token: str) -> None:
        """Keep the token, and the process that must not use it."""
        self._token = token
        self._driver = os.getpid()

    def __call__(self) -> str:
        """Return the token."""
        if os.getpid() == self._driver:
            raise PermissionError("only on workers")
        return self._token


def test_a_failure_of_the_driver_alone_does_not_skip_the_executor(
    spark: SparkSession, endpoints: LocalEndpoints
) -> None:
    """A token function may fail on the driver and work on an executor."""
    report = preflight(Endpoint(endpoints.invocations("chat"), token=WorkerToken(endpoints.token)), spark)

    assert ["credentials"] == [check.name for check in report.failed]
    assert ["passed"] * 4 == outcomes(report, "executor")


@pytest.fixture
def bare_python(spark: SparkSession, tmp_path: Path) -> Iterator[Path]:
    """Let the session's workers run a Python without this library and without installed packages."""
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        "cd /\n"
        f'PYTHONPATH=$(printf %s "$PYTHONPATH" | tr : "\\n" | grep -vxF {shlex.quote(ROOT)} | paste -sd : -)\n'
        "export PYTHONPATH\n"
        # The daemon of the tests is not on this path: it has Spark's own.
        'for a do shift; [ "$a" = tests.support.warm_daemon ] && a=pyspark.daemon; set -- "$@" "$a"; done\n'
        f'exec {shlex.quote(sys.executable)} -S "$@"\n'
    )
    python.chmod(0o755)
    spark.conf.set("spark.sql.execution.pyspark.python", str(python))
    yield python
    spark.conf.unset("spark.sql.execution.pyspark.python")


def test_missing_packages_are_named(spark: SparkSession, endpoints: LocalEndpoints, bare_python: Path) -> None:
    """The first job runs without this library, and the hint says how to install it."""
    report = preflight(chat(endpoints), spark)

    assert ["failed", "skipped", "skipped", "skipped"] == outcomes(report, "executor")
    assert "has no spark_llm, aiohttp, msgspec, pandas, pyarrow." in executor_check(report, "packages").message
    assert f"%pip install spark-llm-endpoints=={__version__}" in executor_check(report, "packages").hint
    assert "spark.addArtifacts(" in executor_check(report, "packages").hint


def test_another_version_on_the_executor_fails(
    spark: SparkSession, endpoints: LocalEndpoints, bare_python: Path, tmp_path: Path
) -> None:
    """The message has both versions, since pickles need the same one."""
    shutil.copytree(Path(ROOT, "spark_llm"), tmp_path / "spark_llm", ignore=shutil.ignore_patterns("__pycache__"))
    version = tmp_path / "spark_llm" / "_version.py"
    version.write_text(version.read_text().replace(__version__, "0.0.1"))
    bare_python.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(tmp_path))}:$PYTHONPATH exec {shlex.quote(sys.executable)} -P "$@"\n'
    )
    report = preflight(chat(endpoints), spark)

    assert ["failed", "skipped", "skipped", "skipped"] == outcomes(report, "executor")
    assert (
        f"The executor has spark_llm 0.0.1, but the driver has {__version__}."
        == executor_check(report, "packages").message
    )
    assert f"spark-llm-endpoints=={__version__}" in executor_check(report, "packages").hint


def test_a_broken_python_fails(spark: SparkSession, endpoints: LocalEndpoints, bare_python: Path) -> None:
    """The message is one line of Spark's error."""
    bare_python.unlink()
    report = preflight(chat(endpoints), spark)
    failed = executor_check(report, "packages")

    assert "failed" == failed.outcome
    assert failed.message.startswith("Spark could not run a Python function: ")
    assert "No such file or directory" in failed.message
    assert "\n" not in failed.message
    assert "PYSPARK_PYTHON" in failed.hint


def test_a_busy_cluster_is_bounded_by_the_timeout(
    spark: SparkSession, session_kind: SessionKind, endpoints: LocalEndpoints
) -> None:
    """The report says that no executor was free, and on Connect the job is interrupted."""
    busy = chat(endpoints)
    endpoints.hold("held")
    held = spark.range(0, 2, 1, 2).selectExpr("concat('held ', id) AS p").select(busy("p").alias("r"))
    rows: list[object] = []
    job = threading.Thread(target=lambda: rows.extend(held.collect()))
    job.start()
    try:
        endpoints.wait_for(lambda stats: stats.in_flight == 2, timeout_s=60)
        place = endpoint(endpoints)
        target = Target(place.resolve("/chat/completions", {}), candidate_tasks(place, "chat"))
        began = time.monotonic()
        checks = run_executor_checks(spark, target, job_timeout_s=0.5)
        took_s = time.monotonic() - began
        late = [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]
        for thread in late:
            thread.join(timeout=10 if session_kind == "connect" else 0)
        waiting = [thread for thread in late if thread.is_alive()]
    finally:
        endpoints.release()
        job.join(timeout=60)

    assert ["failed", "skipped", "skipped", "skipped"] == [check.outcome for check in checks]
    assert (
        "Spark could not run a Python function: no executor finished a job of one row within 0.5 s."
        == checks[0].message
    )
    assert "see the cluster's page" in checks[0].hint
    assert took_s < 10
    if session_kind == "connect":
        assert [] == waiting
    assert 2 == len(rows)


def test_the_token_is_in_no_plan_and_no_log(
    spark: SparkSession, event_log_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The event log, the output and the report hide the token."""
    secret = "dapi-5ecret-of-a-preflight"
    with LocalEndpoints(token=secret) as endpoints:
        report = preflight(chat(endpoints), spark)
    out, err = capfd.readouterr()
    logs = [file.read_text(errors="replace") for file in event_log_dir.rglob("*") if file.is_file()]

    assert report.ok, report
    assert any("visit_endpoint" in log for log in logs)  # the event log has this very plan
    for text in (out, err, str(report), *logs):
        assert secret not in text
