"""The messages of a conversation, and their content: texts, images, audio and files.

What a part holds is read and checked here, once: a model gets text and bytes. Knows no HTTP library and no model.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import msgspec

from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.file_types import image_header, mime_type_of
from spark_llm.serving.protocol.tools import CalledTool, ToolCall

PART_TYPES = ("text", "image_url", "input_audio", "refusal", "audio", "file")  # of OpenAI, in its order
AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}
PDF = "application/pdf"

_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),", re.IGNORECASE)
_URL = re.compile(r"https?://[^\s/?#]+[^\s]*", re.IGNORECASE)
_UNSUPPORTED_IMAGE = (
    "You uploaded an unsupported image. Please make sure your image has of one the following formats: "
    "['png', 'jpeg', 'gif', 'webp']."
)


class Media(NamedTuple):
    """An image, an audio clip or a file.

    Attributes:
        kind: Which of these it is.
        mime_type: Its type; empty for one at a URL, which is not fetched.
        data: Its bytes; None for one at a URL.
        url: Its URL; None if it came with its bytes.
    """

    kind: Literal["image", "audio", "file"]
    mime_type: str
    data: bytes | None = None
    url: str | None = None


class PartError(Exception):
    """What is wrong with the bytes or the URL of a part."""

    def __init__(self, reason: str, *, code: str = "invalid_value", is_whole: bool = False) -> None:
        """Keep the reason; `is_whole` says that it is the whole message, which names no field."""
        super().__init__(reason)
        self.code = code
        self.is_whole = is_whole


class TextPart(msgspec.Struct, tag="text", tag_field="type"):
    """A text."""

    text: str


class RefusalPart(msgspec.Struct, tag="refusal", tag_field="type"):
    """What an assistant said in place of an answer."""

    refusal: str


class ReasoningPart(msgspec.Struct, tag="reasoning", tag_field="type"):
    """What a model thought, which no model reads."""

    summary: list[Any] | None = None


class ImageUrl(msgspec.Struct):
    """Where an image is, or the image itself as a data URL."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(msgspec.Struct, tag="image_url", tag_field="type", dict=True):
    """An image."""

    image_url: ImageUrl
    field: ClassVar[str] = "image_url.url"
    noun: ClassVar[str] = "image URL"

    @cached_property
    def media(self) -> Media:
        """The image; raises `PartError`."""
        return read_image(self.image_url.url)


class InputAudio(msgspec.Struct):
    """An audio clip, as base64."""

    data: str
    format: Literal["wav", "mp3"]


class AudioPart(msgspec.Struct, tag="input_audio", tag_field="type", dict=True):
    """An audio clip."""

    input_audio: InputAudio
    field: ClassVar[str] = "input_audio.data"
    noun: ClassVar[str] = "audio data"

    @cached_property
    def media(self) -> Media:
        """The audio; raises `PartError`."""
        mime_type = AUDIO_TYPES[self.input_audio.format]
        data = _decoded(self.input_audio.data, "Expected base64-encoded audio")
        if mime_type_of(data) != mime_type:
            raise PartError(f"The audio data is not a valid {self.input_audio.format} file.")
        return Media("audio", mime_type, data)


class InputFile(msgspec.Struct):
    """A file, as a data URL or as base64, or the id of an uploaded one; in the Responses API also its URL."""

    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None
    file_url: str | None = None


class FilePart(msgspec.Struct, tag="file", tag_field="type", dict=True):
    """A file: a PDF, as OpenAI takes no other."""

    file: InputFile
    field: ClassVar[str] = "file.file_data"
    noun: ClassVar[str] = "file data"

    @cached_property
    def media(self) -> Media:
        """The file; raises `PartError`."""
        return read_file(self.file)


MediaPart = ImagePart | AudioPart | FilePart
Part = TextPart | RefusalPart | ReasoningPart | MediaPart


class Message(msgspec.Struct):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse a message without content, except from an assistant: it may have called tools."""
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of role '{self.role}' needs `content`")

    @property
    def parts(self) -> list[str | Media]:
        """The texts and media of the content, in order."""
        if isinstance(self.content, str):
            return [self.content]
        known = [part for part in self.content or () if isinstance(part, TextPart | MediaPart)]
        return [part.text if isinstance(part, TextPart) else part.media for part in known]

    @property
    def text(self) -> str:
        """The content as text, with its text parts joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def media(self) -> list[Media]:
        """The images, audio clips and files of the content."""
        if isinstance(self.content, str):
            return []
        return [part for part in self.parts if isinstance(part, Media)]

    @property
    def calls(self) -> list[ToolCall]:
        """The calls of tools in an assistant's message."""
        return [ToolCall(call.id, call.function.name, call.function.arguments) for call in self.tool_calls or ()]


Messages = Annotated[list[Message], msgspec.Meta(min_length=1)]


