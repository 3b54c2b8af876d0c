"""Spark's own UDFs, made late: an Arrow UDF where the server has them, else a pandas UDF.

Spark's UDF object is bound to the session that it was made in, and cannot be made before a Connect session exists. So
ours makes Spark's when it is called on columns or registered.

PySpark reads the type hints of the functions below when it makes a UDF: what they name is imported for real.
"""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol

import pandas as pd
import pyarrow as pa
from pyspark import TaskContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import Column, SparkSession
from pyspark.sql.pandas.functions import PandasUDFType, pandas_udf
from pyspark.sql.types import DataType, StructType

from spark_llm.errors import ConfigError, SparkLLMError
from spark_llm.protocol.values import Result
from spark_llm.udf.columns import to_arrow, to_pandas
from spark_llm.udf.spark_types import arrow_type

FLUSH_ARRAYS = 90  # empty batches that fill the worker's output buffer of 64 KB, so that it is sent
_TAG = "_spark_llm_call"
Results = Iterator[list[Result | None]]  # in the rows' order; an empty list is a beat


class Plan(Protocol):
    """What a worker does with a UDF's columns; it travels, so it is made of values.

    A batch is one column, or a tuple where the UDF was called on several.
    """

    @property
    def canonical(self) -> Any:  # noqa: ANN401 -- what JSON holds
        """What is asked of each row, as `protocol.canonical` writes it; table jobs know by it what was asked before."""

    def arrow(self, batches: Iterator[Any]) -> Results:
        """Answer the rows of Arrow arrays."""

    def pandas(self, batches: Iterator[Any]) -> Results:
        """Answer the rows of pandas series and frames."""


class LazyUDF(ABC):
    """A UDF that becomes Spark's when it is called or registered; it goes through `spark.udf.register` as it is."""

    deterministic = False
    """Spark must not ask a row again because a plan was written differently: it may if this were True."""

    def __init__(self, name: str, field: str | None = None) -> None:
        """Name it; it gives structs, or of each result only this `field`."""
        self.__name__ = name
        self._field = field

    @property
    @abstractmethod
    def returnType(self) -> DataType:  # noqa: N802 -- PySpark's name
        """The type of its column."""

    @abstractmethod
    def plan(self) -> Plan:
        """Return what travels to the workers."""

    @property
    def func(self) -> Any:  # noqa: ANN401 -- what PySpark calls a UDF's function
        """The function that workers run, for `spark.udf.register`."""
        return self.made_for(active_session()).func

    @property
    def evalType(self) -> int:  # noqa: N802 -- PySpark's name
        """How Spark hands rows over, for `spark.udf.register`."""
        if is_at_least(active_session().version, 4, 1):
            from pyspark.sql.pandas.functions import ArrowUDFType  # as in `on`

            return ArrowUDFType.SCALAR_ITER
        return PandasUDFType.SCALAR_ITER

    def asNondeterministic(self) -> "LazyUDF":  # noqa: N802 -- PySpark's name
        """Return this UDF: it is nondeterministic already."""
        return self

    def made_for(self, spark: SparkSession) -> Any:  # noqa: ANN401 -- PySpark types a UDF as a function
        """Make Spark's UDF for this session."""
        return self.on(spark.version)

    def on(self, spark_version: str) -> Any:  # noqa: ANN401 -- PySpark types a UDF as a function
        """Make Spark's UDF for a server of this version: an Arrow UDF from 4.1 on, a pandas UDF before."""
        if is_at_least(spark_version, 4, 1):
            from pyspark.sql.pandas.functions import arrow_udf  # PySpark 3.5 and 4.0 have none

            vectorised: Any = arrow_udf  # its overloads know no struct made of an iterator, nor do those of pandas_udf
            run = _arrow_function(self.plan(), self.returnType, self._field, self._to_arrow())
        else:
            vectorised = pandas_udf
            run = _pandas_function(self.plan(), self._field, self._to_pandas())
        run.__name__ = run.__qualname__ = self.__name__
        return vectorised(run, self.returnType).asNondeterministic()

    def _to_arrow(self) -> Callable[[Any, pa.StructType], pa.StructArray]:
        """Return what lays results out as Arrow; it travels."""
        return to_arrow

    def _to_pandas(self) -> Callable[[Any], pd.DataFrame]:
        """Return what lays results out as pandas; it travels."""
        kind, field = self.returnType, self._field
        names = kind.fieldNames() if field is None and isinstance(kind, StructType) else [field or ""]
        return partial(to_pandas, names=names)

    def called_on(self, *arguments: Column | str) -> Column:
        """Return the column of results, tagged with the call: a table job reads off it what is asked."""
        column: Column = self.made_for(active_session())(*arguments)
        vars(column)[_TAG] = Call(self, arguments)
        return column


