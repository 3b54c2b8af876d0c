"""The public UDF factories of language models: `chat_udf`, `complete_udf` and `embed_udf`.

They check their parameters, encode them as JSON, and return a `ModelUDF`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spark_llm import schemas
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.policy import Policy
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.chat.tools import tool_parameters
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.template import PromptBuilder
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.udf.returns import structured_output_of
from spark_llm.udf.spark_types import spark_type
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.texts import check_text

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

_DEFAULT_POLICY = Policy()


@checks_arguments
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
    tools: "Sequence[Mapping[str, object] | type] | None" = None,
    tool_choice: str | None = None,
    reasoning_effort: str | None = None,
    verbosity: str | None = None,
    service_tier: str | None = None,
    extra_body: Mapping[str, object] | None = None,
    policy: Policy = _DEFAULT_POLICY,
) -> ModelUDF:
    """Return a UDF that asks a chat model about each row.

    The column is a string (the user's message) or an `array<struct<role:string,content:string>>` (a conversation, whose
    messages may also have `parts`, `tool_calls` and `tool_call_id`). A null gives null and costs nothing. A row that
    fails carries its `error`, and the job goes on.

    >>> chat = chat_udf("my-endpoint", system="Answer in one word: is the review positive or negative?", max_tokens=8)
    >>> df.withColumn("mood", chat("review")).select("review", "mood.text", "mood.usage.total_tokens", "mood.error")

    A `template` writes the message from several columns, passed by name or as one struct with the template's fields.
    Spark casts columns passed by name to strings; the fields of a struct must be strings, or binary. A null in any
    field makes the row null. Braces in the data stay as they are. `system` is then a template of the same columns. A
    template of one field alone also takes a conversation, and `system` becomes its first message.

    >>> brief = chat_udf("my-endpoint", template="Summarise {title} ({year}): {body}", system="Answer in {language}.")
    >>> df.withColumn("brief", brief(title="title", year="year", body=F.trim("body"), language=F.lit("Dutch")))
    >>> reply = chat_udf("my-endpoint", template="{turns}", system="You are {persona}.")
    >>> df.withColumn("reply", reply(turns="messages", persona="role"))

    A field of the template whose column is BINARY is an image (PNG, JPEG, WebP, GIF), a PDF or audio (WAV, MP3), told
    by its first bytes; `by_url` passes an image by its URL. The messages of a conversation may have `parts` of these.
    What is none of them is the row's error `invalid_request`, without a request.

    >>> inspect = chat_udf("my-endpoint", template="What is wrong here? {photo}")
    >>> photos = spark.read.format("binaryFile").load("photos")
    >>> photos.withColumn("fault", inspect(photo="content")).select("path", "fault.text", "fault.error")

    With `returns` the model answers in JSON, and the field `parsed` holds it as a struct with exact values. The request
    carries the type's JSON schema. If the first answer shows that the server does not know `response_format`, the
    schema goes into the prompt. A mismatched answer is requested again, `Policy.reask` times. Then the row's error is
    `schema_mismatch`, with the answer in `text`. `usage` counts the tokens of every attempt.

    >>> judge = chat_udf("my-endpoint", returns="mood STRING, stars INT, topics ARRAY<STRING>")
    >>> df.withColumn("judged", judge("review")).select("review", "judged.parsed.*", "judged.error")

    With `tools` the model may answer with calls of them, in the field `tool_calls`; `text` is then null, or what the
    model said beside. Calls whose arguments are not JSON are requested again, as a mismatched answer is. A
    conversation column with `tool_calls` and `tool_call_id` carries the results back.

    >>> lookup = chat_udf("my-endpoint", tools=[GetWeather])  # a pydantic model, or a function with its JSON schema
    >>> df.withColumn("called", lookup("question")).select("called.tool_calls", "called.text", "called.error")

    Args:
        endpoint: A serving endpoint's name, a URL or an `Endpoint`.
        system: Instructions before the message; a conversation's own system message replaces them.
        template: The message, with field names in braces; `{{` and `}}` are literal braces.
        returns: The answer's type: DDL, a `StructType`, or a pydantic model. A column's COMMENT and a field's
            description go to the model. Workers do not need pydantic, and run no validators.
        max_tokens: Maximum tokens of an answer. A tight limit is faster if the endpoint reserves tokens.
        max_completion_tokens: The same limit, under the name that reasoning models take.
        temperature: 0 to 2; 0 for the likeliest answer.
        top_p: Probability mass of the tokens to sample from, above 0, up to 1.
        seed: Makes answers repeat, if the server supports it.
        stop: One string or several; the answer ends before the first of them.
        n: Answers per row. More than one adds `choices`, an array of strings with null for each failed answer.
        response_format: The request field of that name, sent unchanged.
        tools: Functions that the model may call: pydantic models, by their name, docstring and fields; or
            `{"type": "function", "function": {"name": …, "description": …, "parameters": JSON Schema}}`.
        tool_choice: "none", "auto", "required", or the name of the tool that the model has to call.
        reasoning_effort: How much a reasoning model thinks: "none", "minimal", "low", "medium", "high", "xhigh", "max".
        verbosity: How long answers are: "low", "medium" or "high".
        service_tier: How the provider serves and bills requests: "auto", "default", "flex" (half the price, slow, and
            at times short of capacity) or "priority" with OpenAI. `usage.service_tier` has the tier of the answer.
        extra_body: Further top-level fields of the request.
        policy: Limits, retries and error handling; see `Policy`.

    Returns:
        A callable for columns of `schemas.CHAT`: `text`, `finish_reason`, `usage` (tokens), `model`, `request_id`,
        `attempts`, `latency_ms` and `error`; with `returns` also `parsed`, and with `tools` also `tool_calls`.

    Raises:
        ConfigError: The endpoint or a parameter is invalid. The check sends no request.
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
        "reasoning_effort": reasoning_effort,
        "verbosity": verbosity,
        "service_tier": service_tier,
        **tool_parameters(tools, tool_choice),
    }
    prompt = None if template is None else PromptBuilder.parse(template, system, allows_conversations=True)
    instructions = prompt.instructions if prompt else None if system is None else check_text("system", system)
    ddl = check_text("returns", returns) if isinstance(returns, str) else None
    output = None if returns is None or ddl else structured_output_of(returns)
    if returns is not None and (response_format is not None or "response_format" in (extra_body or ())):
        raise ConfigError("returns= and response_format= both set the answer's format.", "give one of them.")
    task = Chat(instructions, encode_parameters(parameters, extra_body), n or 1, output, tools=tools is not None)
    schema = schemas.with_choices(schemas.CHAT) if task.n > 1 else schemas.CHAT
    schema = schemas.with_tool_calls(schema) if task.tools else schema
    if output is not None:
        schema = schemas.with_parsed(schema, spark_type(output.shape))
    return ModelUDF("chat_udf", task, endpoint, policy, schema, prompt=prompt, ddl=ddl)


