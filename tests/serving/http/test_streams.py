"""Streamed answers: the events as they are documented, whatever goes wrong with them."""

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
from tests.support.local_client import Client, connected, conversation, is_databricks, paths_of

USAGE = {"stream_options": {"include_usage": True}}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def chunks(response: requests.Response) -> list[Any]:
    """Read the chunks of a streamed answer, which ends with the last word."""
    assert (200, "text/event-stream") == (response.status_code, response.headers["Content-Type"])
    *events, last, nothing = response.content.decode().split("\n\n")
    assert ("data: [DONE]", "") == (last, nothing)
    return [json.loads(event.removeprefix("data: ")) for event in events]


def said(answer: list[Any], index: int = 0) -> str:
    """Put the content of one reply together."""
    choices = [choice for chunk in answer for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content", "") if "delta" in choice else choice["text"] for choice in choices)


# --- The rule ---


@given(texts=st.lists(TEXTS, min_size=1, max_size=5), prompt=st.integers(0, 50), completion=st.integers(0, 50))
def test_the_pieces_are_the_text_and_their_tokens_add_up(texts: list[str], prompt: int, completion: int) -> None:
    """No letter is lost or moved; each reply ends once; the usage grows from piece to piece to what the whole has."""
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
    """First the role, then the text in pieces, then the reason to finish; all with the head of one answer."""
    response = shared.post(path, {"model": "chat", **conversation("hello  big world"), "stream": True})
    answer = chunks(response)

    head = {"id": f"chatcmpl-{response.headers['x-request-id']}", "object": "chat.completion.chunk", "model": "echo"}
    assert all(head.items() <= chunk.items() for chunk in answer)
    assert 1 == len({chunk["created"] for chunk in answer})
    deltas = [(chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]) for chunk in answer]
    words = [({"content": word}, None) for word in ("hello", "  big", " world")]
    assert [({"role": "assistant", "content": ""}, None), *words, ({}, "stop")] == deltas


@pytest.mark.parametrize("path", paths_of("completions"))
def test_completions_are_streamed_as_documented(path: str, shared: Client) -> None:
    """Each prompt's replies have their own index, and each ends."""
    asked = {"model": "complete", "prompt": ["a b", "c"], "n": 2, "stream": True}
    answer = chunks(shared.post(path, asked))

    assert {"text_completion"} == {chunk["object"] for chunk in answer}
    assert ["a b", "a b", "c", "c"] == [said(answer, index) for index in range(4)]
    assert [0, 1, 2, 3] == [
        choice["index"] for chunk in answer for choice in chunk["choices"] if choice["finish_reason"] == "stop"
    ]


@pytest.mark.parametrize("path", [*paths_of("chat/completions"), *paths_of("completions")])
@pytest.mark.parametrize("options", [{}, USAGE, {"stream_options": None}, {"stream_options": {}}])
def test_the_usage_is_told_as_each_service_does(path: str, options: dict[str, object], shared: Client) -> None:
    """Databricks tells it in every chunk; OpenAI and Azure in one more, without choices, where it is asked for."""
    asked = {"model": "chat" if "chat" in path else "complete", **conversation("a b c"), "prompt": "a b c"}
    answer = chunks(shared.post(path, {**asked, **options, "stream": True}))
    told = [chunk.get("usage", "nothing") for chunk in answer]
    whole = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}

    assert whole == told[-1] if is_databricks(path) or options == USAGE else {"nothing"} == set(told)
    if is_databricks(path):
        assert all(chunk["choices"] for chunk in answer)
        assert sorted(usage["completion_tokens"] for usage in told) == [usage["completion_tokens"] for usage in told]
    elif options == USAGE:
        assert ([], {None}) == (answer[-1]["choices"], set(told[:-1]))


@given(texts=st.lists(TEXTS, min_size=1, max_size=3), n=st.integers(1, 3))
def test_a_stream_says_what_the_whole_answer_says(texts: list[str], n: int, shared: Client) -> None:
    """Letter for letter, with the same reasons and the same usage."""
    asked = {"model": "complete", "prompt": texts, "n": n, "max_tokens": 2}
    whole = shared.post("/v1/completions", asked).json()
    answer = chunks(shared.post("/v1/completions", {**asked, "stream": True, **USAGE}))

    assert [choice["text"] for choice in whole["choices"]] == [said(answer, i) for i in range(len(texts) * n)]
    reasons = {c["index"]: c["finish_reason"] for chunk in answer for c in chunk["choices"] if c["finish_reason"]}
    assert [choice["finish_reason"] for choice in whole["choices"]] == [reasons[i] for i in sorted(reasons)]
    assert whole["usage"] == answer[-1]["usage"]


