"""The small real models, started by `LocalEndpoints.real`."""

import base64
import json
import math
import struct
import time
from collections.abc import Iterator, Sequence

import pytest
import requests

from spark_llm.serving import LocalEndpoints
from tests.support.local_client import Client, chat_body, connected

pytestmark = pytest.mark.models

ENDLESS = "What is the capital of Italy?"  # at temperature 0, the small model repeats itself to the end of its context
SENTIMENT = {
    "type": "json_schema",
    "json_schema": {
        "name": "sentiment",
        "schema": {
            "type": "object",
            "properties": {"sentiment": {"type": "string", "enum": ["positive", "negative"]}},
            "required": ["sentiment"],
        },
    },
}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Endpoints with SmolLM2 and MiniLM; the weights are fetched if this machine has none."""
    with connected(LocalEndpoints.real()) as client:
        yield client


def _cosine(one: Sequence[float], two: Sequence[float]) -> float:
    """Return the cosine of two vectors of length 1."""
    return sum(a * b for a, b in zip(one, two, strict=True))


@pytest.mark.waits
@pytest.mark.parametrize(
    ("review", "sentiment"),
    [
        ("This is the worst phone I ever had. It broke after two days and nobody helped me. Terrible.", "negative"),
        ("I love this phone. It is fast, it is beautiful, and it works perfectly. Great.", "positive"),
    ],
)
def test_a_schema_constrains_the_reply(review: str, sentiment: str, client: Client) -> None:
    """With a JSON schema the reply is one of its values, and for clear reviews the right one."""
    body = chat_body(f"Review: {review}\nSentiment?", response_format=SENTIMENT, temperature=0, max_tokens=30)
    response = client.query("chat", body).json()

    assert {"sentiment": sentiment} == json.loads(response["choices"][0]["message"]["content"])
    assert "smollm2-135m-instruct" == response["model"]


@pytest.mark.waits
def test_usage_is_the_sum_over_prompts_and_copies(client: Client) -> None:
    """Usage counts the tokens of all replies, and those of each prompt once."""
    sampling = {"max_tokens": 4, "temperature": 0}
    alone = [
        client.query("complete", {"prompt": prompt, **sampling}).json() for prompt in ("Once upon a time", "The sky is")
    ]
    both = client.query("complete", {"prompt": ["Once upon a time", "The sky is"], "n": 2, **sampling}).json()

    assert [text for each in alone for text in [each["choices"][0]["text"]] * 2] == [
        choice["text"] for choice in both["choices"]
    ]
    assert ["length"] * 4 == [choice["finish_reason"] for choice in both["choices"]]
    assert sum(each["usage"]["prompt_tokens"] for each in alone) == both["usage"]["prompt_tokens"]
    assert 4 * 4 == both["usage"]["completion_tokens"]


@pytest.mark.waits
def test_copies_differ_and_a_seed_repeats_them(client: Client) -> None:
    """With a seed, n replies differ from each other and are repeatable."""
    body = chat_body("Name an animal.", n=3, seed=5, temperature=1.5, max_tokens=8)
    first, second = (
        [choice["message"]["content"] for choice in client.query("chat", body).json()["choices"]] for _ in "12"
    )

    assert first == second
    assert len(set(first)) > 1


def test_a_stop_word_ends_the_reply(client: Client) -> None:
    """A reply ends before the stop word, with finish_reason 'stop'."""
    choice = client.query("complete", {"prompt": "1, 2, 3, 4, 5,", "stop": "7", "temperature": 0}).json()["choices"][0]

    assert (" 6, ", "stop") == (choice["text"], choice["finish_reason"])


def test_a_prompt_that_is_too_long_is_refused(client: Client) -> None:
    """A prompt over the context gets a 400 with the code `context_length_exceeded`."""
    body = {"model": "chat", **chat_body("word " * 3000)}
    databricks, openai = client.query("chat", body), client.post("/v1/chat/completions", body)

    assert (400, "BAD_REQUEST") == (databricks.status_code, databricks.json()["error_code"])
    assert "exceeds the available context size" in databricks.json()["message"]
    assert (400, "context_length_exceeded") == (openai.status_code, openai.json()["error"]["code"])


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_have_their_logprobs_and_alternatives(stream: bool, client: Client) -> None:  # noqa: FBT001 -- a parameter of the test
    """They are there where they are asked for, in the form of the OpenAI API; joined, the tokens are the text."""
    body = chat_body("Name a colour.", temperature=0, max_tokens=5, logprobs=True, top_logprobs=3)
    response = client.query("chat", body | {"stream": stream})
    lines = response.text.splitlines()
    events = [line[6:] for line in lines if line.startswith("data: {")] if stream else [response.text]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    tokens = [token for choice in choices if choice.get("logprobs") for token in choice["logprobs"]["content"]]
    text = "".join(choice["delta" if stream else "message"].get("content") or "" for choice in choices)

    assert text == bytes(byte for token in tokens for byte in token["bytes"]).decode()
    assert all(token["logprob"] == max(each["logprob"] for each in token["top_logprobs"]) <= 0 for token in tokens)
    assert {3} == {len(token["top_logprobs"]) for token in tokens}
    assert {"token", "logprob", "bytes", "top_logprobs"} == set(tokens[0])
    assert 400 == client.query("chat", chat_body("x", top_logprobs=3)).status_code


def test_media_are_refused(client: Client) -> None:
    """A model that reads text only refuses an image."""
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    response = client.query("chat", {"messages": [{"role": "user", "content": [part]}]})

    assert (400, True) == (response.status_code, "reads text only" in response.json()["message"])


def test_an_invalid_schema_is_refused(client: Client) -> None:
    """A schema that the engine cannot parse gets a 400 with the engine's reason."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "zork"}}}
    refused = client.chat("hi", response_format=schema)

    assert (400, True) == (refused.status_code, "zork" in refused.json()["message"])


