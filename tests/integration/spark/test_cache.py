"""A cache on Spark, classic or Connect: a second evaluation costs nothing."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_llm import Policy, chat_udf, embed_udf
from spark_llm.serving import LocalEndpoints, echo_vector
from tests.conftest import SessionKind
from tests.integration.spark.asking import Ask, endpoint, run_alone

pytestmark = pytest.mark.one_kind

ROWS = 200


def test_a_second_action_sends_no_request(
    spark: SparkSession, endpoints: LocalEndpoints, ask: Ask, tmp_path: Path
) -> None:
    """A second read of the DataFrame finds every row with the same answer."""
    chat = ask(chat_udf(endpoint(endpoints), policy=Policy(cache=tmp_path / "cache")))
    df = spark.sql(f"SELECT concat('row ', id % 150) AS p FROM range(0, {ROWS}, 1, 2)").withColumn("r", chat("p"))
    first, second = (df.select("p", "r.text", "r.usage.total_tokens").collect() for _ in range(2))

    assert 150 <= endpoints.stats.requests <= ROWS  # both tasks may send the same text at the same time
    requests = endpoints.stats.requests
    third = df.select("r.text", "r.usage.total_tokens", "r.attempts", "r.error").collect()

    assert requests == endpoints.stats.requests
    assert [(row.p, row.p) for row in first] == [(row.p, row.text) for row in second]
    assert [4 * requests, 0] == [sum(row.total_tokens for row in rows) for rows in (first, second)]
    assert [(row.text, 0, 0, None) for row in first] == [tuple(row) for row in third]


@pytest.mark.parametrize("batch_size", [64, 7])
def test_sorting_by_the_answer_costs_one_evaluation(
    spark: SparkSession, endpoints: LocalEndpoints, ask: Ask, tmp_path: Path, batch_size: int
) -> None:
    """Spark evaluates the column twice, for the ranges and for the sort; the second time the cache has every row."""
    policy = Policy(cache=str(tmp_path), batch_size=batch_size)
    embed = ask(embed_udf(endpoint(endpoints, "embed"), policy=policy))
    df = spark.sql(f"SELECT concat('row ', id) AS p FROM range(0, {ROWS}, 1, 2)").withColumn("r", embed("p"))
    rows = df.orderBy("r.embedding").select("p", "r.embedding").collect()

    assert sorted(echo_vector(f"row {number}") for number in range(ROWS)) == [row.embedding for row in rows]
    assert ROWS == endpoints.stats.rows_answered


RETRIED = """
import os, sys
from pathlib import Path
from pyspark.sql import SparkSession
from spark_llm import Endpoint, Policy, chat_udf

master, once = "local[1,3]", Path(os.environ["ONCE"])
builder = SparkSession.builder.config("spark.ui.enabled", "false").config("spark.log.level", "OFF")
spark = (builder.remote(master) if sys.argv[1] == "connect" else builder.master(master)).getOrCreate()

def fail_once(frames):
    yield from frames
    if not once.exists():
        once.touch()
        raise RuntimeError("the first attempt of the task ends here")

chat = chat_udf(Endpoint(os.environ["URL"], token=os.environ["TOKEN"]), policy=Policy(cache=os.environ["FOLDER"]))
df = spark.sql("SELECT concat('row ', id) AS p FROM range(0, 100, 1, 1)").select("p", chat("p").text.alias("text"))
rows = df.mapInPandas(fail_once, "p string, text string").collect()
print(len(rows), all(row.p == row.text for row in rows), once.exists())
spark.stop()
"""


@pytest.mark.slow
def test_a_retried_task_sends_no_request(endpoints: LocalEndpoints, session_kind: SessionKind, tmp_path: Path) -> None:
    """The second attempt of a task finds all answers of the first."""
    job = run_alone(
        RETRIED,
        session_kind,
        tmp_path,
        URL=endpoints.invocations("chat"),
        TOKEN=endpoints.token,
        FOLDER=str(tmp_path / "cache"),
        ONCE=str(tmp_path / "once"),
    )

    assert "100 True True\n" == job.stdout, job.stderr[-3000:]
    assert 100 == endpoints.stats.requests
