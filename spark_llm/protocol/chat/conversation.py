"""Conversations: a system message at their head, or its text in the user's message where a model has no system role."""

from collections.abc import Iterator, Sequence
from typing import Any

from spark_llm.protocol.values import Content, Message, Part

_INSTRUCTION_ROLES = ("system", "developer")


def conversation_of(content: Content) -> Sequence[Message]:
    """Return a conversation as it is, and a text as the message of a user."""
    return [{"role": "user", "content": content}] if isinstance(content, str) else content


def is_instruction(message: Message) -> bool:
    """Return whether a message is a system message; an empty one is not."""
    return bool(message) and message.get("role") in _INSTRUCTION_ROLES


def join_instructions(*instructions: object) -> str:
    """Return the instructions that are texts, as paragraphs of one text."""
    return "\n\n".join(part for part in instructions if isinstance(part, str) and part)


def join_contents(*contents: Any) -> str | list[Part]:  # noqa: ANN401 -- of messages, which may lack theirs
    """Return the contents of messages as one: paragraphs of a text, or a list of parts where one of them is a list."""
    if not any(isinstance(content, list) for content in contents):
        return join_instructions(*contents)
    return [part for content in contents if content for part in ([content] if isinstance(content, str) else content)]


def with_instructions(messages: Sequence[Message], system: str | None, more: str | None = None) -> Sequence[Message]:
    """Return a conversation with a system message: its own, or else `system`; `more` is added to either."""
    for place, message in enumerate(messages):
        if message and message.get("role") == "system":
            if more is None:
                return messages
            own = {**message, "content": join_contents(message.get("content"), more)}
            return [*messages[:place], own, *messages[place + 1 :]]
    system = system if more is None else join_instructions(system, more)
    return messages if system is None else [{"role": "system", "content": system}, *messages]


def without_system_messages(messages: Sequence[Message]) -> Iterator[Message]:
    """Yield a conversation in which each system message stands at the head of the user's message that follows it."""
    instructions: str | list[Part] = ""
    for message in messages:
        if is_instruction(message):
            instructions = join_contents(instructions, message.get("content"))
        elif instructions and message and message.get("role") == "user":
            yield {**message, "content": join_contents(instructions, message.get("content"))}
            instructions = ""
        else:
            if instructions:
                yield {"role": "user", "content": instructions}
                instructions = ""
            yield message
    if instructions:
        yield {"role": "user", "content": instructions}
