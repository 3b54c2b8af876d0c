"""`spark-llm enrich` under a scheduler: its output, requests, tables and exit codes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_llm.cli.enrich import exit_code, report_text
from spark_llm.cli.main import main
from spark_llm.serving import Echo, Faults, LocalEndpoints
from tests.conftest import ROOT
from tests.integration.spark.test_readme import blocks_of
from tests.support.reply_model import ReplyModel, schema_example
from tests.support.tracking import STOPPED

SECRET = "dapi-5ecret-that-must-not-be-seen"
EXAMPLE = Path(ROOT, "docs/examples/nightly.toml")


@pytest.fixture
def endpoints(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEndpoints]:
    """Echo endpoints, whose token is only in the environment."""
    with LocalEndpoints({"chat": ReplyModel(schema_example), "my-embedding-endpoint": Echo()}, token=SECRET) as started:
        for name in ("CHAT_TOKEN", "DATABRICKS_TOKEN"):
            monkeypatch.setenv(name, SECRET)
        monkeypatch.setenv("DATABRICKS_HOST", started.url)
        yield started


def job(folder: Path, endpoints: LocalEndpoints, *more: str, source: str = "reviews") -> str:
    """Write the file of a job with one column, and return its path; `more` are lines before the tables."""
    file = folder / "job.toml"
    lines = (
        *(f'source = "{source}"', f'target = "delta.`{folder}/target`"', 'key = "review_id"', "progress = false"),
        *more,
        "[spark]",
        *("spark.sql.shuffle.partitions = 2", '"spark.driver.bindAddress" = "127.0.0.1"'),
        *('"spark.driver.host" = "127.0.0.1"', "spark.databricks.delta.snapshotPartitions = 2"),
        "[endpoints.chat]",
        f'url = "{endpoints.invocations("chat")}"',
        'token_env = "CHAT_TOKEN"',
        "[columns.answer]",
        *('task = "chat"', 'endpoint = "chat"', 'input = "review"', "max_tokens = 9", "policy.max_tries = 1"),
    )
    file.write_text("\n".join(lines), encoding="utf-8")
    return str(file)


@pytest.fixture
def reviews(spark: SparkSession) -> SparkSession:
    """A session with a view of forty reviews, of which four are null."""
    spark.sql(
        "CREATE OR REPLACE TEMPORARY VIEW reviews AS SELECT CAST(id AS INT) AS review_id, 'mug' AS product,"
        " IF(id % 10 = 9, NULL, concat('review ', id)) AS review FROM range(0, 40, 1, 2)"
    )
    return spark


@pytest.mark.spark
@pytest.mark.slow
def test_the_example_runs_and_asks_once(
    reviews: SparkSession, endpoints: LocalEndpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run has no effect; a run fills three columns; the next one sends no requests."""
    file = tmp_path / "nightly.toml"
    url = endpoints.invocations("chat")
    file.write_text(EXAMPLE.read_text(encoding="utf-8").replace("https://example.com/v1/chat/completions", url))
    codes = [main(["enrich", str(file), "--dry-run"])]
    dry = capsys.readouterr()
    assert (0, False) == (endpoints.stats.requests, reviews.catalog.tableExists("reviews_enriched"))
    try:
        codes += [main(["enrich", str(file), "--json"])]
        asked, run = endpoints.stats.rows_asked, capsys.readouterr()
        codes += [main(["enrich", str(file)])]
        again = capsys.readouterr()
        rows = reviews.table("reviews_enriched").orderBy("review_id").collect()
    finally:
        reviews.sql("DROP TABLE IF EXISTS reviews_enriched")

    assert [0, 0, 0] == codes
    assert 3 * 36 == asked == endpoints.stats.rows_asked
    assert dry.out.startswith("reviews_enriched: of 40 rows 36 would be asked.\ncolumn ")
    assert "guessed from the length of the texts and " in dry.out
    assert " tokens around each, answers of at most 48 tokens" in dry.out
    report = json.loads(run.out)
    assert (40, 36, 36, None) == tuple(report[name] for name in ("rows", "asked", "answered", "stopped"))
    assert report["started_at"].endswith("+00:00")
    assert report["usd"] > 0
    assert again.out.startswith("reviews_enriched: done in ")
    assert "36 of 36 rows" in run.err
    assert SECRET not in "".join((*dry, *run, *again))
    assert 40 == len(rows)
    assert ("Product: mug\nReview: review 0", "happy", None) == (
        rows[0]["summary"]["text"],
        rows[0]["mood"]["parsed"],
        rows[9]["summary"],
    )