def test_a_stream_is_counted_like_any_answer(client: Client) -> None:
    """Its rows and its tokens are in the counters by the time that its last word has come."""
    chunks(client.say("a b", stream=True))
    chunks(client.ask("complete", {"prompt": ["a", "b"], "n": 2, "stream": True}))
    stats = client.endpoints.stats

    assert ({200: 2}, 3, 3, 4 + 6) == (stats.by_status, stats.rows_asked, stats.rows_answered, stats.total_tokens)
    assert (0, 0) == (stats.in_flight, stats.in_work)


# --- Faults ---


def test_faults_meet_a_stream_as_they_meet_an_answer(client: Client) -> None:
    """A refusal comes before the first event; half of a stream, or garbage, has no last word and answers no row."""
    client.endpoints.faults = Faults("503@1 half garbage empty drip", drip_s=0.05)
    refused, half, garbage, empty, dripped = (client.say("a b c", stream=True) for _ in range(5))

    assert (503, "1", "TEMPORARILY_UNAVAILABLE") == (
        refused.status_code,
        refused.headers["Retry-After"],
        refused.json()["error_code"],
    )
    assert (200, True, False) == (half.status_code, half.content.startswith(b"data: "), b"[DONE]" in half.content)
    assert not garbage.content.isascii()
    assert ("", "length") == (said(chunks(empty)), chunks(empty)[-1]["choices"][0]["finish_reason"])
    assert "a b c" == said(chunks(dripped))
    stats = client.endpoints.stats
    assert ({200: 4, 503: 1}, 2, 12) == (stats.by_status, stats.rows_answered, stats.total_tokens)


def test_a_stream_may_be_cut_in_the_middle(client: Client) -> None:
    """A cut stream begins well and breaks off, and answers no row."""
    client.endpoints.faults = Faults("cut")
    headers = {"Authorization": f"Bearer {client.endpoints.token}"}
    body = conversation("a b c", stream=True)
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


# --- Models that stream by themselves ---


class Slow:
    """A model that writes one word, and waits for the hold of the next one; or fails there."""

    name = "slow"

    def __init__(self, error: Exception | None, words: int) -> None:
        """Fail with `error` after so many words."""
        self._error = error
        self._words = words
        self.ended = 0

    async def chat(self, request: ChatRequest) -> Texts:
        """Answer whole; a stream never comes here."""
        raise NotImplementedError

    async def stream(self, request: ChatRequest | CompletionRequest) -> AsyncGenerator[Piece, None]:
        """Write word after word without an end."""
        said = 0
        try:
            while self._error is None or said < self._words:
                said += 1
                yield Piece("word ", Usage(1, said))
            raise self._error
        finally:
            self.ended += 1


@pytest.mark.parametrize(
    ("error", "message"),
    [(Refused.bad_request("Enough."), "Enough."), (ZeroDivisionError(), "The model failed on this request.")],
)
@pytest.mark.parametrize("path", paths_of("chat/completions"))
def test_a_model_that_fails_in_the_middle_says_so_in_its_last_event(path: str, error: Exception, message: str) -> None:
    """What was said stays said; the error comes as an event that every client reads; nothing is answered."""
    with connected(LocalEndpoints({"chat": Slow(error, 2)})) as client:
        response = client.post(path, {"model": "chat", **conversation("a"), "stream": True})
        *events, last, _ = response.content.decode().split("\n\n")

        assert (200, message) == (response.status_code, json.loads(last.removeprefix("data: "))["error"]["message"])
        assert "word word " == said([json.loads(event.removeprefix("data: ")) for event in events])
        stats = client.endpoints.stats
        assert ({200: 1}, 0, 0) == (stats.by_status, stats.rows_answered, stats.total_tokens)


@pytest.mark.parametrize(("error", "status"), [(Refused.bad_request("No."), 400), (ZeroDivisionError(), 500)])
def test_a_model_that_fails_at_once_is_refused_as_ever(error: Exception, status: int) -> None:
    """Before the first piece an error is a status of its own."""
    with connected(LocalEndpoints({"chat": Slow(error, 0)})) as client:
        response = client.say("a", stream=True)

    assert (status, "application/json") == (response.status_code, response.headers["Content-Type"])


def test_a_client_can_leave_a_stream() -> None:
    """The first piece comes at once, though the model never ends; who hangs up is a disconnect, and the model stops."""
    model = Slow(None, 0)
    with connected(LocalEndpoints({"chat": model})) as client:
        headers = {"Authorization": f"Bearer {client.endpoints.token}"}
        url, body = client.endpoints.invocations("chat"), conversation("a", stream=True)
        with requests.post(url, json=body, headers=headers, stream=True, timeout=10) as response:
            pieces = response.iter_content(6)  # kept, since it hangs up when it is let go
            assert (200, b"data: ") == (response.status_code, next(pieces))
            assert (1, 1) == (client.endpoints.stats.in_flight, client.endpoints.stats.in_work)
        stats = client.endpoints.wait_for(lambda stats: stats.disconnects == 1)

        assert (0, 0, {}) == (stats.in_flight, stats.in_work, stats.by_status)
        assert 1 == model.ended
