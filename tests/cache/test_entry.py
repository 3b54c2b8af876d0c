"""Cache entries: the keys of requests, and answers as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.cache.entry import AUTHENTICATION_HEADERS, Entry, Keys, decoded_answer, encoded_answer
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.media import Media
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.predictions.scalars import write_prediction
from spark_llm.protocol.predictions.task import Predict
from spark_llm.protocol.rerank import Rerank
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Field, Nullable, Number, Scalar, Shape, Struct
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Item, Prompt, RankedDocument, Result, ToolCall, Usage
from tests.support.strategies import JSON, TEXTS, plain, usages

URL = "https://host/serving-endpoints/llama/invocations"
COUNTS = st.none() | st.integers(0, 2**31 - 1)
SOME = st.none() | TEXTS.map(plain)
ANSWERS = st.builds(
    Result,
    text=SOME,
    choices=st.none() | st.lists(SOME, max_size=3),
    embedding=st.none() | st.binary(max_size=32),
    finish_reason=SOME,
    usage=st.none() | usages(COUNTS),
    model=SOME,
    request_id=SOME,
    tool_calls=st.none() | st.lists(st.builds(ToolCall, id=SOME, name=TEXTS.map(plain), arguments=TEXTS.map(plain))),
)
DOUBLE = Scalar("double")
TASKS: list[Task] = [Chat(), Complete(), Embed()]


def key(item: Item = "Why?", task: Task = TASKS[0], url: str = URL, model: str | None = "llama") -> bytes | None:
    """Return the key of one request."""
    return Keys(task, url, model).of(item)


@given(ANSWERS)
def test_an_encoded_answer_is_decoded(answer: Result) -> None:
    """Every field of an answer comes back, and its cost."""
    assert answer == decoded_answer(encoded_answer(answer))


@given(st.binary(max_size=40) | JSON.map(write_json), st.none() | st.binary(max_size=8))
def test_decoding_any_bytes_raises_nothing(answer: bytes, vector: bytes | None) -> None:
    """Any bytes from a disk are an answer or None."""
    assert isinstance(decoded_answer(Entry(answer, vector)), (Result, type(None)))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b"[1,2,3,4]",
        b"[null,null,null,[1,2,3,4,5,6,null,8,9,10],null,null]",
        b"[null,null,null,null,null,null,5]",
        b'[null,null,null,null,null,null,[["1","f"]]]',
        b"[null,null,null,null,null,null,[],null]",
    ],
)
def test_bytes_of_another_shape_are_none(answer: bytes) -> None:
    """An answer has six parts, seven with calls, and its usage nine at most."""
    assert None is decoded_answer(Entry(answer, None))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [(b"[3,2,5,1,0]", Usage(3, 2, 5, 1, 0)), (b'[3,2,5,1,0,1,"flex"]', Usage(3, 2, 5, 1, 0, 1, "flex"))],
)
def test_an_entry_of_an_older_version_is_read(usage: bytes, expected: Usage) -> None:
    """Its usage has the first five fields, or seven."""
    old = decoded_answer(Entry(b'["yes",null,"stop",' + usage + b',"llama","r-1"]', None))

    assert Result("yes", None, None, "stop", expected, "llama", "r-1") == old


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_media_have_equal_keys_if_and_only_if_their_bytes_are_equal(one: bytes, other: bytes) -> None:
    """The MIME type counts too, and so does a URL."""
    pictures = [Media("image", "image/png", one), Media("image", "image/png", other), Media("image", "image/gif", one)]
    pictures += [Media("image", url="https://a.example/b"), Media("image", url="https://a.example/c")]
    keys = {key([{"role": "user", "content": ["Why?", picture]}]) for picture in pictures}

    assert len(set(pictures)) == len(keys - {None})


def test_the_key_of_a_text_is_that_of_the_version_before() -> None:
    """Answers that were kept are found again."""
    conversation: Item = [{"role": "system", "content": "Briefly."}, {"role": "user", "content": "Why?"}]

    assert "c182c8fcaed01152246abfe3d53c7ff6f2b6acb2945ead9e9928d4e03f2290c6" == (key() or b"").hex()
    assert "5eff8d7fb0fc935d298eea757edae646ee75c808d580cf38ee9c3eb539b2c425" == (key(conversation) or b"").hex()


def test_the_route_of_a_chat_is_no_part_of_its_key() -> None:
    """The same model answers at both."""
    assert key(url="https://host/v1/chat/completions") == key(url="https://host/v1/responses")


def test_an_entry_without_calls_has_no_part_for_them() -> None:
    """It has six parts, as before there were calls."""
    entry = encoded_answer(Result("yes", None, None, "stop", Usage(3, 2, 5, 1, 0), "llama", "r-1"))

    assert b'["yes",null,"stop",[3,2,5,1,0,null,null,null,null],"llama","r-1"]' == entry.answer


def test_an_answer_with_calls_has_a_key_of_its_own() -> None:
    """A task that takes no calls never finds it, with the same fields in the request."""
    parameters = encode_parameters({}, {"tools": [{"type": "function", "function": {"name": "f"}}]})

    assert key(task=Chat(parameters=parameters)) != key(task=Chat(parameters=parameters, tools=True))


@given(st.lists(TEXTS, max_size=20), st.sampled_from(TASKS))
def test_inputs_have_equal_keys_if_and_only_if_they_are_equal(texts: list[str], task: Task) -> None:
    """Two texts have one key if they are the same on the wire, and only then."""
    assert len({plain(text) for text in texts}) == len({key(text, task) for text in texts})


def test_a_prediction_has_a_key_for_its_row_and_its_type() -> None:
    """The columns' names, the format and the type are parts of it: another type keeps another part of the answer."""
    pair = Struct((Field("a", Nullable(DOUBLE)), Field("b", Nullable(DOUBLE))))
    tasks = [Predict(DOUBLE), Predict(pair), Predict(DOUBLE, "inputs"), Predict(DOUBLE, columns=("a",))]
    keys = [key(b"[1]", task) for task in tasks] + [key(b"[2]", tasks[0])]

    assert len(keys) == len(set(keys))
    assert keys[0] == key(b"[1]", Predict(DOUBLE))