class Call(NamedTuple):
    """One of our UDFs, and the columns that it was called on."""

    udf: LazyUDF
    arguments: tuple[Column | str, ...]


def call_of(column: Column) -> Call | None:
    """Return the call that a column is the direct result of; None where it is not one of ours."""
    return vars(column).get(_TAG)


def active_session() -> SparkSession:
    """Return the session that a UDF is made for: its server, and not the client, decides what UDFs there are."""
    try:
        return SparkSession.active()
    except PySparkRuntimeError:
        raise ConfigError(
            "There is no Spark session yet to use the UDF in.", "make one first: SparkSession.builder.getOrCreate()."
        ) from None


def is_at_least(spark_version: str, major: int, minor: int) -> bool:
    """Return whether a version is this one or a later one; one without numbers is not."""
    numbers = re.match(r"(\d+)\.(\d+)", spark_version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= (major, minor)


def _arrow_function(
    plan: Plan, schema: DataType, field: str | None, lay_out: Callable[[Any, pa.StructType], pa.StructArray]
) -> Any:  # noqa: ANN401 -- a function that PySpark inspects
    def run(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        kind = arrow_type(schema)
        whole = kind if field is None else pa.struct([pa.field(field, kind)])

        def write(results: list[Result | None]) -> pa.Array:
            array = lay_out(results, whole)
            return array if field is None else array.field(0)

        yield from _written(plan.arrow(batches), write, write([]))

    return run


def _pandas_function(plan: Plan, field: str | None, lay_out: Callable[[Any], pd.DataFrame]) -> Any:  # noqa: ANN401 -- a function that PySpark inspects
    def run(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        def write(results: list[Result | None]) -> Any:  # noqa: ANN401 -- a frame, or a series
            frame = lay_out(results)
            return frame if field is None else frame[field]

        # A beat's frames have no columns: Spark makes none of them then, and it costs a tenth.
        nothing = pd.DataFrame() if field is None else pd.Series([], dtype=object)
        yield from _written(plan.pandas(batches), write, nothing)

    return run


def _written(answers: Results, write: Callable[[list[Result | None]], Any], nothing: object) -> Iterator[Any]:
    """Yield results as `write` makes them, and for a beat enough of `nothing` to be sent.

    Where Spark has hung up, as it does after a LIMIT, the worker ends here: Spark's own end of it would try the broken
    pipe once more and print a traceback.
    """
    try:
        for results in answers:
            if results:
                yield write(results)
            else:
                yield from [nothing] * FLUSH_ARRAYS
    except SparkLLMError as error:
        if TaskContext.get() is not None:
            # Its message says all. These are Spark's own settings, of a worker that ends now: 4.0 and later leave the
            # traceback out, and 3.5 its own part of it.
            os.environ.update(SPARK_HIDE_TRACEBACK="1", SPARK_SIMPLIFIED_TRACEBACK="1")
        raise error.with_traceback(None) from None
    except GeneratorExit as ended:
        if isinstance(answers, Generator):
            answers.close()
        if isinstance(ended.__context__, ConnectionError) and TaskContext.get() is not None:
            os._exit(0)
        raise
