"""Writes a conversation as the field `messages` of a chat completions request.

Wire format: the OpenAI chat completions request, as Databricks Model Serving documents it.
"""

from spark_llm.protocol.chat.conversation import (
    conversation_of,
    join_instructions,
    with_instructions,
    without_system_messages,
)
from spark_llm.protocol.chat.tool_calls import wire_message
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.values import Content


def messages_field(content: Content, system: str | None, more: str | None, *, folded: bool) -> bytes:
    """Write the field `messages`; `more` is added to the instructions, and `folded` leaves out the system role."""
    if folded:
        messages = without_system_messages(with_instructions(conversation_of(content), system, more))
        return b'"messages":' + write_json(list(map(wire_message, messages)))
    if isinstance(content, str):  # without a list of messages in between, since most requests go this way
        system = system if more is None else join_instructions(system, more)
        head = b"" if system is None else b'{"role":"system","content":' + write_json(system) + b"},"
        return b'"messages":[' + head + b'{"role":"user","content":' + write_json(content) + b"}]"
    return b'"messages":' + write_json(list(map(wire_message, with_instructions(content, system, more))))
