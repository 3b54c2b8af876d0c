"""`functions.aggregate`: groups of any size, level by level, on real Spark against endpoints that count requests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import ConfigError, Policy, chat_udf, schemas
from spark_llm.functions import aggregate
from spark_llm.serving import Faults, LocalEndpoints
from tests.integration.spark.asking import endpoint
from tests.integration.spark.test_aggregates import INSTRUCTION, TOKENS, counted, counted_in_a_small_window
from tests.support.reply_model import ReplyModel

pytestmark = pytest.mark.on_connect


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """Endpoints of models that count texts, one with a small window."""
    with LocalEndpoints({"chat": ReplyModel(counted), "small": ReplyModel(counted_in_a_small_window)}) as started:
        yield started


@pytest.fixture
def posts(spark: SparkSession) -> DataFrame:
    """Rows in groups of different sizes, in three partitions; one group is null, and one has no texts."""
    return (
        spark.range(1_000)
        .selectExpr(
            "CASE WHEN id = 0 THEN 'one' WHEN id < 10 THEN 'nulls' WHEN id >= 40 THEN 'many' END AS team",
            "CASE WHEN id % 2 = 0 OR id < 40 THEN double('nan') ELSE -0.0 END AS mood",
            "CASE WHEN id NOT BETWEEN 1 AND 9 THEN concat('text ', id, repeat(' word', id % 7)) END AS review",
        )
        .repartition(3)
    )


def answers_of(found: DataFrame) -> dict[str | None, dict[str, object]]:
    """Return the answer of each team."""
    return {row["team"]: row["answer"].asDict() for row in found.collect()}


def test_groups_of_any_size_have_one_answer(posts: DataFrame, endpoints: LocalEndpoints) -> None:
    """Every row counts once, over several levels; the sums are those of all requests; the result asks nothing more."""
    chat = chat_udf(endpoint(endpoints), max_tokens=1_000)
    found = aggregate(posts, by="team", content="review", instruction=INSTRUCTION, chat=chat, context_tokens=1_400)
    requests = endpoints.stats.requests
    answers = answers_of(found)

    assert {"one": "1", None: "30", "many": "960", "nulls": None} == {team: a["text"] for team, a in answers.items()}
    assert {"one": 1, None: 30, "many": 960, "nulls": 0} == {team: a["rows"] for team, a in answers.items()}
    assert {"one": 1, None: 1, "nulls": 0} == {team: a["levels"] for team, a in answers.items() if team != "many"}
    assert answers["many"]["levels"] > 1  # type: ignore[operator]  # a number
    assert [None] * 4 == [a["error"] for a in answers.values()]
    assert schemas.AGGREGATE.names == found.schema["answer"].dataType.names  # type: ignore[attr-defined]  # a struct
    assert TOKENS * requests == sum(a["usage"]["total_tokens"] for a in answers.values() if a["usage"])  # type: ignore[index]  # a row
    assert requests == endpoints.stats.requests
    assert ["team", "answer"] == found.columns


@pytest.mark.slow
def test_groups_are_those_of_group_by(posts: DataFrame, endpoints: LocalEndpoints) -> None:
    """Several columns; NaN is one value, and so are 0.0 and -0.0."""
    both = posts.unionByName(posts.withColumn("mood", F.abs("mood")))
    found = aggregate(both, by=["team", "mood"], content="review", instruction=INSTRUCTION, chat=endpoint(endpoints))
    expected = both.groupBy("team", "mood").agg(F.count("review").alias("rows"))

    def rows_of(frame: DataFrame) -> set[tuple[str, str, int]]:
        return {(str(row["team"]), str(abs(row["mood"])), row["rows"]) for row in frame.collect()}

    assert rows_of(expected) == rows_of(found.select("team", "mood", "answer.rows"))
    assert 5 == found.count()


@pytest.mark.slow
def test_a_folder_pays_for_each_level_once(posts: DataFrame, endpoints: LocalEndpoints, folder: str) -> None:
    """A second call reads what is there, in another order of rows too; another instruction or text asks anew."""

    def run(df: DataFrame, instruction: str = INSTRUCTION) -> int:
        endpoints.reset()
        found = aggregate(
            df,
            by="team",
            content="review",
            instruction=instruction,
            chat=chat_udf(endpoint(endpoints), max_tokens=600),
            context_tokens=1_400,
            folder=folder,
        )
        assert df.where("review IS NOT NULL").count() == found.agg(F.sum("answer.rows")).first()[0]  # type: ignore[index]  # a row
        return endpoints.stats.requests

    paid = run(posts)
    assert paid > 10
    assert 0 == run(posts.orderBy(F.rand(3)))
    assert paid == run(posts, "Count again.")
    assert run(posts.where("review <=> 'text 40 word word word word word' IS FALSE")) > 0


@pytest.mark.slow
def test_a_failure_that_may_pass_is_asked_again(posts: DataFrame, endpoints: LocalEndpoints, folder: str) -> None:
    """By the next call with the folder, and the levels after it too; then nothing is left to ask."""

    def run() -> tuple[int, list[str | None]]:
        endpoints.reset()
        chat = chat_udf(endpoint(endpoints), max_tokens=600, policy=Policy(max_tries=1))
        asked = {"content": "review", "instruction": INSTRUCTION, "chat": chat, "context_tokens": 1_400}
        many = posts.where("team IN ('many', 'one')")
        found = aggregate(many, by="team", folder=folder, **asked).orderBy("team").collect()  # type: ignore[arg-type]
        return endpoints.stats.requests, [row["answer"]["text"] for row in found]

    endpoints.faults = Faults("ok*3 garbage")
    _, failed = run()
    endpoints.faults = Faults()
    paid, whole = run()

    assert None in failed
    assert ["960", "1"] == whole
    assert paid > 0
    assert (0, whole) == run()


@pytest.mark.slow
def test_a_level_that_is_not_whole_is_asked_again(
    posts: DataFrame, endpoints: LocalEndpoints, folder: str, spark: SparkSession
) -> None:
    """Without its mark, or with fewer rows than the mark says; the levels before it are read."""

    def run() -> tuple[int, str]:
        endpoints.reset()
        chat = chat_udf(endpoint(endpoints), max_tokens=600)
        asked = {"content": "review", "instruction": INSTRUCTION, "chat": chat, "context_tokens": 1_400}
        found = aggregate(posts.where("team = 'many'"), by="team", folder=folder, **asked)  # type: ignore[arg-type]
        [row] = found.collect()
        return endpoints.stats.requests, row["answer"]["text"]

    paid, text = run()
    [name] = [each.name for each in Path(folder).iterdir()]
    levels = len(list(Path(folder, name).glob("level-*-whole")))
    spark.range(1).selectExpr("7 AS rows").write.mode("overwrite").parquet(f"{folder}/{name}/level-{levels - 1}-whole")
    again, same = run()

    assert levels >= 2
    assert ("960", "960") == (text, same)
    assert 1 == again < paid


@pytest.mark.slow
def test_a_refused_leaf_is_halved(posts: DataFrame, endpoints: LocalEndpoints) -> None:
    """Where the window is smaller than was told; each row counts once, and `leaves` are those that were answered."""
    many = posts.where("team = 'many'")
    found = aggregate(many, by="team", content="review", instruction=INSTRUCTION, chat=endpoint(endpoints, "small"))
    [row] = found.collect()

    assert ("960", None) == (row["answer"]["text"], row["answer"]["error"])
    assert row["answer"]["usage"]["total_tokens"] == TOKENS * (row["answer"]["leaves"] + row["answer"]["levels"] - 1)
    assert endpoints.stats.requests > row["answer"]["leaves"] + 1


def test_a_leaf_that_fails_is_the_groups_error(posts: DataFrame, endpoints: LocalEndpoints) -> None:
    """No level follows for this group, and the others have theirs."""
    worse = posts.unionByName(posts.limit(1).selectExpr("'many' AS team", "mood", "'zz bad' AS review"))
    chat = chat_udf(endpoint(endpoints), max_tokens=600)
    answers = answers_of(
        aggregate(worse, by="team", content="review", instruction=INSTRUCTION, chat=chat, context_tokens=1_400)
    )
    error = answers["many"]["error"]

    assert (None, "30", "1") == (answers["many"]["text"], answers[None]["text"], answers["one"]["text"])
    assert ("invalid_request", 400) == (error["kind"], error["status"])  # type: ignore[index]  # a row
    left_out = int(error["message"].split()[0])  # type: ignore[index]  # a row
    assert 0 < left_out < 100
    assert f"{left_out} of 961 rows were left out: " in error["message"]  # type: ignore[index]  # a row


@pytest.mark.slow
def test_a_long_text_is_cut_and_said(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """In a group of its own, and beside others; the answer is about all of it."""
    rows = [("a", "words " * 8_000), ("b", "x" * 50_000), ("b", "short"), ("b", None)]
    df = spark.createDataFrame(rows, "team STRING, review STRING")
    found = answers_of(aggregate(df, by="team", content="review", instruction=INSTRUCTION, chat=endpoint(endpoints)))

    assert [(1, 1), (2, 1)] == [(found[team]["rows"], found[team]["split_rows"]) for team in "ab"]
    assert [None, None] == [found[team]["error"] for team in "ab"]


def test_no_rows_are_no_groups(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Nothing is asked."""
    df = spark.createDataFrame([], "team STRING, review STRING")

    assert [] == aggregate(df, by="team", content="review", instruction="x", chat=endpoint(endpoints)).collect()
    assert 0 == endpoints.stats.requests


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": "nothing"},
        {"by": []},
        {"by": ["team", "team"]},
        {"by": "labels"},
        {"content": "nothing"},
        {"content": "id"},
        {"instruction": " "},
        {"instruction": None},
        {"context_tokens": 100},
        {"folder": ""},
        {"by": "answer"},
    ],
)
def test_what_is_wrong_raises(wrong: dict[str, object], spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Before anything is asked, with a hint."""
    df = spark.sql("SELECT 'a' AS team, 'b' AS review, 1 AS id, map('k', 'v') AS labels, 'c' AS answer")
    right = {"by": "team", "content": "review", "instruction": "x", "chat": endpoint(endpoints)}
    with pytest.raises(ConfigError, match="Hint: "):
        aggregate(df, **(right | wrong))  # type: ignore[arg-type]
    assert 0 == endpoints.stats.requests


@pytest.mark.slow
def test_a_hundred_thousand_rows_beside_one(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Each row counts once, in both ways."""
    df = spark.range(100_001).selectExpr("id = 0 AS alone", "concat('text ', id, ' of a review') AS review")
    found = aggregate(df, by="alone", content="review", instruction=INSTRUCTION, chat=endpoint(endpoints))

    assert {(True, "1"), (False, "100000")} == {tuple(row) for row in found.select("alone", "answer.text").collect()}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Return a folder that does not exist yet."""
    return str(tmp_path / "levels")
