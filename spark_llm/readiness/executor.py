"""One executor, looked at: its packages, its way to an endpoint, and what a request from there becomes.

The look around comes first, by a function that travels by value and needs the standard library alone: it runs where
this library is missing, and says so. It is a plain Python UDF, because an Arrow one needs pyarrow there.
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
from spark_llm.endpoint.route import Route
from spark_llm.protocol.hints import with_hint
from spark_llm.protocol.values import RowError
from spark_llm.readiness.checks import skipped, visit
from spark_llm.readiness.report import Check
from spark_llm.readiness.target import Target
from spark_llm.text.excerpt import excerpt

_LOST_TASK = re.compile(r"most recent failure: [^\n]*?\): ([^\n]*)")
_DIRECTORY = re.compile(r' \(in directory "[^"]*"\)')  # long, Spark's own, and before the reason
JOB_S = 60.0  # until an executor has taken a job of one row and done it
THREAD = "spark_llm executor job"
INTERRUPT_S = 1.0  # between interrupts of a job that is late
CHECKS = ("packages", "address", "credentials", "request")
OURS, THEIRS = "spark_llm", ("aiohttp", "msgspec", "pandas", "pyarrow")
_INSTALL = (
    f"install it where the executors run: %pip install spark-llm-endpoints=={__version__} in a notebook, else the"
    " cluster's image; or send a packed environment, spark.addArtifacts('environment.tar.gz#environment', archive=True)"
    " with spark.sql.execution.pyspark.python set to environment/bin/python."
)


def _around(url: str, ours: str, theirs: Sequence[str]) -> Callable[[object], str]:
    """Return a function that looks around where it runs; made here, it is pickled by value and needs no `spark_llm`.

    Our package tells its version itself: it may be on the path without having been installed.
    """

    def look_around(_: object) -> str:
        import importlib.metadata
        import importlib.util
        import json
        import platform
        import socket
        from urllib.parse import urlsplit
        from urllib.request import getproxies, proxy_bypass

        def version(name: str) -> str | None:
            try:
                if name == ours:
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
        found: dict[str, object] = {"host": host, "proxy": bool(proxy), "addresses": [], "trouble": ""}
        try:
            found["addresses"] = sorted({str(info[4][0]) for info in socket.getaddrinfo(host, None)})
        except (OSError, UnicodeError) as error:
            found["trouble"] = getattr(error, "strerror", None) or str(error)
        return json.dumps(
            {
                "python": platform.python_version(),
                "versions": {name: version(name) for name in (ours, *theirs)},
                **found,
            }
        )

    return look_around


def look(
    spark: SparkSession, target: Target | None, failed: Check | None = None, *, job_s: float = JOB_S
) -> list[Check]:
    """Make the checks of an executor.

    `failed` is a check of the driver's that failed in a way that would be the same there: then nothing is asked again.
    Where even the address is not known there is no `target`, and nothing to look at.
    """
    if target is None:
        return skipped(CHECKS, "executor", failed) if failed is not None else []
    checks = _looked_around(spark, target, job_s)
    failed = next((check for check in checks if check.outcome == "failed"), failed)
    if failed is not None:
        return checks + skipped(CHECKS[len(checks) :], "executor", failed)
    try:
        rows = _on_an_executor(spark, _visiting(target), max(job_s, 2 * target.timeout_s))
    except Exception as error:  # noqa: BLE001 -- whatever Spark says when it cannot run a Python function
        failed = _no_python("credentials", error)
        return [*checks, failed, *skipped(CHECKS[len(checks) + 1 :], "executor", failed)]
    return checks + [Check(*row) for row in rows]


def _looked_around(spark: SparkSession, target: Target, job_s: float) -> list[Check]:
    """Check an executor's packages, and whether it finds the host."""
    try:
        there = _on_an_executor(spark, _around(target.route.url, OURS, THEIRS), job_s)
    except Exception as error:  # noqa: BLE001 -- as above
        return [_no_python("packages", error)]
    packages = _packages(there, json.loads(_around("", OURS, THEIRS)(None)))
    return [packages, _address(there, target.route)] if packages.outcome == "passed" else [packages]


