"""Models behind MLflow's own scoring server: a scikit-learn pipeline, and a function that fails on one row.

Run as a program in MLflow's environment it saves both in a folder, and writes what the pipeline predicts for `ROWS`.
"""

import json
import sys
from pathlib import Path
from typing import Any

POISON = "poison"
PIPELINE, FUNCTION, PREDICTIONS = "pipeline", "function", "predictions.json"
COLUMNS = ("age", "text")
ROWS = [
    (None if number % 10 == 3 else number / 7, f"{'good' if number % 3 else 'bad'} number {number}")
    for number in range(500)
]


def save_models(folder: Path) -> None:
    """Save the models and the predictions."""
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature
    from mlflow.pyfunc.model import PythonModel
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    class Function(PythonModel):
        """Each row as text, or where there is no text, a table of odd values; it fails on a row of poison."""

        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ANN401 -- MLflow's signature
            """Return the predictions of a frame."""
            if "text" not in model_input:
                return _odd_values(model_input)
            if POISON in list(model_input["text"]):
                raise ValueError("this row is poison")
            return [f"{age}:{text}" for age, text in zip(model_input["age"], model_input["text"], strict=True)]

    def _odd_values(frame: Any) -> Any:  # noqa: ANN401 -- a frame
        ages = frame["age"].astype(float)
        root = ages.where(ages >= 0) ** 0.5
        times = pd.Timestamp("2024-02-28", tz="UTC") + pd.to_timedelta(ages.fillna(0), unit="D")
        return pd.DataFrame(
            {
                "root": root.mask(ages > 100, float("inf")),
                "whole": [2**53 + 1] * len(frame),
                "at": times.mask(ages < 0),
                "raw": [b"\x00\xff"] * len(frame),
                "both": [[1.5, None]] * len(frame),
            }
        )

    frame = pd.DataFrame(ROWS, columns=list(COLUMNS))
    columns = ColumnTransformer([("age", SimpleImputer(), ["age"]), ("text", TfidfVectorizer(), "text")])
    pipeline = make_pipeline(columns, Ridge()).fit(frame, range(len(frame)))
    predictions = pipeline.predict(frame)
    signature = infer_signature(frame, predictions)
    mlflow.sklearn.save_model(pipeline, folder / PIPELINE, signature=signature, serialization_format="cloudpickle")
    mlflow.pyfunc.save_model(folder / FUNCTION, python_model=Function())
    (folder / PREDICTIONS).write_text(json.dumps(predictions.tolist()), encoding="utf-8")


if __name__ == "__main__":
    save_models(Path(sys.argv[1]))
