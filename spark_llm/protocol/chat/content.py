"""The content of prompts: texts and media, how large they are, and the same with digests in place of bytes."""

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from spark_llm.protocol.media import Media
from spark_llm.protocol.values import Content, Item, Message, Part, Prompt

BYTES_PER_TOKEN = 4  # of English, as a rule of thumb; few languages and tokenizers have more tokens than one for 2


def parts_of(message: Message | None) -> list[Part] | None:
    """Return the parts of a message; None where its content is a text, or nothing."""
    content = message.get("content") if message else None
    return content if isinstance(content, list) else None


def first_text(content: Content) -> str:
    """Return a text, or that of a conversation's first message from a user; empty where it has none."""
    if isinstance(content, str):
        return content
    message = next((message for message in content if message and message.get("role") == "user"), {})
    text = message.get("content")
    return text if isinstance(text, str) else ""


def item_bytes(item: Item) -> int:
    """Return about how many bytes of memory the texts and media of an item take: one for each character."""
    if isinstance(item, (str, bytes)):
        return len(item)
    return sum(len(part) if isinstance(part, str) else part.size for part in _parts_in(item))


def item_characters(item: Item) -> int:
    """Return how long an item is, to estimate its tokens: media count as a text with as many tokens."""
    if isinstance(item, (str, bytes)):
        return len(item)
    return sum(
        len(part) if isinstance(part, str) else part.estimated_tokens * BYTES_PER_TOKEN for part in _parts_in(item)
    )


def digested(item: Item) -> Item:
    """Return an item with digests in place of the bytes of its media: equal for equal items, and small."""
    if isinstance(item, Prompt):
        return replace(item, content=cast("Content", digested(item.content)))
    if isinstance(item, (str, bytes)) or not any(map(parts_of, item)):
        return item
    return [_digested(message) for message in item]


def _digested(message: Message) -> Message:
    parts = parts_of(message)
    if parts is None:
        return message
    return {**message, "content": [part.digested if isinstance(part, Media) else part for part in parts]}


def _parts_in(item: Item) -> Iterator[Part]:
    """Yield all texts and media of an item."""
    if isinstance(item, str):
        yield item
    elif isinstance(item, bytes):
        return
    elif isinstance(item, Prompt):
        yield item.system or ""
        yield from _parts_in(item.content)
    else:
        for message in item:
            content = message.get("content") if message else None
            if isinstance(content, list):
                yield from content
            elif isinstance(content, str):
                yield content
