"""Writes a chat as a Responses request: the same parameters and conversations under the names of that route.

Wire format: the OpenAI Responses request (`instructions`, `input` items, `text.format`, `reasoning`), as Databricks
takes it too. Nothing is stored at the provider, unless `extra_body` says so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spark_llm.errors import HINT, ConfigError
from spark_llm.protocol.bodies import Pieces, RequestBody, json_list, request_body
from spark_llm.protocol.chat.conversation import (
    conversation_of,
    join_instructions,
    with_instructions,
    without_system_messages,
)
from spark_llm.protocol.json_codec import read_json, write_json
from spark_llm.protocol.task import UnsendableError
from spark_llm.protocol.values import Content, Message, Part

MIN_TOKENS = 16
"""The least `max_output_tokens` that servers take."""

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_MEMBERS = {  # of fields, by the name in chat completions
    "reasoning_effort": ("reasoning", "effort"),
    "verbosity": ("text", "verbosity"),
    "response_format": ("text", "format"),
}
_RESERVED = {
    "instructions": "pass them as system=.",
    "background": "leave it out: a column waits for its answers.",
}
_NO_ARGUMENTS: Mapping[str, object] = {"type": "object", "properties": {}}
_NO_AUDIO = f"A Responses request has no place for audio.{HINT}ask a model with audio at its chat completions route."


@dataclass(frozen=True)
class ResponsesParameters:
    """The parameters of a chat in a Responses request.

    Attributes:
        fields: The request's fields but `text`, as a JSON object.
        text: The members of `text` without its braces: the verbosity, and the format that the user set.
    """

    fields: bytes
    text: bytes

    @classmethod
    def of(cls, parameters: bytes) -> "ResponsesParameters":
        """Translate the parameters of a chat completions request; raises `ConfigError` for what Responses lacks."""
        given: dict[str, Any] = read_json(parameters)
        _check_place(given)
        limits = [limit for name in _LIMITS if (limit := given.pop(name, None)) is not None]
        if limits:
            given["max_output_tokens"] = _checked_limit(min(limits))
        for name, (field, inner) in _MEMBERS.items():
            if name in given:
                _set(given, field, inner, _format(given.pop(name)))
        if isinstance(given.get("tools"), list):
            given["tools"] = list(map(_tool, given["tools"]))
        if isinstance(choice := given.get("tool_choice"), dict) and "function" in choice:
            given["tool_choice"] = {"type": "function", **choice["function"]}
        text = write_json(given.pop("text", {}))[1:-1]
        return cls(write_json({"store": False, **given}), text)


def _check_place(given: dict[str, Any]) -> None:
    """Remove an `n` of 1, which needs no place; raise `ConfigError` for a field that Responses has no place for."""
    if given.pop("n", 1) != 1:
        raise _lacking("n", "leave it out, or repeat the rows.")
    for name in ("stop", "seed"):
        if given.get(name) is not None:
            raise _lacking(name, "leave it out.")
    for name, hint in _RESERVED.items():
        if given.get(name):
            raise ConfigError(f"extra_body may not set {name!r} of a Responses request.", hint)


def _lacking(name: str, hint: str) -> ConfigError:
    return ConfigError(f"{name}= has no place in a Responses request.", hint)


def _checked_limit(limit: Any) -> Any:  # noqa: ANN401 -- of extra_body it may be anything
    if isinstance(limit, int) and limit < MIN_TOKENS:
        raise ConfigError(
            f"max_tokens={limit} is below {MIN_TOKENS}, the least in a Responses request.",
            f"set it to {MIN_TOKENS} or more: an answer that needs fewer tokens costs fewer.",
        )
    return limit


def _set(given: dict[str, Any], field: str, inner: str, value: object) -> None:
    """Set a member of a field that `extra_body` may have set too; its own members stay."""
    own = given.get(field, {})
    if not isinstance(own, Mapping) or inner in own:
        raise ConfigError(
            f"extra_body sets {field!r}, and a parameter sets its {inner!r}.", "give each in one of the two places."
        )
    given[field] = {inner: value, **own}


def _format(value: Any) -> Any:  # noqa: ANN401 -- of extra_body it may be anything
    """Return a `response_format` as `text.format`, without the level of `json_schema`; any other value unchanged."""
    if isinstance(value, dict) and isinstance(inner := value.get("json_schema"), dict):
        return {"type": "json_schema", **inner}
    return value


def _tool(tool: Any) -> Any:  # noqa: ANN401 -- as above
    """Return a function without the level of `function`; here `strict` is true unless it is set."""
    if not isinstance(tool, dict) or not isinstance(function := tool.get("function"), dict):
        return tool
    others = {name: value for name, value in tool.items() if name != "function"}
    return {**others, "parameters": _NO_ARGUMENTS, "strict": False, **function}


def responses_body(
    model: str | None, parameters: ResponsesParameters, text_format: bytes | None, conversation: Pieces
) -> RequestBody:
    """Write a request's body: `text_format` is a member of its field `text`.

    Raises `UnsendableError` as `input_fields` does.
    """
    members = [member for member in (parameters.text, text_format) if member]
    text = [b'"text":{', b",".join(members), b"},"] if members else []
    return request_body(model, parameters.fields, *text, *conversation)


def input_fields(content: Content, system: str | None, more: str | None, *, folded: bool) -> Pieces:
    """Write the fields `instructions` and `input`: a system message at the head of a conversation is the former.

    `more` is added to the instructions; `folded` leaves them out: they stand at the head of the user's message. Raises
    `UnsendableError` for a message that no Responses request can carry.
    """
    if isinstance(content, str) and not folded:
        yield from _instructions(system if more is None else join_instructions(system, more))
        yield b'"input":' + write_json(content)
        return
    messages = list(with_instructions(conversation_of(content), system, more))
    if folded:
        messages = list(without_system_messages(messages))
    elif messages and messages[0] and messages[0].get("role") == "system":
        head = messages[0].get("content")
        if isinstance(head, str):
            yield from _instructions(head)
            messages.pop(0)
    yield b'"input":'
    yield from json_list(item for message in messages for item in _items(message))


def _instructions(text: str | None) -> Pieces:
    if text is not None:
        yield b'"instructions":' + write_json(text) + b","


def _items(message: Message) -> Iterator[Pieces]:
    """Yield the input items of a message: itself, and its calls of tools; or the result of a call."""
    if not message:
        yield iter((b"null",))
        return
    calls: Any = message.get("tool_calls") or ()
    role, content = message.get("role"), message.get("content")
    if role == "tool":
        head = {"type": "function_call_output", "call_id": message.get("tool_call_id")}
        yield _item(head, "output", "" if content is None else content, "input_text")
    elif content or not calls:
        yield _item({"role": role}, "content", content, "output_text" if role == "assistant" else "input_text")
    for call in calls:
        arguments = call["arguments"] or "{}"
        item = {"type": "function_call", "call_id": call["id"], "name": call["name"], "arguments": arguments}
        yield iter((write_json(item),))


def _item(head: Mapping[str, object], name: str, content: object, text_type: str) -> Pieces:
    """Write an item with its content, a text or a list of parts, in the field `name`."""
    yield write_json(head)[:-1] + b',"' + name.encode() + b'":'
    if isinstance(content, list):
        yield from json_list(_part(part, text_type) for part in content)
    else:
        yield write_json(content)
    yield b"}"


def _part(part: Part, text_type: str) -> Pieces:
    if isinstance(part, str):
        yield write_json({"type": text_type, "text": part})
    elif part.kind == "audio":
        raise UnsendableError.of_input(_NO_AUDIO)
    elif part.url is not None:
        kind, field = ("input_image", "image_url") if part.kind == "image" else ("input_file", "file_url")
        yield write_json({"type": kind, field: part.url})
    elif part.kind == "image":
        yield from (b'{"type":"input_image","image_url":', *part.data_url, b"}")
    else:
        yield from (b'{"type":"input_file","filename":"file.pdf","file_data":', *part.data_url, b"}")
