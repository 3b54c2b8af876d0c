"""`Echo`, and custom models that implement the protocols."""

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
from tests.support.local_client import Client, chat_body, connected

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Endpoints with several kinds of `Echo`, and custom models."""
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
    """A custom model that serves chat only."""

    name = "shout-1"

    async def chat(self, request: ChatRequest) -> Texts:
        """Return the last message in capitals; refuse the field `volume`."""
        if request.body.get("volume") == "loud":
            raise Refused.bad_request("Too loud.", param="volume")
        usage = Usage(9, 2, cached_tokens=1, cache_write_tokens=3)
        return Texts([Choice(request.messages[-1].text.upper())], usage, service_tier="flex")


class Broken:
    """A model that raises."""

    name = "broken"

    async def embed(self, request: EmbeddingRequest) -> Vectors:
        """Raise."""
        raise ZeroDivisionError


# --- Echo ---


@given(text=TEXTS)
def test_a_reply_is_the_last_message_exactly(text: str, client: Client) -> None:
    """The reply equals the last message, and its words are the tokens."""
    body = client.query("chat", chat_body("earlier words", text)).json()

    assert text == body["choices"][0]["message"]["content"]
    words = len(text.split())
    assert {"prompt_tokens": 2 + words, "completion_tokens": words, "total_tokens": 2 + 2 * words} == body["usage"]


@given(text=TEXTS)
def test_a_completion_is_its_prompt_exactly(text: str, client: Client) -> None:
    """The completion equals the prompt."""
    assert text == client.query("chat", {"prompt": text}).json()["choices"][0]["text"]


def test_a_system_message_stands_before_the_reply(client: Client) -> None:
    """A reply begins with the system message, so tests can see it."""
    system = {"role": "system", "content": "Be brief."}
    body = chat_body("Hi there")

    assert "Be brief.\nHi there" == _reply(client, {"messages": [system, *_messages(body)]})
    assert "Be brief." == _reply(client, {"messages": [system]})


def test_text_parts_of_a_message_are_joined(client: Client) -> None:
    """The text of a message in parts is that of its text parts, joined; thoughts and refusals are no text."""
    parts = [
        {"type": "text", "text": "a "},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "refusal", "refusal": "no"},
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
def test_a_limit_cuts_the_reply_to_its_words(
    limits: dict[str, int], text: str, finish_reason: str, client: Client
) -> None:
    """A reply over the limit is cut after a word, with finish_reason 'length'; shorter replies stay unchanged."""
    body = client.chat("  one \n two three  ", **limits).json()

    assert (text, finish_reason) == (body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"])
    assert len(text.split()) == body["usage"]["completion_tokens"]


@given(text=TEXTS, dimensions=st.integers(1, 1100))
def test_an_echo_vector_is_exact_in_float32(text: str, dimensions: int) -> None:
    """Its values are odd multiples of 1/256 within -1 and 1, so float32 holds them and none is zero."""
    vector = echo_vector(text, dimensions)

    assert dimensions == len(vector)
    assert all(value * 256 % 2 == 1 and -1 <= value <= 1 for value in vector)
    assert vector == list(struct.unpack(f"{dimensions}f", struct.pack(f"{dimensions}f", *vector)))
    assert vector == echo_vector(text, dimensions + 40)[:dimensions]


def test_an_echo_vector_never_changes() -> None:
    """A text's vector is fixed for all versions, and different texts have different vectors."""
    assert [-143, 93, -165, 69] == [value * 256 for value in echo_vector("guitar", 4)]
    assert [191, -129, -61, 49] == [value * 256 for value in echo_vector("", 4)]
    assert 1000 == len({tuple(echo_vector(str(number))) for number in range(1000)})
    assert abs(sum(echo_vector("a", 8192))) < 4 * math.sqrt(8192 / 3)


def test_a_request_may_set_the_dimensions(client: Client) -> None:
    """`dimensions` of the request overrides the model's."""
    assert echo_vector("a", 3) == _vector(client, "floats", {"input": "a"})
    assert echo_vector("a", 5) == _vector(client, "floats", {"input": "a", "dimensions": 5})


def test_a_model_may_ignore_base64(client: Client) -> None:
    """A `float_only` model sends numbers to a request for base64."""
    assert echo_vector("a", 3) == _vector(client, "floats", {"input": "a", "encoding_format": "base64"})


def test_a_model_may_refuse_fields_by_name(client: Client) -> None:
    """A field in `refuse_fields` gets a 400 with its name, for any value; other requests are answered."""
    refused = client.query("strict", {"input": "a", "encoding_format": None})

    message = "Unrecognized request argument supplied: encoding_format"
    assert (400, message) == (refused.status_code, refused.json()["message"])
    assert 200 == client.query("strict", {"input": "a"}).status_code


@pytest.mark.parametrize("dimensions", [0, -1, 10_000])
def test_invalid_dimensions_of_a_model_raise(dimensions: int) -> None:
    """The model's dimensions have the same range as a request's."""
    with pytest.raises(ValueError, match=r"is out of range\. Hint: give a number from 1 to 8192"):
        Echo(dimensions=dimensions)


# --- Custom models ---


def test_a_model_serves_the_tasks_whose_method_it_has(client: Client) -> None:
    """A model with `chat` serves chat; another task gets a 400 that names the served ones."""
    answered = client.query("shout", chat_body("hi")).json()
    refused = client.query("shout", {"input": "hi"})
    elsewhere = client.post("/v1/embeddings", {"model": "shout", "input": "hi"})

    assert ("HI", "shout-1") == (answered["choices"][0]["message"]["content"], answered["model"])
    assert {"cached_tokens": 1, "cache_write_tokens": 3} == answered["usage"]["prompt_tokens_details"]
    assert "flex" == answered["service_tier"]
    assert "Endpoint shout serves chat: the request needs 'messages'." in refused.json()["message"]
    assert (400, 400) == (refused.status_code, elsewhere.status_code)


def test_a_model_may_refuse_a_request(client: Client) -> None:
    """`Refused` from a model becomes its error response, and the model sees unknown fields."""
    refused = client.query("shout", chat_body("hi", volume="loud"))

    assert (400, "Too loud.") == (refused.status_code, refused.json()["message"])


def test_a_model_that_fails_is_a_500(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A model's exception is logged and gets a 500, and the server goes on."""
    response = client.query("broken", {"input": "a"})

    assert (500, "INTERNAL_ERROR") == (response.status_code, response.json()["error_code"])
    assert "ZeroDivisionError" in caplog.text
    assert 200 == client.chat("a").status_code


def test_a_context_manager_model_is_entered_once() -> None:
    """A model that is a context manager is entered once at the start, for all its names, and exited at the stop."""
    model = Started()
    endpoints = LocalEndpoints({"one": model, "two": model})

    assert [] == model.events
    with endpoints:
        assert ["enter"] == model.events
    assert ["enter", "exit"] == model.events


class Started(Shout):
    """A model that records its starts and stops."""

    def __init__(self) -> None:
        """Record nothing yet."""
        self.events: list[str] = []

    def __enter__(self) -> None:
        """Record the start."""
        self.events.append("enter")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record the stop."""
        self.events.append("exit")


def _reply(client: Client, body: dict[str, object]) -> object:
    return client.query("chat", body).json()["choices"][0]["message"]["content"]


def _messages(body: dict[str, object]) -> list[object]:
    messages = body["messages"]
    assert isinstance(messages, list)
    return messages


def _vector(client: Client, endpoint: str, body: dict[str, object]) -> object:
    return client.query(endpoint, body).json()["data"][0]["embedding"]
