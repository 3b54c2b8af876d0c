"""The tools of a chat request, the choice among them, and the calls that a model makes.

Knows no HTTP library and no model.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from spark_llm.serving.protocol.errors import Refused

TOOL_TYPES = ("function", "custom")  # of OpenAI; only functions are served here

FunctionName = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}\Z")]


class ToolCall(NamedTuple):
    """One call of a tool: its id, the function's name, and the arguments as the model wrote them, JSON or not."""

    id: str
    name: str
    arguments: str


class Function(msgspec.Struct):
    """A function that a model may call, with the JSON Schema of its arguments."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, tag="function", tag_field="type"):
    """A tool, which is a function."""

    function: Function


class ChosenFunction(msgspec.Struct):
    """The name of the one function to call."""

    name: str


class ChosenTool(msgspec.Struct, tag="function", tag_field="type"):
    """The one tool to call."""

    function: ChosenFunction


ToolChoice = Literal["none", "auto", "required"] | ChosenTool


class CalledFunction(msgspec.Struct):
    """The function of an earlier call."""

    name: str
    arguments: str


class CalledTool(msgspec.Struct, tag="function", tag_field="type"):
    """An earlier call, in an assistant's message."""

    id: str
    function: CalledFunction


Tools = Annotated[list[Tool], msgspec.Meta(min_length=1)]


def check_tools(tools: Sequence[Tool] | None, choice: ToolChoice | None, *, parallel: bool | None) -> None:
    """Raise `Refused` for tools that are none, and for a choice without them."""
    names = [tool.function.name for tool in tools or ()]
    if not names:
        given = {"tool_choice": choice not in (None, "none"), "parallel_tool_calls": parallel is not None}
        for field in (field for field, is_given in given.items() if is_given):
            message = f"Invalid value for '{field}': '{field}' is only allowed when 'tools' are specified."
            raise Refused.bad_request(message, param=field)
    for number, tool in enumerate(tools or ()):
        if tool.function.name in names[:number]:
            raise Refused.bad_request("tools: Tool names must be unique.", param=f"tools[{number}].function.name")
        _check_parameters(tool.function, f"tools[{number}].function.parameters")
    if isinstance(choice, ChosenTool) and choice.function.name not in names:
        message = f"Tool choice '{choice.function.name}' not found in 'tools' parameter."
        raise Refused.bad_request(message, param="tool_choice")


def _check_parameters(function: Function, where: str) -> None:
    kind = None if function.parameters is None else function.parameters.get("type")
    if function.parameters is not None and kind != "object":
        message = f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
        raise Refused.bad_request(
            f"Invalid schema for function '{function.name}': {message}", param=where, code="invalid_function_parameters"
        )
