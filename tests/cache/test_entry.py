"""What a cache keeps: the keys of requests, and answers as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.cache.entry import WHO_IS_ASKING, Entry, Keys, read, written
from spark_llm.protocol.chat import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Item, Result, Usage
from tests.support.strategies import JSON, TEXTS, plain

URL = "https://host/serving-endpoints/llama/invocations"
COUNTS = st.none() | st.integers(0, 2**31 - 1)
SOME = st.none() | TEXTS.map(plain)
ANSWERS = st.builds(
    Result,
    text=SOME,
    choices=st.none() | st.lists(SOME, max_size=3),
    embedding=st.none() | st.binary(max_size=32),
    finish_reason=SOME,
    usage=st.none() | st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS),
    model=SOME,
    request_id=SOME,
)
TASKS: list[Task] = [Chat(), Complete(), Embed()]


def key(item: Item = "Why?", task: Task = TASKS[0], url: str = URL, model: str | None = "llama") -> bytes | None:
    """Return the key of one request."""
    return Keys(task, url, model).of(item)


@given(ANSWERS)
def test_what_was_written_is_read(answer: Result) -> None:
    """Every field of an answer comes back, and what it cost."""
    assert answer == read(written(answer))


@given(st.binary(max_size=40) | JSON.map(write_json), st.none() | st.binary(max_size=8))
def test_any_other_bytes_are_no_answer_or_one(answer: bytes, vector: bytes | None) -> None:
    """Nothing that could be read from a disk raises."""
    assert isinstance(read(Entry(answer, vector)), (Result, type(None)))


@pytest.mark.parametrize("answer", [b"", b"null", b"[]", b"[1,2,3,4]", b"[null,null,null,[1,2,3,4,5,6],null,null]"])
def test_what_is_no_answer_is_none(answer: bytes) -> None:
    """An answer has six parts, and its usage five."""
    assert None is read(Entry(answer, None))


@given(st.lists(TEXTS, max_size=20), st.sampled_from(TASKS))
def test_equal_inputs_have_equal_keys_and_others_have_others(texts: list[str], task: Task) -> None:
    """Two texts have one key where they are the same on the wire, and only there."""
    assert len({plain(text) for text in texts}) == len({key(text, task) for text in texts})


def test_whatever_changes_an_answer_changes_the_key() -> None:
    """The input, a parameter, the instructions, the model, the URL and its query, a further header, the task."""
    keys = [
        key(),
        key("Why"),
        key(task=Chat(parameters=b'{"max_tokens":8}')),
        key(task=Chat(parameters=b'{"max_tokens":9}')),
        key(task=Chat(system="Be brief.")),
        key(model="llama-2"),
        key(model=None),
        key(url=URL + "?api-version=1"),
        key(url=URL + "?api-version=2"),
        key(url=URL.replace("host", "another")),
        Keys(TASKS[0], URL, "llama", [("x-variant", "a")]).of("Why?"),
        Keys(TASKS[0], URL, "llama", [("x-variant", "b")]).of("Why?"),
        key(task=TASKS[1]),
        key(task=TASKS[2]),
        key(task=Embed(parameters=b'{"dimensions":256}')),
    ]

    assert len(keys) == len(set(keys))
    assert {32} == {len(each) for each in keys if each is not None}


@pytest.mark.parametrize("name", sorted(WHO_IS_ASKING))
def test_who_is_asking_changes_no_key(name: str) -> None:
    """A key or a cookie that was renewed finds what the old one was answered."""
    assert key() == Keys(TASKS[0], URL, "llama", [(name.title(), "secret")]).of("Why?")


def test_how_headers_are_written_changes_no_key() -> None:
    """Their names have no case, and their order means nothing."""
    one = Keys(TASKS[0], URL, "llama", [("X-Variant", "a"), ("X-Team", "b")])
    other = Keys(TASKS[0], URL, "llama", [("x-team", "b"), ("x-variant", "a")])

    assert one.of("Why?") == other.of("Why?")


@given(TEXTS)
def test_a_text_and_the_conversation_that_it_becomes_are_one_request(text: str) -> None:
    """The key is that of the request, however a column says it."""
    assert key(text, Chat(system="s")) == key([{"role": "system", "content": "s"}, {"role": "user", "content": text}])


def test_a_conversation_that_cannot_be_written_has_no_key() -> None:
    """It is its row's error, which the sender tells."""
    assert None is key([{"role": "user", "content": object()}])
