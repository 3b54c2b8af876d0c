"""The checks of an executor: its packages, its connection to the endpoint, one request, and the cache folder.

Two jobs of one row run there. The first is pickled by value and needs only the standard library, so it also reports a
missing `spark_llm`. Both are plain Python UDFs, because Arrow UDFs need pyarrow.
"""

import contextlib
import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from threading import Thread
from typing import Any

from pyspark import InheritableThread
from pyspark.sql import SparkSession
from pyspark.sql.functions import udf
from pyspark.sql.types import StringType
from pyspark.sql.utils import is_remote

from spark_llm._version import __version__
from spark_llm.cache.answer_cache import FOLDER_HINT, check_folder
from spark_llm.endpoint.route import Route
from spark_llm.protocol.hints import with_hint
from spark_llm.protocol.values import RowError
from spark_llm.readiness.checks import run_network_checks, skipped
from spark_llm.readiness.report import Check
from spark_llm.readiness.target import Target
from spark_llm.text.excerpt import excerpt

_TASK_FAILURE = re.compile(r"most recent failure: [^\n]*?\): ([^\n]*)")
_DIRECTORY = re.compile(r' \(in directory "[^"]*"\)')  # long, of Spark, and in front of the reason
JOB_TIMEOUT_S = 60.0  # for an executor to start and finish a job of one row
THREAD_NAME = "spark_llm executor job"
INTERRUPT_INTERVAL_S = 1.0  # between interrupts of a late job
CHECKS = ("packages", "address", "credentials", "request")
LIBRARY, DEPENDENCIES = "spark_llm", ("aiohttp", "msgspec", "pandas", "pyarrow")
_INSTALL_HINT = (
    f"install it where the executors run: %pip install spark-llm-endpoints=={__version__} in a notebook, else the"
    " cluster's image; or send a packed environment, spark.addArtifacts('environment.tar.gz#environment', archive=True)"
    " with spark.sql.execution.pyspark.python set to environment/bin/python."
)


def _inspection(url: str, library: str, dependencies: Sequence[str]) -> Callable[[object], str]:
    """Return a function that inspects the machine that runs it; as a closure, it is pickled by value.

    The library's version comes from the package itself, which may be on the path without being installed.
    """

    def inspect_machine(_: object) -> str:
        import importlib.metadata
        import importlib.util
        import json
        import platform
        import socket
        from urllib.parse import urlsplit
        from urllib.request import getproxies, proxy_bypass

        def version(name: str) -> str | None:
            try:
                if name == library:
                    return str(importlib.import_module(name).__version__)
                return importlib.metadata.version(name) if importlib.util.find_spec(name) else None
            except importlib.metadata.PackageNotFoundError:
                return "of an unknown version"
            except (ImportError, ValueError):
                return None

        parts = urlsplit(url)
        host = parts.hostname or "localhost"
        proxy = None if proxy_bypass(host) else getproxies().get(parts.scheme)
        if proxy:
            host = urlsplit(proxy if "://" in proxy else f"//{proxy}").hostname or ""
        resolution: dict[str, object] = {"host": host, "proxy": bool(proxy), "addresses": [], "error": ""}
        try:
            resolution["addresses"] = sorted({str(info[4][0]) for info in socket.getaddrinfo(host, None)})
        except (OSError, UnicodeError) as error:
            resolution["error"] = getattr(error, "strerror", None) or str(error)
        return json.dumps(
            {
                "python": platform.python_version(),
                "versions": {name: version(name) for name in (library, *dependencies)},
                **resolution,
            }
        )

    return inspect_machine


def run_executor_checks(
    spark: SparkSession, target: Target | None, failed: Check | None = None, *, job_timeout_s: float = JOB_TIMEOUT_S
) -> list[Check]:
    """Run the checks of an executor.

    `failed` is a check of the driver that would fail there too; then no request is sent. Without a `target`, whose
    address the driver could not find, all checks are skipped.
    """
    if target is None:
        return skipped(CHECKS, "executor", failed) if failed is not None else []
    names = CHECKS if target.cache is None else (*CHECKS, "cache")
    checks = _inspection_checks(spark, target, job_timeout_s)
    failed = next((check for check in checks if check.outcome == "failed"), failed)
    if failed is not None:
        return checks + skipped(names[len(checks) :], "executor", failed)
    try:
        rows = _run_on_executor(spark, _visit(target), max(job_timeout_s, 2 * target.timeout_s))
    except Exception as error:  # noqa: BLE001 -- Spark's error if it cannot run a Python function, of many types
        failed = _job_failure("credentials", error)
        return [*checks, failed, *skipped(names[len(checks) + 1 :], "executor", failed)]
    return checks + [Check(*row) for row in rows]


def _inspection_checks(spark: SparkSession, target: Target, job_timeout_s: float) -> list[Check]:
    """Check an executor's packages, and whether it can resolve the host."""
    try:
        executor = _run_on_executor(spark, _inspection(target.route.url, LIBRARY, DEPENDENCIES), job_timeout_s)
    except Exception as error:  # noqa: BLE001 -- as above
        return [_job_failure("packages", error)]
    driver = json.loads(_inspection("", LIBRARY, DEPENDENCIES)(None))
    packages = _packages_check(executor, driver)
    return [packages, _address_check(executor, target.route)] if packages.outcome == "passed" else [packages]


