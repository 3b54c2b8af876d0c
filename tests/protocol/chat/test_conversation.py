"""Conversations: where their instructions stand."""

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.protocol.chat.content import parts_of
from spark_llm.protocol.chat.conversation import (
    conversation_of,
    is_instruction,
    join_instructions,
    with_instructions,
    without_system_messages,
)
from spark_llm.protocol.media import Media
from spark_llm.protocol.values import Message

ROLES = st.sampled_from(["system", "developer", "user", "assistant"])
WORDS = st.text("abc", min_size=1)
MESSAGES: st.SearchStrategy[Message] = st.fixed_dictionaries({"role": ROLES, "content": WORDS})
CONVERSATIONS = st.lists(MESSAGES, max_size=6)
PARTS = st.lists(WORDS | st.just(Media("image", url="https://a.example/b.png")), max_size=3)
WITH_PARTS = st.lists(st.fixed_dictionaries({"role": ROLES, "content": WORDS | PARTS}), max_size=6)


def words(messages: list[Message]) -> list[object]:
    """Return the paragraphs and the media of all messages, in order."""
    contents = [parts_of(message) or [str(message["content"])] for message in messages if message["content"]]
    parts = [part for content in contents for part in content]
    return [word for part in parts for word in (part.split("\n\n") if isinstance(part, str) else [part])]


def test_a_text_is_the_message_of_a_user() -> None:
    """A conversation is returned unchanged."""
    messages: list[Message] = [{"role": "assistant", "content": "Hi"}]

    assert [{"role": "user", "content": "Hi"}] == conversation_of("Hi")
    assert messages is conversation_of(messages)


@given(CONVERSATIONS, st.none() | st.just("SYSTEM"), st.none() | st.just("MORE"))
def test_instructions_join_the_system_message(messages: list[Message], system: str | None, more: str | None) -> None:
    """Its own system message counts before `system`, and `more` is added to either."""
    found = list(with_instructions(messages, system, more))
    own = next((message["content"] for message in messages if message["role"] == "system"), None)
    expected = join_instructions(system if own is None else own, more)

    assert expected == next((message["content"] for message in found if message["role"] == "system"), "")
    assert [message for message in messages if message["role"] != "system"] == [
        message for message in found if message["role"] != "system"
    ]


@given(CONVERSATIONS | WITH_PARTS)
def test_without_system_messages_no_word_is_lost(messages: list[Message]) -> None:
    """All paragraphs and media keep their order, and no message is an instruction."""
    found = list(without_system_messages(messages))

    assert words(messages) == words(found)
    assert [] == [message for message in found if is_instruction(message)]


def test_a_null_is_no_instruction() -> None:
    """A conversation of a column may hold a null; the server refuses it."""
    null: Message = None  # type: ignore[assignment]  # as a column may give it

    assert not is_instruction(null)
    assert [null] == list(without_system_messages([null]))
