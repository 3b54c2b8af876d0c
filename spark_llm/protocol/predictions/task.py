"""The prediction task: rows of columns in, one prediction for each row out.

Wire format: the requests and responses of MLflow's scoring server, as Databricks Model Serving documents them for
custom models (`predictions`) and for feature serving (`outputs`). A row travels as JSON that is written once, where its
columns are read: a list of values or, for `instances`, an object.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import msgspec

from spark_llm.protocol.bodies import request_body
from spark_llm.protocol.failures import failure_of, invalid_response_failure, json_of
from spark_llm.protocol.fields import header_of
from spark_llm.protocol.json_codec import read_json, write_json
from spark_llm.protocol.masking import without_secrets
from spark_llm.protocol.predictions.scalars import Misfit
from spark_llm.protocol.predictions.values import float_hook, read_predictions
from spark_llm.protocol.structured.schema import Shape
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Answer, Failure, Item, Outcome, Response, Result, RowError

Format = Literal["dataframe_split", "instances", "inputs"]
FORMATS: tuple[Format, ...] = get_args(Format)
MAX_ROWS = 5_000  # of a request: more of them gained nothing, with a small model and with a large one

_ANSWERS = ("predictions", "outputs")
_ROW = msgspec.json.Decoder(list[list[msgspec.Raw]])


@dataclass(frozen=True)
class Predict(Task):
    """A prediction task: the type of predictions, the format of requests, and the names of the columns.

    Without names a row is one value; requests then carry a list of values, or a frame of one column without a name.
    """

    returns: Shape
    format: Format = "dataframe_split"
    columns: tuple[str, ...] = ()

    parameters = b"{}"
    name = "predict"
    route = "/invocations"
    default_batch_size = MAX_ROWS
    max_request_tokens = None
    repeatable = True  # equal rows have equal predictions
    reports_tokens = False

    def max_request_mb(self, url: str) -> float:  # noqa: ARG002 -- the protocol's signature
        """Return the limit of custom models at Databricks, which is enough anywhere."""
        return 16

    def max_inputs(self, wire_format: int, batch_size: int) -> int:  # noqa: ARG002 -- there is one format
        """Return that a request carries as many rows as the user allows."""
        return batch_size

    def required_features(self, items: Sequence[Item], wire_format: int) -> int:  # noqa: ARG002 -- as above
        """Return none: each user chooses the format."""
        return 0

    def fallback_format(self, items: Sequence[Item], wire_format: int, message: str | None) -> int | None:  # noqa: ARG002 -- as above
        """Return None."""
        return None

    def encode(self, items: Sequence[Item], model: str | None, wire_format: int) -> bytes:  # noqa: ARG002 -- as above
        """Write the rows: as a frame, as a list of rows, or column by column."""
        rows = b"[" + b",".join(items) + b"]"  # type: ignore[arg-type]  # rows are bytes
        if self.format == "dataframe_split":
            names = b'"columns":' + write_json(self.columns) + b"," if self.columns else b""
            rows = b"{" + names + b'"data":' + rows + b"}"
        elif self.format == "inputs" and self.columns:
            rows = self._by_column(rows)
        return request_body(model, self.parameters, b'"' + self.format.encode() + b'":' + rows)

    def decode(self, response: Response, count: int, wire_format: int = 0) -> Outcome:  # noqa: ARG002 -- as above
        """Read the predictions; another number of them than of rows is `invalid_response`, which is tried again.

        A prediction that does not fit its type is `schema_mismatch`, of its row alone.
        """
        found = self._found(response)
        if isinstance(found, Failure):
            return found
        rows = _rows(found, count)
        if len(rows) != count:
            return invalid_response_failure(response, f"{len(rows)} predictions for {count} rows", served=True)
        predictions = read_predictions(self.returns, rows)
        if count == 1 and type(predictions[0]) is Misfit:
            alone = read_predictions(self.returns, [found])  # its lists may be values, and not columns
            predictions = predictions if type(alone[0]) is Misfit else alone
        model = header_of(response, "served-model-name")
        if Misfit not in set(map(type, predictions)):
            return Answer([Result(model=model, prediction=prediction) for prediction in predictions], None)
        return Answer([self._result(prediction, model, response) for prediction in predictions], None)

    def parse_output(self, outcome: Outcome, items: Sequence[Item], wire_format: int) -> Outcome:  # noqa: ARG002 -- as above
        """Read the prediction of a cached answer, which has it as text."""
        if isinstance(outcome, Answer) and (text := outcome.results[0].text) is not None:
            [prediction] = read_predictions(self.returns, [read_json(text.encode(), float_hook(self.returns))])
            outcome.results[0].text, outcome.results[0].prediction = None, prediction
        return outcome

    def _found(self, response: Response) -> Any:  # noqa: ANN401 -- any JSON value, or a failure
        """Return what a response has as predictions, or its failure."""
        document = json_of(response, float_hook(self.returns))
        if isinstance(document, Failure):
            return document
        fields = document if isinstance(document, dict) else {}
        for name in _ANSWERS:
            if name in fields:
                return fields[name]
        if fields.get("error") or fields.get("error_code"):
            return failure_of(response)
        return invalid_response_failure(response, f"the answer has no {_ANSWERS[0]}")

    @cached_property
    def _names(self) -> list[bytes]:
        return [write_json(name) for name in self.columns]

    def _by_column(self, rows: bytes) -> bytes:
        """Return a list of rows as an object of columns; values keep the bytes that they have."""
        columns = zip(*_ROW.decode(rows), strict=True)
        values = [b"[" + b",".join(column) + b"]" for column in columns] or [b"[]"] * len(self._names)
        return b"{" + b",".join(name + b":" + part for name, part in zip(self._names, values, strict=True)) + b"}"

    def _result(self, prediction: Any, model: str | None, response: Response) -> Result:  # noqa: ANN401 -- of any type
        if not isinstance(prediction, Misfit):
            return Result(model=model, prediction=prediction)
        reason = without_secrets(prediction.reason, response.secrets)
        message = f"the prediction does not fit returns=: {reason}"
        return Result(model=model, error=RowError("schema_mismatch", response.status, message, retryable=False))


def _rows(predictions: Any, count: int) -> list[Any]:  # noqa: ANN401 -- any JSON value
    """Return the predictions of rows; an object of columns is turned, and the answer to one row may stand alone."""
    if isinstance(predictions, list):
        return predictions
    if isinstance(predictions, dict) and predictions:
        columns = list(predictions.values())
        if all(isinstance(column, list) and len(column) == count for column in columns):
            return [dict(zip(predictions, row, strict=True)) for row in zip(*columns, strict=True)]
    return [predictions]
