"""Base class of the UDFs: it becomes an Arrow UDF if the server supports these, else a pandas UDF.

Spark binds a UDF object to the session that made it, and cannot make one before a Connect session exists. So a
`LazyUDF` makes Spark's UDF when it is called on columns or registered.

PySpark reads the type hints of the functions below when it makes a UDF, so their names are real imports.
"""

import contextlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
from pyspark import TaskContext
from pyspark.errors import PySparkException, PySparkRuntimeError
from pyspark.sql import Column, SparkSession
from pyspark.sql.pandas.functions import PandasUDFType, pandas_udf
from pyspark.sql.types import DataType, StructType
from pyspark.sql.utils import is_remote

from spark_llm.engine.request_spec import RequestSpec, with_request_specs
from spark_llm.errors import ConfigError, SparkLLMError
from spark_llm.livecounts.counts import process_secret
from spark_llm.protocol.values import Result
from spark_llm.udf.columns import to_arrow, to_pandas
from spark_llm.udf.plan import Plan, Results, WatchedPlan
from spark_llm.udf.spark_types import arrow_type

FLUSH_ARRAYS = 90  # empty batches that fill the worker's output buffer of 64 KB, so that Spark sends it
_CALL_ATTRIBUTE = "_spark_llm_call"


class LazyUDF(ABC):
    """A UDF that becomes Spark's when it is called or registered; `spark.udf.register` takes it as it is."""

    deterministic = False
    """False, because Spark may evaluate a deterministic UDF twice, and each evaluation sends requests."""

    def __init__(self, name: str, field: str | None = None) -> None:
        """Set the name; with a `field` the UDF returns only this field of each result, else a struct."""
        self.__name__ = name
        self._field = field

    @property
    @abstractmethod
    def returnType(self) -> DataType:  # noqa: N802 -- PySpark's name
        """The type of the result column."""

    @abstractmethod
    def plan(self) -> Plan:
        """Return the plan that workers run."""

    @property
    def func(self) -> Any:  # noqa: ANN401 -- what PySpark calls a UDF's function
        """The function that workers run; `spark.udf.register` reads it once."""
        return self.for_session(active_session()).func

    @property
    def evalType(self) -> int:  # noqa: N802 -- PySpark's name
        """The kind of batches that Spark passes, for `spark.udf.register`."""
        if is_at_least(active_session().version, 4, 1):
            from pyspark.sql.pandas.functions import ArrowUDFType  # as in `for_version`

            return ArrowUDFType.SCALAR_ITER
        return PandasUDFType.SCALAR_ITER

    def asNondeterministic(self) -> "LazyUDF":  # noqa: N802 -- PySpark's name
        """Return this UDF: it is nondeterministic already."""
        return self

    def for_session(self, spark: SparkSession) -> Any:  # noqa: ANN401 -- PySpark types a UDF as a function
        """Return Spark's UDF for this session."""
        return self.for_version(spark.version, *application_of(spark))

    def for_version(self, spark_version: str, application: str = "", application_name: str = "") -> Any:  # noqa: ANN401 -- PySpark types a UDF as a function
        """Return Spark's UDF for a server of this version: an Arrow UDF from 4.1 on, a pandas UDF before.

        Workers of one `application` (its ID) share the endpoint's limits.
        """

        def of_application(spec: RequestSpec) -> RequestSpec:
            who = replace(spec.attribution, application=application, application_name=application_name)
            return replace(spec, attribution=who)

        plan = self._watched(with_request_specs(self.plan(), of_application))
        if is_at_least(spark_version, 4, 1):
            from pyspark.sql.pandas.functions import arrow_udf  # PySpark 3.5 and 4.0 lack it

            make_udf: Any = arrow_udf  # the overloads of both accept no iterator of structs
            function = _arrow_function(plan, self.returnType, self._field, self._arrow_converter())
        else:
            make_udf = pandas_udf
            function = _pandas_function(plan, self._field, self._pandas_converter())
        function.__name__ = function.__qualname__ = self.__name__
        return make_udf(function, self.returnType).asNondeterministic()

    def _watched(self, plan: Plan) -> Plan:
        """Return the plan with its counts for `progress`."""
        return WatchedPlan(self.__name__, plan, process_secret())

    def _arrow_converter(self) -> Callable[[Any, pa.StructType], pa.StructArray]:
        """Return the function that converts results to Arrow; it is pickled with the plan."""
        return to_arrow

    def _pandas_converter(self) -> Callable[[Any], pd.DataFrame]:
        """Return the function that converts results to pandas; it is pickled with the plan."""
        data_type, field = self.returnType, self._field
        names = data_type.fieldNames() if field is None and isinstance(data_type, StructType) else [field or ""]
        return partial(to_pandas, names=names)

    def tagged_column(self, *arguments: Column | str) -> Column:
        """Return the result column, with the `Call` as an attribute that table jobs read."""
        column: Column = self.for_session(active_session())(*arguments)
        vars(column)[_CALL_ATTRIBUTE] = Call(self, arguments)
        return column