def _visit(target: Target) -> Callable[[object], str]:
    """Return a function that runs the network and cache checks on its machine, and returns them as JSON."""

    def visit_endpoint(_: object) -> str:
        cache = [] if target.cache is None else [_cache_check(target.cache)]
        return json.dumps(run_network_checks(target, "executor").checks + cache)

    return visit_endpoint


def _cache_check(folder: str) -> Check:
    """Check that a worker can use the folder of the cache; one that cannot goes on without it, and logs that."""
    try:
        return Check("cache", "executor", "passed", f"{check_folder(folder)} can be written to")
    except Exception as error:  # noqa: BLE001 -- of the system, of SQLite, or of a damaged file: none fails a task
        return Check("cache", "executor", "failed", f"The cache in {folder} cannot be used: {error}.", FOLDER_HINT)


def _run_on_executor(spark: SparkSession, function: Callable[[object], str], job_timeout_s: float) -> Any:  # noqa: ANN401 -- what JSON holds
    """Run a function on one executor, and return the value of its JSON; raises `TimeoutError` for a late job.

    The job's thread inherits this thread's Spark properties. On Connect a late job is interrupted. A classic session
    interrupts only jobs with its own thread's tags, so there the job stays: it is one row.
    """
    function_udf = udf(function, StringType(), useArrow=False).asNondeterministic()
    document: Future[str] = Future()
    tag = f"spark_llm-{uuid.uuid4().hex}"

    def run() -> None:
        try:
            if is_remote():
                spark.addTag(tag)
            document.set_result(spark.range(0, 1, 1, 1).select(function_udf("id")).collect()[0][0])
        except BaseException as error:  # noqa: BLE001 -- the caller gets every error
            document.set_exception(error)

    def interrupt() -> None:
        with contextlib.suppress(Exception):  # the session may have ended
            while not document.done():  # Spark interrupts only jobs that have started
                spark.interruptTag(tag)
                wait([document], INTERRUPT_INTERVAL_S)

    session_argument = {"session": spark} if is_remote() else {}  # PySpark 3.5 neither has nor needs it
    InheritableThread(run, daemon=True, name=THREAD_NAME, **session_argument).start()
    wait([document], job_timeout_s)
    if not document.done():
        if is_remote():
            Thread(target=interrupt, daemon=True).start()  # a cluster that starts no job may accept no interrupt
        raise TimeoutError(f"no executor finished a job of one row within {job_timeout_s:g} s")
    return json.loads(document.result())


def _job_failure(name: str, error: Exception) -> Check:
    """Return the failed check of a job that Spark could not run, with the one line of its error that says why."""
    text = str(error).split("\n\tat ")[0].split("\nJVM stacktrace")[0]
    if isinstance(error, TimeoutError):
        hint = "see the cluster's page: it may be starting, or busy with other jobs."
    elif "PYTHON_VERSION_MISMATCH" in text:
        hint = "use one Python version on the driver and the executors; PYSPARK_PYTHON names the executors' Python."
    else:
        hint = "see the executor's log; PYSPARK_PYTHON names its Python."
    if "Traceback (most recent call last)" in text:
        text = text.rstrip().rpartition("\n")[2]
    cause = _TASK_FAILURE.search(text)
    reason = excerpt(_DIRECTORY.sub("", cause[1] if cause else text), 300)
    return Check(name, "executor", "failed", f"Spark could not run a Python function: {reason.rstrip('.')}.", hint)


def _packages_check(executor: Mapping[str, Any], driver: Mapping[str, Any]) -> Check:
    """Compare an executor's packages with the driver's."""
    versions, driver_versions = executor["versions"], driver["versions"]
    if missing := [name for name, version in versions.items() if version is None]:
        message = f"The executor's Python {executor['python']} has no {', '.join(missing)}."
        return Check("packages", "executor", "failed", message, _INSTALL_HINT)
    if versions[LIBRARY] != driver_versions[LIBRARY]:
        message = f"The executor has spark_llm {versions[LIBRARY]}, but the driver has {driver_versions[LIBRARY]}."
        return Check("packages", "executor", "failed", message, _INSTALL_HINT)
    packages = [
        f"{name} {version}" + ("" if version == driver_versions[name] else f" (driver: {driver_versions[name]})")
        for name, version in versions.items()
    ]
    return Check("packages", "executor", "passed", f"Python {executor['python']}, {', '.join(packages)}")


def _address_check(executor: Mapping[str, Any], route: Route) -> Check:
    """Check that an executor resolved the host, or the proxy in front of it."""
    host = f"{'the proxy ' if executor['proxy'] else ''}{executor['host']}"
    if not executor["error"]:
        return Check("address", "executor", "passed", f"{host} is {', '.join(executor['addresses'])}")
    message = f"the name {executor['host']} cannot be resolved: {executor['error']}"
    error = with_hint(RowError("connection", None, message, retryable=True), route.shown, "")
    return Check.from_text("address", "executor", "failed", error.message)
