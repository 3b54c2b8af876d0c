"""`predict_udf`: a custom model, an agent or feature serving as a function of columns."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import DataType

from spark_llm import schemas
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.errors import ConfigError
from spark_llm.policy import Policy
from spark_llm.protocol.canonical import canonical_model
from spark_llm.protocol.predictions.task import FORMATS, Format, Predict
from spark_llm.protocol.structured.schema import Struct
from spark_llm.protocol.values import Result
from spark_llm.udf.by_url import by_url
from spark_llm.udf.input_rows import arrow_input_rows, column_names, pandas_input_rows
from spark_llm.udf.lazy_udf import active_session, is_at_least
from spark_llm.udf.model_udf import ModelUDF, TypedTask
from spark_llm.udf.plan import Results, answers
from spark_llm.udf.spark_types import arrow_type
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.texts import check_text

_DEFAULT_POLICY = Policy()
_UNKNOWN = Struct(())  # the type of predictions, before a session has read its DDL


@checks_arguments
def predict_udf(
    endpoint: str | Endpoint,
    *,
    returns: str | DataType,
    format: Format = "dataframe_split",  # noqa: A002 -- the formats are MLflow's, and so is the word
    policy: Policy = _DEFAULT_POLICY,
) -> "PredictUDF":
    """Return a UDF that asks a custom model, an agent or feature serving behind `/invocations` for each row.

    Call it on one column, on several by name, or on one struct, whose fields are the model's columns. One column has no
    name in the request; a model with a signature wants names. Numbers, strings, booleans, dates, times, decimals,
    bytes, arrays, structs and maps travel as JSON: decimals as numbers, times in ISO 8601 (a TIMESTAMP in UTC), bytes
    in base64. NaN and infinity become null.

    >>> predict = predict_udf("my-model", returns="DOUBLE")
    >>> df.withColumn("risk", predict(age="age", text="review")).select("risk.prediction", "risk.error")
    >>> df.withColumn("risk", predict(F.struct("age", F.col("review").alias("text"))))
    >>> label = predict_udf("my-model", returns="label STRING, score DOUBLE")

    A row that has only nulls gives null and costs nothing; a null beside other values is sent as null. A request
    carries up to 5,000 rows, or `Policy.batch_size`, within `Policy.max_request_mb`. Equal rows are sent once, unless
    `Policy(dedupe=False)`. Halving the request isolates a row that the model refuses; the other rows get their
    predictions. A prediction that does not fit `returns` is that row's error, `schema_mismatch`.

    Args:
        endpoint: A serving endpoint's name, a URL or an `Endpoint`.
        returns: The type of a prediction: DDL, for one value or for the fields of a struct; or a Spark type.
        format: "dataframe_split", a frame of rows; "instances", a list of rows, each an object; or "inputs", a list
            for each column. In the last two a single column without a name is a plain list.
        policy: Limits, retries and error handling; see `Policy`.

    Returns:
        A callable for columns of `schemas.with_prediction`: `prediction`, `model`, `attempts`, `latency_ms` and
        `error`. Custom models report no tokens, so there is no `usage`.

    Raises:
        ConfigError: The endpoint, the type or the format is invalid. The check sends no request.
    """
    if format not in FORMATS:
        raise ConfigError(f"format={format!r} is unknown.", f"pass one of {', '.join(map(repr, FORMATS))}.")
    task = Predict(_UNKNOWN, format)
    if isinstance(returns, str):
        ddl = check_text("returns", returns)
        return PredictUDF("predict_udf", task, endpoint, policy, schemas.PREDICT, ddl=ddl)
    if not isinstance(returns, DataType):
        raise ConfigError(
            f"returns={returns!r} is not a type.", 'pass DDL, as in returns="DOUBLE", or a Spark type, DoubleType().'
        )
    typed = TypedTask.of_predictions(task, returns)
    return PredictUDF("predict_udf", typed.task, endpoint, policy, typed.schema)


@dataclass(frozen=True)
class PredictPlan:
    """Plan of a `PredictUDF`: each row is the JSON of its columns, whose names the first batch has."""

    spec: RequestSpec
    task: Predict
    time_zone: str  # in which pandas has the session's times

    @property
    def canonical(self) -> dict[str, Any]:
        """The request without the credentials and the policy; the columns' names are part of the input."""
        return canonical_model(self.spec.route.url, self.spec.route.model, self.task, None)

    def arrow(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in Arrow arrays."""
        for task, rest in self._with_names(batches):
            yield from answers(replace(self.spec, task=task), arrow_input_rows(rest, task))

    def pandas(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in pandas series and frames."""
        for task, rest in self._with_names(batches):
            yield from answers(replace(self.spec, task=task), pandas_input_rows(rest, task, self.time_zone))

    def _with_names(self, batches: Iterator[Any]) -> Iterator[tuple[Predict, Iterator[Any]]]:
        """Yield the task with the names of the columns, and all batches; nothing where there are none."""
        for first in batches:
            yield replace(self.task, columns=column_names(first)), chain([first], batches)


class PredictUDF(ModelUDF):
    """A custom model as a function of its columns.

    >>> predict = predict_udf("my-model", returns="DOUBLE")
    >>> df.withColumn("risk", predict(age="age", text=F.trim("review"))).select("risk.prediction", "risk.error")
    """

    @property
    def _how_to_call(self) -> str:
        return 'call it on one column, or on each of the model\'s by name, as in predict(age="age", text="review").'

    def argument(self, column: Column | str | None = None, /, **columns: Column | str | by_url) -> Column | str:
        """Return the one argument of Spark's UDF: the column, or the struct of the columns by name."""
        if (column is None) == (not columns):
            raise ConfigError(
                f"predict_udf was called on {'both one column and columns by name' if columns else 'no column'}.",
                self._how_to_call,
            )
        if column is not None:
            return column
        parts: list[Column] = []
        for name, value in columns.items():
            if not isinstance(value, (Column, str)):
                raise ConfigError(
                    f"{name}={value!r} is not a column.", "pass a column or its name; write a value as F.lit(value)."
                )
            parts += [F.lit(name), F.col(value) if isinstance(value, str) else value]
        return F.named_struct(*parts)

    def _pandas_converter(self) -> Callable[[Any], pd.DataFrame]:
        convert, kind = super()._pandas_converter(), arrow_type(self.returnType["prediction"].dataType)
        return partial(_with_nan, convert, kind) if pa.types.is_floating(kind) else convert

    def plan(self) -> PredictPlan:  # type: ignore[override]  # the plan of another kind of rows
        """Return the plan that workers run."""
        spec = self.request_spec
        if not isinstance(spec.task, Predict):
            raise TypeError(f"{spec.task.name} is no task of a predict_udf")
        return PredictPlan(spec, spec.task, session_time_zone())


def _with_nan(
    convert: Callable[[Any], pd.DataFrame], kind: pa.DataType, results: Sequence[Result | None]
) -> pd.DataFrame:
    """Return the results as a frame in which NaN is not a null, as it is where Spark converts objects of pandas."""
    frame = convert(results)
    values = pa.array([None if result is None else result.prediction for result in results], kind)
    frame["prediction"] = pd.Series(pd.arrays.ArrowExtensionArray(values))
    return frame


def session_time_zone() -> str:
    """Return the session's time zone where Spark passes pandas, which has times without a zone; else UTC."""
    with contextlib.suppress(ConfigError):
        spark = active_session()
        if not is_at_least(spark.version, 4, 1):
            zone: str = spark.conf.get("spark.sql.session.timeZone", "UTC") or "UTC"
            return zone
    return "UTC"
