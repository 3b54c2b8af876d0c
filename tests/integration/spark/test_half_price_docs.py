"""The page on batches runs: its code, its commands, and its claims about requests, costs and what stays behind."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_llm.cli import main
from spark_llm.serving import Batches, Echo, LocalEndpoints
from tests.conftest import ROOT
from tests.integration.spark.test_readme import blocks_of

pytestmark = pytest.mark.one_kind

PAGE = "docs/half-price.md"
OPENAI = "https://api.openai.com/v1"
TABLES = ("enriched", "nightly", "scheduled", "streamed", "tried")
ROWS, WITH_TEXT = 5, 3


@pytest.fixture
def reviews(spark: SparkSession) -> Iterator[None]:
    """The table that the page names; it has a text twice, and a null."""
    spark.catalog.dropTempView("reviews")
    texts = ["It is fast.", "It broke.", None, "It is fast.", "It is loud."]
    rows = spark.createDataFrame(list(enumerate(texts)), "review_id int, review string")
    rows.writeTo("reviews").using("delta").createOrReplace()
    yield
    for name in ("reviews", *(f"reviews_{name}" for name in TABLES), *leftovers(spark)):
        spark.sql(f"DROP TABLE IF EXISTS {name}")


def runnable(block: str, endpoints: LocalEndpoints) -> str:
    """Return a block with the address of the local endpoints, and with less time between two looks at batches."""
    return re.sub(r"\bBatch\((?!poll_s)", "Batch(poll_s=0.1, ", block.replace(OPENAI, endpoints.openai_url))


def commands_of(page: str) -> list[list[str]]:
    """Return the commands of a page's shell blocks."""
    text = Path(ROOT, page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True)[1:] for block in blocks for line in block.splitlines()]


def leftovers(spark: SparkSession) -> list[str]:
    """Return the tables that runs left beside their targets."""
    return [row["tableName"] for row in spark.sql("SHOW TABLES").collect() if "__spark_llm" in row["tableName"]]


@pytest.mark.slow
@pytest.mark.usefixtures("reviews")
def test_the_first_lines_of_the_page_on_batches_run(spark: SparkSession) -> None:
    """They fill a table at half of the price, with one request for equal texts."""
    names: dict[str, Any] = {"spark": spark}
    with LocalEndpoints({"gpt-5-mini": Echo()}) as endpoints:
        names["key"] = endpoints.token
        exec(compile(runnable(blocks_of(PAGE)[0][1], endpoints), PAGE, "exec"), names)  # noqa: S102 -- what is tested
        assert (WITH_TEXT, []) == (endpoints.stats.requests, endpoints.files)

    report = names["report"]
    assert (4, 4, 0, 0) == (report.asked, report.answered, report.left, report.out)
    assert report.usd > 0
    assert report.usd_at_once == pytest.approx(2 * report.usd)
    answered = spark.table("reviews_enriched").where("summary.usage.service_tier = 'batch'")
    assert (ROWS, 4) == (spark.table("reviews_enriched").count(), answered.count())
    assert [] == leftovers(spark)


@pytest.mark.slow
@pytest.mark.usefixtures("reviews")
def test_the_page_on_batches_runs(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every block and every command runs from top to bottom; each job asks each text once."""
    names: dict[str, Any] = {"spark": spark, "folder": str(tmp_path)}
    text = Path(ROOT, PAGE).read_text(encoding="utf-8")
    [job] = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    with LocalEndpoints({"gpt-5-mini": Echo()}, batches=Batches(stall_after={1: 0})) as endpoints:
        names["key"] = endpoints.token
        for _, block in blocks_of(PAGE):
            endpoints.release_batches()  # the one that was submitted
            exec(compile(runnable(block, endpoints), PAGE, "exec"), names)  # noqa: S102 -- what is tested
        asked = dict(endpoints.answered)

        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("OPENAI_API_KEY", endpoints.token)
        Path("nightly.toml").write_text(job.replace(OPENAI, endpoints.openai_url), encoding="utf-8")
        endpoints.batches = Batches(stall_after={0: 1})
        capsys.readouterr()
        codes = [main(command) for command in commands_of(PAGE)]
        printed = capsys.readouterr().out
        assert [] == endpoints.files

    assert 3 * WITH_TEXT == len(asked)  # by the first job, the nightly one and the stream
    assert {1} == set(asked.values())
    submitted, collected = names["submitted"], names["collected"]
    assert (4, 1, 0, True) == (submitted.out, submitted.out_batches, submitted.asked, submitted.submitted)
    assert 0 < submitted.out_usd
    assert (4, 0, None) == (collected.answered, collected.out, collected.stopped)
    assert collected.usd_at_once == pytest.approx(2 * collected.usd)
    assert [4, 0, 3] == codes
    assert "4 rows in 1 batch" in printed
    assert "1 of 3 requests answered" in printed
    assert ["reviews_scheduled__spark_llm_batches"] == leftovers(spark)  # its rows that were not answered wait
    cancelled = spark.table("reviews_scheduled").where("summary.text IS NOT NULL").count()
    assert 1 <= cancelled <= 2  # one request, which two rows may share
    for name in set(TABLES) - {"scheduled"}:
        answered = spark.table(f"reviews_{name}").where("summary.text IS NOT NULL")
        assert (ROWS, 4) == (spark.table(f"reviews_{name}").count(), answered.count()), name
