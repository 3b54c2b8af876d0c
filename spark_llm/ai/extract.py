"""`extract_udf`: typed fields of a text, and where the text says them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pyspark.sql import SparkSession

from spark_llm import schemas
from spark_llm.ai import prompts
from spark_llm.ai.udf import plain_task
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.protocol.canonical import canonical_function, canonical_model
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.json_codec import read_json, write_json
from spark_llm.protocol.structured.citations import CitedOutput
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Field, Struct
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Row
from spark_llm.udf.by_task import model_udf
from spark_llm.udf.model_udf import ModelPlan, ModelUDF, TypedTask
from spark_llm.udf.plan import Results
from spark_llm.udf.returns import structured_output_of
from spark_llm.udf.spark_types import spark_type, struct_of
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.flags import check_flag

if TYPE_CHECKING:
    from pyspark.sql.types import StructType


@checks_arguments
def extract_udf(
    endpoint: str | Endpoint | ModelUDF, *, fields: "str | StructType | type", citations: bool = False
) -> "ExtractUDF":
    """Return a UDF that extracts typed fields from each row's text, and with `citations` where the text says them.

    >>> extract = extract_udf("my-endpoint", fields="name STRING COMMENT 'of the sender', total DOUBLE")
    >>> df.withColumn("found", extract("mail")).select("found.parsed.name", "found.parsed.total", "found.error")

    With `citations` each field is a struct: its `value`, the `quote` of the text that says it, `start` and `stop` of
    the quote, and whether the value is `supported` by one. The model gives value and quote, and the worker finds the
    quote in the row's text: exactly, or else with any whitespace between the words, and with typographic quotation
    marks and dashes as plain ones. Then `quote` is written as the text has it; a repeated one is the first. A quote
    that is not in the text has no place, and `supported` is false. A null value has a null in each of them.

    >>> extract = extract_udf(chat_udf("my-endpoint", max_tokens=300), fields=Invoice, citations=True)
    >>> found = df.withColumn("found", extract("mail")).select("mail", "found.parsed.total.*")
    >>> found.selectExpr("value", "substring(mail, start + 1, stop - start) AS quote", "supported")

    The column is a string. A null or blank text gives a null and costs nothing. A row that fails carries its `error`,
    and the job goes on: an answer that does not fit the fields is requested again, `Policy.reask` times, and is then a
    `schema_mismatch`. `usage` counts the tokens of every attempt.

    Args:
        endpoint: A serving endpoint's name, a URL or an `Endpoint`; or a `chat_udf` with parameters and a policy.
        fields: The fields: DDL, a `StructType`, or a pydantic model. A column's COMMENT and a field's description go to
            the model.
        citations: Whether each field has its citation.

    Returns:
        A callable for columns of `schemas.CHAT` with `parsed`: a struct of the fields, or with `citations` of
        `struct<value, quote: string, start: int, stop: int, supported: boolean>` for each. `start` and `stop` count
        characters from 0, and `stop` is the first one behind the quote.

    Raises:
        ConfigError: The endpoint or the fields are invalid, or a UDF has another task or instructions of its own. The
            check sends no request.
    """
    if isinstance(endpoint, ModelUDF) and endpoint.task != "chat":
        raise ConfigError(
            f"endpoint= got a UDF for the task {endpoint.task!r}.", "pass an endpoint, or a chat_udf with parameters."
        )
    chat = model_udf("chat", endpoint)
    task = plain_task(chat, "endpoint", "extract_udf sets itself")
    if "response_format" in read_json(task.parameters):
        raise ConfigError("endpoint= got a UDF with response_format=.", "leave it out: fields= sets the format.")
    is_ddl = isinstance(fields, str) and fields.strip()
    given = str(fields) if is_ddl else structured_output_of(fields, "fields")
    return ExtractUDF(chat, task, given, citations=check_flag("citations", citations))


class ExtractUDF(ModelUDF):
    """A model that extracts fields from a text. Call it on a string column, or register it with Spark.

    >>> extract = extract_udf("my-endpoint", fields="name STRING, total DOUBLE", citations=True)
    >>> spark.udf.register("find", extract)
    >>> spark.sql("SELECT find(mail).parsed.total.value FROM mails")
    """

    _ddl_parameter = "fields"
    _has_templates = False
    _how_to_call = "call it on one string column."

    def __init__(self, chat: ModelUDF, task: Chat, fields: str | StructuredOutput, *, citations: bool) -> None:
        """Ask the endpoint of `chat` for the fields, which a session parses if they are DDL."""
        self._citations = citations
        ddl = fields if isinstance(fields, str) else None
        typed = TypedTask(task, schemas.CHAT) if isinstance(fields, str) else self._typed_by(task, fields)
        super().__init__("extract_udf", typed.task, chat.endpoint, chat.policy, typed.schema, ddl=ddl)

    def _with_ddl(self, ddl: str, spark: SparkSession) -> TypedTask:
        return self._typed_by(self._untyped.task, structured_output_of(struct_of(ddl, spark, self._ddl_parameter)))

    def _typed_by(self, task: Task, fields: StructuredOutput) -> TypedTask:
        """Return the task that asks for the fields, and the type of its column."""
        shape = fields.shape
        if not isinstance(task, Chat) or not isinstance(shape, Struct):
            raise TypeError("fields are those of a struct, and a chat is asked for them")
        prompt = prompts.EXTRACT_CITED if self._citations else prompts.EXTRACT_FIELDS
        output = CitedOutput.of(fields.name, shape) if self._citations else fields
        asking = replace(task, system=prompt.format(fields="\n".join(map(_line, shape.fields))), output=output)
        return TypedTask(asking, schemas.with_parsed(schemas.CHAT, spark_type(output.column_shape)))

    def plan(self) -> "ExtractPlan":
        """Return the plan that workers run."""
        return ExtractPlan(self.request_spec)


@dataclass(frozen=True)
class ExtractPlan(ModelPlan):
    """Plan of an `ExtractUDF`: each row is a text, and a blank one asks nothing."""

    udf_name = "extract_udf"
    takes_conversations = False
    skips_blanks = True

    @property
    def canonical(self) -> dict[str, Any]:
        """The fields, whether they are cited, and the user's choices for the model; without the instructions."""
        task, route = self.spec.task, self.spec.route
        if not isinstance(task, Chat) or task.output is None:
            raise TypeError(f"{task.name} is no task of an extract_udf")
        output, cited = task.output, dict[str, Any]()
        if isinstance(output, CitedOutput):
            output, cited = StructuredOutput(output.name, output.fields), {"citations": True}
        model = canonical_model(route.url, route.model, replace(task, system=None, output=output), None)
        return canonical_function(self.udf_name, ["text"], model | cited)

    def _results(self, rows: Iterator[Sequence[Row]]) -> Results:
        return super()._results(list(map(_asked, some)) for some in rows)


def _asked(row: Row) -> Row:
    """Return a row's text; None for a blank one."""
    return row if isinstance(row, str) and row.strip() else None


def _line(field: Field) -> str:
    """Return a field as the instructions have it."""
    name = write_json(field.name).decode()
    return f"- {name}" if field.description is None else f"- {name}: {field.description}"
