"""Requests of OpenAI's Responses API, and the chat request that each means.

They ask a chat model in other words: `input` items in place of `messages`, flat tools, nested options. What the API
does not know is refused, as there. Knows no HTTP library and no model.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from spark_llm.serving.protocol.errors import Refused, unknown_value
from spark_llm.serving.protocol.requests import ChatRequest, Request
from spark_llm.serving.protocol.responses_input import read_input
from spark_llm.serving.protocol.tools import ChosenFunction, ChosenTool, Function, FunctionName, Tool

MIN_OUTPUT_TOKENS = 16
TEXT_FORMATS = ("json_object", "text", "json_schema")
MOVED = {"messages": "input", "response_format": "text.format", "reasoning_effort": "reasoning.effort"}

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class TextFormat(msgspec.Struct):
    """The form of the text: free, any JSON, or JSON of a schema."""

    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown form, and a schema without its name."""
        if self.type not in TEXT_FORMATS:
            raise unknown_value(self.type, TEXT_FORMATS, "text.format.type")
        if self.type == "json_schema":
            for field in (field for field in ("name", "schema") if getattr(self, field) is None):
                raise missing(f"text.format.{field}")

    @property
    def response_format(self) -> dict[str, Any]:
        """The field of a chat request that means the same."""
        if self.type != "json_schema":
            return {"type": self.type}
        return {"type": self.type, "json_schema": {"name": self.name, "schema": self.schema, "strict": self.strict}}


class TextOptions(msgspec.Struct):
    """The options of the text."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(msgspec.Struct):
    """The options of the model's thoughts."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class FlatTool(msgspec.Struct, tag="function", tag_field="type"):
    """A function that a model may call."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FlatChoice(msgspec.Struct, tag="function", tag_field="type"):
    """The one function to call."""

    name: str


class ResponsesRequest(Request, kw_only=True):
    """A request of the Responses API: one conversation, which is one row."""

    input: str | list[Any] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    tools: list[FlatTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | FlatChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    include: list[str] | None = None
    service_tier: Literal["auto", "default", "fast", "flex", "priority"] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    background: bool | None = None

    def __post_init__(self) -> None:
        """Read the input as a chat; raises `Refused` for what cannot be read, or is not kept here."""
        if self.max_output_tokens is not None and self.max_output_tokens < MIN_OUTPUT_TOKENS:
            raise Refused.bad_request(
                "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= "
                f"{MIN_OUTPUT_TOKENS}, but got {self.max_output_tokens} instead.",
                param="max_output_tokens",
                code="integer_below_min_value",
            )
        self._check_state()
        messages = read_input(self.input, self.instructions)
        tools = [Tool(Function(each.name, each.description, each.parameters, each.strict)) for each in self.tools or ()]
        self.__dict__["chat"] = ChatRequest(
            messages=messages,
            max_completion_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stream=self.stream,
            response_format=self.text.format.response_format if self.text and self.text.format else None,
            verbosity=self.text.verbosity if self.text else None,
            reasoning_effort=self.reasoning.effort if self.reasoning else None,
            tools=tools or None,
            tool_choice=self._chat_choice,
            parallel_tool_calls=self.parallel_tool_calls if tools else None,
        )

    @property
    def chat(self) -> ChatRequest:
        """The chat request that means the same; its `body` is this one's."""
        chat: ChatRequest = self.__dict__["chat"]
        chat.__dict__.setdefault("body", self.body)
        return chat

    @property
    def texts(self) -> list[str]:
        """The whole conversation, which is one row."""
        return self.chat.texts

    @property
    def rows(self) -> int:
        """One conversation."""
        return 1

    @property
    def _chat_choice(self) -> Literal["none", "auto", "required"] | ChosenTool | None:
        if isinstance(self.tool_choice, FlatChoice):
            return ChosenTool(ChosenFunction(self.tool_choice.name))
        return None if self.tool_choice == "auto" and not self.tools else self.tool_choice

    def _check_state(self) -> None:
        """Refuse what earlier requests would have left on a server, and what a later one would read."""
        if self.previous_response_id is not None:
            raise Refused.bad_request(
                f"Previous response with id '{self.previous_response_id}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        for field in ("conversation", "prompt", "background"):
            if getattr(self, field):
                raise Refused.bad_request(
                    f"Unsupported parameter: '{field}' is not supported with this model.",
                    param=field,
                    code="unsupported_parameter",
                )
        if not self.input:
            raise Refused.bad_request(
                "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation' must be provided.",
                code="missing_required_parameter",
            )


_FIELDS = frozenset(ResponsesRequest.__struct_fields__)


def check_fields(body: Mapping[str, object], further: frozenset[str]) -> None:
    """Raise `Refused` for a field that the API does not know, unless it is one of `further`."""
    if "input" not in body and "messages" not in body:
        raise missing("input")
    for field in body:
        if field in _FIELDS or field in further:
            continue
        if field in MOVED:
            raise Refused.bad_request(
                f"Unsupported parameter: '{field}'. In the Responses API, this parameter has moved to "
                f"'{MOVED[field]}'. Try again with the new parameter. See the API documentation for more information: "
                "https://platform.openai.com/docs/api-reference/responses/create.",
                param=None if field == "messages" else field,
                code="unsupported_parameter",
            )
        raise Refused.bad_request(f"Unknown parameter: '{field}'.", param=field, code="unknown_parameter")


def missing(field: str) -> Refused:
    """Return the error of a field that is missing."""
    return Refused.bad_request(
        f"Missing required parameter: '{field}'.", param=field, code="missing_required_parameter"
    )
