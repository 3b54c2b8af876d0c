"""A model as a function of columns: our own callable, which becomes Spark's UDF late."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import Column
from pyspark.sql.types import StructType

from spark_llm import schemas
from spark_llm._canonical import model_words
from spark_llm._columns import arrow_rows, pandas_rows
from spark_llm._fields import arrow_prompts, by_name, pandas_prompts
from spark_llm._profile import Profile
from spark_llm._recipe import Recipe
from spark_llm._registry import engine_for
from spark_llm._returns import reply_of
from spark_llm._runtime import Runtime
from spark_llm._tasks import Task
from spark_llm._tasks.chat import Chat
from spark_llm._template import Prompt
from spark_llm._types import spark_type, struct_of
from spark_llm._vectorised import LateUDF, Results, active_session
from spark_llm.auth import SignedInElsewhereError
from spark_llm.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.policy import Policy

LOGINS = (Profile(), Runtime())


@dataclass(frozen=True)
class ModelPlan:
    """Ask about each row of one column, or of the struct that fills a template."""

    recipe: Recipe

    @property
    def canonical(self) -> dict[str, Any]:
        """What the model is asked, without who asks it and how hard."""
        task, route, prompt = self.recipe.task, self.recipe.route, self.recipe.prompt
        return model_words(route.url, route.model, task, prompt)

    def arrow(self, batches: Iterator[Any]) -> Results:
        """Answer the rows of Arrow arrays."""
        task, prompt = self.recipe.task, self.recipe.prompt
        chat = task.name == "chat"
        rows = arrow_rows(batches, conversations=chat) if prompt is None else arrow_prompts(batches, prompt)
        return engine_for(self.recipe).stream(task, rows)

    def pandas(self, batches: Iterator[Any]) -> Results:
        """Answer the rows of pandas series and frames."""
        task, prompt = self.recipe.task, self.recipe.prompt
        chat = task.name == "chat"
        rows = pandas_rows(batches, conversations=chat) if prompt is None else pandas_prompts(batches, prompt)
        return engine_for(self.recipe).stream(task, rows)


class ModelUDF(LateUDF):
    """A model as a function of a column. Call it on one; register it with `spark.udf.register("name", it)`.

    One with a template is a function of its fields: call it on the columns by name, or on one struct that has them.

    >>> chat = chat_udf("my-endpoint")
    >>> df.withColumn("answer", chat("question")).select("answer.text", "answer.error")
    >>> brief = chat_udf("my-endpoint", template="Summarise {title}: {body}")
    >>> df.withColumn("summary", brief(title="title", body=F.upper("body"))).select("summary.text")
    """

    def __init__(
        self,
        name: str,
        task: Task,
        endpoint: Endpoint,
        policy: Policy,
        schema: StructType,
        *,
        prompt: Prompt | None = None,
        ddl: str | None = None,
    ) -> None:
        """Keep what will be asked; Spark's UDF is made later.

        Where only a login says who is asking, it is asked later too: a UDF is built without a network. And a type in
        `ddl`, of the answers, is read by Spark when there is a session.
        """
        super().__init__(name)
        self.endpoint = endpoint
        self.policy = policy
        self._task, self._schema, self._prompt, self._ddl = task, schema, prompt, ddl
        self._recipe: Recipe | None = None
        with contextlib.suppress(SignedInElsewhereError):
            self._recipe = self._resolved(ask_logins=False)

    @property
    def task(self) -> str:
        """What it asks for: "chat", "complete" or "embed"."""
        return self._task.name

    @property
    def codec(self) -> Task:
        """The task with its parameters."""
        _ = self.returnType  # it may be part of the task
        return self._task

    @property
    def prompt(self) -> Prompt | None:
        """Its templates; None where it is called on one column."""
        return self._prompt

    @property
    def returnType(self) -> StructType:  # noqa: N802 -- PySpark's name
        """The type of its column; raises `ConfigError` where that depends on a DDL string that Spark cannot read."""
        if self._ddl is not None and isinstance(self._task, Chat):
            reply = reply_of(struct_of(self._ddl, active_session()))
            self._task = replace(self._task, reply=reply)
            self._schema = schemas.with_parsed(self._schema, spark_type(reply.shape))
            self._ddl = None
            if self._recipe is not None:
                self._recipe = replace(self._recipe, task=self._task)
        return self._schema

    @property
    def recipe(self) -> Recipe:
        """What travels to the workers; raises `ConfigError` where the login that it needs fails."""
        _ = self.codec
        if self._recipe is None:
            self._recipe = self._resolved(ask_logins=True)
        return self._recipe

    def _resolved(self, *, ask_logins: bool) -> Recipe:
        route = self.endpoint.resolve(self._task.route, os.environ, LOGINS, ask_logins=ask_logins)
        return Recipe(self._task, route, self.policy, self._prompt)

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
        where = self.endpoint if self._recipe is None else self._recipe.route
        told = "" if self._prompt is None else f"{self._prompt!r}, "
        told += "" if self._ddl is None else f"returns={self._ddl!r}, "
        return f"{self.__name__}({self._task!r}, {told}{where!r}, {self.policy!r})"

    def plan(self) -> ModelPlan:
        """Return what travels to the workers."""
        return ModelPlan(self.recipe)