def check_messages(messages: Sequence[Message]) -> None:
    """Raise `Refused` for media that cannot be read, or that are not in a user's message."""
    for number, message in enumerate(messages):
        parts = message.content if isinstance(message.content, list) else []
        for index, part in enumerate(parts):
            if not isinstance(part, MediaPart):
                continue
            if message.role != "user":
                raise Refused.bad_request(
                    f"Invalid 'messages[{number}]'. Parts of type '{part.__struct_config__.tag}' are only allowed for "
                    f"messages with role 'user', but this message with role '{message.role}' contains one.",
                    param=f"messages[{number}]",
                    code="invalid_value",
                )
            where = f"messages[{number}].content[{index}]"
            if "media" in part.__dict__:  # the reader of the Responses API has read it
                continue
            if isinstance(part, FilePart) and part.file.file_url is not None:
                field = f"{where}.file.file_url"
                raise Refused.bad_request(f"Unknown parameter: '{field}'.", param=field, code="unknown_parameter")
            check_part(part, f"{where}.{part.field}", noun=part.noun)


def check_calls(messages: Sequence[Message]) -> None:
    """Raise `Refused` for a tool's message without its call, and for a call without its message."""
    unanswered: list[str] = []
    for number, message in enumerate(messages):
        where = f"messages.[{number}]"
        if message.role == "tool":
            if not message.tool_call_id:
                raise Refused.bad_request(
                    "Missing parameter 'tool_call_id': messages with role 'tool' must have a 'tool_call_id'.",
                    param=f"{where}.tool_call_id",
                )
            if message.tool_call_id not in unanswered:
                raise Refused.bad_request(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    "'tool_calls'.",
                    param=f"{where}.role",
                )
            unanswered.remove(message.tool_call_id)
            continue
        _check_answered(unanswered, where)
        unanswered = [call.id for call in message.calls]
    _check_answered(unanswered, f"messages.[{len(messages)}]")


def _check_answered(unanswered: Sequence[str], where: str) -> None:
    if unanswered:
        raise Refused.bad_request(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. The following tool_call_ids did not have response messages: " + ", ".join(unanswered),
            param=f"{where}.role",
        )


def check_part(part: MediaPart, where: str, *, noun: str) -> None:
    """Read the media of a part; raises `Refused` with the path of its field, after a noun for it or none."""
    try:
        _ = part.media
    except PartError as error:
        message = str(error) if error.is_whole else f"Invalid {noun}{': ' if noun else ''}'{where}'. {error}"
        raise Refused.bad_request(message, param=None if error.is_whole else where, code=error.code) from None


def read_image(url: str) -> Media:
    """Return the image of a URL or a data URL; raises `PartError`."""
    if url[:5].lower() != "data:":
        return Media("image", "", url=_checked_url(url))
    expected = (
        "Expected a base64-encoded data URL with an image MIME type (e.g. 'data:image/png;base64,aW1nIGJ5dGVzIGhlcmU=')"
    )
    mime_type, data = _read_data_url(url, expected)
    if not mime_type.startswith("image/"):
        raise PartError(f"{expected}, but got unsupported MIME type '{mime_type}'.")
    header = image_header(data)
    if header is None:
        raise PartError(_UNSUPPORTED_IMAGE, code="invalid_image_format", is_whole=True)
    if header.mime_type != mime_type:
        raise PartError(f"The data URL says {mime_type}, but the image appears to be {header.mime_type}.")
    return Media("image", mime_type, data)


def read_file(file: InputFile) -> Media:
    """Return the PDF of a URL, of a data URL or of base64; raises `PartError`."""
    if file.file_url is not None:
        return Media("file", "", url=_checked_url(file.file_url))
    file_data = file.file_data
    if file_data is None:
        reason = f"No such File object: {file.file_id}" if file.file_id else "A file needs `file_data`."
        raise PartError(reason, is_whole=True)
    expected = (
        f"Expected a base64-encoded data URL with an {PDF} MIME type (e.g. 'data:{PDF};base64,SGVsbG8sIFdvcmxkIQ==')"
    )
    if file_data[:5].lower() != "data:":
        file_data = f"data:{PDF};base64,{file_data}"
    mime_type, data = _read_data_url(file_data, expected)
    if mime_type != PDF:
        raise PartError(f"{expected}, but got unsupported MIME type '{mime_type}'.")
    if mime_type_of(data) != PDF:
        raise PartError("The file data is not a valid PDF.")
    return Media("file", PDF, data)


def _checked_url(url: str) -> str:
    if not _URL.fullmatch(url):
        raise PartError("Expected a valid URL, but got a value with an invalid format.")
    return url


def _read_data_url(url: str, expected: str) -> tuple[str, bytes]:
    head = _DATA_URL.match(url)
    if head is None or ";base64" not in head[2].lower():
        raise PartError(f"{expected}, but got a value without the 'base64' encoding.")
    return head[1].lower(), _decoded(url[head.end() :], expected)


def _decoded(text: str, expected: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise PartError(f"{expected}, but got an invalid base64-encoded value.") from None
    if not data:
        raise PartError(f"{expected}, but got empty base64-encoded bytes.")
    return data
