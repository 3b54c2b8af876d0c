"""`spark-llm batches`: what it prints of batches, and its arguments."""

import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_llm.cli.batches import listed
from spark_llm.cli.main import main
from spark_llm.enrich.batch_jobs.api import BatchInfo
from spark_llm.serving import Batches, LocalEndpoints

JOB = """
source = "batched_rows"
target = "delta.`{folder}/target`"
key = "id"
progress = false
prices = [1, 2]
[batch]
wait_s = 0
poll_s = 0.1
[endpoints.local]
url = "{url}"
model = "chat"
token_env = "CHAT_TOKEN"
[columns.answer]
task = "chat"
endpoint = "local"
input = "text"
max_tokens = 9
"""
FIRST = BatchInfo(
    column="summary",
    key="k1",
    batch_id="batch_1",
    status="completed",
    total=1_000,
    completed=998,
    failed=2,
    created_at=1_795_405_191.0,
)
SECOND = FIRST._replace(
    key="k2", batch_id="batch_2", status="in_progress", completed=400, failed=0, created_at=1_795_405_251.0
)
UPLOADED = FIRST._replace(
    column="vector", key="k3", batch_id=None, status="waiting", total=0, completed=0, failed=0, created_at=None
)


def test_batches_are_a_table_in_the_order_of_their_creation() -> None:
    """With the progress of all, and of each; what was not created yet comes last."""
    assert """\
3 batches: 1,398 of 2,000 requests answered, 2 failed.
column   status       answered  failed  requests  created               batch    key
summary  completed         998       2     1,000  2026-11-23 03:39 UTC  batch_1  k1
summary  in_progress       400       0     1,000  2026-11-23 03:40 UTC  batch_2  k2
vector   waiting             0       0         0                                 k3""" == listed(
        [UPLOADED, SECOND, FIRST], as_json=False
    )
    assert listed([SECOND], as_json=False).startswith("1 batch: 400 of 1,000 requests answered.\n")
    assert "The job has no batches." == listed([], as_json=False)


def test_batches_as_json_are_a_list() -> None:
    """Each has all its values, with the time as ISO 8601."""
    found = json.loads(listed([SECOND, UPLOADED, FIRST], as_json=True))

    assert ["k1", "k2", "k3"] == [each["key"] for each in found]
    assert {**FIRST._asdict(), "created_at": "2026-11-23T03:39:51+00:00"} == found[0]
    assert (None, None) == (found[2]["batch_id"], found[2]["created_at"])
    assert [] == json.loads(listed([], as_json=True))


def test_help_names_the_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    """And a file that is missing is an error of the command."""
    with pytest.raises(SystemExit):
        main(["batches", "--help"])
    assert "--cancel" in capsys.readouterr().out

    assert 1 == main(["batches", "none.toml"])
    assert capsys.readouterr().err.startswith("spark-llm batches: none.toml cannot be read: ")


@pytest.mark.slow
@pytest.mark.spark
def test_a_job_in_batches_is_submitted_listed_cancelled_and_collected(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """4 says that rows are out, the list shows them, and what was answered before the end of them is merged."""
    spark.range(12).selectExpr("id", "concat('row ', id) AS text").createOrReplaceTempView("batched_rows")
    file = tmp_path / "job.toml"
    with LocalEndpoints(batches=Batches(requests_per_s=0.1)) as endpoints:
        monkeypatch.setenv("CHAT_TOKEN", endpoints.token)
        file.write_text(JOB.format(folder=tmp_path, url=endpoints.openai_url), encoding="utf-8")
        codes = [main(["enrich", str(file), "--json"])]
        submitted = json.loads(capsys.readouterr().out)
        codes += [main(["batches", str(file), "--json"])]
        [batch] = json.loads(capsys.readouterr().out)
        codes += [main(["batches", str(file), "--cancel", "--json"])]
        cancelled = json.loads(capsys.readouterr().out)
        codes += [main(["batches", str(file)])]
        none = capsys.readouterr().out

    assert (12, 1, 0) == (submitted["out"], submitted["out_batches"], submitted["asked"])
    assert submitted["usd_at_once"] == pytest.approx(2 * submitted["out_usd"])
    assert ("answer", 12) == (batch["column"], batch["total"])
    merged = spark.table(f"delta.`{tmp_path}/target`").where("answer.text IS NOT NULL").count()
    assert (0, merged, merged) == (cancelled["out"], cancelled["asked"], cancelled["answered"])
    assert "The job has no batches.\n" == none
    assert [4, 0, 0] == [*codes[:2], codes[3]]
