"""`ai_query` for DataFrames, with all of its arguments: which model it asks, how, and as what its answer is returned.

The arguments, their types and the types of the results are those of Databricks' SQL function (SQL language manual,
`ai_query`). There they are constants of a statement; here they are values.
"""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StructType

from spark_llm import schemas
from spark_llm.ai.columns import Model, Text, text_column
from spark_llm.ai.udf import known_endpoints, query_function
from spark_llm.errors import ConfigError
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.json_codec import NotJSONError, read_json, write_json
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.task import Task
from spark_llm.udf.by_task import model_udf
from spark_llm.udf.lazy_udf import active_session
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.udf.predict_udf import predict_udf
from spark_llm.udf.spark_types import shape_of, spark_type, type_of
from spark_llm.validation.arguments import checks_arguments

_VALUES = {"embed": "embedding", "predict": "prediction"}
_CHECKED = (  # parameters of `chat_udf` whose values it checks; any other is a field of the request
    *("max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop"),
    *("reasoning_effort", "verbosity", "service_tier"),
)
_NOT_OF_A_TEXT = {
    **dict.fromkeys(("n", "tools", "tool_choice"), "ai_query returns one text"),
    "response_format": "that is responseFormat=",
}
_FORMAT_HINT = "write it as 'STRUCT<answer: STRUCT<mood: STRING, stars: INT>>', as JSON, or as 'text'."


@checks_arguments
def ai_query(  # noqa: PLR0917 -- as Databricks' function takes them
    endpoint: Model,
    request: Text,
    returnType: str | DataType | None = None,  # noqa: N803 -- the arguments have Databricks' names
    failOnError: bool = True,  # noqa: FBT001, FBT002, N803 -- as above
    modelParameters: Mapping[str, object] | None = None,  # noqa: N803 -- as above
    responseFormat: str | Mapping[str, object] | None = None,  # noqa: N803 -- as above
    files: Text | None = None,
    *,
    return_type: str | DataType | None = None,
) -> Column:
    """Return an endpoint's answer to a request, as a string; a failed row fails the query.

    >>> df.withColumn("reply", ai_query("my-endpoint", "mail", modelParameters={"max_tokens": 100}))
    >>> df.withColumn("risk", ai_query("my-model", F.struct("age", "review"), returnType="DOUBLE"))

    Args:
        endpoint: A serving endpoint's name, a URL, an `Endpoint`, or a UDF of this library, of any task.
        request: The prompt; for a custom model a column, or a struct of the model's columns.
        returnType: The type of a custom model's predictions; the endpoint is asked as one.
        failOnError: False returns `struct<result, errorMessage>`, and a failed row has the second.
        modelParameters: Parameters of a chat or completions model by name, as in {"max_tokens": 100}.
        responseFormat: "text"; the JSON of a `response_format`; or DDL, `STRUCT<name: STRUCT<…>>`, which is the type of
            the answer. With `failOnError=False` the answer is JSON.
        files: A BINARY column: an image, a PDF or audio, which follows the prompt.
        return_type: The same as `returnType`, which is its name in SQL.

    Raises:
        ConfigError: The endpoint or an argument is invalid, or arguments do not go together.
    """
    if not isinstance(failOnError, bool):
        raise ConfigError(f"failOnError={failOnError!r} is neither True nor False.", "leave it out for True.")
    if returnType is not None and return_type is not None:
        raise ConfigError("ai_query got both returnType= and return_type=.", "give one of them.")
    query = query_of(
        endpoint,
        returns=return_type if returnType is None else returnType,
        parameters=modelParameters,
        response_format=responseFormat,
        files=files is not None,
    )
    of_files = None if files is None else text_column("files", files)
    return (query.values if failOnError else query.results)(text_column("request", request), of_files)


@checks_arguments
def try_ai_query(endpoint: Model, request: Text) -> Column:
    """Return an endpoint's answer to a request, as a string; null for a failed row.

    >>> df.withColumn("reply", try_ai_query("my-endpoint", "mail"))
    """
    query = query_of(endpoint)
    return query.answers(text_column("request", request), raises=False)[query.field]


