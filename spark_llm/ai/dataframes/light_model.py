"""The light model of `classify_by_sample`: Spark's logistic regression on vectors, applied by products of matrices.

Its numbers travel to the tasks as they are. So it decides the same way on classic Spark and on Spark Connect, where a
fitted model stays in the server's cache, and a vector of another length is a row without a decision, not an error.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.functions import array_to_vector
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, StringType, StructField, StructType

from spark_llm.udf.spark_types import arrow_type

_REGULARISATION = 0.01  # of standardised numbers: vectors have about as many numbers as a sample has texts
_STEPS = 100


@dataclass(frozen=True)
class LightModel:
    """A fitted model: a row of coefficients and an intercept for each label."""

    labels: tuple[str, ...]
    coefficients: npt.NDArray[np.float64]
    intercepts: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, rows: DataFrame, labels: tuple[str, ...]) -> "LightModel":
        """Return the model of rows with a `vector` and a `label`, at least one row for each of two labels or more."""
        # F.array_position of PySpark 3.5 takes no column as the value.
        place = F.call_function("array_position", F.array(*map(F.lit, labels)), F.col("label")) - 1
        features = rows.select(array_to_vector(F.col("vector")).alias("features"), place.cast("double").alias("label"))
        # The default family of two labels has one row of coefficients, not two.
        fitted = LogisticRegression(family="multinomial", regParam=_REGULARISATION, maxIter=_STEPS).fit(features)
        return cls(labels, fitted.coefficientMatrix.toArray(), fitted.interceptVector.toArray())

    def decide(self, rows: DataFrame) -> DataFrame:
        """Return rows with the most probable `label` and its `probability` in place of their `vector`.

        Both are null where the vector is null, has another length, or a number that is not finite.
        """
        others = [field for field in rows.schema if field.name != "vector"]
        schema = StructType([*others, StructField("label", StringType()), StructField("probability", DoubleType())])
        ordered = rows.select("vector", *(field.name for field in others))
        return ordered.mapInArrow(_Decide(self, schema), schema)

    def best(self, vectors: pa.Array) -> tuple[pa.Array, pa.Array]:
        """Return the most probable label of each vector, and its probability."""
        length = self.coefficients.shape[1]
        fits = vectors.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False) == length
        numbers = vectors.take(pa.array(np.flatnonzero(fits))).flatten().fill_null(np.nan)
        matrix = numbers.to_numpy(zero_copy_only=False).astype(np.float64).reshape(int(fits.sum()), length)
        finite = np.isfinite(matrix).all(axis=1)
        fits[np.flatnonzero(fits)[~finite]] = False
        margins = matrix[finite] @ self.coefficients.T + self.intercepts
        places, probabilities = np.zeros(len(fits), dtype=np.int64), np.zeros(len(fits))
        if len(margins):
            weights = np.exp(margins - margins.max(axis=1, keepdims=True))
            places[fits] = weights.argmax(axis=1)
            probabilities[fits] = 1 / weights.sum(axis=1)  # the weight of the most probable label is 1
        labels = pa.array(self.labels, pa.string()).take(pa.array(places, mask=~fits))
        return labels, pa.array(probabilities, mask=~fits)


def is_usable(vector: Column, length: int) -> Column:
    """Return whether a vector has this length and finite numbers."""
    return (F.size(vector) == length) & F.forall(vector, lambda number: F.abs(number) < float("inf"))


@dataclass(frozen=True)
class _Decide:
    """The function of the tasks; it is pickled."""

    model: LightModel
    schema: StructType

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            vectors, *others = batch.columns
            columns = [
                column.cast(arrow_type(field.dataType))
                for column, field in zip([*others, *self.model.best(vectors)], self.schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, names=self.schema.names)