@checks_arguments
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
    policy: Policy = _DEFAULT_POLICY,
) -> ModelUDF:
    r"""Return a UDF that continues each row's prompt with a completion model.

    The column is a string, the prompt as the model sees it. With a `template`, several columns fill the prompt. Nulls,
    errors, templates and parameters work as in `chat_udf`.

    >>> complete = complete_udf("my-endpoint", max_tokens=32, stop="\n")
    >>> df.withColumn("next", complete("prompt")).select("next.text", "next.error")
    >>> answer = complete_udf("my-endpoint", template="Question: {question}\nAnswer:", stop="\n")
    >>> df.withColumn("answer", answer(question="title"))

    Returns:
        A callable for columns of `schemas.COMPLETE`.

    Raises:
        ConfigError: The endpoint or a parameter is invalid. The check sends no request.
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
    return ModelUDF("complete_udf", task, endpoint, policy, schema, prompt=prompt)


@checks_arguments
def embed_udf(
    endpoint: str | Endpoint,
    *,
    dimensions: int | None = None,
    instruction: str | None = None,
    extra_body: Mapping[str, object] | None = None,
    policy: Policy = _DEFAULT_POLICY,
) -> ModelUDF:
    """Return a UDF that turns each text into a vector.

    One request carries `Policy.batch_size` texts. A null or blank text gives null and costs nothing. The rows of a
    request split its tokens by length, and the parts add up exactly. Halving the batch isolates an input that the
    server refuses; the other inputs get their vectors.

    >>> embed = embed_udf("my-embedding-endpoint")
    >>> df.withColumn("vector", embed("text")).select("vector.embedding", "vector.error")

    Args:
        endpoint: A serving endpoint's name, a URL or an `Endpoint`.
        dimensions: Length of the vectors, for models that offer several.
        instruction: Purpose of the vectors, for models that take an instruction.
        extra_body: Further top-level fields of the request.
        policy: Limits, retries and error handling; see `Policy`.

    Returns:
        A callable for columns of `schemas.EMBED`: `embedding` (array of float32), `usage`, `model`, `attempts`,
        `latency_ms` and `error`.

    Raises:
        ConfigError: The endpoint or a parameter is invalid. The check sends no request.
    """
    task = Embed(encode_parameters({"dimensions": dimensions, "instruction": instruction}, extra_body))
    return ModelUDF("embed_udf", task, endpoint, policy, schemas.EMBED)
