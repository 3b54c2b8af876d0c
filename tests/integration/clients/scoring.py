"""One function behind MLflow's own scoring server and behind local endpoints, in MLflow's environment.

It prints each function's answers to the same bodies as a JSON list.
"""

import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pandas as pd
import requests

from spark_llm.serving import LocalEndpoints

Answer = tuple[int, str]

TIME = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc)
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "size": len,
    "types": lambda table: [str(each) for each in table.dtypes],
    "array": lambda table: table.to_numpy(),
    "float32": lambda table: np.full(len(table), 0.1, dtype=np.float32),
    "column": lambda table: table.iloc[:, 0],
    "unnamed column": lambda table: pd.Series([1, None, math.inf][: len(table)]),
    "table": lambda table: table,
    "wide table": lambda table: table.assign(when=pd.Timestamp(TIME), day=TIME.date(), at=TIME.time()),
    "records": lambda table: [{"row": number, "list": [1.5, None]} for number in range(len(table))],
    "odd numbers": lambda _: [math.nan, math.inf, -math.inf, np.int64(3), np.float32(0.1), np.bool_(True), None],
    "bytes": lambda _: [b"\x00\x01", bytearray(b"text")],
    "times": lambda _: [TIME, TIME.date(), TIME.time(), pd.Timestamp(TIME)],
    "one number": lambda _: 3,
    "objects": lambda _: np.array(["a", 1, None], dtype=object),
    "deep array": lambda _: np.arange(8).reshape(2, 2, 2),
    "fails": lambda table: table["no such column"],
}
BODIES: list[dict[str, Any]] = [
    {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"], [2, None]]}},
    {"dataframe_split": {"columns": ["a"], "data": [[1.5], [None]], "index": [7, 8]}},
    {"dataframe_split": {"data": [[1, 2]]}},
    {"dataframe_split": {"columns": ["a"], "data": []}},
    {"dataframe_records": [{"a": 1, "b": [1, 2]}, {"a": 2, "b": {"c": None}}]},
    {"dataframe_records": [{"a": True}, {"b": "é漢😀"}]},
    {"dataframe_records": []},
    {"inputs": [[1, 2], [3, 4]]},
    {"inputs": ["a", "b"], "params": {"ignored": 1}},
    {"inputs": {"a": [1, 2]}},
    {"instances": [1, 2, 3]},
]
WRONG_BODIES: list[object] = [
    {},
    [],
    {"columns": ["a"], "data": [[1]]},
    {"inputs": 1, "instances": 1},
    {"dataframe_split": [[1]]},
    {"dataframe_split": {"columns": ["a"]}},
    {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}},
    {"dataframe_split": {"data": [[1]], "rows": 1}},
    {"dataframe_records": {"a": [1]}},
]


def mlflow_server(function: Callable[[Any], Any]) -> Callable[[object], Answer]:
    """Return a function that asks MLflow's scoring server."""
    from fastapi.testclient import TestClient
    from mlflow.models import Model
    from mlflow.pyfunc import PyFuncModel, scoring_server

    class Predictor:
        """A model with a function for `predict`."""

        @staticmethod
        def predict(data: object) -> object:
            return function(data)

    metadata = Model()
    metadata.add_flavor("python_function", loader_module="none")
    client = TestClient(scoring_server.init(PyFuncModel(metadata, Predictor)), raise_server_exceptions=False)

    def ask(body: object) -> Answer:
        response = client.post("/invocations", json=body)
        return response.status_code, response.text

    return ask


def compared() -> Iterator[tuple[str, object, Answer, Answer]]:
    """Yield each function's name, each body, MLflow's answer and the local endpoint's."""
    with LocalEndpoints(FUNCTIONS) as endpoints:
        for name, function in FUNCTIONS.items():
            ask = mlflow_server(function)
            for body in [*BODIES, *WRONG_BODIES]:
                response = requests.post(
                    endpoints.invocations(name), json=body, auth=("token", endpoints.token), timeout=30
                )
                yield name, body, ask(body), (response.status_code, response.text)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    json.dump([*compared()], sys.stdout)
