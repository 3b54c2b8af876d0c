"""What others write into a target while a job runs, and after it: it stays, and no answer that was paid for is lost."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import Batch, chat_udf
from spark_llm.enrich.lease import Lease
from spark_llm.enrich.recovery import cleaned_up
from spark_llm.enrich.staging import Staging, lease_table
from spark_llm.enrich.table import Table
from spark_llm.serving import Batches, LocalEndpoints
from tests.integration.spark.asking import Run, chat, texts
from tests.integration.spark.test_batches import AT_ONCE, asked, filled
from tests.integration.spark.test_enrich_failures import at


def fail() -> None:
    """Raise an error that ends a run."""
    raise OSError("the test ends it")


def correct(spark: SparkSession, target: str, ids: Sequence[int]) -> None:
    """Delete one answered row, correct the answer of the next, and have the third asked again."""
    deleted, corrected, again = ids
    spark.sql(f"DELETE FROM {target} WHERE id = {deleted}")
    spark.sql(f"UPDATE {target} SET answer.text = 'by hand' WHERE id = {corrected}")
    spark.sql(f"UPDATE {target} SET answer_fingerprint = NULL, answer = NULL WHERE id = {again}")


def corrections(target: DataFrame, ids: Sequence[int]) -> list[str | None]:
    """Return the answers to these rows, None for a row that is missing; an answer to its own text is "right"."""
    rows = target.selectExpr("id", "CASE WHEN answer.text = text THEN 'right' ELSE answer.text END AS answer").collect()
    found = {row["id"]: row["answer"] for row in rows}
    return [found.get(each) for each in ids]


@pytest.mark.one_kind
def test_rows_of_another_writer_get_their_answers_and_merged_answers_are_not_merged_again(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """A row is inserted while it is asked; the run fails after its MERGE, and users change the table then."""
    target, columns = place("target"), {"answer": chat(endpoints)("text")}
    spark.sql(f"CREATE TABLE {target} (id BIGINT, text STRING, team STRING) USING delta")

    def insert() -> None:
        spark.sql(f"INSERT INTO {target} (id, text, team) VALUES (3, 'row 3', 'theirs')")

    with at("chunk 1: 6 of 6 rows answered", insert), at("chunk 1: merged", fail), pytest.raises(OSError, match="test"):
        run(texts(spark, 6), target, columns)
    assert ["right"] * 6 == corrections(spark.table(target), range(6))
    assert ["theirs"] == [row["team"] for row in spark.table(target).where("id = 3").collect()]

    correct(spark, target, [1, 2, 4])
    requests, report = run(texts(spark, 6).where("id <> 1"), target, columns)
    assert (1, 1, 0) == (requests, report.asked, report.recovered)
    assert ["right", None, "by hand", "right", "right"] == corrections(spark.table(target), range(5))


class Unremovable(Staging):
    """Staging on a storage that fails at the end of a run."""

    def clear(self) -> None:
        """Fail."""
        raise OSError("the storage has a hiccup")


@pytest.mark.one_kind
@pytest.mark.parametrize("error", [None, OSError, KeyboardInterrupt])
def test_merged_answers_go_however_a_run_ends(
    spark: SparkSession, place: Callable[[str], str], error: type[BaseException] | None
) -> None:
    """Where the clean-up fails, after an error and after Ctrl-C; rows that tell which ones are merged stay then."""
    target = Table.named(spark, "target=", place("target"))
    staging = Unremovable(spark, target, "delta", "run")
    ended = nullcontext() if error is None else pytest.raises(error)
    lease = Lease(spark, lease_table(spark, target), ["delta"], "run", print)
    with lease, ended, cleaned_up(staging, lease, ["answers", "work"]):
        staging.write("work", spark.range(3), {})
        staging.write("answers", spark.range(3), {})
        staging.mark_merged()
        if error is not None:
            raise error
    assert (None, True) == (staging.read("answers"), staging.read("work") is not None)


@pytest.mark.one_kind
def test_answers_that_a_run_of_batches_merged_are_not_merged_again(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str]
) -> None:
    """It fails while it waits for its second batch; the first one's replies answer no row again either."""
    target, columns = place("target"), {"answer": chat_udf(asked(endpoints), max_tokens=9)("text")}
    rows = texts(spark, 6)
    endpoints.batches = Batches(stall_after={1: 0})
    with at("settled rows are merged; 3 rows are left", fail), pytest.raises(OSError, match="test"):
        filled(rows, target, columns, Batch(poll_s=0.05, max_requests=3))
    first = sorted(row["id"] for row in spark.table(target).where("answer IS NOT NULL").collect())
    correct(spark, target, first)
    endpoints.release_batches()

    deleted, corrected, again = first
    report = filled(rows.where(F.col("id") != deleted), target, columns, AT_ONCE)
    assert (4, 0, 7) == (report.asked, report.recovered, endpoints.stats.requests)
    assert [None, "by hand", "right"] == corrections(spark.table(target), [deleted, corrected, again])
    assert 4 == spark.table(target).where("answer.text = text").count()
