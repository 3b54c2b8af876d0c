"""A sample is asked, and a small model decides the rest: labels, costs, and what is an error."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.support.topics import TOPICS, Labeller, WordVectors, text_of
from spark_llm import ConfigError, SampleError
from spark_llm.functions import classify_by_sample
from spark_llm.serving import LocalEndpoints
from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import ChatRequest, EmbeddingRequest
from spark_llm.serving.protocol.values import Texts, Vectors
from tests.integration.spark.asking import endpoint
from tests.support.reply_model import ReplyModel

LABELS = sorted(TOPICS)
REFUSED = "refuse"


@dataclass(frozen=True)
class SomeRefused(Labeller):
    """A labeller that refuses texts with a word."""

    async def chat(self, request: ChatRequest) -> Texts:
        """Return the label, or refuse the text."""
        if REFUSED in request.messages[-1].text:
            raise Refused.bad_request("The text is refused.")
        return await super().chat(request)


class NoVectors(WordVectors):
    """An embedding model that refuses every text."""

    async def embed(self, request: EmbeddingRequest) -> Vectors:
        """Refuse."""
        raise Refused.bad_request("No vector today.")


@pytest.fixture
def local() -> Iterator[LocalEndpoints]:
    """A good labeller, one that nothing can learn, one that knows one label, and vectors."""
    models: dict[str, Any] = {
        "chat": SomeRefused(0.01),
        "random": Labeller(1.0, shuffled=True),
        "one": ReplyModel(lambda _: json.dumps({"answer": LABELS[0]})),
        "embed": WordVectors(),
        "no vectors": NoVectors(),
    }
    with LocalEndpoints({name.replace(" ", "-"): model for name, model in models.items()}) as started:
        yield started


def texts(spark: SparkSession, count: int) -> DataFrame:
    """Return rows with so many different texts."""
    return spark.createDataFrame([(number, text_of(number, 0.02)) for number in range(count)], "id INT, text STRING")


def asked(local: LocalEndpoints, name: str = "chat") -> int:
    """Return the requests that an endpoint got."""
    return local.stats.endpoints[name].requests if name in local.stats.endpoints else 0


def classify(local: LocalEndpoints, df: DataFrame, **options: Any) -> Any:  # noqa: ANN401 -- what the function takes and returns
    """Classify the column `text`."""
    models: dict[str, Any] = {name: endpoint(local, options.pop(name, name)) for name in ("chat", "embed")}
    return classify_by_sample(df, "text", options.pop("labels", LABELS), **models, **({"agreement": 0.8} | options))


@pytest.mark.on_connect
def test_most_rows_cost_no_request(spark: SparkSession, local: LocalEndpoints) -> None:
    """Each row has its label and who decided it; nulls, equal contents, blanks and failed rows too; usage adds up."""
    others = [(900, None), (901, None), (902, " "), (903, f"{REFUSED} ☂ zzz"), (904, text_of(5, 0.02))]
    df = texts(spark, 500).unionByName(spark.createDataFrame(others, "id INT, text STRING"))
    df = df.withColumn("a `b`.c", F.array("id")).withColumn("made", F.rand()).repartition(3)
    rows, report = classify(local, df, sample=120)
    before = local.stats
    found = {row["id"]: row for row in rows.collect()}

    assert before == local.stats  # an action asks nothing
    assert [*df.columns, "label", "decided_by", "probability", "usage", "embed_usage", "error"] == rows.columns
    assert [*range(500), *range(900, 905)] == sorted(found)
    assert all([number] == row["a `b`.c"] for number, row in found.items())
    assert (505, 502, 120, report.asked) == (report.rows, report.texts, report.sampled, asked(local))
    assert report.texts == report.asked + report.decided
    assert report.asked < 250
    chat, embed = local.stats.endpoints["chat"], local.stats.endpoints["embed"]
    assert chat.total_tokens == report.chat_tokens == _sum(found, "usage")
    assert embed.total_tokens == report.embed_tokens == _sum(found, "embed_usage")
    assert found[5]["label"] == found[904]["label"]
    assert (None, None, None) == (found[900]["label"], found[900]["decided_by"], found[901]["usage"])
    labelled = [row for number, row in found.items() if number < 500]
    equal = [row["label"] == Labeller(0.01).label(row["text"]) for row in labelled]
    assert all(same for row, same in zip(labelled, equal, strict=True) if row["decided_by"] == "chat")
    assert sum(equal) / len(equal) > 0.8 <= report.found.lower_bound <= report.found.measured
    assert {"chat", "model"} == {row["decided_by"] for row in labelled}
    assert all(row["probability"] > report.found.threshold for row in labelled if row["decided_by"] == "model")
    assert "asked for" in repr(report)


@pytest.mark.slow
def test_a_failed_row_has_its_error(spark: SparkSession, local: LocalEndpoints) -> None:
    """A refused text is asked, and has an error; a blank one has no vector, so it is asked too."""
    others = [(902, ""), (903, f"{REFUSED} ☂"), (904, f"{REFUSED} ☂ ☂")]
    df = texts(spark, 500).unionByName(spark.createDataFrame(others, "id INT, text STRING"))
    rows, report = classify(local, df.repartition(2), sample=500, agreement=0.9)
    found = {row["id"]: row for row in rows.where("id > 900").collect()}

    assert report.failed == sum(row["error"] is not None for row in rows.collect())
    for row in found.values():
        assert "chat" == row["decided_by"] or row["probability"] > report.found.threshold
    assert "chat" == found[902]["decided_by"]


@pytest.mark.on_connect
def test_no_content_costs_nothing(spark: SparkSession, local: LocalEndpoints) -> None:
    """An empty DataFrame, and one of nulls, come back with nulls."""
    for df in (texts(spark, 3).where("id < 0"), texts(spark, 3).withColumn("text", F.lit(None).cast("string"))):
        rows, report = classify(local, df)

        assert [(None,) * 6] * df.count() == [tuple(row)[2:] for row in rows.collect()]
        assert (df.count(), 0, 0) == (report.rows, report.texts, report.asked)
    assert 0 == local.stats.requests


@pytest.mark.on_connect
def test_a_sample_that_shows_nothing_is_an_error(spark: SparkSession, local: LocalEndpoints) -> None:
    """Too few texts cost nothing, vectors that fail no chat request, and one label the sample."""
    with pytest.raises(
        SampleError, match=r"30 different texts, too few for a sample of 250.* Hint: .*ai_classify"
    ) as few:
        classify(local, texts(spark, 30))
    assert (0, None, 30) == (local.stats.requests, few.value.sample, few.value.report.texts)

    with pytest.raises(SampleError, match=r"0 of the 60 texts .* No vector today.* Hint: .*no chat request was sent"):
        classify(local, texts(spark, 100), sample=60, embed="no-vectors")
    assert 0 == asked(local)

    with pytest.raises(SampleError, match=rf"have the label '{LABELS[0]}'. Hint: ") as one:
        classify(local, texts(spark, 100), sample=60, chat="one")
    assert 60 == asked(local, "one") == one.value.report.asked
    assert 60 == one.value.sample.where(F.col("label") == LABELS[0]).count()


@pytest.mark.slow
def test_a_folder_keeps_what_was_paid_for(spark: SparkSession, local: LocalEndpoints, tmp_path: Path) -> None:
    """A model that does not agree raises before the rest is asked; a later call pays for what is new alone."""
    df, folder = texts(spark, 400), tmp_path / "kept"
    with pytest.raises(SampleError, match=r"not agree often enough: .* Hint: all 250 other texts") as raised:
        classify(local, df, chat="random", sample=150, folder=folder)
    first = asked(local, "random")
    embedded = local.stats.endpoints["embed"].rows_answered
    assert (150, 150) == (first, embedded)
    assert 150 == raised.value.sample.where("label IS NOT NULL").count()

    rows, report = classify(local, df, chat="random", sample=150, folder=folder, agreement=0.05)
    second = asked(local, "random")
    assert second - first == report.asked - 150
    assert 400 == local.stats.endpoints["embed"].rows_answered

    again, _ = classify(local, df.repartition(4), chat="random", sample=150, folder=folder, agreement=0.05)
    assert (second, 400) == (asked(local, "random"), local.stats.endpoints["embed"].rows_answered)
    labels = [
        sorted(tuple(row) for row in each.select("id", "label", "decided_by").collect()) for each in (rows, again)
    ]
    assert labels[0] == labels[1]
    assert 0 == again.where("usage.total_tokens > 0 OR embed_usage.total_tokens > 0").count()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agreement": 0}, "agreement=0 is not a number between 0 and 1. Hint: "),
        ({"agreement": 1}, "agreement=1 is not a number between 0 and 1. Hint: "),
        ({"agreement": "0.9"}, "agreement='0.9' is not"),
        ({"sample": 10}, "sample=10 is neither a number of texts of at least 46 nor a share below 1. Hint: "),
        ({"sample": True}, "sample=True is neither"),
        ({"seed": 0.5}, "seed=0.5 is not a whole number"),
        ({"folder": " "}, "folder=' ' is not a path. Hint: "),
        ({"labels": []}, "the list of labels is empty"),
        ({"labels": ["a", "a"]}, "a label is in the list twice"),
        ({"labels": "praise"}, "labels='praise' is not a list of strings"),
    ],
    ids=str,
)
@pytest.mark.on_connect
def test_wrong_arguments_raise(
    options: dict[str, Any], message: str, spark: SparkSession, local: LocalEndpoints
) -> None:
    """Before Spark runs, with a hint."""
    with pytest.raises(ConfigError) as raised:
        classify(local, texts(spark, 3), **options)

    assert message in str(raised.value)


@pytest.mark.on_connect
def test_columns_that_do_not_fit_raise(spark: SparkSession, local: LocalEndpoints) -> None:
    """A name that the result adds, a content that is no string, labels of each row."""
    df = texts(spark, 3)
    for wrong, message in (
        (df.withColumn("usage", F.lit(1)), "df has a column 'usage'"),
        (df.select("id", F.col("id").alias("text")), "content is of the type int"),
    ):
        with pytest.raises(ConfigError, match=f"{message}.* Hint: "):
            classify(local, wrong)
    with pytest.raises(ConfigError, match=r"labels is a column.* Hint: pass a list"):
        classify(local, df, labels=F.array(F.lit("a")))


def _sum(rows: dict[int, Any], usage: str) -> int:
    return sum(row[usage]["total_tokens"] or 0 for row in rows.values() if row[usage] is not None)
