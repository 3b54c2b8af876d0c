"""Request bodies as the services document them.

A request is validated here, once: models get the right types and ranges. Unknown fields pass, as the gateways let
them; a model finds them in `request.body`. Knows no HTTP library and no model.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from spark_llm.serving.protocol.content import PART_TYPES, Messages, check_calls, check_messages
from spark_llm.serving.protocol.errors import Refused, unknown_value
from spark_llm.serving.protocol.tools import TOOL_TYPES, ToolChoice, Tools, check_tools

MAX_EMBEDDING_INPUTS = 150
MAX_DIMENSIONS = 8192

ChoiceCount = Annotated[int, msgspec.Meta(ge=1, le=5)]
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Strings = Annotated[list[str], msgspec.Meta(min_length=1)]

_UNKNOWN_TYPE = re.compile(
    r"Invalid value '(?P<value>.*)' - at `\$\.(?P<path>(?P<field>messages|tools).*\.type)`", re.DOTALL
)


class StreamOptions(msgspec.Struct):
    """The options of a streamed response."""

    include_usage: bool | None = None


class Request(msgspec.Struct, kw_only=True, dict=True):
    """The fields that every request may have."""

    model: str | None = None

    @property
    def texts(self) -> Iterable[str]:
        """The input of each row, as text."""
        raise NotImplementedError

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(1 for _ in self.texts)

    @property
    def body(self) -> Mapping[str, Any]:
        """The JSON object as received, with unknown fields."""
        body: Mapping[str, Any] = self.__dict__["body"]
        return body


class _Generation(Request, kw_only=True):
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: ChoiceCount | None = None
    max_tokens: PositiveInt | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    stop: str | list[str] | None = None
    seed: Seed | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None


class ChatRequest(_Generation, kw_only=True):
    """A chat request: one conversation, which is one row."""

    messages: Messages
    max_completion_tokens: PositiveInt | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    service_tier: str | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None

    def __post_init__(self) -> None:
        """Check the messages, the tools and the logprobs, and read the media; raises `Refused`."""
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("`top_logprobs` needs `logprobs` to be true")
        check_messages(self.messages)
        check_calls(self.messages)
        check_tools(self.tools, self.tool_choice, parallel=self.parallel_tool_calls)

    @property
    def texts(self) -> list[str]:
        """The whole conversation, which is one row."""
        return ["\n".join(message.text for message in self.messages)]

    @property
    def rows(self) -> int:
        """One conversation."""
        return 1

    @property
    def limit(self) -> int | None:
        """The maximum tokens of a reply: the smaller of the two fields that set it."""
        return min((limit for limit in (self.max_tokens, self.max_completion_tokens) if limit), default=None)


class CompletionRequest(_Generation, kw_only=True):
    """A completions request: each prompt is a row."""

    prompt: str | Strings

    @property
    def texts(self) -> list[str]:
        """The prompts, one or many."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class EmbeddingRequest(Request, kw_only=True):
    """An embeddings request: each input is a row."""

    input: str | Strings
    stream: bool | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=MAX_DIMENSIONS)] | None = None

    def __post_init__(self) -> None:
        """Refuse `stream`: the services do not stream vectors."""
        if self.stream:
            raise ValueError("embeddings are not streamed: leave out `stream`")

    @property
    def texts(self) -> list[str]:
        """The texts, one or many."""
        return [self.input] if isinstance(self.input, str) else self.input


RequestT = TypeVar("RequestT", bound=Request)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in a body; raises `Refused` for anything else."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused.bad_request(f"The request body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused.bad_request("The request body is not a JSON object.")
    return body


def parse_request(body: dict[str, Any], kind: type[RequestT]) -> RequestT:
    """Return `body` as a request; raises `Refused` with the field that is missing, mistyped or out of range."""
    try:
        request = msgspec.convert(body, kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        if (unknown := _UNKNOWN_TYPE.fullmatch(str(error))) is not None:
            supported = PART_TYPES if unknown["field"] == "messages" else TOOL_TYPES
            raise unknown_value(unknown["value"], supported, unknown["path"]) from None
        raise Refused.bad_request(f"Invalid request: {error}") from None
    request.__dict__["body"] = body
    return request
