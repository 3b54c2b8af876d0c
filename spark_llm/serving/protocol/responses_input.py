"""The input of the Responses API, item by item: messages, calls of tools and their results, as a conversation."""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec

from spark_llm.serving.protocol.content import (
    FilePart,
    ImagePart,
    ImageUrl,
    InputFile,
    Message,
    Part,
    TextPart,
    check_part,
)
from spark_llm.serving.protocol.errors import Refused, unknown_value
from spark_llm.serving.protocol.tools import CalledFunction, CalledTool

ITEM_TYPES = ("function_call", "function_call_output", "message", "reasoning")
ROLES = ("assistant", "system", "developer", "user")
# As OpenAI lists them; audio is none of them.
PART_TYPES = (
    *("input_text", "input_image", "output_text", "refusal", "input_file", "computer_screenshot"),
    *("summary_text", "encrypted_content"),
)


class InputText(msgspec.Struct, tag="input_text", tag_field="type"):
    """A text."""

    text: str


class InputImage(msgspec.Struct, tag="input_image", tag_field="type"):
    """An image: a URL, a data URL, or the id of an uploaded one."""

    image_url: str | None = None
    file_id: str | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None


class InputFilePart(msgspec.Struct, tag="input_file", tag_field="type"):
    """A file: a data URL or base64, a URL, or the id of an uploaded one."""

    filename: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None


class OutputText(msgspec.Struct, tag="output_text", tag_field="type"):
    """What an assistant said."""

    text: str


class OutputRefusal(msgspec.Struct, tag="refusal", tag_field="type"):
    """What an assistant said in place of an answer."""

    refusal: str


class MessageItem(msgspec.Struct):
    """A message of a user, or of the system."""

    role: Literal["system", "developer", "user"]
    content: str | list[InputText | InputImage | InputFilePart]


class AssistantItem(msgspec.Struct):
    """A message of the assistant."""

    role: Literal["assistant"]
    content: str | list[OutputText | OutputRefusal]


class CallItem(msgspec.Struct):
    """A call of a function."""

    call_id: str
    name: str
    arguments: str


class ResultItem(msgspec.Struct):
    """The result of a call."""

    call_id: str
    output: str | list[InputText]


ItemT = TypeVar("ItemT", bound=msgspec.Struct)


def read_input(given: str | Sequence[Any] | None, instructions: str | None) -> list[Message]:
    """Return the conversation of an input, after the instructions; raises `Refused` with the path of what is wrong."""
    first = [] if instructions is None else [Message("system", instructions)]
    if isinstance(given, str):
        return [*first, Message("user", given)]
    conversation = _Conversation(first)
    for number, item in enumerate(given or ()):
        conversation.add(item, f"input[{number}]")
    return conversation.end()


class _Conversation:
    """The messages that items make, one after the other."""

    def __init__(self, first: list[Message]) -> None:
        self._messages = first
        self._has_result: dict[str, bool] = {}  # by the ids of calls
        self._follows_call = False

    def add(self, item: Any, where: str) -> None:  # noqa: ANN401 -- any value of JSON
        """Add an item; thoughts are not read."""
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if kind not in ITEM_TYPES:
            raise unknown_value("" if kind is None else str(kind), ITEM_TYPES, where)
        if kind == "function_call":
            self._add_call(_read(item, CallItem, where))
        elif kind == "function_call_output":
            self._add_result(_read(item, ResultItem, where))
        elif kind == "message":
            self._messages.append(_read_message(item, where))
        self._follows_call = kind == "function_call" or (kind == "reasoning" and self._follows_call)

    def _add_call(self, call: CallItem) -> None:
        self._has_result[call.call_id] = False
        tool = CalledTool(call.call_id, CalledFunction(call.name, call.arguments))
        if self._follows_call:  # calls in parallel are one message
            self._messages[-1].tool_calls = [*(self._messages[-1].tool_calls or ()), tool]
        else:
            self._messages.append(Message("assistant", tool_calls=[tool]))

    def _add_result(self, result: ResultItem) -> None:
        if result.call_id not in self._has_result:
            message = f"No tool call found for function call output with call_id {result.call_id}."
            raise Refused.bad_request(message, param="input")
        self._has_result[result.call_id] = True
        text = result.output if isinstance(result.output, str) else "".join(part.text for part in result.output)
        self._messages.append(Message("tool", text, tool_call_id=result.call_id))

    def end(self) -> list[Message]:
        """Return the messages; raises `Refused` for a call without its result."""
        for call_id in (call_id for call_id, has_result in self._has_result.items() if not has_result):
            raise Refused.bad_request(f"No tool output found for function call {call_id}.", param="input")
        if not self._messages:
            raise Refused.bad_request("Invalid request: the input has no message.", param="input")
        return self._messages


def _read_message(item: dict[str, Any], where: str) -> Message:
    role = item.get("role")
    if role not in ROLES:
        raise unknown_value(str(role or ""), ROLES, where)
    for index, part in enumerate(item["content"] if isinstance(item.get("content"), list) else ()):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind not in PART_TYPES[:5]:
            raise unknown_value(kind, PART_TYPES, f"{where}.content[{index}].type")
    if role == "assistant":
        content = _read(item, AssistantItem, where).content
        if isinstance(content, str):
            return Message("assistant", content)
        return Message("assistant", [TextPart(part.text) for part in content if isinstance(part, OutputText)])
    message = _read(item, MessageItem, where)
    if isinstance(message.content, str):
        return Message(message.role, message.content)
    parts = [_chat_part(part, f"{where}.content[{index}]") for index, part in enumerate(message.content)]
    return Message(message.role, parts)


def _chat_part(part: InputText | InputImage | InputFilePart, where: str) -> Part:
    """Return a part as a chat has it, with its media read."""
    if isinstance(part, InputText):
        return TextPart(part.text)
    if isinstance(part, InputImage):
        if part.image_url is None:
            raise Refused.bad_request(f"No such File object: {part.file_id}", param=where)
        image = ImagePart(ImageUrl(part.image_url, part.detail))
        check_part(image, f"{where}.image_url", noun="")
        return image
    file = FilePart(InputFile(part.file_data, part.filename, part.file_id, part.file_url))
    check_part(file, f"{where}.{'file_data' if part.file_url is None else 'file_url'}", noun="")
    return file


def _read(item: dict[str, Any], kind: type[ItemT], where: str) -> ItemT:
    try:
        return msgspec.convert(item, kind)
    except msgspec.MsgspecError as error:
        text = str(error).replace("`$", f"`$.{where}") if "`$" in str(error) else f"{error} - at `$.{where}`"
        raise Refused.bad_request(f"Invalid request: {text}", param=where) from None
