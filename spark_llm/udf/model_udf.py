"""`ModelUDF`: a model as a function of columns, returned by the public UDF factories."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyspark import cloudpickle
from pyspark.sql import Column, SparkSession
from pyspark.sql.types import DataType, StructType

from spark_llm import schemas
from spark_llm.auth.credentials import Bearer, SignInDeferredError
from spark_llm.auth.databricks_profile import Profile
from spark_llm.auth.databricks_runtime import Runtime
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.endpoint.route import Route
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.errors import ConfigError, InputTypeError
from spark_llm.policy import Policy
from spark_llm.protocol.canonical import canonical_model
from spark_llm.protocol.chat.responses_request import ResponsesParameters
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.parameters import service_tier_of
from spark_llm.protocol.predictions.task import Predict
from spark_llm.protocol.task import Task
from spark_llm.protocol.template import PromptBuilder
from spark_llm.protocol.values import Row
from spark_llm.udf.by_url import by_url
from spark_llm.udf.columns import arrow_rows, pandas_rows
from spark_llm.udf.lazy_udf import LazyUDF, active_session, session_or_none
from spark_llm.udf.plan import Results, answers
from spark_llm.udf.returns import structured_output_of
from spark_llm.udf.spark_types import prediction_shape, spark_type, struct_of, type_of
from spark_llm.udf.template_columns import arrow_prompts, pandas_prompts, template_struct

PROVIDERS = (Profile(), Runtime())


@dataclass(frozen=True)
class ModelPlan:
    """Plan of a `ModelUDF`: each row is one column's value, or the struct that fills a template."""

    spec: RequestSpec

    @property
    def udf_name(self) -> str:
        """The name of the UDF's factory, which begins an `InputTypeError`."""
        return f"{self.spec.task.name}_udf"

    @property
    def takes_conversations(self) -> bool:
        """Whether its column may have conversations in place of texts."""
        return self.spec.task.name == "chat"

    @property
    def skips_blanks(self) -> bool:
        """Whether a blank text asks nothing."""
        return self.spec.task.name == "embed"

    @property
    def canonical(self) -> dict[str, Any]:
        """The request without the credentials and the policy."""
        task, route, prompt = self.spec.task, self.spec.route, self.spec.prompt
        return canonical_model(route.url, route.model, task, prompt)

    def arrow(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in Arrow arrays."""
        prompt, chat = self.spec.prompt, self.takes_conversations
        return self._results(
            arrow_rows(batches, conversations=chat) if prompt is None else arrow_prompts(batches, prompt)
        )

    def pandas(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in pandas series and frames."""
        prompt, chat = self.spec.prompt, self.takes_conversations
        return self._results(
            pandas_rows(batches, conversations=chat) if prompt is None else pandas_prompts(batches, prompt)
        )

    def _results(self, rows: Iterator[Sequence[Row]]) -> Results:
        return answers(self.spec, self._with_named_errors(rows))

    def _with_named_errors(self, rows: Iterator[Sequence[Row]]) -> Iterator[Sequence[Row]]:
        """Yield the rows; an `InputTypeError` gets the UDF's name in front."""
        try:
            yield from rows
        except InputTypeError as error:
            raise InputTypeError(f"{self.udf_name}: {error.what}", error.hint) from None


@dataclass(frozen=True)
class TypedTask:
    """A task with the type of its result column."""

    task: Task
    schema: StructType

    def with_ddl(self, ddl: str, spark: SparkSession) -> "TypedTask":
        """Return the task whose answers have the type that the session reads in `ddl`; raises `ConfigError`."""
        match self.task:
            case Chat():
                output = structured_output_of(struct_of(ddl, spark))
                schema = schemas.with_parsed(self.schema, spark_type(output.shape))
                return TypedTask(replace(self.task, output=output), schema)
            case Predict():
                return TypedTask.of_predictions(self.task, type_of(ddl, spark))
        return self

    @classmethod
    def of_predictions(cls, task: Predict, data_type: DataType) -> "TypedTask":
        """Return the task whose predictions have this type; raises `ConfigError` for one that they cannot have."""
        shape = prediction_shape(data_type)
        return cls(replace(task, returns=shape), schemas.with_prediction(spark_type(shape)))


class ModelUDF(LazyUDF):
    """A model as a function of a column. Call it on one, or register it with `spark.udf.register("name", udf)`.

    With a template it is a function of the template's fields: call it on columns by name, or on one struct.

    >>> chat = chat_udf("my-endpoint")
    >>> df.withColumn("answer", chat("question")).select("answer.text", "answer.error")
    >>> brief = chat_udf("my-endpoint", template="Summarise {title}: {body}")
    >>> df.withColumn("summary", brief(title="title", body=F.upper("body"))).select("summary.text")
    """

    _lock = threading.RLock()  # of the class, so that a UDF can be pickled
    _ddl_parameter = "returns"

    def __init__(
        self,
        name: str,
        task: Task,
        endpoint: str | Endpoint,
        policy: Policy,
        schema: StructType,
        *,
        prompt: PromptBuilder | None = None,
        ddl: str | None = None,
    ) -> None:
        """Keep the task and resolve the endpoint, without the network.

        A login that needs the network happens at first use. So does parsing `ddl`, the answer type, by the session
        that uses the UDF; an active session checks it now. Raises `ConfigError` for what is no endpoint, no policy or
        no type, for parameters that the route has no place for, and for a token function that cannot be pickled.
        """
        super().__init__(name)
        if not isinstance(policy, Policy):
            raise ConfigError(
                f"policy={policy!r} is not a Policy.", "pass Policy(…), for example Policy(max_in_flight=32)."
            )
        self.endpoint = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
        if not isinstance(self.endpoint, Endpoint):
            raise ConfigError(f"endpoint={endpoint!r} is not an endpoint.", "pass its name, a URL or an Endpoint.")
        if isinstance(task, Chat) and self.endpoint.chat_api == "responses":
            ResponsesParameters.of(task.parameters)  # raises for what that route has no place for
        check_picklable(self.endpoint)
        self.policy = policy.for_tier(service_tier_of(task.parameters))
        self.prompt = prompt  # the templates; None for a UDF of one column
        self._untyped, self._ddl = TypedTask(task, schema), ddl
        self._typed = self._untyped if ddl is None else None
        self._route: Route | None = None
        with contextlib.suppress(SignInDeferredError):
            self._route = self._resolve_route(allow_sign_in=False)
        if ddl is not None and (spark := session_or_none()) is not None:
            self._with_ddl(ddl, spark)  # a check: the session that uses the UDF may read another type in it

    @property
    def task(self) -> str:
        """The task's name: "chat", "complete", "embed", "predict" or "rerank"."""
        return self._untyped.task.name

    @property
    def has_tools(self) -> bool:
        """Whether its answers may be calls of tools."""
        return isinstance(self._untyped.task, Chat) and self._untyped.task.tools

    @property
    def has_type(self) -> bool:
        """Whether its answers have a type of the user's, which may still have to be parsed."""
        task = self._untyped.task
        return self._ddl is not None or (isinstance(task, Chat) and task.output is not None)

    @property
    def codec(self) -> Task:
        """The task with its parameters; raises `ConfigError` as `returnType` does."""
        return self._typed_task().task

    @property
    def returnType(self) -> StructType:  # noqa: N802 -- PySpark's name
        """The type of the result column; raises `ConfigError` for a DDL string that Spark cannot parse."""
        return self._typed_task().schema

    @property
    def request_spec(self) -> RequestSpec:
        """The request spec that workers get; raises `ConfigError` if a login fails."""
        task = self.codec
        with self._lock:
            if self._route is None:
                self._route = self._resolve_route(allow_sign_in=True)
            return RequestSpec(task, self._route, self.policy, self.prompt)

    def for_session(self, spark: SparkSession) -> Any:  # noqa: ANN401 -- PySpark types a UDF as a function
        """Return Spark's UDF for this session, which parses the DDL string if no session has yet."""
        self._typed_task(spark)
        return super().for_session(spark)

    def _typed_task(self, spark: SparkSession | None = None) -> TypedTask:
        """Return the task and the column's type; the first session (by default the active one) parses the DDL string.

        The lock makes all threads see the same type.
        """
        with self._lock:
            if self._typed is None:
                self._typed = self._with_ddl(self._ddl or "", spark or active_session())
            return self._typed

    def _with_ddl(self, ddl: str, spark: SparkSession) -> TypedTask:
        return self._untyped.with_ddl(ddl, spark)

    def _resolve_route(self, *, allow_sign_in: bool) -> Route:
        return self.endpoint.resolve(self._untyped.task.route, os.environ, PROVIDERS, allow_sign_in=allow_sign_in)

    def __call__(
        self, column: Column | str | None = None, /, *more: Column | str, **columns: Column | str | by_url
    ) -> Column:
        """Return the result column, a struct with the fields of `returnType`.

        Raises `ConfigError` for `more` columns than one without names, and if `columns` are not the template's fields.
        """
        if more:
            raise ConfigError(
                f"{self.__name__} was called on {1 + len(more)} columns without names.", self._how_to_call
            )
        return self.tagged_column(self.argument(column, **columns))

    @property
    def _has_templates(self) -> bool:
        return self.task != "embed"

    @property
    def _how_to_call(self) -> str:
        return "call it on one column, or, with a template, on each of its fields by name."

    def argument(self, column: Column | str | None = None, /, **columns: Column | str | by_url) -> Column | str:
        """Return the one argument of Spark's UDF: the column, or the struct of the columns that fill the template."""
        if columns and self.prompt is None:
            raise ConfigError(
                f"This {self.__name__} has no template, so it takes no columns by name ({', '.join(columns)}).",
                "call it on one column."
                if not self._has_templates
                else 'build it with template=, as in template="Summarise {title}", or call it on one column.',
            )
        if self.prompt is not None and columns and column is None:
            return template_struct(self.prompt, columns)
        if columns or column is None:
            raise ConfigError(
                f"{self.__name__} was called on {'both one column and columns by name' if columns else 'no column'}.",
                self._how_to_call,
            )
        if not isinstance(column, (Column, str)):
            raise ConfigError(
                f"{self.__name__} was called on {column!r}, which is not a column.",
                "pass a column or its name; write a value as F.lit(value).",
            )
        return column

    def __repr__(self) -> str:
        """Show the UDF and its request spec, without secrets."""
        parts = [(self._typed or self._untyped).task, self.prompt, self._route or self.endpoint, self.policy]
        arguments = [repr(part) for part in parts if part is not None]
        if self._ddl is not None:
            arguments.insert(-2, f"{self._ddl_parameter}={self._ddl!r}")
        return f"{self.__name__}({', '.join(arguments)})"

    def plan(self) -> ModelPlan:
        """Return the plan that workers run."""
        return ModelPlan(self.request_spec)


def check_picklable(endpoint: Endpoint) -> None:
    """Raise `ConfigError` for a token function that Spark cannot pickle and so cannot send to the workers."""
    token = endpoint.token.source if isinstance(endpoint.token, Bearer) else endpoint.token
    try:
        cloudpickle.dumps(token)  # type: ignore[no-untyped-call]  # PySpark gives it no types
    except Exception as error:  # noqa: BLE001 -- the user's objects may raise anything when they are pickled
        name = getattr(token, "__qualname__", type(token).__qualname__)
        reason = f": {error}" if type(error) is TypeError else ""  # Python's own message; others may quote a secret
        raise ConfigError(
            f"The token function {name} cannot be sent to the workers ({type(error).__name__}{reason}).",
            "create clients, locks and files inside the function, not before it is called; or pass the token as a"
            " string, or ClientCredentials(…).",
        ) from None
