"""`CustomModel`: a Python function behind an endpoint, as MLflow serves a model of the user's own."""

import inspect
import traceback
from collections.abc import Callable
from typing import Any

from spark_llm.serving.models.threaded import ThreadedModel
from spark_llm.serving.protocol.errors import Refused, model_failed
from spark_llm.serving.protocol.predictions import PredictionRequest, Predictions, SplitFrame

PredictFunction = Callable[..., Any]
THREADS = 32


class CustomModel(ThreadedModel):
    """A custom model: a function from a table to predictions.

    The function gets a pandas DataFrame for `dataframe_split` and `dataframe_records`, and the list or dict of the body
    for `instances` and `inputs`. If it has an argument `params`, it gets the body's `params`. It returns a list, or a
    value of numpy or pandas. If it raises, the request gets a 400 with the stack trace, as from MLflow's scoring
    server. It runs in a thread, of which there are 32.

    >>> LocalEndpoints({"score": lambda table: table["age"] * 2})
    >>> LocalEndpoints({"features": CustomModel(look_up, feature_serving=True)})

    Args:
        function: The function.
        name: The name of the served entity. Default: that of the function.
        feature_serving: Serve a feature specification in place of a model: answers have `outputs`, not `predictions`.
    """

    def __init__(self, function: PredictFunction, *, name: str | None = None, feature_serving: bool = False) -> None:
        super().__init__(n_threads=1, workers=THREADS)
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self.feature_serving = feature_serving
        self._function = function
        self._takes_params = _takes_params(function)

    async def predict(self, request: PredictionRequest) -> Predictions:
        """Return the function's predictions."""
        [values] = await self.run_in_threads(self._call, [request])
        return Predictions(values, "outputs" if self.feature_serving else "predictions")

    def _call(self, _: Callable[[], bool], request: PredictionRequest) -> object:
        data = _function_input(request)
        try:
            return self._function(data, params=request.params) if self._takes_params else self._function(data)
        except Refused:
            raise
        except Exception:  # noqa: BLE001 -- the client gets every error, as from MLflow
            raise Refused(model_failed(traceback.format_exc())) from None

    def _start(self) -> None:
        """Start nothing: a function is ready."""

    def _stop(self) -> None:
        """Stop nothing."""


def _takes_params(function: PredictFunction) -> bool:
    try:
        return "params" in inspect.signature(function).parameters
    except ValueError:  # some builtins tell no signature
        return False


def _function_input(request: PredictionRequest) -> Any:  # noqa: ANN401 -- a DataFrame, or any value of JSON
    """Return what the function gets; raises `Refused` for a table that is none."""
    if request.input_format in ("instances", "inputs"):
        return getattr(request, request.input_format)
    import pandas as pd  # only endpoints with a custom model need it

    try:
        if isinstance(request.dataframe_split, SplitFrame):
            frame = request.dataframe_split
            return pd.DataFrame(frame.data, index=frame.index, columns=frame.columns)
        return pd.DataFrame(request.dataframe_records or [])
    except Exception as error:  # noqa: BLE001 -- pandas raises many for values that are no table
        orient = request.input_format.removeprefix("dataframe_")
        raise Refused.bad_request(
            f"Invalid input. Provided {request.input_format} field is not a valid dataframe representation in "
            f"'{orient}' format. Error: '{error}'"
        ) from None
