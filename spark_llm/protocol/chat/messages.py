"""Writes a conversation as the field `messages` of a chat completions request.

Wire format: the OpenAI chat completions request, as Databricks Model Serving documents it, with its content parts
`text`, `image_url`, `file` and `input_audio`.
"""

from spark_llm.errors import HINT
from spark_llm.protocol.bodies import Pieces, json_list
from spark_llm.protocol.chat.content import parts_of
from spark_llm.protocol.chat.conversation import (
    conversation_of,
    join_instructions,
    with_instructions,
    without_system_messages,
)
from spark_llm.protocol.chat.tool_calls import wire_message
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.task import UnsendableError
from spark_llm.protocol.values import Content, Message, Part

_NO_FILE_URL = (
    f"a chat completions request takes no file by its URL.{HINT}pass its bytes as data, or set "
    'Endpoint(…, api="responses").'
)
_AUDIO_FORMATS = {"audio/wav": b"wav", "audio/mpeg": b"mp3"}


def messages_field(content: Content, system: str | None, more: str | None, *, folded: bool) -> Pieces:
    """Write the field `messages`; `more` is added to the instructions, and `folded` leaves out the system role."""
    if isinstance(content, str) and not folded:  # without a list of messages in between: most requests go this way
        system = system if more is None else join_instructions(system, more)
        head = b"" if system is None else b'{"role":"system","content":' + write_json(system) + b"},"
        yield b'"messages":[' + head + b'{"role":"user","content":' + write_json(content) + b"}]"
        return
    yield b'"messages":'
    messages = with_instructions(conversation_of(content), system, more)
    yield from json_list(map(_message, without_system_messages(messages) if folded else messages))


def _message(message: Message) -> Pieces:
    message, parts = wire_message(message), parts_of(message)
    if parts is None:
        yield write_json(message)
    else:
        others = write_json({name: value for name, value in message.items() if name != "content"})
        yield others[:-1] + b',"content":'
        yield from json_list(map(_part, parts))
        yield b"}"


def _part(part: Part) -> Pieces:
    if isinstance(part, str):
        yield b'{"type":"text","text":' + write_json(part) + b"}"
    elif part.url is not None and part.kind == "file":
        raise UnsendableError.of_input(_NO_FILE_URL)
    elif part.url is not None:
        yield b'{"type":"image_url","image_url":{"url":' + write_json(part.url) + b"}}"
    elif part.kind == "audio":
        yield from (b'{"type":"input_audio","input_audio":{"data":"', part.base64)
        yield b'","format":"' + _AUDIO_FORMATS[part.mime_type or ""] + b'"}}'
    elif part.kind == "file":
        yield from (b'{"type":"file","file":{"filename":"file.pdf","file_data":', *part.data_url, b"}}")
    else:
        yield from (b'{"type":"image_url","image_url":{"url":', *part.data_url, b"}}")
