"""Fixtures of every test, such as one Spark session for the whole run, classic or Connect."""

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import pytest
from hypothesis import settings

from tests.support.small_spark import JAVA_OPTIONS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from spark_llm.serving import LocalEndpoints
    from tests.support.otlp_receiver import OTLPReceiver

# The same examples on every run and on every machine; `--hypothesis-profile=explore` looks for new ones.
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=15)
settings.register_profile("explore", deadline=None, max_examples=2_000)
settings.load_profile("steady")

ROOT = str(Path(__file__).parents[1])
SessionKind = Literal["classic", "connect"]
SESSION_KINDS: tuple[SessionKind, ...] = ("classic", "connect")
_KIND = pytest.StashKey[SessionKind]()
_END = pytest.StashKey[contextlib.ExitStack]()  # of the session
WANTED_KIND = os.environ.get("SPARK_LLM_TEST_SESSION", "classic")  # or "both", for processes of pytest-xdist


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGINT raise `KeyboardInterrupt`, which tests send: a shell starts a background job with SIGINT ignored.

    Settings of OpenTelemetry are those of the tests: no job of a test exports to this machine's own endpoint. Each
    Spark that a test starts, in its process or in another, has the tests' options of Java.
    """
    if WANTED_KIND not in (*SESSION_KINDS, "both"):
        raise pytest.UsageError(f"SPARK_LLM_TEST_SESSION={WANTED_KIND!r} is not 'classic', 'connect' or 'both'.")
    config.stash[_END] = contextlib.ExitStack()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]
    os.environ["SPARK_SUBMIT_OPTS"] = JAVA_OPTIONS


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a long text by its length: pytest-xdist sends the name of a test with every report."""
    return f"{argname} of {len(val)}" if isinstance(val, (str, bytes)) and len(val) > 300 else None


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests marked `slow` unless `-m` names them; group the others for parallel processes."""
    if "slow" not in config.getoption("markexpr"):
        left_out = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=left_out)
    if config.pluginmanager.hasplugin("xdist"):
        first = {"spark": 0, "connect": 1}
        for item in items:
            item.add_marker(pytest.mark.xdist_group(group := _group(item)))
            if item.get_closest_marker("waits"):
                first.setdefault(group, 2)
        if getattr(config.option, "loadgroup", False):  # the longest groups first, so that no process waits at the end
            items.sort(key=lambda item: first.get(_group(item), 3))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave modules and tests out of Python's garbage collections: a full one of them takes a third of a second."""
    gc.freeze()


def _group(item: pytest.Item) -> str:
    """Return the tests that one process runs: of a kind of session, of the browser, or of a file."""
    if runs_on(item.nodeid) == "connect":
        return "connect"
    shared = (name for name in ("spark", "browser") if item.get_closest_marker(name))
    return next(shared, item.nodeid.split("::")[0])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests of `tests/integration/spark` passed on this Spark, as docs/versions.md has it."""
    passed = (report.nodeid for report in terminalreporter.stats.get("passed", ()))
    if tests := [test for test in passed if test.startswith("tests/integration/spark/")]:
        from tests.support.passed import Passed, table

        terminalreporter.section("passed on this Spark")
        by_kind = {kind: [test for test in tests if runs_on(test) == kind] for kind in SESSION_KINDS}
        for line in table([Passed.of(version("pyspark"), kind, found) for kind, found in by_kind.items() if found]):
            terminalreporter.write_line(line)


@pytest.fixture
def endpoints() -> Iterator["LocalEndpoints"]:
    """Echo endpoints with nothing wrong yet; each test has its own, so its workers know nothing of them."""
    from spark_llm.serving import LocalEndpoints

    with LocalEndpoints() as running:
        yield running


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator["OTLPReceiver"]:
    """An OTLP endpoint that the environment names."""
    from tests.support.otlp_receiver import OTLPReceiver

    with OTLPReceiver() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


@pytest.fixture(autouse=True)
def _close_engines() -> Iterator[None]:
    """Close the engines that a test started."""
    from tests.support.asking import started

    yield
    while started:
        started.pop().close()


def runs_on(test: str) -> SessionKind:
    """Return the kind of session that a test runs on, by its name where a run has both kinds."""
    if WANTED_KIND == "both":
        parameters = test.rpartition("@")[0] or test  # pytest-xdist appends the group
        return "connect" if "connect" in parameters.partition("[")[2].rstrip("]").split("-") else "classic"
    return cast("SessionKind", WANTED_KIND)


@pytest.hookimpl(tryfirst=True)  # before its fixtures
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Take note of the kind of session; a process keeps the one of its first test on Spark."""
    if item.get_closest_marker("spark") and item.config.stash.setdefault(_KIND, kind := runs_on(item.nodeid)) != kind:
        pytest.fail("One process has one Spark session: run both kinds with -n 3 --dist loadgroup.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """End a session of Spark Connect after its last test: a process has other tests after it, which start Sparks."""
    yield
    is_last = nextitem is None or not nextitem.get_closest_marker("spark")
    if is_last and item.config.stash.get(_KIND, None) == "connect":
        item.config.stash[_END].close()


@pytest.fixture(scope="session")
def session_kind(pytestconfig: pytest.Config) -> SessionKind:
    """Return the kind of session that this process has; SPARK_LLM_TEST_SESSION names it, by default "classic"."""
    return pytestconfig.stash[_KIND]


@pytest.fixture(scope="session")
def event_log_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the session writes its event log, as plain text, so that a test can search it."""
    return tmp_path_factory.mktemp("events")


@pytest.fixture(scope="session")
def spark(
    session_kind: SessionKind,
    event_log_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Iterator["SparkSession"]:
    """A session on two cores that takes no fixed port and leaves nothing behind."""
    import pyspark
    from pyspark.sql import SparkSession

    from spark_llm.cli.local.java import ensure_java
    from tests.support import formats
    from tests.support.small_spark import SETTINGS, start

    end = pytestconfig.stash[_END]
    end.callback(_restore, dict(os.environ))
    ensure_java()
    os.environ["PYSPARK_PYTHON"] = sys.executable  # else workers run the python3 of the PATH
    os.environ["PYTHONPATH"] = os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])  # else no `tests`
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    builder = SparkSession.builder.appName("spark_llm tests")
    for key, value in {
        **SETTINGS,
        "spark.eventLog.compress": "false",
        "spark.eventLog.dir": event_log_dir.as_uri(),
        "spark.eventLog.enabled": "true",
        "spark.log.level": "ERROR",
        "spark.sql.warehouse.dir": tmp_path_factory.mktemp("warehouse").as_uri(),
        **formats.settings(formats.FORMAT, pyspark.__version__, tmp_path_factory.mktemp("iceberg")),
    }.items():
        builder = builder.config(key, value)
    if session_kind == "connect":
        os.environ["SPARK_TESTING"] = "1"  # the Connect server takes a free port, not 15002
        builder = builder.remote("local[2]")
    else:
        builder = builder.master("local[2]")
    session = start(builder)
    end.callback(session.stop)
    with end:
        yield session


def _restore(environ: dict[str, str]) -> None:
    """Set the environment as it was before the session, which names its kind there."""
    os.environ.clear()
    os.environ.update(environ)
