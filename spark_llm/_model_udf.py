"""A model as a function of columns: our own callable, which becomes Spark's UDF late.

Spark's UDF object is bound to the session that it was made in, and cannot be made before a Connect session exists. So
ours makes Spark's when it is called on columns or registered.

PySpark reads the type hints of the functions below when it makes a UDF: what they name is imported for real.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, Union

import pandas as pd
import pyarrow as pa
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import Column, SparkSession
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import StructType

from spark_llm._columns import arrow_rows, pandas_rows, to_arrow, to_pandas
from spark_llm._engine import engine_for
from spark_llm._fields import arrow_prompts, by_name, pandas_prompts
from spark_llm._profile import Profile
from spark_llm._recipe import Recipe
from spark_llm._runtime import Runtime
from spark_llm._tasks import Task
from spark_llm._template import Prompt
from spark_llm._values import Item, Result
from spark_llm.auth import SignedInElsewhereError
from spark_llm.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.policy import Policy

BEAT_ARRAYS = 90  # empty batches that fill the worker's output buffer of 64 KB, so that it is sent
LOGINS = (Profile(), Runtime())
Frame = TypeVar("Frame", pa.Array, pd.DataFrame)


class ModelUDF:
    """A model as a function of a column. Call it on one; register it with `spark.udf.register("name", it)`.

    One with a template is a function of its fields: call it on the columns by name, or on one struct that has them.

    >>> chat = chat_udf("my-endpoint")
    >>> df.withColumn("answer", chat("question")).select("answer.text", "answer.error")
    >>> brief = chat_udf("my-endpoint", template="Summarise {title}: {body}")
    >>> df.withColumn("summary", brief(title="title", body=F.upper("body"))).select("summary.text")
    """

    deterministic = False
    """Spark must not ask a row again because a plan was written differently: it may if this were True."""

    def __init__(
        self,
        name: str,
        task: Task,
        endpoint: Endpoint,
        policy: Policy,
        schema: StructType,
        *,
        prompt: Union[Prompt, None] = None,
    ) -> None:
        """Keep what will be asked; Spark's UDF is made later.

        Where only a login says who is asking, it is asked later too: a UDF is built without a network.
        """
        self.__name__ = name
        self.returnType = schema
        self.endpoint = endpoint
        self._task, self._policy, self._prompt = task, policy, prompt
        self._recipe: Union[Recipe, None] = None
        with contextlib.suppress(SignedInElsewhereError):
            self._recipe = self._resolved(ask_logins=False)

    @property
    def task(self) -> str:
        """What it asks for: "chat", "complete" or "embed"."""
        return self._task.name

    @property
    def recipe(self) -> Recipe:
        """What travels to the workers; raises `ConfigError` where the login that it needs fails."""
        if self._recipe is None:
            self._recipe = self._resolved(ask_logins=True)
        return self._recipe

    def _resolved(self, *, ask_logins: bool) -> Recipe:
        route = self.endpoint.resolve(self._task.route, os.environ, LOGINS, ask_logins=ask_logins)
        return Recipe(self._task, route, self._policy, self._prompt)

    def __call__(self, column: Union[Column, str, None] = None, /, **columns: Union[Column, str]) -> Column:
        """Return the column of answers; the struct's fields are `returnType`'s.

        Raises `ConfigError` where `columns` are not the fields of the UDF's template.
        """
        version = _spark_version()
        asked: Column = self.on(version)(self.argument(column, **columns))
        vars(asked)["_spark_llm_recipe"] = self.recipe  # what a table job reads off a column
        return asked

    def argument(self, column: Union[Column, str, None] = None, /, **columns: Union[Column, str]) -> Union[Column, str]:
        """Return what Spark's UDF is called on: the one column, or a struct of the columns that fill the template."""
        if columns and self._prompt is None:
            raise ConfigError(
                f"This {self.__name__} has no template, so it takes no columns by name ({', '.join(columns)}).",
                "call it on one column."
                if self.task == "embed"
                else 'build it with template=, as in template="Summarise {title}", or call it on one column.',
            )
        if self._prompt is not None and columns and column is None:
            return by_name(self._prompt, columns)
        if columns or column is None:
            raise ConfigError(
                f"{self.__name__} was called on {'both one column and columns by name' if columns else 'no column'}.",
                "call it on one column, or, with a template, on each of its fields by name.",
            )
        return column

    def __repr__(self) -> str:
        """Show the UDF and its recipe, without secrets."""
        where = self.endpoint if self._recipe is None else self._recipe.route
        told = "" if self._prompt is None else f"{self._prompt!r}, "
        return f"{self.__name__}({self._task!r}, {told}{where!r}, {self._policy!r})"

    @property
    def func(self) -> Any:  # noqa: ANN401 -- what PySpark calls a UDF's function
        """The function that workers run, for `spark.udf.register`."""
        return self.on(_spark_version()).func

    @property
    def evalType(self) -> int:  # noqa: N802 -- PySpark's name
        """How Spark hands rows over, for `spark.udf.register`."""
        return int(self.on(_spark_version()).evalType)

    def asNondeterministic(self) -> "ModelUDF":  # noqa: N802 -- PySpark's name
        """Return this UDF: it is nondeterministic already."""
        return self

    def on(self, spark_version: str) -> Any:  # noqa: ANN401 -- PySpark types a UDF as a function
        """Make Spark's UDF for a server of this version: an Arrow UDF from 4.1 on, a pandas UDF before."""
        if _takes_arrow_udfs(spark_version):
            from pyspark.sql.pandas.functions import arrow_udf  # PySpark 3.5 and 4.0 have none

            vectorised: Any = arrow_udf  # its overloads know no struct made of an iterator, nor do those of pandas_udf
            run = _arrow_function(self.__name__, self.recipe, self.returnType)
        else:
            vectorised = pandas_udf
            run = _pandas_function(self.__name__, self.recipe, self.returnType)
        return vectorised(run, self.returnType).asNondeterministic()