@checks_arguments
def llm_query(endpoint: Model, request: Text) -> Column:
    """Return an endpoint's answer to a request, as `schemas.CHAT`; that of another task's UDF as its own struct."""
    return query_of(endpoint).answers(text_column("request", request), raises=False)


class Query(NamedTuple):
    """A model to ask: its UDF, the field of its answers that is the value, and a name for a value that has a type."""

    udf: ModelUDF
    field: str = "text"
    name: str | None = None

    def answers(self, request: Column, files: Column | None = None, *, raises: bool) -> Column:
        """Return the answers as structs; with `raises` a failed row fails the query."""
        udf = self._raising(raises=raises)
        if self.udf.task in _VALUES:
            return udf(request)
        schema = schemas.CHAT if self.name is None else udf.returnType
        function = query_function({"endpoint": udf}, None, schema, raises=raises)
        return function(F.lit("endpoint"), request, *([] if files is None else [files]))

    def values(self, request: Column, files: Column | None = None) -> Column:
        """Return the values; a failed row fails the query."""
        answers, name = self.answers(request, files, raises=True), self.name
        if name is None:
            return answers[self.field]
        return _of_each(answers, lambda each: F.struct(each[self.field].alias(name)))

    def results(self, request: Column, files: Column | None = None) -> Column:
        """Return the values with the error of each row, as `struct<result, errorMessage>`."""

        def result(each: Column) -> Column:
            value = each[self.field] if self.name is None else F.to_json(each[self.field])
            return F.struct(value.alias("result"), each["error"]["message"].alias("errorMessage"))

        return _of_each(self.answers(request, files, raises=False), result)

    def _raising(self, *, raises: bool) -> ModelUDF:
        """Return the UDF with errors where they are wanted."""
        udf = copy(self.udf)
        udf.policy = replace(udf.policy, on_error="raise" if raises else "row")
        return udf


def query_of(
    endpoint: Model,
    *,
    returns: str | DataType | None = None,
    parameters: Mapping[str, object] | None = None,
    response_format: str | Mapping[str, object] | None = None,
    files: bool = False,
) -> Query:
    """Return the query of an endpoint with these settings; raises `ConfigError` for those that do not go together."""
    settings = {"modelParameters": parameters, "responseFormat": response_format, "files": files or None}
    given = [f"{name}=" for name, value in settings.items() if value is not None]
    if returns is not None:
        return _custom_model(endpoint, returns, given)
    udf = endpoint if isinstance(endpoint, ModelUDF) else model_udf("chat", endpoint)
    if udf.task in _VALUES:
        if given:
            raise ConfigError(
                f"ai_query got {', '.join(given)} for a UDF of the task {udf.task!r}, which takes none of it.",
                "leave it out, or ask a chat model.",
            )
        return Query(udf, _VALUES[udf.task])
    known_endpoints({"endpoint": udf})  # raises for a UDF that does not take one text and return one
    if given:
        return _with_settings(udf, parameters, response_format, files=files)
    return Query(udf)


def _custom_model(endpoint: Model, returns: str | DataType, given: list[str]) -> Query:
    if isinstance(endpoint, ModelUDF):
        raise ConfigError(
            f"ai_query got a UDF and returnType={returns!r}, but a UDF has its type.",
            "leave returnType= out; set it in predict_udf(…, returns=…) or chat_udf(…, returns=…).",
        )
    if given:
        raise ConfigError(
            f"ai_query got returnType=, which is for custom models, and {', '.join(given)}, which they do not take.",
            "give one of the two; the type of a chat model's answer is responseFormat=.",
        )
    return Query(predict_udf(endpoint, returns=returns), _VALUES["predict"])


