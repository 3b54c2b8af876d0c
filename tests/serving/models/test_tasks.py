"""The models that need no weights, and the protocols that a model of one's own keeps."""

import math
import struct
from collections.abc import Iterator
from types import TracebackType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import (
    ChatRequest,
    Choice,
    Echo,
    EmbeddingRequest,
    LocalEndpoints,
    Model,
    Refused,
    Texts,
    Usage,
    Vectors,
    echo_vector,
)
from tests.support.local_client import Client, connected, conversation

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Endpoints with every sort of Echo, and some models of one's own."""
    models: dict[str, Model] = {
        "chat": Echo(),
        "strict": Echo(refuse_fields=("encoding_format", "dimensions")),
        "floats": Echo(float_only=True, dimensions=3),
        "shout": Shout(),
        "broken": Broken(),
    }
    with connected(LocalEndpoints(models)) as client:
        yield client


class Shout:
    """A model of one's own, which serves chat and nothing else."""

    name = "shout-1"

    async def chat(self, request: ChatRequest) -> Texts:
        """Answer in capitals, unless it is shouted at."""
        if request.body.get("volume") == "loud":
            raise Refused.bad_request("Too loud.", param="volume")
        return Texts([Choice(request.messages[-1].text.upper())], Usage(1, 2, cached_tokens=1))


class Broken:
    """A model that fails."""

    name = "broken"

    async def embed(self, request: EmbeddingRequest) -> Vectors:
        """Fail."""
        raise ZeroDivisionError


# --- Echo ---


@given(text=TEXTS)
def test_a_reply_is_the_last_message_exactly(text: str, client: Client) -> None:
    """Whatever the last message is, letter for letter, it is the reply, and its words are the tokens."""
    body = client.ask("chat", conversation("earlier words", text)).json()

    assert text == body["choices"][0]["message"]["content"]
    words = len(text.split())
    assert {"prompt_tokens": 2 + words, "completion_tokens": words, "total_tokens": 2 + 2 * words} == body["usage"]


@given(text=TEXTS)
def test_a_completion_is_its_prompt_exactly(text: str, client: Client) -> None:
    """Whatever the prompt is, letter for letter, it is the completion."""
    assert text == client.ask("chat", {"prompt": text}).json()["choices"][0]["text"]


def test_a_system_message_stands_before_the_reply(client: Client) -> None:
    """A reply begins with the system message, so that a test sees that it was sent."""
    system = {"role": "system", "content": "Be brief."}
    asked = conversation("Hi there")

    assert "Be brief.\nHi there" == _reply(client, {"messages": [system, *_messages(asked)]})
    assert "Be brief." == _reply(client, {"messages": [system]})


def test_text_parts_of_a_message_are_joined(client: Client) -> None:
    """A message in parts says what its text parts say."""
    parts = [
        {"type": "text", "text": "a "},
        {"type": "image_url", "image_url": {"url": "data:,"}},
        {"type": "text", "text": "b"},
    ]

    assert "a b" == _reply(client, {"messages": [{"role": "user", "content": parts}]})