def _visiting(target: Target) -> Callable[[object], str]:
    """Return a function that visits the endpoint where it runs, and returns its checks as JSON."""

    def visit_endpoint(_: object) -> str:
        return json.dumps(visit(target, "executor").checks)

    return visit_endpoint


def _on_an_executor(spark: SparkSession, function: Callable[[object], str], job_s: float) -> Any:  # noqa: ANN401 -- what JSON holds
    """Run a function on one executor, and return the JSON that it returns; raises `TimeoutError` where that takes long.

    The job runs in a thread that has this one's properties in Spark. On Connect one that is late is interrupted. A
    classic session interrupts only what has its own thread's tags, so there the job stays: it is one row.
    """
    asked = udf(function, StringType(), useArrow=False).asNondeterministic()
    found: Future[str] = Future()
    tag = f"spark_llm-{uuid.uuid4().hex}"

    def run() -> None:
        try:
            if is_remote():
                spark.addTag(tag)
            found.set_result(spark.range(0, 1, 1, 1).select(asked("id")).collect()[0][0])
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the caller gets it
            found.set_exception(error)

    def interrupt() -> None:
        with contextlib.suppress(Exception):  # the session may have ended
            while not found.done():  # Spark interrupts what has started, and the job may not have
                spark.interruptTag(tag)
                wait([found], INTERRUPT_S)

    of_session = {"session": spark} if is_remote() else {}  # PySpark 3.5 knows no such argument, and needs none
    InheritableThread(run, daemon=True, name=THREAD, **of_session).start()
    wait([found], job_s)
    if not found.done():
        if is_remote():
            Thread(target=interrupt, daemon=True).start()  # a cluster that takes no job may take no interrupt either
        raise TimeoutError(f"no executor did a job of one row within {job_s:g} s")
    return json.loads(found.result())


def _no_python(name: str, error: Exception) -> Check:
    """Say why Spark could not run a function, in the one line of its own that says it."""
    words = str(error).split("\n\tat ")[0].split("\nJVM stacktrace")[0]
    if isinstance(error, TimeoutError):
        hint = "see the cluster's page: it may be starting, or busy with other jobs."
    elif "PYTHON_VERSION_MISMATCH" in words:
        hint = "give the driver and the executors one Python; PYSPARK_PYTHON names the executors'."
    else:
        hint = "see the executor's log; PYSPARK_PYTHON names the Python that it runs."
    if "Traceback (most recent call last)" in words:
        words = words.rstrip().rpartition("\n")[2]
    cause = _LOST_TASK.search(words)
    said = excerpt(_DIRECTORY.sub("", cause[1] if cause else words), 300)
    return Check(name, "executor", "failed", f"Spark ran no Python function: {said.rstrip('.')}.", hint)


def _packages(there: Mapping[str, Any], here: Mapping[str, Any]) -> Check:
    """Compare the packages of an executor with the driver's."""
    versions, ours = there["versions"], here["versions"]
    if missing := [name for name, version in versions.items() if version is None]:
        message = f"The executor's Python {there['python']} has no {', '.join(missing)}."
        return Check("packages", "executor", "failed", message, _INSTALL)
    if versions[OURS] != ours[OURS]:
        message = f"The executor has spark_llm {versions[OURS]}, and the driver {ours[OURS]}."
        return Check("packages", "executor", "failed", message, _INSTALL)
    told = [
        f"{name} {version}" + ("" if version == ours[name] else f" (driver: {ours[name]})")
        for name, version in versions.items()
    ]
    return Check("packages", "executor", "passed", f"Python {there['python']}, {', '.join(told)}")


def _address(there: Mapping[str, Any], route: Route) -> Check:
    """Say whether an executor finds the host, or the proxy that stands before it."""
    host = f"{'the proxy ' if there['proxy'] else ''}{there['host']}"
    if not there["trouble"]:
        return Check("address", "executor", "passed", f"{host} is {', '.join(there['addresses'])}")
    words = f"the name {there['host']} cannot be resolved: {there['trouble']}"
    error = with_hint(RowError("connection", None, words, retryable=True), route.shown, "")
    return Check.of_words("address", "executor", "failed", error.message)
