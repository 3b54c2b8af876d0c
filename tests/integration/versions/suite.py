"""Runs `tests/integration/spark` on another Spark: which tests are left out and why, and the outcome of the others."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.conftest import ROOT, SessionKind
from tests.integration.versions.environments import SparkEnvironment
from tests.support.passed import ARROW_UDFS, Passed, version_of

FOLDER = "tests/integration/spark"
_SUITE_S = 1_800
_SILENT_S = 300  # then pytest shows where each thread is


@dataclass(frozen=True)
class LeftOut:
    """A test that is not run on some Sparks, and why."""

    test: str  # or its file, or what the names of its cases begin with
    why: str
    before: tuple[int, int] | None = None  # Spark's versions before this one
    since: tuple[int, int] | None = None  # and from this one on
    kind: SessionKind | None = None  # sessions of this kind alone

    def applies(self, environment: SparkEnvironment, kind: SessionKind) -> bool:
        """Return whether it is left out there."""
        version = version_of(environment.spark)
        by_version = (self.before is None or version < self.before) and (self.since is None or version >= self.since)
        return by_version and self.kind in (None, kind)


_NO_NULL_STRUCT = "a pandas UDF returns no null struct: every field of it is null"
_NO_BYTES = "Spark itself fails to make a pandas string of bytes that are no UTF-8"
_OPEN_SOCKETS = "ignore:unclosed <socket:ResourceWarning"  # PySpark before 4.2 leaves its own to the garbage collector
_NO_DELTA = "Delta Lake had no package for it yet"
LEFT_OUT = (
    *(
        LeftOut(test, _NO_DELTA, since=(4, 3))
        for test in (
            "test_attribution.py::test_a_table_job_names_its_run_and_column",
            "test_attribution.py::test_a_stream_names_the_run_of_each_batch",
            "test_batches.py",
            "test_enrich.py",
            "test_enrich_cost.py",
            "test_enrich_errors.py",
            "test_enrich_failures.py",
            "test_enrich_media.py",
            "test_enrichment_docs.py",
            "test_estimate.py",
            "test_inputs_docs.py",
            "test_odd_tables.py",
            "test_older_versions.py",
            "test_other_writers.py",
            "test_progress.py::test_a_table_job_has_its_own_counts",
            "test_readme.py::test_a_guide_runs[docs/start/laptop.md-0]",
            "test_readme.py::test_a_guide_runs[docs/testing.md-0]",
            "test_readme.py::test_the_readme_runs",
            "test_telemetry.py",
            "test_tools.py::test_a_table_keeps_calls",
        )
    ),
    LeftOut("test_enrich_cost.py", "Delta before 4.4 reads its log in other steps", before=(4, 1)),
    LeftOut(
        "test_ai_functions.py::test_arguments_have_names_and_defaults",
        "Spark had no SQL functions, and the arguments of its UDFs have no names",
        before=(4, 0),
    ),
    LeftOut("test_classify.py::test_options_have_names_in_sql", "only SQL functions' arguments have names", (4, 0)),
    LeftOut("test_extract.py::test_texts_that_are_not_valid_are_searched_as_they_are_sent", _NO_BYTES, ARROW_UDFS),
    LeftOut(
        "test_predict.py::test_what_python_lacks_reaches_the_model",
        "Spark itself fails to make a pandas time of the year 9999, and of bytes that are no UTF-8",
        ARROW_UDFS,
    ),
    LeftOut("test_udfs.py::test_a_null_gives_a_null_struct_with_arrow", _NO_NULL_STRUCT, before=ARROW_UDFS),
    LeftOut("test_udfs.py::test_invalid_utf8_is_replaced_and_answered", _NO_BYTES, before=ARROW_UDFS),
    LeftOut("test_templates.py::test_a_null_field_gives_a_null_struct_with_arrow", _NO_NULL_STRUCT, ARROW_UDFS),
    LeftOut("test_templates.py::test_invalid_utf8_is_replaced_and_answered", _NO_BYTES, ARROW_UDFS),
    LeftOut(
        "test_facts.py::test_a_few_rows_cost_few_requests",
        "a Connect server took a LIMIT of each partition, all of them at once",
        before=(4, 2),
        kind="connect",
    ),
    LeftOut(
        "test_ai_docs.py::test_spark_refuses_the_pages_statements[SELECT transform",
        "Spark refused a SQL function in a lambda by the name of a fault of its own",
        before=(4, 1),
    ),
    LeftOut(
        "test_sessions.py::test_a_task_on_databricks_uses_its_own_token",
        "a Connect client sets no properties of tasks",
        kind="connect",
    ),
)


@dataclass(frozen=True)
class Run:
    """What came of the tests on one Spark.

    Attributes:
        passed: How many passed.
        others: The tests that did not pass, and what became of them.
        said: The last that pytest said.
    """

    passed: Passed
    others: Sequence[str]
    said: str


def run_on(
    environment: SparkEnvironment,
    kind: SessionKind,
    folder: Path,
    tests: Sequence[str] = (FOLDER,),
    marks: str = "not models",
    **own: str,
) -> Run:
    """Run tests with the environment's Python, in a process with its own variables; return what came of them."""
    report = folder / "report.xml"
    left_out = [each for each in LEFT_OUT if each.applies(environment, kind)]
    done = subprocess.run(
        [
            *(str(environment.python()), "-m", "pytest", *tests, "-m", marks, "-q", "-p", "no:cacheprovider"),
            *(f"--junitxml={report}", f"--basetemp={folder / 'tests'}", "-o", f"faulthandler_timeout={_SILENT_S}"),
            *(f"--deselect={FOLDER}/{each.test}" for each in left_out),
            *(("-W", _OPEN_SOCKETS) if version_of(environment.spark) < (4, 2) else ()),
        ],
        env=environment.surroundings(folder, SPARK_LLM_TEST_SESSION=kind, **own),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SUITE_S,
        check=False,
    )
    said = done.stdout[-10_000:]
    if not report.is_file():
        return Run(Passed.of(environment.spark, kind, ()), [f"pytest ended with {done.returncode}"], said)
    passed, others = list[str](), list[str]()
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 -- the report that pytest has just written
        name = case.attrib["name"]
        outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), None)
        if outcome is None:
            passed.append(name)
        else:
            others.append(f"{outcome}: {case.attrib['classname']}::{name}")
    return Run(Passed.of(environment.spark, kind, passed), others, said)
