"""The three UDFs: `chat_udf`, `complete_udf` and `embed_udf`.

Each returns a small callable of this library and not Spark's UDF object, which is bound to the session that it was made
in, and cannot be made before a Connect session exists. Ours makes Spark's when it is called on columns or registered.

PySpark reads the type hints of the functions below when it makes a UDF: what they name is imported for real.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Union

import pandas as pd
import pyarrow as pa
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import Column, SparkSession
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import StructType

from spark_llm import schemas
from spark_llm._columns import arrow_rows, pandas_rows, to_arrow, to_pandas
from spark_llm._engine import engine_for
from spark_llm._profile import Profile
from spark_llm._recipe import Recipe
from spark_llm._runtime import Runtime
from spark_llm._tasks import Task
from spark_llm._tasks._parameters import text, written
from spark_llm._tasks.chat import Chat
from spark_llm._tasks.complete import Complete
from spark_llm._tasks.embed import Embed
from spark_llm.auth import SignedInElsewhereError
from spark_llm.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.policy import Policy

BEAT_ARRAYS = 90  # empty batches that fill the worker's output buffer of 64 KB, so that it is sent
LOGINS = (Profile(), Runtime())
_DEFAULT = Policy()


class ModelUDF:
    """A model as a function of a column. Call it on one; register it with `spark.udf.register("name", it)`.

    >>> chat = chat_udf("my-endpoint")
    >>> df.withColumn("answer", chat("question")).select("answer.text", "answer.error")
    """

    deterministic = False
    """Spark must not ask a row again because a plan was written differently: it may if this were True."""

    def __init__(self, name: str, task: Task, endpoint: Endpoint, policy: Policy, schema: StructType) -> None:
        """Keep what will be asked; Spark's UDF is made later.

        Where only a login says who is asking, it is asked later too: a UDF is built without a network.
        """
        self.__name__ = name
        self.returnType = schema
        self.endpoint = endpoint
        self._task, self._policy = task, policy
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
        return Recipe(self._task, route, self._policy)

    def __call__(self, column: Union[Column, str]) -> Column:
        """Return the column of answers; the struct's fields are `returnType`'s."""
        asked: Column = self.on(_spark_version())(column)
        vars(asked)["_spark_llm_recipe"] = self.recipe  # what a table job reads off a column
        return asked

    def __repr__(self) -> str:
        """Show the UDF and its recipe, without secrets."""
        where = self.endpoint if self._recipe is None else self._recipe.route
        return f"{self.__name__}({self._task!r}, {where!r}, {self._policy!r})"

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
        nothing = to_arrow([], kind)
        rows = arrow_rows(batches, conversations=recipe.task.name == "chat")
        for results in engine_for(recipe).stream(recipe.task, rows):
            if results:
                yield to_arrow(results, kind)
            else:
                yield from [nothing] * BEAT_ARRAYS

    run.__name__ = run.__qualname__ = name
    return run


def _pandas_function(name: str, recipe: Recipe, schema: StructType) -> Any:  # noqa: ANN401 -- a function that PySpark inspects
    def run(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        names = schema.fieldNames()
        beaten = False  # an empty frame costs Spark milliseconds, so these beats come once
        rows = pandas_rows(batches, conversations=recipe.task.name == "chat")
        for results in engine_for(recipe).stream(recipe.task, rows):
            if results:
                yield to_pandas(results, names)
            elif not beaten:
                beaten = True
                yield from [to_pandas([], names)] * BEAT_ARRAYS

    run.__name__ = run.__qualname__ = name
    return run


def _udf(name: str, task: Task, endpoint: Union[str, Endpoint], policy: Policy, schema: StructType) -> ModelUDF:
    if isinstance(endpoint, str):
        endpoint = Endpoint(endpoint)
    if not isinstance(endpoint, Endpoint):
        raise ConfigError(f"{endpoint!r} is no endpoint.", "pass an endpoint's name, a URL or an Endpoint.")
    if not isinstance(policy, Policy):
        raise ConfigError(f"policy={policy!r} is no Policy.", "pass Policy(…), for example Policy(max_in_flight=32).")
    return ModelUDF(name, task, endpoint, policy, schema)


def chat_udf(
    endpoint: Union[str, Endpoint],
    *,
    system: Union[str, None] = None,
    max_tokens: Union[int, None] = None,
    max_completion_tokens: Union[int, None] = None,
    temperature: Union[float, None] = None,
    top_p: Union[float, None] = None,
    seed: Union[int, None] = None,
    stop: Union[str, Sequence[str], None] = None,
    n: Union[int, None] = None,
    response_format: Union[Mapping[str, object], None] = None,
    extra_body: Union[Mapping[str, object], None] = None,
    policy: Policy = _DEFAULT,
) -> ModelUDF:
    """Ask a chat model about each row.

    The column is a string, the user's message; or an `array<struct<role:string,content:string>>`, a conversation. A
    null is answered by null and costs nothing. A row that could not be answered carries its `error`; the job goes on.

    >>> chat = chat_udf("my-endpoint", system="Answer in one word: is the review positive or negative?", max_tokens=8)
    >>> df.withColumn("mood", chat("review")).select("review", "mood.text", "mood.usage.total_tokens", "mood.error")

    Args:
        endpoint: A serving endpoint's name, a URL or an `Endpoint`.
        system: Instructions before the message; a conversation's own system message takes their place.
        max_tokens: The most tokens of an answer. Where an endpoint reserves them, a tight number is faster.
        max_completion_tokens: The same under the name that reasoning models take.
        temperature: 0 to 2; 0 for the likeliest answer.
        top_p: The share of likely tokens to choose from, above 0, up to 1.
        seed: For answers that repeat, where the server can.
        stop: A string, or several, before which the answer ends.
        n: Answers to each row. More than one adds the column `choices`, an array of strings.
        response_format: The request's field of that name, as it is.
        extra_body: Further fields of the request's top level.
        policy: Limits and patience; see `Policy`.

    Returns:
        A callable for columns of `schemas.CHAT`: `text`, `finish_reason`, `usage` (tokens), `model`, `request_id`,
        `attempts`, `latency_ms` and `error`.

    Raises:
        ConfigError: The endpoint or a parameter cannot be right. Nothing is asked to find out.
    """
    parameters = {
        "max_tokens": max_tokens,
        "max_completion_tokens": max_completion_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "stop": stop,
        "n": n,
        "response_format": response_format,
    }
    task = Chat(None if system is None else text("system", system), written(parameters, extra_body), n or 1)
    return _udf("chat_udf", task, endpoint, policy, schemas.with_choices(schemas.CHAT) if task.n > 1 else schemas.CHAT)


def complete_udf(
    endpoint: Union[str, Endpoint],
    *,
    max_tokens: Union[int, None] = None,
    temperature: Union[float, None] = None,
    top_p: Union[float, None] = None,
    seed: Union[int, None] = None,
    stop: Union[str, Sequence[str], None] = None,
    n: Union[int, None] = None,
    extra_body: Union[Mapping[str, object], None] = None,
    policy: Policy = _DEFAULT,
) -> ModelUDF:
    r"""Continue each row's prompt with a completion model.

    The column is a string, the prompt as the model sees it. Nulls, errors and the parameters are those of `chat_udf`.

    >>> complete = complete_udf("my-endpoint", max_tokens=32, stop="\n")
    >>> df.withColumn("next", complete("prompt")).select("next.text", "next.error")

    Returns:
        A callable for columns of `schemas.COMPLETE`.

    Raises:
        ConfigError: The endpoint or a parameter cannot be right. Nothing is asked to find out.
    """
    parameters = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "stop": stop,
        "n": n,
    }
    task = Complete(written(parameters, extra_body), n or 1)
    return _udf(
        "complete_udf",
        task,
        endpoint,
        policy,
        schemas.with_choices(schemas.COMPLETE) if task.n > 1 else schemas.COMPLETE,
    )


def embed_udf(
    endpoint: Union[str, Endpoint],
    *,
    dimensions: Union[int, None] = None,
    instruction: Union[str, None] = None,
    extra_body: Union[Mapping[str, object], None] = None,
    policy: Policy = _DEFAULT,
) -> ModelUDF:
    """Turn each text into a vector.

    Texts travel `Policy.batch_size` to a request. A null or blank text is answered by null and costs nothing. Rows that
    shared a request share its tokens out by length, exactly. An input that the server refuses is found by halving its
    batch; its neighbours are answered.

    >>> embed = embed_udf("my-embedding-endpoint")
    >>> df.withColumn("vector", embed("text")).select("vector.embedding", "vector.error")

    Args:
        endpoint: A serving endpoint's name, a URL or an `Endpoint`.
        dimensions: The vector's length, for models that offer several.
        instruction: What the vectors are for, for models that take it with the texts.
        extra_body: Further fields of the request's top level.
        policy: Limits and patience; see `Policy`.

    Returns:
        A callable for columns of `schemas.EMBED`: `embedding` (array of float32), `usage`, `model`, `attempts`,
        `latency_ms` and `error`.

    Raises:
        ConfigError: The endpoint or a parameter cannot be right. Nothing is asked to find out.
    """
    task = Embed(written({"dimensions": dimensions, "instruction": instruction}, extra_body))
    return _udf("embed_udf", task, endpoint, policy, schemas.EMBED)
