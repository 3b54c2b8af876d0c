"""The library's requests to custom models: local ones, and those behind MLflow's own scoring server."""

import json
import math
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_llm import Policy, predict_udf
from spark_llm.protocol.json_codec import write_rows
from spark_llm.protocol.predictions.task import FORMATS, Format, Predict
from spark_llm.protocol.structured.schema import Array, Field, Nullable, Scalar, Shape, Struct
from spark_llm.protocol.values import Result
from spark_llm.serving import LocalEndpoints
from tests.integration.clients.conftest import FindServer
from tests.integration.clients.mlflow_models import COLUMNS, PIPELINE, POISON, PREDICTIONS, ROWS
from tests.integration.clients.scoring_servers import scoring
from tests.integration.clients.servers import LOCAL, SCORING, SERVERS, RunningServer
from tests.integration.clients.servers import PREDICTIONS as TASK
from tests.support.asking import ask, kinds

TEXTS = Predict(Scalar("string"), columns=COLUMNS)
NUMBERS = Predict(Scalar("double"), columns=COLUMNS)
WHOLE_URL = "/invocations"
POISONED = [row if number != 77 else (1.0, POISON) for number, row in enumerate(ROWS)]


@pytest.fixture(scope="module")
def pipeline(mlflow_models: Path) -> Iterator[RunningServer]:
    """The scikit-learn model behind MLflow's scoring server."""
    with scoring(mlflow_models, PIPELINE) as running:
        yield running


def rows_of(values: list[Any]) -> list[Any]:
    """Return rows as the task takes them."""
    return list(write_rows(values))


def predictions(results: list[Result | None]) -> list[Any]:
    """Return the results' predictions."""
    return [result and result.prediction for result in results]


@pytest.mark.parametrize(
    ("server", "url_template"),
    [
        pytest.param(server, url_template, marks=[] if server == LOCAL else [pytest.mark.slow])
        for server, url_templates in SERVERS.items()
        for url_template, tasks in url_templates.items()
        if TASK in tasks
    ],
)
def test_every_row_is_predicted(
    server: str, url_template: str, find_server: FindServer, endpoints: LocalEndpoints
) -> None:
    """At every URL the rows are one request, each gets its own prediction, and a null gets null."""
    [red, green] = rows_of([[1, "red"], [2, "green"]])
    results = ask(find_server(server).engine(url_template, TASK, TEXTS), [[red, None, green]], TEXTS)

    assert [None] * 3 == kinds(results)
    assert ["1:red", None, "2:green"] == predictions(results)
    assert (server == LOCAL) == endpoints.stats.requests


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [None, 64])
def test_a_scikit_learn_model_predicts_exactly(
    batch_size: int | None, pipeline: RunningServer, mlflow_models: Path
) -> None:
    """Numbers and texts, nulls among them: each prediction is the model's own, to the last digit."""
    engine = pipeline.engine(WHOLE_URL, TASK, NUMBERS, Policy(batch_size=batch_size))
    results = ask(engine, [rows_of(ROWS)], NUMBERS)

    assert [None] * len(ROWS) == kinds(results)
    assert json.loads((mlflow_models / PREDICTIONS).read_text(encoding="utf-8")) == predictions(results)


@pytest.mark.slow
@pytest.mark.parametrize("written", FORMATS)
def test_every_format_reaches_a_model_with_a_signature(
    written: Format, pipeline: RunningServer, mlflow_models: Path
) -> None:
    """As rows of a frame, as objects and as columns."""
    task = Predict(Scalar("double"), written, COLUMNS)
    objects = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS[:20]]
    rows = rows_of(objects if written == "instances" else ROWS[:20])
    results = ask(pipeline.engine(WHOLE_URL, TASK, task), [rows], task)

    assert json.loads((mlflow_models / PREDICTIONS).read_text(encoding="utf-8"))[:20] == predictions(results)


@pytest.mark.slow
def test_a_model_that_fails_on_one_row_of_500_answers_the_others(find_server: FindServer) -> None:
    """The row is isolated, and its error has the message, without the server's stack trace; the order stays."""
    results = ask(find_server(SCORING).engine(WHOLE_URL, TASK, TEXTS), [rows_of(POISONED)], TEXTS)
    wanted = [f"{'nan' if age is None else age}:{text}" for age, text in POISONED]
    [failed] = [result.error for result in results if result and result.error]

    assert [None if number == 77 else text for number, text in enumerate(wanted)] == [
        text and str(text).replace("None:", "nan:") for text in predictions(results)
    ]
    assert ("invalid_request", 400) == (failed.kind, failed.status)
    assert "Verify that the" in failed.message
    assert "Traceback" not in failed.message
    assert max(result.attempts for result in results if result) <= 11


@pytest.mark.slow
def test_a_table_of_odd_values_is_read_exactly(find_server: FindServer) -> None:
    """MLflow writes NaN and Infinity bare, times without a zone, bytes in base64, and whole numbers beyond 2^53."""
    number = Nullable(Scalar("double"))
    shapes: dict[str, Shape] = {"root": number, "whole": Scalar("long"), "at": Nullable(Scalar("timestamp"))}
    shapes |= {"raw": Scalar("binary"), "both": Array(number)}
    task = Predict(Struct(tuple(Field(name, shape) for name, shape in shapes.items())), columns=("age",))
    rows = rows_of([[4], [0], [-1], [200]])
    found = predictions(ask(find_server(SCORING).engine(WHOLE_URL, TASK, task), [rows], task))

    assert [2.0, 0.0, math.inf] == [found[row]["root"] for row in (0, 1, 3)]
    assert math.isnan(found[2]["root"])
    assert {(2**53 + 1, b"\x00\xff", (1.5, None))} == {
        (each["whole"], bytes(each["raw"]), tuple(each["both"])) for each in found
    }
    assert datetime(2024, 3, 3, tzinfo=timezone.utc) == found[0]["at"]
    assert found[2]["at"] is None


@pytest.mark.slow
@pytest.mark.spark
def test_a_table_is_predicted_on_spark(
    spark: SparkSession, pipeline: RunningServer, find_server: FindServer, mlflow_models: Path
) -> None:
    """Both models fill a table over several tasks; the poison is one row's error."""
    table = spark.createDataFrame(
        [(number, *row) for number, row in enumerate(ROWS)], "id int, age double, text string"
    )
    poisoned = spark.createDataFrame([(number, *row) for number, row in enumerate(POISONED)], table.schema)
    risk = predict_udf(f"{pipeline.url}{WHOLE_URL}", returns="DOUBLE")
    echo = predict_udf(f"{find_server(SCORING).url}{WHOLE_URL}", returns="STRING")
    risks = table.repartition(3).select("id", risk(age="age", text="text").alias("r")).orderBy("id").collect()
    echoes = poisoned.repartition(3).select("id", echo(age="age", text="text").alias("r")).orderBy("id").collect()

    expected = json.loads((mlflow_models / PREDICTIONS).read_text(encoding="utf-8"))
    assert expected == [row["r"]["prediction"] for row in risks]
    assert [77] == [row["id"] for row in echoes if row["r"]["error"] is not None]
    assert [text for _, text in POISONED if text != POISON] == [
        row["r"]["prediction"].partition(":")[2] for row in echoes if row["id"] != 77
    ]
