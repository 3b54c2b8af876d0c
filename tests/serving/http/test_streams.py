"""Streamed responses: the documented events, with and without faults."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import (
    ChatRequest,
    Choice,
    CompletionRequest,
    Faults,
    LocalEndpoints,
    Piece,
    Refused,
    Texts,
    Usage,
)
from spark_llm.serving.http.streams import split_into_words
from tests.support.local_client import Client, chat_body, connected, is_databricks, paths_of

USAGE = {"stream_options": {"include_usage": True}}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def chunks(response: requests.Response) -> list[Any]:
    """Return the chunks of a streamed response, which ends with `[DONE]`."""
    assert (200, "text/event-stream") == (response.status_code, response.headers["Content-Type"])
    *events, last, rest = response.content.decode().split("\n\n")
    assert ("data: [DONE]", "") == (last, rest)
    return [json.loads(event.removeprefix("data: ")) for event in events]


def reply_text(answer: list[Any], index: int = 0) -> str:
    """Return the text of one reply."""
    choices = [choice for chunk in answer for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content", "") if "delta" in choice else choice["text"] for choice in choices)


# --- Splitting ---


@given(texts=st.lists(TEXTS, min_size=1, max_size=5), prompt=st.integers(0, 50), completion=st.integers(0, 50))
def test_pieces_join_to_the_text_and_their_tokens_add_up(texts: list[str], prompt: int, completion: int) -> None:
    """Pieces lose no character, each reply ends once, and the usage grows to that of the whole answer."""
    whole = Texts([Choice(text, "length") for text in texts], Usage(prompt, completion))
    pieces = list(split_into_words(whole))
    used = [piece.usage.completion_tokens for piece in pieces]

    assert texts == ["".join(piece.text for piece in pieces if piece.index == i) for i in range(len(texts))]
    assert [(i, "length") for i in range(len(texts))] == [
        (piece.index, piece.finish_reason) for piece in pieces if piece.finish_reason
    ]
    assert (sorted(used), whole.usage) == (used, pieces[-1].usage)
    assert {prompt} == {piece.usage.prompt_tokens for piece in pieces}
    assert all(piece.text or piece.finish_reason for piece in pieces)


# --- On the wire ---


@pytest.mark.parametrize("path", paths_of("chat/completions"))
def test_a_chat_is_streamed_as_documented(path: str, shared: Client) -> None:
    """A chat stream has the role, the text in pieces, then the finish reason; all chunks have one head."""
    response = shared.post(path, {"model": "chat", **chat_body("hello  big world"), "stream": True})
    answer = chunks(response)

    head = {"id": f"chatcmpl-{response.headers['x-request-id']}", "object": "chat.completion.chunk", "model": "echo"}
    assert all(head.items() <= chunk.items() for chunk in answer)
    assert 1 == len({chunk["created"] for chunk in answer})
    deltas = [(chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]) for chunk in answer]
    words = [({"content": word}, None) for word in ("hello", "  big", " world")]
    assert [({"role": "assistant", "content": ""}, None), *words, ({}, "stop")] == deltas


@pytest.mark.parametrize("path", paths_of("completions"))
def test_completions_are_streamed_as_documented(path: str, shared: Client) -> None:
    """Each reply to each prompt has its own index, and ends."""
    body = {"model": "complete", "prompt": ["a b", "c"], "n": 2, "stream": True}
    answer = chunks(shared.post(path, body))

    assert {"text_completion"} == {chunk["object"] for chunk in answer}
    assert ["a b", "a b", "c", "c"] == [reply_text(answer, index) for index in range(4)]
    assert [0, 1, 2, 3] == [
        choice["index"] for chunk in answer for choice in chunk["choices"] if choice["finish_reason"] == "stop"
    ]


@pytest.mark.parametrize("path", [*paths_of("chat/completions"), *paths_of("completions")])
@pytest.mark.parametrize("options", [{}, USAGE, {"stream_options": None}, {"stream_options": {}}])
def test_each_service_sends_usage_in_its_place(path: str, options: dict[str, object], shared: Client) -> None:
    """Databricks sends usage in every chunk; OpenAI and Azure in a last chunk without choices, on request."""
    body = {"model": "chat" if "chat" in path else "complete", **chat_body("a b c"), "prompt": "a b c"}
    answer = chunks(shared.post(path, {**body, **options, "stream": True}))
    usages = [chunk.get("usage", "nothing") for chunk in answer]
    whole = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}

    assert whole == usages[-1] if is_databricks(path) or options == USAGE else {"nothing"} == set(usages)
    if is_databricks(path):
        assert all(chunk["choices"] for chunk in answer)
        assert sorted(usage["completion_tokens"] for usage in usages) == [
            usage["completion_tokens"] for usage in usages
        ]
    elif options == USAGE:
        assert ([], {None}) == (answer[-1]["choices"], set(usages[:-1]))


@given(texts=st.lists(TEXTS, min_size=1, max_size=3), n=st.integers(1, 3))
def test_a_stream_equals_the_whole_answer(texts: list[str], n: int, shared: Client) -> None:
    """A stream has the text, the finish reasons and the usage of the whole answer."""
    body = {"model": "complete", "prompt": texts, "n": n, "max_tokens": 2}
    whole = shared.post("/v1/completions", body).json()
    answer = chunks(shared.post("/v1/completions", {**body, "stream": True, **USAGE}))

    assert [choice["text"] for choice in whole["choices"]] == [reply_text(answer, i) for i in range(len(texts) * n)]
    reasons = {c["index"]: c["finish_reason"] for chunk in answer for c in chunk["choices"] if c["finish_reason"]}
    assert [choice["finish_reason"] for choice in whole["choices"]] == [reasons[i] for i in sorted(reasons)]
    assert whole["usage"] == answer[-1]["usage"]


def test_a_stream_is_counted_like_any_response(client: Client) -> None:
    """The rows and tokens of a stream are counted before its `[DONE]` arrives."""
    chunks(client.chat("a b", stream=True))
    chunks(client.query("complete", {"prompt": ["a", "b"], "n": 2, "stream": True}))
    stats = client.endpoints.stats

    assert ({200: 2}, 3, 3, 4 + 6) == (stats.by_status, stats.rows_asked, stats.rows_answered, stats.total_tokens)
    assert (0, 0) == (stats.in_flight, stats.in_work)


# --- Faults ---


def test_faults_apply_to_streams(client: Client) -> None:
    """A refusal comes before the first event; half of a stream, or garbage, has no `[DONE]` and answers no row."""
    client.endpoints.faults = Faults("503@1 half garbage empty drip", drip_s=0.05)
    refused, half, garbage, empty, dripped = (client.chat("a b c", stream=True) for _ in range(5))

    assert (503, "1", "TEMPORARILY_UNAVAILABLE") == (
        refused.status_code,
        refused.headers["Retry-After"],
        refused.json()["error_code"],
    )
    assert (200, True, False) == (half.status_code, half.content.startswith(b"data: "), b"[DONE]" in half.content)
    assert not garbage.content.isascii()
    assert ("", "length") == (reply_text(chunks(empty)), chunks(empty)[-1]["choices"][0]["finish_reason"])
    assert "a b c" == reply_text(chunks(dripped))
    stats = client.endpoints.stats
    assert ({200: 4, 503: 1}, 2, 12) == (stats.by_status, stats.rows_answered, stats.total_tokens)


def test_a_stream_may_be_cut(client: Client) -> None:
    """A cut stream begins with valid events and breaks off, and answers no row."""
    client.endpoints.faults = Faults("cut")
    headers = {"Authorization": f"Bearer {client.endpoints.token}"}
    body = chat_body("a b c", stream=True)
    received = bytearray()
    with requests.post(
        client.endpoints.invocations("chat"), json=body, headers=headers, stream=True, timeout=10
    ) as broken:
        parts = map(received.extend, broken.iter_content(16))
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            list(parts)

    assert (200, True, False) == (broken.status_code, received.startswith(b"data: "), b"[DONE]" in received)
    assert ({200: 1}, 0, 0) == (
        client.endpoints.stats.by_status,
        client.endpoints.stats.rows_answered,
        client.endpoints.stats.total_tokens,
    )


# --- Streaming models ---


class WordStream:
    """A model that streams words without end, or fails after some."""

    name = "slow"

    def __init__(self, error: Exception | None, words: int) -> None:
        """Fail with `error` after this number of words."""
        self._error = error
        self._words = words
        self.ended = 0

    async def chat(self, request: ChatRequest) -> Texts:
        """Raise: a stream never calls this."""
        raise NotImplementedError

    async def stream(self, request: ChatRequest | CompletionRequest) -> AsyncGenerator[Piece, None]:
        """Yield words until the failure."""
        count = 0
        try:
            while self._error is None or count < self._words:
                count += 1
                yield Piece("word ", Usage(1, count))
            raise self._error
        finally:
            self.ended += 1


@pytest.mark.parametrize(
    ("error", "message"),
    [(Refused.bad_request("Enough."), "Enough."), (ZeroDivisionError(), "The model failed on this request.")],
)
@pytest.mark.parametrize("path", paths_of("chat/completions"))
def test_a_model_error_in_a_stream_is_its_last_event(path: str, error: Exception, message: str) -> None:
    """Earlier pieces stay; the error is an event in OpenAI's shape; no row is answered."""
    with connected(LocalEndpoints({"chat": WordStream(error, 2)})) as client:
        response = client.post(path, {"model": "chat", **chat_body("a"), "stream": True})
        *events, last, _ = response.content.decode().split("\n\n")

        assert (200, message) == (response.status_code, json.loads(last.removeprefix("data: "))["error"]["message"])
        assert "word word " == reply_text([json.loads(event.removeprefix("data: ")) for event in events])
        stats = client.endpoints.stats
        assert ({200: 1}, 0, 0) == (stats.by_status, stats.rows_answered, stats.total_tokens)


