"""The three UDFs: `chat_udf`, `complete_udf` and `embed_udf`.

Their parameters are checked and written down here; what they return is a `ModelUDF`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from spark_llm import schemas
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.policy import Policy
from spark_llm.protocol.chat import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.template import PromptBuilder
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.udf.returns import structured_output_of
from spark_llm.udf.spark_types import spark_type
from spark_llm.validation.texts import check_text

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

    from spark_llm.protocol.task import Task

_DEFAULT = Policy()


def _udf(
    name: str,
    task: "Task",
    endpoint: str | Endpoint,
    policy: Policy,
    schema: "StructType",
    *,
    prompt: PromptBuilder | None = None,
    ddl: str | None = None,
) -> ModelUDF:
    if isinstance(endpoint, str):
        endpoint = Endpoint(endpoint)
    if not isinstance(endpoint, Endpoint):
        raise ConfigError(f"{endpoint!r} is no endpoint.", "pass an endpoint's name, a URL or an Endpoint.")
    if not isinstance(policy, Policy):
        raise ConfigError(f"policy={policy!r} is no Policy.", "pass Policy(…), for example Policy(max_in_flight=32).")
    return ModelUDF(name, task, endpoint, policy, schema, prompt=prompt, ddl=ddl)


def chat_udf(
    endpoint: str | Endpoint,
    *,
    system: str | None = None,
    template: str | None = None,
    returns: "str | StructType | type | None" = None,
    max_tokens: int | None = None,
    max_completion_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] | None = None,
    n: int | None = None,
    response_format: Mapping[str, object] | None = None,
    extra_body: Mapping[str, object] | None = None,
    policy: Policy = _DEFAULT,
) -> ModelUDF:
    """Ask a chat model about each row.

    The column is a string, the user's message; or an `array<struct<role:string,content:string>>`, a conversation. A
    null is answered by null and costs nothing. A row that could not be answered carries its `error`; the job goes on.

    >>> chat = chat_udf("my-endpoint", system="Answer in one word: is the review positive or negative?", max_tokens=8)
    >>> df.withColumn("mood", chat("review")).select("review", "mood.text", "mood.usage.total_tokens", "mood.error")

    With a `template` the message is written from several columns, given by name or as one struct that has the fields.
    What is given by name is cast as Spark casts it to a string; in a struct the fields are strings already. A null in
    any field makes its row null. Braces in the data are data. Then `system` is a template too, filled from the same
    columns. Where the template is one field and nothing else, that may be a conversation, which `system` leads.

    >>> brief = chat_udf("my-endpoint", template="Summarise {title} ({year}): {body}", system="Answer in {language}.")
    >>> df.withColumn("brief", brief(title="title", year="year", body=F.trim("body"), language=F.lit("Dutch")))
    >>> reply = chat_udf("my-endpoint", template="{turns}", system="You are {persona}.")
    >>> df.withColumn("reply", reply(turns="messages", persona="role"))

    With `returns` the answer is JSON of that type, and the column `parsed` has it as a struct, exactly. The request
    carries the type's JSON schema; a server that does not know `response_format`, as its first answer shows, is asked
    in words. An answer that does not fit is asked for again, `Policy.reask` times; then the row's error is
    `schema_mismatch`, with the answer in `text`. Every try's tokens are in `usage`.

    >>> judge = chat_udf("my-endpoint", returns="mood STRING, stars INT, topics ARRAY<STRING>")
    >>> df.withColumn("judged", judge("review")).select("review", "judged.parsed.*", "judged.error")

    Args:
        endpoint: A serving endpoint's name, a URL or an `Endpoint`.
        system: Instructions before the message; a conversation's own system message takes their place.
        template: The message, with the names of fields in braces; `{{` and `}}` are braces.
        returns: The type of the answer: DDL, a `StructType`, or a pydantic model. A column's COMMENT and a field's
            description are told to the model. Workers do not need pydantic, and run no validators.
        max_tokens: The most tokens of an answer. Where an endpoint reserves them, a tight number is faster.
        max_completion_tokens: The same under the name that reasoning models take.
        temperature: 0 to 2; 0 for the likeliest answer.
        top_p: The share of likely tokens to choose from, above 0, up to 1.
        seed: For answers that repeat, where the server can.
        stop: A string, or several, before which the answer ends.
        n: Answers to each row. More than one adds `choices`, an array of strings, null for each that is no answer.
        response_format: The request's field of that name, as it is.
        extra_body: Further fields of the request's top level.
        policy: Limits and patience; see `Policy`.

    Returns:
        A callable for columns of `schemas.CHAT`: `text`, `finish_reason`, `usage` (tokens), `model`, `request_id`,
        `attempts`, `latency_ms` and `error`; with `returns` also `parsed`.

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
    prompt = None if template is None else PromptBuilder.parse(template, system, allows_conversations=True)
    instructions = prompt.instructions if prompt else None if system is None else check_text("system", system)
    ddl = check_text("returns", returns) if isinstance(returns, str) else None
    output = None if returns is None or ddl else structured_output_of(returns)
    if returns is not None and (response_format is not None or "response_format" in (extra_body or ())):
        raise ConfigError("returns= and response_format both say what the answer is.", "give one of them.")
    task = Chat(instructions, encode_parameters(parameters, extra_body), n or 1, output)
    schema = schemas.with_choices(schemas.CHAT) if task.n > 1 else schemas.CHAT
    if output is not None:
        schema = schemas.with_parsed(schema, spark_type(output.shape))
    return _udf("chat_udf", task, endpoint, policy, schema, prompt=prompt, ddl=ddl)


