"""Messages with parts, as a chat completions request has them."""

import base64
import json
from typing import Any, cast

import pytest
from hypothesis import given

from spark_llm.protocol.bodies import request_body
from spark_llm.protocol.chat.content import digested, item_bytes, item_characters, parts_of
from spark_llm.protocol.chat.messages import messages_field
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.media import Media, media_at, media_of
from spark_llm.protocol.task import RESPONSES, UnsendableError
from spark_llm.protocol.values import Item, Message, Part, Prompt
from tests.support.media import PDF
from tests.support.parts import CONVERSATIONS_WITH_PARTS, JPEG, PNG, TAGGED_MP3, WAV
from tests.support.strategies import plain


def on_the_wire(part: Part) -> dict[str, Any]:
    """Return a part as OpenAI documents it."""
    if isinstance(part, str):
        return {"type": "text", "text": plain(part)}
    if part.data is None:
        return {"type": "image_url", "image_url": {"url": part.url}}
    encoded = base64.b64encode(part.data).decode()
    url = f"data:{part.mime_type};base64,{encoded}"
    if part.kind == "image":
        return {"type": "image_url", "image_url": {"url": url}}
    if part.kind == "file":
        return {"type": "file", "file": {"filename": "file.pdf", "file_data": url}}
    audio_format = {"audio/wav": "wav", "audio/mpeg": "mp3"}[part.mime_type or ""]
    return {"type": "input_audio", "input_audio": {"data": encoded, "format": audio_format}}


def sent(item: Item) -> Any:  # noqa: ANN401 -- JSON
    """Return the messages of a request."""
    return json.loads(bytes(Chat().encode([item], "m", 0)))["messages"]


@given(CONVERSATIONS_WITH_PARTS)
def test_parts_are_sent_in_their_order(conversation: list[dict[str, Any]]) -> None:
    """Texts, images, files and audio, next to messages of text."""
    expected = [
        {
            "role": message["role"],
            "content": plain(message["content"])
            if isinstance(message["content"], str)
            else [on_the_wire(part) for part in message["content"]],
        }
        for message in conversation
    ]

    assert expected == sent(conversation)
    assert expected == sent(Prompt(conversation))


@pytest.mark.parametrize("data", [PNG, JPEG, PDF, WAV, TAGGED_MP3])
def test_a_part_is_written_as_documented(data: bytes) -> None:
    """The golden form of each kind, with an image by its URL behind it."""
    content: list[Part] = ["What is this?", media_of(data), media_at("https://a.example/ü.png")]
    [message] = sent([{"role": "user", "content": content}])

    assert [on_the_wire(part) for part in content] == message["content"]
    assert "user" == message["role"]


def test_other_fields_of_a_message_are_kept() -> None:
    """Whatever a message has besides its content stands before it."""
    message: Message = {"role": "tool", "tool_call_id": "c1", "content": [media_of(PNG)]}

    assert {"role": "tool", "tool_call_id": "c1", "content": [on_the_wire(media_of(PNG))]} == sent([message])[0]
    assert [{"role": "user", "content": []}] == sent([{"role": "user", "content": []}])
    assert [] == sent([])


def test_instructions_join_a_system_message_with_parts() -> None:
    """A type that is told in words stands behind its parts; without the role all of it goes to the user's message."""
    conversation: list[Message] = [
        {"role": "system", "content": ["Be brief.", media_of(PNG)]},
        {"role": "user", "content": "Why?"},
    ]
    picture = on_the_wire(media_of(PNG))
    together = [on_the_wire("Be brief."), picture, on_the_wire("MORE"), on_the_wire("Why?")]

    assert together[:3] == written(conversation, more="MORE")[0]["content"]
    assert [{"role": "user", "content": together}] == written(conversation, more="MORE", folded=True)


def written(conversation: list[Message], more: str, *, folded: bool = False) -> Any:  # noqa: ANN401 -- JSON
    """Return the messages of a request with more instructions."""
    body = request_body(None, b"{}", *messages_field(conversation, None, more, folded=folded))
    return json.loads(bytes(body))["messages"]


def test_a_file_by_its_url_is_refused() -> None:
    """The wire has no place for it; an image by its URL has one."""
    refused: list[Message] = [{"role": "user", "content": ["Why?", media_at("https://a.example/b.pdf", "file")]}]

    for item in (refused, Prompt(refused)):
        with pytest.raises(UnsendableError, match="Hint: pass its bytes as data"):
            Chat().encode([item], None, 0)
    assert b"https://a.example/b.pdf" in bytes(Chat().encode([refused], None, RESPONSES))
    assert b"https://a.example/b.png" in bytes(Chat().encode([[IMAGES]], None, 0))


IMAGES: Message = {"role": "user", "content": [media_at("https://a.example/b.png"), media_of(PDF)]}


@given(CONVERSATIONS_WITH_PARTS, CONVERSATIONS_WITH_PARTS)
def test_digests_stand_for_bytes(one: list[Message], other: list[Message]) -> None:
    """Conversations are equal if and only if they are with digests; texts stay, and so do conversations of texts."""
    assert (one == other) == (digested(one) == digested(other))
    assert (Prompt(one, "s") == Prompt(other, "s")) == (digested(Prompt(one, "s")) == digested(Prompt(other, "s")))
    parts = [part for message in cast("list[Message]", digested(one)) for part in parts_of(message) or ()]
    assert {32} >= {len(part.data) for part in parts if isinstance(part, Media) and part.data is not None}
    assert "Why?" == digested("Why?")


def test_the_size_of_an_item_is_that_of_its_texts_and_bytes() -> None:
    """Instructions of its own count too; a null message has none."""
    conversation: list[Any] = [{"role": "user", "content": ["four", Media("image", "image/png", bytes(1_000))]}, None]

    assert [4, 1_004, 1_006] == [item_bytes("four"), item_bytes(conversation), item_bytes(Prompt(conversation, "12"))]
    assert [4, 4_004, 4_006] == [
        item_characters("four"),
        item_characters(conversation),
        item_characters(Prompt(conversation, "12")),
    ]
