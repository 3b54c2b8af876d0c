"""A model as a function of columns: our own callable, which becomes Spark's UDF late."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyspark import cloudpickle
from pyspark.sql import Column, SparkSession
from pyspark.sql.types import StructType

from spark_llm import schemas
from spark_llm.auth.credentials import Bearer, SignInDeferredError
from spark_llm.auth.databricks_profile import Profile
from spark_llm.auth.databricks_runtime import Runtime
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.endpoint.route import Route
from spark_llm.engine.registry import engine_for
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.errors import ConfigError, InputTypeError
from spark_llm.policy import Policy
from spark_llm.protocol.canonical import canonical_model
from spark_llm.protocol.chat import Chat
from spark_llm.protocol.task import Task
from spark_llm.protocol.template import PromptBuilder
from spark_llm.protocol.values import Item
from spark_llm.udf.columns import arrow_rows, pandas_rows
from spark_llm.udf.lazy_udf import LazyUDF, Results, active_session
from spark_llm.udf.returns import structured_output_of
from spark_llm.udf.spark_types import spark_type, struct_of
from spark_llm.udf.template_columns import arrow_prompts, by_name, pandas_prompts

PROVIDERS = (Profile(), Runtime())


@dataclass(frozen=True)
class ModelPlan:
    """Ask about each row of one column, or of the struct that fills a template."""

    recipe: RequestSpec

    @property
    def canonical(self) -> dict[str, Any]:
        """What the model is asked, without who asks it and how hard."""
        task, route, prompt = self.recipe.task, self.recipe.route, self.recipe.prompt
        return canonical_model(route.url, route.model, task, prompt)

    def arrow(self, batches: Iterator[Any]) -> Results:
        """Answer the rows of Arrow arrays."""
        prompt, chat = self.recipe.prompt, self.recipe.task.name == "chat"
        return self._answers(
            arrow_rows(batches, conversations=chat) if prompt is None else arrow_prompts(batches, prompt)
        )

    def pandas(self, batches: Iterator[Any]) -> Results:
        """Answer the rows of pandas series and frames."""
        prompt, chat = self.recipe.prompt, self.recipe.task.name == "chat"
        return self._answers(
            pandas_rows(batches, conversations=chat) if prompt is None else pandas_prompts(batches, prompt)
        )

    def _answers(self, rows: Iterator[Sequence[Item | None]]) -> Results:
        return engine_for(self.recipe).stream(self.recipe.task, self._named(rows))

    def _named(self, rows: Iterator[Sequence[Item | None]]) -> Iterator[Sequence[Item | None]]:
        """Yield the rows; an error of their type names the UDF."""
        try:
            yield from rows
        except InputTypeError as error:
            raise InputTypeError(f"{self.recipe.task.name}_udf: {error.what}", error.hint) from None


@dataclass(frozen=True)
class Typed:
    """A task, and the type of the column that it fills."""

    task: Task
    schema: StructType

    def with_ddl(self, ddl: str, spark: SparkSession) -> "Typed":
        """Return a chat with answers of the type that the session reads in `ddl`; raises `ConfigError`."""
        if not isinstance(self.task, Chat):
            return self
        output = structured_output_of(struct_of(ddl, spark))
        return Typed(replace(self.task, output=output), schemas.with_parsed(self.schema, spark_type(output.shape)))


class ModelUDF(LazyUDF):
    """A model as a function of a column. Call it on one; register it with `spark.udf.register("name", it)`.

    One with a template is a function of its fields: call it on the columns by name, or on one struct that has them.

    >>> chat = chat_udf("my-endpoint")
    >>> df.withColumn("answer", chat("question")).select("answer.text", "answer.error")
    >>> brief = chat_udf("my-endpoint", template="Summarise {title}: {body}")
    >>> df.withColumn("summary", brief(title="title", body=F.upper("body"))).select("summary.text")
    """

    _resolving = threading.RLock()  # of the class, so that a UDF can be pickled

    def __init__(
        self,
        name: str,
        task: Task,
        endpoint: Endpoint,
        policy: Policy,
        schema: StructType,
        *,
        prompt: PromptBuilder | None = None,
        ddl: str | None = None,
    ) -> None:
        """Keep the request; Spark's UDF is made later.

        Raises `ConfigError` for a token function that cannot travel. Where only a login knows the credential, it is
        asked later too: a UDF is built without a network. And Spark reads a type in `ddl`, of the answers, when there
        is a session.
        """
        super().__init__(name)
        check_travels(endpoint)
        self.endpoint = endpoint
        self.policy = policy
        self._untyped, self._prompt, self._ddl = Typed(task, schema), prompt, ddl
        self._typed = self._untyped if ddl is None else None
        self._route: Route | None = None
        with contextlib.suppress(SignInDeferredError):
            self._route = self._resolved(allow_sign_in=False)

    @property
    def task(self) -> str:
        """What it asks for: "chat", "complete" or "embed"."""
        return self._untyped.task.name

    @property
    def codec(self) -> Task:
        """The task with its parameters; raises `ConfigError` as `returnType` does."""
        return self._read().task

    @property
    def prompt(self) -> PromptBuilder | None:
        """Its templates; None where it is called on one column."""
        return self._prompt

    @property
    def returnType(self) -> StructType:  # noqa: N802 -- PySpark's name
        """The type of its column; raises `ConfigError` where that depends on a DDL string that Spark cannot read."""
        return self._read().schema

    @property
    def recipe(self) -> RequestSpec:
        """What travels to the workers; raises `ConfigError` where the login that it needs fails."""
        task = self.codec
        with self._resolving:
            if self._route is None:
                self._route = self._resolved(allow_sign_in=True)
            return RequestSpec(task, self._route, self.policy, self._prompt)

    def made_for(self, spark: SparkSession) -> Any:  # noqa: ANN401 -- PySpark types a UDF as a function
        """Make Spark's UDF for this session, which reads the DDL string where none has before."""
        self._read(spark)
        return super().made_for(spark)

    def _read(self, spark: SparkSession | None = None) -> Typed:
        """Return the task and the type of its column; a session reads the DDL string once, the active one by default.

        The lock holds other threads until it has: all see the same type.
        """
        with self._resolving:
            if self._typed is None:
                self._typed = self._untyped.with_ddl(self._ddl or "", spark or active_session())
            return self._typed

    def _resolved(self, *, allow_sign_in: bool) -> Route:
        return self.endpoint.resolve(self._untyped.task.route, os.environ, PROVIDERS, allow_sign_in=allow_sign_in)

    def __call__(self, column: Column | str | None = None, /, **columns: Column | str) -> Column:
        """Return the column of answers; the struct's fields are `returnType`'s.

        Raises `ConfigError` where `columns` are not the fields of the UDF's template.
        """
        return self.called_on(self.argument(column, **columns))

    def argument(self, column: Column | str | None = None, /, **columns: Column | str) -> Column | str:
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
        parts = [(self._typed or self._untyped).task, self._prompt, self._route or self.endpoint, self.policy]
        shown = [repr(part) for part in parts if part is not None]
        if self._typed is None:
            shown.insert(-2, f"returns={self._ddl!r}")
        return f"{self.__name__}({', '.join(shown)})"

    def plan(self) -> ModelPlan:
        """Return what travels to the workers."""
        return ModelPlan(self.recipe)


def check_travels(endpoint: Endpoint) -> None:
    """Raise `ConfigError` for a token function that Spark cannot pickle, and so cannot send to the workers."""
    token = endpoint.token.source if isinstance(endpoint.token, Bearer) else endpoint.token
    try:
        cloudpickle.dumps(token)  # type: ignore[no-untyped-call]  # PySpark gives it no types
    except Exception as error:  # noqa: BLE001 -- whatever the user's objects raise when they are pickled
        name = getattr(token, "__qualname__", type(token).__qualname__)
        reason = f": {error}" if type(error) is TypeError else ""  # Python's own words; others may quote a secret
        raise ConfigError(
            f"The token function {name} cannot be sent to the workers ({type(error).__name__}{reason}).",
            "pass a function that makes its client, its locks and its files when it is called, and holds none before;"
            " or pass the token as a string, or ClientCredentials(…).",
        ) from None