@pytest.mark.parametrize(
    ("limits", "text", "finish_reason"),
    [
        ({"max_tokens": 1}, "  one", "length"),
        ({"max_tokens": 2}, "  one \n two", "length"),
        ({"max_tokens": 3}, "  one \n two three  ", "stop"),
        ({"max_tokens": 1000}, "  one \n two three  ", "stop"),
        ({"max_completion_tokens": 2}, "  one \n two", "length"),
        ({"max_completion_tokens": 1, "max_tokens": 2}, "  one", "length"),
        ({"max_tokens": None}, "  one \n two three  ", "stop"),
    ],
)
def test_a_limit_cuts_the_reply_after_so_many_words(
    limits: dict[str, int], text: str, finish_reason: str, client: Client
) -> None:
    """A reply over the limit is cut behind a word, and says so; the rest is as it was."""
    body = client.say("  one \n two three  ", **limits).json()

    assert (text, finish_reason) == (body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"])
    assert len(text.split()) == body["usage"]["completion_tokens"]


@given(text=TEXTS, dimensions=st.integers(1, 1100))
def test_an_echo_vector_is_exact_in_float32(text: str, dimensions: int) -> None:
    """Its values are odd multiples of 1/256 within -1 and 1, so float32 holds them and no vector is zero."""
    vector = echo_vector(text, dimensions)

    assert dimensions == len(vector)
    assert all(value * 256 % 2 == 1 and -1 <= value <= 1 for value in vector)
    assert vector == list(struct.unpack(f"{dimensions}f", struct.pack(f"{dimensions}f", *vector)))
    assert vector == echo_vector(text, dimensions + 40)[:dimensions]


def test_an_echo_vector_never_changes() -> None:
    """A text's vector is the same in every version, and another text's is another."""
    assert [-143, 93, -165, 69] == [value * 256 for value in echo_vector("guitar", 4)]
    assert [191, -129, -61, 49] == [value * 256 for value in echo_vector("", 4)]
    assert 1000 == len({tuple(echo_vector(str(number))) for number in range(1000)})
    assert abs(sum(echo_vector("a", 8192))) < 4 * math.sqrt(8192 / 3)


def test_a_request_may_ask_for_its_own_dimensions(client: Client) -> None:
    """`dimensions` in the request goes before the model's own."""
    assert echo_vector("a", 3) == _vector(client, "floats", {"input": "a"})
    assert echo_vector("a", 5) == _vector(client, "floats", {"input": "a", "dimensions": 5})


def test_a_model_may_know_no_base64(client: Client) -> None:
    """`float_only` answers numbers to a request for base64."""
    assert echo_vector("a", 3) == _vector(client, "floats", {"input": "a", "encoding_format": "base64"})


def test_a_model_may_refuse_fields_by_name(client: Client) -> None:
    """`refuse_fields` is a 400 that names the field, whatever its value; without the field all is well."""
    refused = client.ask("strict", {"input": "a", "encoding_format": None})

    message = "Unrecognized request argument supplied: encoding_format"
    assert (400, message) == (refused.status_code, refused.json()["message"])
    assert 200 == client.ask("strict", {"input": "a"}).status_code


@pytest.mark.parametrize("dimensions", [0, -1, 10_000])
def test_dimensions_that_cannot_be_are_refused(dimensions: int) -> None:
    """The model's own dimensions are held to what a request's are."""
    with pytest.raises(ValueError, match=r"is out of range\. Hint: give a number from 1 to 8192"):
        Echo(dimensions=dimensions)


# --- A model of one's own ---


def test_a_model_serves_the_tasks_whose_method_it_has(client: Client) -> None:
    """A model with `chat` answers chat; another task is a 400 that says what it serves."""
    answered = client.ask("shout", conversation("hi")).json()
    refused = client.ask("shout", {"input": "hi"})
    elsewhere = client.post("/v1/embeddings", {"model": "shout", "input": "hi"})

    assert ("HI", "shout-1") == (answered["choices"][0]["message"]["content"], answered["model"])
    assert {"cached_tokens": 1} == answered["usage"]["prompt_tokens_details"]
    assert "Endpoint shout serves chat: the request needs 'messages'." in refused.json()["message"]
    assert (400, 400) == (refused.status_code, elsewhere.status_code)


def test_a_model_may_refuse_what_it_is_asked(client: Client) -> None:
    """A model that raises `Refused` has it told as any refusal is, and sees fields that nobody else knows."""
    refused = client.ask("shout", conversation("hi", volume="loud"))

    assert (400, "Too loud.") == (refused.status_code, refused.json()["message"])


def test_a_model_that_fails_is_a_500(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """An exception of a model is told as the service's own failure and logged, and the server goes on."""
    response = client.ask("broken", {"input": "a"})

    assert (500, "INTERNAL_ERROR") == (response.status_code, response.json()["error_code"])
    assert "ZeroDivisionError" in caplog.text
    assert 200 == client.say("a").status_code


def test_a_model_that_must_be_started_is_entered_once() -> None:
    """A model that is a context manager is entered when the endpoints start, once for all its names, and left."""
    model = Started()
    endpoints = LocalEndpoints({"one": model, "two": model})

    assert [] == model.story
    with endpoints:
        assert ["enter"] == model.story
    assert ["enter", "exit"] == model.story


class Started(Shout):
    """A model that writes down when it is started and stopped."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.story: list[str] = []

    def __enter__(self) -> None:
        """Start."""
        self.story.append("enter")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.story.append("exit")


def _reply(client: Client, body: dict[str, object]) -> object:
    return client.ask("chat", body).json()["choices"][0]["message"]["content"]


def _messages(body: dict[str, object]) -> list[object]:
    messages = body["messages"]
    assert isinstance(messages, list)
    return messages


def _vector(client: Client, endpoint: str, body: dict[str, object]) -> object:
    return client.ask(endpoint, body).json()["data"][0]["embedding"]