def _with_settings(
    udf: ModelUDF,
    parameters: Mapping[str, object] | None,
    response_format: str | Mapping[str, object] | None,
    *,
    files: bool,
) -> Query:
    """Return the query of a chat or completions UDF whose task has these settings over its own."""
    task, schema, name = udf.codec, schemas.CHAT, None
    if parameters is not None:
        task = _with_parameters(task, _checked_parameters(parameters))
    if response_format is not None or files:
        if not isinstance(task, Chat):
            raise ConfigError(
                f"ai_query got {'files=' if files else 'responseFormat='} for a UDF of completions.",
                "ask a chat model.",
            )
        task, name = _with_response_format(task, response_format)
    if isinstance(task, Chat):
        task = replace(task, answer_only=True)
        schema = schema if name is None or task.output is None else _typed(task.output)
    asked = ModelUDF(udf.__name__, task, udf.endpoint, udf.policy, schema)
    return Query(asked, "text" if name is None else "parsed", name)


def _typed(output: StructuredOutput) -> StructType:
    return schemas.with_parsed(schemas.CHAT, spark_type(output.shape))


def _checked_parameters(given: Mapping[str, object]) -> bytes:
    """Return `modelParameters` as JSON, checked as the parameters of `chat_udf` are."""
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ConfigError(
            f"modelParameters={given!r} is not a mapping of names to values.",
            'write it as modelParameters={"max_tokens": 100, "temperature": 0}.',
        )
    for name in given:
        if name in _NOT_OF_A_TEXT:
            raise ConfigError(
                f"modelParameters may not set {name!r}: {_NOT_OF_A_TEXT[name]}.",
                "leave it out, or pass the parameter to chat_udf and call that.",
            )
    own = {name: value for name, value in given.items() if name in _CHECKED}
    return encode_parameters(own, {name: value for name, value in given.items() if name not in own} or None)


def _with_parameters(task: Task, parameters: bytes) -> Task:
    """Return the task with these parameters over its own."""
    if not isinstance(task, (Chat, Complete)):
        raise TypeError(f"{task.name} takes no modelParameters")
    return replace(task, parameters=write_json(read_json(task.parameters) | read_json(parameters)))


def _with_response_format(task: Chat, given: str | Mapping[str, object] | None) -> tuple[Chat, str | None]:
    """Return the task that asks for a format, and the name of the answer's type if the format is DDL."""
    if given is None or given == "text":
        return task, None
    if task.output is not None or "response_format" in read_json(task.parameters):
        raise ConfigError("responseFormat= and the UDF both set the answer's format.", "set it in one of them.")
    if isinstance(given, str) and not given.lstrip().startswith("{"):
        output = _output_of(given)
        return replace(task, output=output), output.name
    encoded = encode_parameters({"response_format": _read_format(given)}, None)
    return replace(task, parameters=write_json(read_json(task.parameters) | read_json(encoded))), None


def _read_format(given: str | Mapping[str, object]) -> Any:  # noqa: ANN401 -- what JSON holds
    try:
        return read_json(given.encode()) if isinstance(given, str) else given
    except NotJSONError as error:
        raise ConfigError(
            f"responseFormat={given!r} is not JSON: {error}.", """write it as '{"type": "json_object"}'."""
        ) from None


def _output_of(ddl: str) -> StructuredOutput:
    """Return the structured output of `STRUCT<name: STRUCT<…>>`, the one form of DDL that Databricks takes."""
    try:
        kind = type_of(ddl, active_session())
    except ConfigError as error:
        raise ConfigError(f"responseFormat= is no DDL: {error.what}", _FORMAT_HINT) from None
    if isinstance(kind, StructType) and len(kind) == 1 and isinstance(inner := kind[0].dataType, StructType):
        return StructuredOutput(kind[0].name, shape_of(inner))
    raise ConfigError(f"responseFormat={ddl!r} is not a STRUCT of one field that is a STRUCT.", _FORMAT_HINT)


def _of_each(answers: Column, make: Callable[[Column], Column]) -> Column:
    """Return what `make` makes of each answer; null for a null, which before Spark 4.1 is a struct of nulls.

    Where a column is named twice, Spark asks its rows twice. The element of an array is named as often as wanted.
    """
    return F.transform(F.array(answers), lambda each: F.when(each["attempts"].isNotNull(), make(each)))[0]