@pytest.mark.waits
def test_generation_ends_when_the_client_hangs_up(client: Client) -> None:
    """A client that hangs up frees its slots, so the next request gets an answer soon."""
    before = client.endpoints.stats.disconnects
    with pytest.raises(requests.Timeout):
        requests.post(
            client.endpoints.invocations("chat"),
            json=chat_body(ENDLESS, n=5, temperature=0),
            headers={"Authorization": f"Bearer {client.endpoints.token}"},
            timeout=1,
        )
    client.endpoints.wait_for(lambda stats: stats.disconnects == before + 1, timeout_s=30)

    # Four busy slots would take a minute or two.
    assert client.chat("hi", max_tokens=2).elapsed.total_seconds() < 30


def test_similar_texts_have_similar_vectors(client: Client) -> None:
    """A guitar is closer to an acoustic guitar than to flour, in vectors of 384 numbers and length 1."""
    texts = ["A man is playing the guitar.", "Someone plays an acoustic guitar.", "Mix the flour with two eggs."]
    body = client.query("embed", {"input": texts, "encoding_format": "base64"}).json()
    one, two, three = (struct.unpack("<384f", base64.b64decode(row["embedding"])) for row in body["data"])

    assert 1.0 == pytest.approx(math.hypot(*one), abs=1e-5)
    assert _cosine(one, two) > 0.6
    assert _cosine(one, three) < 0.3


@pytest.mark.waits
def test_a_long_batch_keeps_its_order(client: Client) -> None:
    """150 texts get vectors in order, including an empty one and one over 256 tokens."""
    texts = [f"Number {number}" for number in range(147)] + ["", "word " * 400, "Number 3"]
    body = client.query("embed", {"input": texts}).json()
    vectors = [row["embedding"] for row in body["data"]]

    assert 150 == len(vectors)
    assert _cosine(vectors[3], vectors[149]) > 0.99 > _cosine(vectors[3], vectors[140])
    assert all(math.isfinite(value) for value in vectors[147])
    assert 256 == client.query("embed", {"input": "word " * 400}).json()["usage"]["prompt_tokens"]


def test_other_dimensions_are_refused(client: Client) -> None:
    """The embedding model refuses dimensions other than 384."""
    assert [200, 400] == [client.query("embed", {"input": "a", "dimensions": each}).status_code for each in (384, 256)]


@pytest.mark.waits
def test_the_models_can_be_started_again(client: Client) -> None:
    """Endpoints with real models stop soon in the middle of a reply, and can start again."""
    waiting = client.chat_in_background(ENDLESS, temperature=0)
    client.endpoints.wait_for(lambda stats: stats.in_flight == 1, timeout_s=30)
    begin_s = time.monotonic()
    client.endpoints.stop()

    assert time.monotonic() - begin_s < 15
    assert waiting.exception() is not None
    client.endpoints.start()
    assert 200 == client.chat("hi", max_tokens=2).status_code


@pytest.mark.waits
def test_a_real_reply_is_streamed_token_by_token(client: Client) -> None:
    """The pieces are tokens with growing usage, and join to the unstreamed reply."""
    body = chat_body("Say hello.", max_tokens=12, temperature=0, n=2, seed=1)
    whole = client.query("chat", body).json()
    response = client.query("chat", {**body, "stream": True})
    *events, last, _ = response.text.split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    texts = ["".join(c["delta"].get("content", "") for c in choices if c["index"] == index) for index in range(2)]
    used = [chunk["usage"]["completion_tokens"] for chunk in chunks]

    assert [choice["message"]["content"] for choice in whole["choices"]] == texts
    assert whole["usage"]["completion_tokens"] == used[-1] == chunks[-1]["usage"]["completion_tokens"]
    assert (sorted(used), "data: [DONE]") == (used, last)
    assert len(set(used)) > 6


def test_a_client_can_hang_up_on_a_real_stream(client: Client) -> None:
    """The first token comes long before the last; a client that hangs up then stops the model."""
    headers = {"Authorization": f"Bearer {client.endpoints.token}"}
    before = client.endpoints.stats.disconnects
    with requests.post(
        client.endpoints.invocations("chat"),
        json=chat_body(ENDLESS, stream=True, temperature=0),
        headers=headers,
        stream=True,
        timeout=300,
    ) as response:
        pieces = response.iter_content(7)  # kept: its garbage collection closes the connection
        assert b"data: {" == next(pieces)
        assert 1 == client.endpoints.stats.in_work
    stats = client.endpoints.wait_for(lambda stats: stats.disconnects == before + 1, timeout_s=60)

    assert 0 == stats.in_work
