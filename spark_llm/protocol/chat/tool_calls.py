"""The calls of tools in answers and in messages: read, checked, and asked for again.

Wire format: `message.tool_calls` of the OpenAI chat completions response. Some servers send the arguments as an object,
or nothing for a function without any.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from spark_llm.errors import HINT
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.values import Message, ToolCall
from spark_llm.text.excerpt import excerpt

TOOL_FIELDS = frozenset({"tool_calls", "tool_call_id"})
"""The fields of a message that only conversations with tools have."""

_NO_ARGUMENTS = "{}"
_ASK_AGAIN = "That call cannot be read: {}. Answer once more; write the arguments of a call as one JSON object."


def read_calls(found: object) -> list[ToolCall] | None:
    """Return the calls in the field `tool_calls` of a message, none where it has none; None for what is no call."""
    if not found:
        return []
    calls = [_read_call(each) for each in found] if isinstance(found, list) else [None]
    return None if None in calls else [call for call in calls if call is not None]


def _read_call(found: object) -> ToolCall | None:
    function = found.get("function") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(function, dict):
        return None
    return call_of(found.get("id"), function.get("name"), function.get("arguments"))


def call_of(identifier: object, name: object, arguments: object) -> ToolCall | None:
    """Return a call of these parts; None where they are not those of a call."""
    if isinstance(arguments, dict):
        arguments = write_json(arguments).decode()
    if not isinstance(name, str) or not name or not isinstance(arguments, (str, type(None))):
        return None
    text = arguments if arguments and arguments.strip() else _NO_ARGUMENTS
    return ToolCall(id=identifier if isinstance(identifier, str) else None, name=name, arguments=text)


def defect_of(calls: Sequence[ToolCall]) -> str | None:
    """Return what is wrong with the first call whose arguments are no JSON object; None where all are."""
    for call in calls:
        try:
            arguments = json.loads(call["arguments"], parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return f"the arguments of {call['name']} are not JSON: {excerpt(call['arguments'])}"
        if not isinstance(arguments, dict):
            return f"the arguments of {call['name']} are no JSON object: {excerpt(call['arguments'])}"
    return None


def _refuse_constant(name: str) -> Any:  # noqa: ANN401 -- json's signature
    raise ValueError(f"{name} is not JSON")


def correction(calls: Sequence[ToolCall], text: str | None, defect: str) -> list[Message]:
    """Return the messages that ask again: the calls as a text, since servers read the arguments of calls as JSON."""
    said = [text or "", *(f"{call['name']}({call['arguments']})" for call in calls)]
    return [
        {"role": "assistant", "content": "\n".join(filter(None, said))},
        {"role": "user", "content": _ASK_AGAIN.format(defect)},
    ]


def incomplete_call(conversation: Sequence[Message]) -> str | None:
    """Return what the first message with an incomplete call, or result of one, lacks; None where none does."""
    for number, message in enumerate(conversation, 1):
        if message and (missing := _missing(message)) is not None:
            return f"Message {number} {missing}.{HINT}copy it from the tool_calls of the answer."
    return None


def _missing(message: Message) -> str | None:
    """Return what a message of a conversation with tools lacks."""
    if message.get("role") == "tool" and not str(message.get("tool_call_id") or "").strip():
        return "is a tool's, and lacks its tool_call_id"
    calls: Any = message.get("tool_calls", ())
    for call in calls:
        lacking = [name for name in ("id", "name") if not (call and call.get(name))]
        if lacking:
            return f"has a tool call without its {' and '.join(lacking)}"
    return None


def wire_message(message: Message) -> Message:
    """Return a message as chat completions write it."""
    calls: Any = message.get("tool_calls") if message else None
    if not calls:
        return message
    return {**message, "tool_calls": [_wire_call(call) for call in calls]}


def _wire_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"] or _NO_ARGUMENTS}
    return {"id": call["id"], "type": "function", "function": function}