@pytest.mark.parametrize(("error", "status"), [(Refused.bad_request("No."), 400), (ZeroDivisionError(), 500)])
def test_a_model_error_before_the_stream_has_its_own_status(error: Exception, status: int) -> None:
    """An error before the first piece has its own HTTP status."""
    with connected(LocalEndpoints({"chat": WordStream(error, 0)})) as client:
        response = client.chat("a", stream=True)

    assert (status, "application/json") == (response.status_code, response.headers["Content-Type"])


def test_a_client_can_hang_up_on_a_stream() -> None:
    """An endless model sends its first piece at once; when the client hangs up, the model stops."""
    model = WordStream(None, 0)
    with connected(LocalEndpoints({"chat": model})) as client:
        headers = {"Authorization": f"Bearer {client.endpoints.token}"}
        url, body = client.endpoints.invocations("chat"), chat_body("a", stream=True)
        with requests.post(url, json=body, headers=headers, stream=True, timeout=10) as response:
            pieces = response.iter_content(6)  # kept: its garbage collection closes the connection
            assert (200, b"data: ") == (response.status_code, next(pieces))
            assert (1, 1) == (client.endpoints.stats.in_flight, client.endpoints.stats.in_work)
        stats = client.endpoints.wait_for(lambda stats: stats.disconnects == 1)

        assert (0, 0, {}) == (stats.in_flight, stats.in_work, stats.by_status)
        assert 1 == model.ended