@pytest.mark.waits
@pytest.mark.spark
def test_the_python_on_the_page_runs(
    reviews: SparkSession, endpoints: LocalEndpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The estimate sends no requests, and the file for `spark-submit` runs the command."""
    estimate, submitted = (block for _, block in blocks_of("docs/enrichment-jobs.md"))
    exec(compile(estimate, "docs/enrichment-jobs.md", "exec"), {"spark": reviews})  # noqa: S102 -- the very thing that is tested
    (tmp_path / "run.py").write_text(submitted, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "run.py", "enrich", "none.toml"],
        env={**os.environ, "PYTHONPATH": ROOT},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (1, 0) == (ran.returncode, endpoints.stats.requests)
    assert capsys.readouterr().out.startswith("reviews_enriched: of 40 rows 36 would be asked.\n")
    assert "none.toml cannot be read" in ran.stderr


@pytest.mark.waits
@pytest.mark.spark
def test_a_job_whose_rows_fail_ends_with_3(
    reviews: SparkSession, endpoints: LocalEndpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stops after the first chunk; the report has the reason and a hint."""
    endpoints.faults = Faults("500*99")
    code = main(["enrich", job(tmp_path, endpoints, "chunk_rows = 6", "max_failure_rate = 0.1"), "--json"])
    report = json.loads(capsys.readouterr().out)

    assert (3, 6, 0, 30) == (code, report["asked"], report["answered"], report["left"])
    assert "more than max_failure_rate=0.1 allows: 30 rows are left. Hint: " in report["stopped"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, 0),
        ({"stopped": "the budget is used up."}, 3),
        ({"out": 5, "out_batches": 1}, 4),
        ({"out": 5, "stopped": "the budget is used up."}, 3),
    ],
)
def test_the_exit_code_says_how_the_run_ended(change: dict[str, Any], code: int) -> None:
    """An early end comes first: a scheduler that goes on by itself where rows are out would never show it."""
    report = replace(STOPPED, **{"stopped": None, **change})

    assert code == exit_code(report)
    assert str(report) == report_text(report, as_json=False)


def test_a_report_as_json_has_what_a_table_of_runs_lacks() -> None:
    """Notes, and the rows that are out with their cost."""
    report = replace(STOPPED, out=5, out_batches=1, out_usd=0.25, usd_at_once=3.0, notes=["a note"])
    values = json.loads(report_text(report, as_json=True))

    assert {
        "out": 5,
        "out_batches": 1,
        "out_usd": 0.25,
        "usd_at_once": 3.0,
        "notes": ["a note"],
    }.items() <= values.items()
    assert set(report.row()) | {"out", "out_batches", "out_usd", "usd_at_once", "notes"} == set(values)
    assert "2026-11-23T03:39:51+00:00" == values["started_at"]


@pytest.mark.waits
@pytest.mark.spark
@pytest.mark.parametrize(
    "case",
    [
        ("no_such_table", "", "There is no table no_such_table. Hint: "),
        (
            "reviews",
            'columns.x = {task = "chat", endpoint = "chat", input = "rev)"}',
            "cannot be read from the source: [PARSE_SYNTAX_ERROR]",
        ),
        (
            "reviews",
            'columns.x = {task = "chat", endpoint = "chat", input = "stars"}',
            "The input of 'x' cannot be read",
        ),
        (
            "reviews",
            'columns.x = {task = "chat", endpoint = "chat", input = "raise_error(\'oh\')"}',
            "Spark failed: ",
        ),
    ],
)
def test_an_error_ends_with_1(
    reviews: SparkSession,
    endpoints: LocalEndpoints,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    case: tuple[str, str, str],
) -> None:
    """The last line on stderr, after Spark's log, has a hint; no request was sent, and stdout is empty."""
    source, key, expected = case
    code = main(["enrich", job(tmp_path, endpoints, key, source=source)])
    out, err = capsys.readouterr()

    assert (1, "", 0) == (code, out, endpoints.stats.requests)
    *_, line = err.splitlines()
    assert line.startswith("spark-llm enrich: ")
    assert expected in line
    assert " Hint: " in line


