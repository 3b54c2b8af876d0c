"""The page on inputs runs: images, tools, the Responses route and custom models."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyspark.sql import SparkSession

from spark_llm.serving import Echo, LocalEndpoints, ServingEndpoint, echo_media
from tests.integration.spark.test_readme import blocks_of
from tests.support.media import image

if TYPE_CHECKING:
    import pandas as pd

pytestmark = pytest.mark.one_kind

PAGE = "docs/inputs.md"
TABLES = ("faults", "photo_faults")


def risk(people: "pd.DataFrame") -> list[float]:
    """Return a number for each person."""
    return [age / 100 for age in people["age"]]


def classify(people: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return a label and a score for each person."""
    return [{"label": review, "score": 0.5} for review in people["review"]]


def test_the_page_on_inputs_runs(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block runs from top to bottom, and the answers are about the images, the calls and the columns."""
    for name, width in (("a.jpg", 3), ("b.jpg", 4)):
        (tmp_path / name).write_bytes(image("JPEG", width))
    questions = [('call GetWeather {"city": "Oslo"}',), ("Hello.",)]
    names: dict[str, Any] = {
        "spark": spark,
        "folder": str(tmp_path),
        "questions": spark.createDataFrame(questions, "question string"),
        "people": spark.createDataFrame([(41, " good "), (None, None)], "age int, review string"),
    }
    served: dict[str, Any] = {
        "my-endpoint": Echo(),
        "my-agent": ServingEndpoint(Echo(), tasks=["responses"]),
        "my-model": risk,
        "my-classifier": classify,
    }
    with LocalEndpoints(served) as endpoints:
        monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", endpoints.token)
        queried = []
        for language, block in blocks_of(PAGE):
            if language == "sql":
                queried.append(sorted(map(tuple, spark.sql(block).collect()), key=str))
            else:
                exec(compile(block, PAGE, "exec"), names)  # noqa: S102 -- the very thing that is tested
        faults = [row["text"] for row in spark.table("faults").orderBy("path").collect()]
        told = names["told"].select("told.text", "told.error").collect()
        described = names["described"].orderBy("url").select("alt.text").collect()
        answered = names["answered"].orderBy("path").collect()
        labels = names["labels"].select("answer.prediction.label").collect()
        asked_agent = [request for request in endpoints.requests if request.path.endswith("/my-agent/invocations")]
    for table in TABLES:
        spark.sql(f"DROP TABLE {table}")

    pictures = [echo_media(image("JPEG", width)).text for width in (3, 4)]
    seen = zip(("a.jpg", "b.jpg"), pictures, strict=True)
    assert [f"What is wrong with the machine {name} here? {picture}" for name, picture in seen] == faults
    assert [None, f"Describe this image in one sentence. {echo_media('https://images.example/1.png').text}"] == [
        row["text"] for row in described
    ]
    assert all(picture in row["text"] for picture, row in zip(pictures, answered, strict=True))
    assert (2, 0) == (names["report"].answered, sum(names["report"].failed.values()))
    assert [("Sunny in Oslo", None)] == [tuple(row) for row in told]
    assert asked_agent
    assert {(" good ",), (None,)} == {tuple(row) for row in labels}
    [by_image, by_model] = queried
    assert all(picture in fault for picture, (_, fault) in zip(pictures, by_image, strict=True))
    assert [(41, 0.41), (None, None)] == by_model
