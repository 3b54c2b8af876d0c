"""Streamed responses of the Responses API: each event in its place, and together the whole answer."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import (
    CallPiece,
    ChatRequest,
    CompletionRequest,
    Echo,
    Faults,
    LocalEndpoints,
    Piece,
    Refused,
    Usage,
)
from tests.support.local_client import RESPONSES_PATHS, Client, connected
from tests.support.media import data_url, image

Body = dict[str, Any]
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).map(str.strip)


def body(given: object, **fields: object) -> Body:
    """Return a request for a stream."""
    return {"model": "chat", "input": given, "stream": True, **fields}


def events(response: requests.Response) -> list[Body]:
    """Return the events of a whole stream, each named by its type, with numbers in order."""
    assert (200, "text/event-stream") == (response.status_code, response.headers["Content-Type"])
    *blocks, rest = response.content.decode().split("\n\n")
    pairs = [block.split("\n", maxsplit=1) for block in blocks]
    told = [json.loads(data.removeprefix("data: ")) for _, data in pairs]
    assert "" == rest
    assert [f"event: {each['type']}" for each in told] == [event for event, _ in pairs]
    assert [*range(len(told))] == [each["sequence_number"] for each in told]
    return told


def kinds(told: list[Body]) -> list[str]:
    """Return the types of events, without their common beginning."""
    return [each["type"].removeprefix("response.") for each in told]


def same(one: Body, other: Body) -> bool:
    """Return whether two responses are equal but for their ids and times."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items() if name not in ("id", "created_at")}
        return [plain(each) for each in value] if isinstance(value, list) else value

    return plain(one) == plain(other)


# --- Order ---


@pytest.mark.parametrize("path", RESPONSES_PATHS)
def test_a_text_is_streamed_as_documented(path: str, shared: Client) -> None:
    """A response begins, its message begins, grows and ends, and the whole response is the last event."""
    response = shared.post(path, body("hello  big world"))
    told = events(response)

    deltas = ["output_text.delta"] * 3
    begin, end = (
        ["created", "in_progress", "output_item.added", "content_part.added"],
        [*("output_text.done", "content_part.done", "output_item.done", "completed")],
    )
    assert [*begin, *deltas, *end] == kinds(told)
    assert ["hello", "  big", " world"] == [each["delta"] for each in told if "delta" in each]
    number = response.headers["x-request-id"]
    assert {f"resp_{number}"} == {each["response"]["id"] for each in told if "response" in each}
    assert {(f"msg_{number}", 0, 0)} == {
        (each["item_id"], each["output_index"], each["content_index"]) for each in told if "content_index" in each
    }
    first, last = told[0]["response"], told[-1]["response"]
    assert ("in_progress", [], None) == (first["status"], first["output"], first["usage"])
    assert last["output"] == [each["item"] for each in told if each["type"] == "response.output_item.done"]


def test_calls_are_streamed_as_documented(shared: Client) -> None:
    """Each call is an item that begins with its name, grows by its arguments and ends with all of them."""
    told = events(
        shared.post("/v1/responses", body('call f {"a": 1}\ncall f', tools=[TOOL], reasoning={"effort": "low"}))
    )

    thoughts = ["output_item.added", "output_item.done"]
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]
    assert ["created", "in_progress", *thoughts, *call[:2], *call[1:], *call, "completed"] == kinds(told)
    assert ['{"a":', " 1}", "{}"] == [each["delta"] for each in told if "delta" in each]
    added = [each["item"] for each in told if each["type"] == "response.output_item.added"]
    assert [("reasoning", None, None), *[("function_call", "f", "")] * 2] == [
        (item["type"], item.get("name"), item.get("arguments")) for item in added
    ]
    assert [0, 1, 2] == [each["output_index"] for each in told if each["type"] == "response.output_item.done"]


# --- The whole answer ---


@given(text=TEXTS, limit=st.none() | st.integers(16, 20), effort=st.sampled_from([None, "none", "low"]))
def test_a_stream_equals_the_whole_answer(text: str, limit: int | None, effort: str | None, shared: Client) -> None:
    """The last event has the whole answer, cut or not, and the pieces join to its text."""
    request = body(text, max_output_tokens=limit, reasoning={"effort": effort})
    told = events(shared.post("/v1/responses", request))
    whole = shared.post("/v1/responses", {**request, "stream": False}).json()

    assert same(whole, told[-1]["response"])
    assert f"response.{whole['status']}" == told[-1]["type"]
    parts = [part["text"] for item in whole["output"] if item["type"] == "message" for part in item["content"]]
    assert "".join(parts) == "".join(each["delta"] for each in told if "delta" in each)