class Call(NamedTuple):
    """A UDF of this library with the columns that it was called on."""

    udf: LazyUDF
    arguments: tuple[Column | str, ...]


def call_of(column: Column) -> Call | None:
    """Return the call whose direct result the column is; None for a column of other origin."""
    return vars(column).get(_CALL_ATTRIBUTE)


def session_or_none() -> SparkSession | None:
    """Return the active session; None where there is none yet."""
    try:
        return SparkSession.active()
    except PySparkRuntimeError:
        return None


def active_session() -> SparkSession:
    """Return the active session, whose server decides which kinds of UDF exist; raises `ConfigError` without one."""
    if (spark := session_or_none()) is not None:
        return spark
    raise ConfigError(
        "There is no Spark session yet to use the UDF in.", "make one first: SparkSession.builder.getOrCreate()."
    )


def check_session(spark: object, hint: str = "pass the session as the first argument.") -> None:
    """Raise `ConfigError` for an object that is no Spark session."""
    if not hasattr(spark, "range"):
        raise ConfigError(f"An object of type {type(spark).__name__} is not a Spark session.", hint)


def application_of(spark: SparkSession) -> tuple[str, str]:
    """Return the ID and the name of the session's Spark application; empty where the server does not tell them."""
    with contextlib.suppress(PySparkException):
        if is_remote():  # one call for both
            pairs = ("spark.app.id", ""), ("spark.app.name", "")
            application, name = spark.client.get_config_with_defaults(*pairs)
        else:
            application, name = spark.conf.get("spark.app.id", ""), spark.conf.get("spark.app.name", "")
        return application or "", name or ""
    return "", ""


def is_at_least(spark_version: str, major: int, minor: int) -> bool:
    """Return whether a version is at least this one; False for a version without numbers."""
    numbers = re.match(r"(\d+)\.(\d+)", spark_version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= (major, minor)


def _arrow_function(
    plan: Plan, schema: DataType, field: str | None, convert: Callable[[Any, pa.StructType], pa.StructArray]
) -> Any:  # noqa: ANN401 -- a function that PySpark inspects
    def run(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        data_type = arrow_type(schema)
        struct_type = data_type if field is None else pa.struct([pa.field(field, data_type)])

        def batch_of(results: list[Result | None]) -> pa.Array:
            array = convert(results, struct_type)
            return array if field is None else array.field(0)

        yield from _output_batches(plan.arrow(batches), batch_of, batch_of([]))

    return run


def _pandas_function(plan: Plan, field: str | None, convert: Callable[[Any], pd.DataFrame]) -> Any:  # noqa: ANN401 -- a function that PySpark inspects
    def run(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        def batch_of(results: list[Result | None]) -> Any:  # noqa: ANN401 -- a frame, or a series
            frame = convert(results)
            return frame if field is None else frame[field]

        # An empty frame without columns costs Spark a tenth of one with columns.
        empty_batch = pd.DataFrame() if field is None else pd.Series([], dtype=object)
        yield from _output_batches(plan.pandas(batches), batch_of, empty_batch)

    return run


def _output_batches(
    chunks: Results, batch_of: Callable[[list[Result | None]], Any], empty_batch: object
) -> Iterator[Any]:
    """Yield each chunk of results as a batch, and for an empty chunk as many empty batches as flush the output.

    After a LIMIT Spark closes the worker's pipe. Then the worker exits here, because Spark's own shutdown would write
    to the broken pipe once more and print a traceback.
    """
    try:
        for results in chunks:
            if results:
                yield batch_of(results)
            else:
                yield from [empty_batch] * FLUSH_ARRAYS
    except SparkLLMError as error:
        if TaskContext.get() is not None:
            # The message says everything, and the worker ends now. These settings of Spark hide the traceback: from
            # 4.0 on all of it, in 3.5 Spark's own frames.
            os.environ.update(SPARK_HIDE_TRACEBACK="1", SPARK_SIMPLIFIED_TRACEBACK="1")
        raise error.with_traceback(None) from None
    except GeneratorExit as closed:
        if isinstance(chunks, Generator):
            chunks.close()
        if isinstance(closed.__context__, ConnectionError) and TaskContext.get() is not None:
            os._exit(0)
        raise