@pytest.mark.spark
@pytest.mark.usefixtures("spark")
def test_columns_that_spark_cannot_read_are_reported_at_once(
    endpoints: LocalEndpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has a line with its place, also if the file was read before there was a session."""
    of_the_endpoint = 'endpoint = "chat", input = "review"'
    columns = (f'x = {{task = "chat", {of_the_endpoint}, returns = "nonsense"}}',
               f'y = {{task = "extract", {of_the_endpoint}, fields = "a NOPE"}}')  # fmt: skip
    code = main(["enrich", job(tmp_path, endpoints, *(f"columns.{column}" for column in columns))])
    lines = capsys.readouterr().err.splitlines()

    assert (1, 0) == (code, endpoints.stats.requests)
    assert ["[columns.x]: returns='nonsense' is not valid DDL", "[columns.y]: fields='a NOPE' is not valid DDL"] == [
        line.partition("job.toml ")[2].rpartition(" is not valid DDL")[0] + " is not valid DDL" for line in lines[-2:]
    ]


def test_errors_in_the_file_end_with_1(
    endpoints: LocalEndpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each error is a line on stderr."""
    code = main(["enrich", job(tmp_path, endpoints, "chunk_rows = 0", "kye = 1", f'token = "{SECRET}"')])
    out, err = capsys.readouterr()

    assert (1, "") == (code, out)
    assert [
        "spark-llm enrich: job.toml: unknown key 'kye'. Hint: did you mean 'key'?",
        "job.toml: unknown key 'token'. Hint: a file holds no secret",
        "job.toml: chunk_rows=0 is not a whole number of at least 1. Hint: leave it out for 5000.",
    ] == [line.partition(": put it")[0] for line in err.splitlines()]
    assert SECRET not in err


@pytest.mark.parametrize("arguments", [[], ["job.toml", "--dryrun"], ["job.toml", "other.toml"]])
def test_invalid_arguments_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The usage is on stderr."""
    with pytest.raises(SystemExit) as stop:
        main(["enrich", *arguments])

    assert 2 == stop.value.code
    assert "usage: spark-llm" in capsys.readouterr().err


def test_ctrl_c_ends_with_130(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message has the next step; here the command waits for its file."""
    file = tmp_path / "job.toml"
    os.mkfifo(file)

    def interrupt() -> None:
        with file.open("w"):  # waits for a reader, whose read ends after the signal
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code = main(["enrich", str(file)])
    thread.join()

    assert 130 == code
    assert "Stopped. Run it again: rows that have an answer are not asked again." in capsys.readouterr().err


@pytest.mark.spark
@pytest.mark.slow
def test_the_command_makes_its_own_session(reviews: SparkSession, endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """In a process without a configured Spark it has Delta Lake, and a budget ends it with 3."""
    source = f"delta.`{tmp_path}/source`"
    reviews.table("reviews").writeTo(source).using("delta").create()
    environ = {name: value for name, value in os.environ.items() if "SPARK" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "spark_llm", "enrich", job(tmp_path, endpoints, "budget.rows = 30", source=source)],
        env={**environ, "PYTHONPATH": ROOT, "SPARK_LOCAL_IP": "127.0.0.1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert (3, 30) == (done.returncode, endpoints.stats.requests), done.stderr
    assert done.stdout.startswith(f"delta.`{tmp_path}/target`: stopped in ")
    assert "the budget of 30 rows is used up: 6 rows are left.\n  Hint: " in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert 30 == reviews.table(f"delta.`{tmp_path}/target`").where("answer.text = review").count()
