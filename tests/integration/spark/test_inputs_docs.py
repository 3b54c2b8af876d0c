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

pytestmark = [pytest.mark.one_kind, pytest.mark.slow]

PAGE = "docs/inputs.md"
TABLES = ("faults", "photo_faults", "risks", "customer_risks")
CUSTOMERS = [(1, 31, "good"), (2, None, "bad "), (3, None, None)]


def length(customers: "pd.DataFrame") -> list[float]:
    """Return a number for each customer."""
    return [float(len(text)) for text in customers["text"]]


def classify(customers: "pd.DataFrame") -> "pd.DataFrame":
    """Return a label and a score for each customer."""
    labelled: pd.DataFrame = customers.assign(label=customers["text"], score=0.5)[["label", "score"]]
    return labelled


def test_the_page_on_inputs_runs(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block runs from top to bottom, and the answers are about the images, the calls and the columns."""
    for name, width in (("a.jpg", 3), ("b.jpg", 4)):
        (tmp_path / name).write_bytes(image("JPEG", width))
    questions = [('call GetWeather {"city": "Oslo"}',), ("Hello.",)]
    names: dict[str, Any] = {
        "spark": spark,
        "folder": str(tmp_path),
        "questions": spark.createDataFrame(questions, "question string"),
        "customers": spark.createDataFrame(CUSTOMERS, "id int, age int, review string").repartition(1),
    }
    served: dict[str, Any] = {
        "my-endpoint": Echo(),
        "my-agent": ServingEndpoint(Echo(), tasks=["responses"]),
        "my-model": length,
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
        labels = names["labelled"].select("r.prediction.*").collect()
        risks = spark.table("risks").select("id", "prediction").collect()
        target = spark.table("customer_risks").select("id", "risk.prediction").collect()
        careful = names["careful_risks"].select("id", "risk.prediction").collect()
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
    assert [("Sunny in Oslo", None)] == [tuple(row) for row in told]
    assert asked_agent
    [by_image, by_model] = queried
    assert all(picture in fault for picture, (_, fault) in zip(pictures, by_image, strict=True))
    assert {(1, 4.0), (2, 3.0), (3, None)} == set(map(tuple, risks))  # of trimmed texts
    assert {(1, 4.0), (2, 4.0), (3, None)} == set(by_model) == set(map(tuple, target)) == set(map(tuple, careful))
    assert {("good", 0.5), ("bad ", 0.5), (None, None)} == set(map(tuple, labels))