@given(arguments=st.lists(WORDS.filter(bool), min_size=1, max_size=3), limit=st.none() | st.just(16))
def test_streamed_calls_equal_whole_ones(arguments: list[str], limit: int | None, shared: Client) -> None:
    """The last event has all calls, and each call's pieces join to its arguments."""
    request = body("\n".join(f"call f {each}" for each in arguments), tools=[TOOL], max_output_tokens=limit)
    told = events(shared.post("/v1/responses", request))
    whole = shared.post("/v1/responses", {**request, "stream": False}).json()

    assert same(whole, told[-1]["response"])
    joined = [
        "".join(each["delta"] for each in told if "delta" in each and each["output_index"] == index)
        for index in range(len(whole["output"]))
    ]
    assert [item["arguments"] for item in whole["output"]] == joined


def test_an_image_is_answered_in_a_stream(shared: Client) -> None:
    """A stream reads images as a whole answer does."""
    request = body([{"role": "user", "content": [{"type": "input_image", "image_url": data_url(image())}]}])
    told = events(shared.post("/v1/responses", request))

    assert same(shared.post("/v1/responses", {**request, "stream": False}).json(), told[-1]["response"])


def test_a_stream_is_counted_before_its_end(client: Client) -> None:
    """The tokens of a stream are counted before its last event is there."""
    events(client.post("/v1/responses", body("a b")))
    stats = client.endpoints.stats

    assert ({200: 1}, 1, 4, 0) == (stats.by_status, stats.rows_answered, stats.total_tokens, stats.in_flight)


# --- Faults ---


def test_faults_apply_to_streams(client: Client) -> None:
    """A failed response is a body, an empty one has no item, half of a stream has no end, and a refusal its status."""
    client.endpoints.faults = Faults("errorbody empty half 503 drip", drip_s=0.05)
    failed, empty, half, refused, dripped = (client.post("/v1/responses", body("a b")) for _ in range(5))

    assert ("failed", "application/json") == (failed.json()["status"], failed.headers["Content-Type"])
    assert ["created", "in_progress", "incomplete"] == kinds(events(empty))
    assert (True, False) == (half.content.startswith(b"event: response.created"), b"completed" in half.content)
    assert 503 == refused.status_code
    assert "completed" == kinds(events(dripped))[-1]
    assert 2 == client.endpoints.stats.rows_answered


class Streams(Echo):
    """A model that streams a text and a call in pieces, and may fail."""

    error: Exception | None = None

    async def stream(self, request: ChatRequest | CompletionRequest) -> AsyncGenerator[Piece, None]:
        """Yield a word, the pieces of a call, and the end."""
        yield Piece("Wait.", Usage(1, 1))
        yield Piece("", Usage(1, 2), call=CallPiece(0, "", "c1", "f"))
        yield Piece("", Usage(1, 3), call=CallPiece(0, '{"a":'))
        if self.error is not None:
            raise self.error
        yield Piece("", Usage(1, 4), call=CallPiece(0, "1}"))
        yield Piece("", Usage(1, 4), finish_reason="tool_calls")


def test_a_model_may_stream_text_and_calls() -> None:
    """A text ends where a call begins; both are in the whole response."""
    with connected(LocalEndpoints({"chat": Streams()})) as client:
        told = events(client.post("/v1/responses", body("a")))

    assert ["message", "function_call"] == [item["type"] for item in told[-1]["response"]["output"]]
    assert told[-1]["response"]["output"] == [
        each["item"] for each in told if each["type"] == "response.output_item.done"
    ]
    assert ("Wait.", '{"a":1}') == (
        told[-1]["response"]["output"][0]["content"][0]["text"],
        told[-1]["response"]["output"][1]["arguments"],
    )


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (Refused.bad_request("Enough.", code="too_much"), "Enough.", "too_much"),
        (ZeroDivisionError(), "The model failed on this request.", None),
    ],
)
def test_a_model_error_in_a_stream_is_its_last_event(error: Exception, message: str, code: str | None) -> None:
    """Earlier pieces stay, and the error is an event of its own."""
    model = Streams()
    object.__setattr__(model, "error", error)
    with connected(LocalEndpoints({"chat": model})) as client:
        told = events(client.post("/v1/responses", body("a")))
        stats = client.endpoints.stats

    assert ("error", message, code) == (told[-1]["type"], told[-1]["message"], told[-1]["code"])
    assert "function_call_arguments.delta" == kinds(told)[-2]
    assert ({200: 1}, 0) == (stats.by_status, stats.rows_answered)