def complete_udf(
    endpoint: str | Endpoint,
    *,
    template: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] | None = None,
    n: int | None = None,
    extra_body: Mapping[str, object] | None = None,
    policy: Policy = _DEFAULT,
) -> ModelUDF:
    r"""Continue each row's prompt with a completion model.

    The column is a string, the prompt as the model sees it; or, with a `template`, the columns that fill it. Nulls,
    errors, templates and the parameters are those of `chat_udf`.

    >>> complete = complete_udf("my-endpoint", max_tokens=32, stop="\n")
    >>> df.withColumn("next", complete("prompt")).select("next.text", "next.error")
    >>> answer = complete_udf("my-endpoint", template="Question: {question}\nAnswer:", stop="\n")
    >>> df.withColumn("answer", answer(question="title"))

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
    prompt = None if template is None else PromptBuilder.parse(template)
    task = Complete(encode_parameters(parameters, extra_body), n or 1)
    schema = schemas.with_choices(schemas.COMPLETE) if task.n > 1 else schemas.COMPLETE
    return _udf("complete_udf", task, endpoint, policy, schema, prompt=prompt)


def embed_udf(
    endpoint: str | Endpoint,
    *,
    dimensions: int | None = None,
    instruction: str | None = None,
    extra_body: Mapping[str, object] | None = None,
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
    task = Embed(encode_parameters({"dimensions": dimensions, "instruction": instruction}, extra_body))
    return _udf("embed_udf", task, endpoint, policy, schemas.EMBED)


_WITH_DEFAULTS: Mapping[str, Callable[..., ModelUDF]] = {
    "chat": chat_udf,
    "complete": complete_udf,
    "embed": embed_udf,
}


def model_udf(task: str, model: str | Endpoint | ModelUDF) -> ModelUDF:
    """Return the UDF of a model, with the task's defaults for an endpoint; raises `ConfigError` for another task's."""
    udf = model if isinstance(model, ModelUDF) else _WITH_DEFAULTS[task](model)
    if udf.task != task:
        raise ConfigError(f"{task}= was given a UDF that asks for {udf.task}.", f"pass it as {udf.task}=.")
    return udf