DIFFERENT: list[Shape] = [  # types of one JSON schema
    *(Scalar(kind) for kind in ("byte", "short", "integer", "long")),
    *(Scalar(kind) for kind in ("float", "double")),
    *(Number(precision, 2) for precision in (5, 9)),
]


def test_an_answer_has_a_key_for_its_type() -> None:
    """Types of different widths have one JSON schema; the type is that of the task, or of the prompt alone."""
    outputs = [StructuredOutput("review", Struct((Field("stars", shape),))) for shape in DIFFERENT]
    of_task = [key(task=Chat(output=output)) for output in outputs]
    of_prompt = [key(Prompt("Why?", output=output), Chat(output_per_prompt=True)) for output in outputs]

    assert len(outputs) > len({output.schema for output in outputs})
    assert len(outputs) == len(set(of_task))
    assert of_task == of_prompt
    assert key() not in of_task


def test_a_ranking_has_a_key_for_its_documents_and_their_number() -> None:
    """A null among them has its part in it, though it is not sent: a ranking has the places of its row."""
    tasks = [Rerank(), Rerank(top_n=1), Rerank(top_n=2), Rerank(route="/score")]
    keys = [key(b'["q",["a","b"]]', task) for task in tasks] + [
        key(item, tasks[0]) for item in (b'["q",["b","a"]]', b'["q",["a",null,"b"]]')
    ]

    assert len(keys) == len(set(keys))


def test_a_ranking_is_kept_as_its_indexes_and_scores() -> None:
    """The row has the texts."""
    ranking: list[RankedDocument] = [{"index": 3, "score": 0.5, "text": "b"}, {"index": 0, "score": 0.1, "text": "a"}]

    assert Result("[[3,0.5],[0,0.1]]", model="m") == decoded_answer(encoded_answer(Result(ranking=ranking, model="m")))


@given(
    st.none()
    | st.floats()
    | st.text(max_size=5).map(plain)
    | st.lists(st.binary(max_size=9))
    | st.decimals(allow_nan=False)
)
def test_a_prediction_is_kept_as_text(prediction: object) -> None:
    """Its text is the prediction as JSON; a null has none."""
    kept = decoded_answer(encoded_answer(Result(prediction=prediction, model="m")))
    text = None if prediction is None else write_prediction(prediction)

    assert Result(text, model="m") == kept


def test_each_part_that_can_change_an_answer_changes_the_key() -> None:
    """The parts are input, parameters, instructions, model, URL and its query, further headers, and task."""
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


@pytest.mark.parametrize("name", sorted(AUTHENTICATION_HEADERS))
def test_authentication_changes_no_key(name: str) -> None:
    """Requests with a renewed key or cookie find the answers of the old one."""
    assert key() == Keys(TASKS[0], URL, "llama", [(name.title(), "secret")]).of("Why?")


def test_case_and_order_of_headers_change_no_key() -> None:
    """Header names are compared without case, and in any order."""
    one = Keys(TASKS[0], URL, "llama", [("X-Variant", "a"), ("X-Team", "b")])
    other = Keys(TASKS[0], URL, "llama", [("x-team", "b"), ("x-variant", "a")])

    assert one.of("Why?") == other.of("Why?")


@given(TEXTS)
def test_a_text_and_its_conversation_have_one_key(text: str) -> None:
    """The key belongs to the request, in whatever form a column has the prompt."""
    assert key(text, Chat(system="s")) == key([{"role": "system", "content": "s"}, {"role": "user", "content": text}])


def test_a_conversation_that_cannot_be_encoded_has_no_key() -> None:
    """The row gets its error when the request is built."""
    assert None is key([{"role": "user", "content": object()}])