def _spark_version() -> str:
    """Return the version of the active session's server: it, and not the client, decides what UDFs there are."""
    try:
        return str(SparkSession.active().version)
    except PySparkRuntimeError:
        raise ConfigError(
            "There is no Spark session yet to use the UDF in.", "make one first: SparkSession.builder.getOrCreate()."
        ) from None


def _takes_arrow_udfs(spark_version: str) -> bool:
    """Return whether a server has Arrow UDFs, as Spark has from 4.1 on; a version without numbers has none."""
    numbers = re.match(r"(\d+)\.(\d+)", spark_version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= (4, 1)


def _arrow_function(name: str, recipe: Recipe, schema: StructType) -> Any:  # noqa: ANN401 -- a function that PySpark inspects
    def run(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        kind = to_arrow_type(schema)
        if recipe.prompt is None:
            rows = arrow_rows(batches, conversations=recipe.task.name == "chat")
        else:
            rows = arrow_prompts(batches, recipe.prompt)
        yield from _answered(recipe, rows, lambda results: to_arrow(results, kind), to_arrow([], kind))

    run.__name__ = run.__qualname__ = name
    return run


def _pandas_function(name: str, recipe: Recipe, schema: StructType) -> Any:  # noqa: ANN401 -- a function that PySpark inspects
    def run(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        names = schema.fieldNames()
        if recipe.prompt is None:
            rows = pandas_rows(batches, conversations=recipe.task.name == "chat")
        else:
            rows = pandas_prompts(batches, recipe.prompt)
        # A beat's frames have no columns: Spark makes none of them then, and it costs a tenth.
        yield from _answered(recipe, rows, lambda results: to_pandas(results, names), pd.DataFrame())

    run.__name__ = run.__qualname__ = name
    return run


def _answered(
    recipe: Recipe,
    rows: Iterator[Sequence[Union[Item, None]]],
    write: Callable[[list[Union[Result, None]]], Frame],
    nothing: Frame,
) -> Iterator[Frame]:
    """Ask every row; yield the results as `write` makes them, and for a beat enough of `nothing` to be sent."""
    for results in engine_for(recipe).stream(recipe.task, rows):
        if results:
            yield write(results)
        else:
            yield from [nothing] * BEAT_ARRAYS
