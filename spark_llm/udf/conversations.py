"""Reads columns of conversations: arrays of messages, which are structs with fields in any order.

A message has `role` and `content`, and may have `parts`: an array of structs with some of the fields `type`, `text`,
`data` and `url`. Conversations with tools have `tool_calls` and `tool_call_id`. What is wrong with a part or a call is
the error of its row.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from spark_llm.errors import HINT
from spark_llm.protocol.chat.tool_calls import TOOL_FIELDS, incomplete_call
from spark_llm.protocol.media import MediaError, media_at, media_of
from spark_llm.protocol.values import Message, Part, RowError, ToolCall
from spark_llm.udf.slices import is_binary, is_list, is_text

CONVERSATION_TYPE = "array<struct<role:string,content:string>>"

MESSAGE_HINT = (
    "a message is a struct with role and content, and may have parts array<struct<type:string,text:string,data:binary,"
    "url:string>>, tool_calls array<struct<id:string,name:string,arguments:string>> and tool_call_id string; write any"
    " other array with to_json()."
)

_PART_KINDS = ("text", "image", "file", "audio")
_PART_VALUES = ("text", "data", "url")
_REQUIRED = {"role", "content"}

_TypeTest = Callable[[pa.DataType], bool]


def is_conversation_type(data_type: pa.DataType) -> bool:
    """Return whether an Arrow column of this type holds conversations."""
    return _is_structs(data_type, _MESSAGE_FIELDS) and {field.name for field in data_type.value_type} >= _REQUIRED


def is_conversation(cell: Any) -> bool:  # noqa: ANN401 -- whatever Spark makes of a cell
    """Return whether a pandas cell, as lists and dicts, is a conversation."""
    return _is_dicts(cell, _MESSAGE_FIELDS) and all(
        message is None
        or (
            set(message) >= _REQUIRED
            and _is_dicts(message.get("parts") or [], _PART_FIELDS)
            and _is_dicts(message.get("tool_calls") or [], _CALL_FIELDS)
        )
        for message in cell
    )


def lists_and_dicts(cell: Any, value_of: Callable[[Any], Any] = lambda value: value) -> Any:  # noqa: ANN401 -- as above
    """Return a pandas cell with lists in place of arrays, dicts in place of rows, and `value_of` each value in them."""
    if isinstance(cell, (list, np.ndarray)):
        return [lists_and_dicts(part, value_of) for part in cell]
    if hasattr(cell, "asDict"):
        cell = cell.asDict()
    if isinstance(cell, dict):
        return {name: lists_and_dicts(part, value_of) for name, part in cell.items()}
    return value_of(cell)


def conversation_row(messages: Sequence[Any]) -> Sequence[Message] | RowError:
    """Return a conversation with the parts of each message in its content, or the error of the first bad part."""
    try:
        conversation = [_message(number, message) for number, message in enumerate(messages, 1)]
    except MediaError as error:
        return invalid_row(str(error))
    incomplete = incomplete_call(conversation)
    return conversation if incomplete is None else invalid_row(incomplete)


def invalid_row(message: str) -> RowError:
    """Return the error of a row that is not sent, because of its own input."""
    return RowError("invalid_request", None, message, retryable=False)


def _message(number: int, message: Any) -> Message:  # noqa: ANN401 -- a dict, or None, which the server judges
    if message is None or set(message) == _REQUIRED:
        known: Message = message
        return known
    content = message["content"]
    if parts := message.get("parts"):
        given = [] if content is None else [content]
        content = given + [_part(f"part {place} of message {number}", part) for place, part in enumerate(parts, 1)]
    of_tools = {name: value for name in TOOL_FIELDS if (value := message.get(name))}
    return {"role": message["role"], "content": content, **of_tools}


def _part(what: str, part: Mapping[str, Any] | None) -> Part:
    """Return a text or media; raises `MediaError` for a part that is neither."""
    fields = part or {}
    values = {name: value for name in _PART_VALUES if (value := fields.get(name)) is not None}
    kind = fields.get("type")
    if len(values) != 1:
        raise MediaError(f"{what} has {' and '.join(values) or 'no value'}.{HINT}set one of text, data and url.")
    if kind not in (None, *_PART_KINDS):
        raise MediaError(
            f"{what} has the type {kind!r}.{HINT}the types are {', '.join(_PART_KINDS)}; null tells it by the bytes."
        )
    [(name, value)] = values.items()
    if (name == "text") != (kind == "text") and kind is not None:
        raise MediaError(
            f"{what} has the type {kind!r} and the value {name}.{HINT}a text has text, the others data or url."
        )
    if name == "text":
        text: str = value
        return text
    if name == "url" and kind == "audio":
        raise MediaError(f"{what} is audio by its URL.{HINT}pass its bytes as data.")
    try:
        media = media_of(bytes(value)) if name == "data" else media_at(value, kind or "image")
    except MediaError as error:
        raise MediaError(f"{what} {error}") from None
    if kind not in (None, media.kind):
        raise MediaError(
            f"{what} has the type {kind!r}, and its bytes are {media.mime_type}.{HINT}leave the type null."
        )
    return media


def _is_parts(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_null(data_type)) or _is_structs(data_type, _PART_FIELDS)


def _is_calls(data_type: pa.DataType) -> bool:
    is_null = bool(pa.types.is_null(data_type) or (is_list(data_type) and pa.types.is_null(data_type.value_type)))
    return is_null or (_is_structs(data_type, _CALL_FIELDS) and data_type.value_type.num_fields == len(_CALL_FIELDS))


def _is_structs(data_type: pa.DataType, fields: Mapping[str, _TypeTest]) -> bool:
    """Return whether a type is an array of structs with some of these fields, each of its type or null."""
    return (
        is_list(data_type)
        and bool(pa.types.is_struct(data_type.value_type))
        and all(
            field.name in fields and (pa.types.is_null(field.type) or fields[field.name](field.type))
            for field in data_type.value_type
        )
    )


def _is_dicts(value: Any, fields: Iterable[str]) -> bool:  # noqa: ANN401 -- as above
    """Return whether a value is a list of dicts with some of these keys, or nulls."""
    return isinstance(value, list) and all(
        each is None or (isinstance(each, dict) and set(each) <= set(fields)) for each in value
    )


_PART_FIELDS: Mapping[str, _TypeTest] = {"type": is_text, "text": is_text, "data": is_binary, "url": is_text}
_CALL_FIELDS: Mapping[str, _TypeTest] = dict.fromkeys(ToolCall.__required_keys__, is_text)
_MESSAGE_FIELDS: Mapping[str, _TypeTest] = {
    "role": is_text,
    "content": is_text,
    "parts": _is_parts,
    "tool_calls": _is_calls,
    "tool_call_id": is_text,
}
