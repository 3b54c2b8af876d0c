"""The Responses route through the engine: set or found, with types, tools and faults, and what has no place there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.engine.engine import Engine
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.chat.tools import tool_parameters
from spark_llm.protocol.media import Media
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Field, Scalar, Struct
from spark_llm.protocol.values import Result
from tests.support.asking import ask, distinct, engine_at, kinds, texts
from tests.support.responses_server import CHAT, NAMES_ROUTE, RESPONSES, TOKENS, ResponsesModel, responses_server
from tests.support.stub_server import StubServer, stub_server

TASK = Chat("Be brief.", encode_parameters({"max_tokens": 64}, None))
TOOLS = tool_parameters([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}], None)
CALLING = Chat(parameters=encode_parameters(TOOLS, None), tools=True)
STARS = Chat("Judge.", output=StructuredOutput("review", Struct((Field("stars", Scalar("integer")),))))


@pytest.fixture
def model() -> ResponsesModel:
    """A model that counts."""
    return ResponsesModel()


@pytest.fixture
def server(model: ResponsesModel) -> Iterator[StubServer]:
    """A server with both routes."""
    with responses_server(model) as running:
        yield running


def engine(server: StubServer, path: str = "/v1", task: Chat = TASK, *, api: Any = None, **policy: Any) -> Engine:  # noqa: ANN401 -- of an endpoint and a policy
    """Return an engine for a URL of the server."""
    return engine_at(Endpoint(server.url + path, model="m", api=api), Policy(**policy), task)


def asked(asks: Engine, rows: list[Any], task: Chat = TASK) -> list[Result]:
    """Return the results of rows."""
    return [result or Result() for result in ask(asks, [rows], task)]


def billed(results: list[Result]) -> int:
    """Return the tokens of all rows."""
    return sum(result.usage.total_tokens or 0 for result in results if result.usage)


@pytest.mark.parametrize(
    ("path", "api"),
    [("/v1", "responses"), ("/v1/responses", None), ("/v1/responses?a=b", "responses"), ("/invocations", "responses")],
)
def test_a_set_route_is_asked_at_once(model: ResponsesModel, path: str, api: str | None) -> None:
    """By `api` or by the URL; no request goes elsewhere, and nothing is stored."""
    routes = {f"POST {route}": model.responses for route in ("/v1/responses", "/v1/responses?a=b", "/invocations")}
    with stub_server(routes) as server:
        results = asked(engine(server, path, api=api), [*distinct(20), None])

    assert [*distinct(20), None] == texts(results)
    assert 20 == len(server.requests) == len(set(map(json.dumps, server.bodies)))
    assert {
        "model": "m",
        "max_output_tokens": 64,
        "store": False,
        "instructions": "Be brief.",
        "input": "row 0",
    } == server.bodies[0]


def test_an_answer_has_the_same_fields(server: StubServer) -> None:
    """Text, finish reason, model, id and tokens, those of the cache and of reasoning too."""
    [result] = asked(engine(server, api="responses"), ["row"])

    assert ("row", "stop", "m", "resp_1", 1) == (
        result.text,
        result.finish_reason,
        result.model,
        result.request_id,
        result.attempts,
    )
    assert result.usage
    assert (7, 3, TOKENS, 4, 1) == result.usage[:5]


@pytest.mark.waits
@pytest.mark.parametrize("path", ["/v1", "/v1/chat/completions"])
def test_a_route_is_found_by_one_refusal(server: StubServer, model: ResponsesModel, path: str) -> None:
    """It is kept with the engine, for this task and any other."""
    asks = engine(server, path)

    assert distinct(50) == texts(asked(asks, distinct(50)))
    assert {CHAT: 1, RESPONSES: 50} == model.requests
    assert ["row 0"] == texts(asked(asks, ["row 0"]))
    assert [None] == kinds(asked(asks, ["call"], CALLING))
    assert {CHAT: 1, RESPONSES: 52} == model.requests


def test_a_refusal_is_the_first_row_s(server: StubServer) -> None:
    """It counts as an attempt and as a request of the row that met it."""
    first, second = asked(engine(server), ["a", "b"])

    assert (2, 2, (404,)) == (first.attempts, first.requests, first.refusals)
    assert (1, 1, ()) == (second.attempts, second.requests, second.refusals)


@pytest.mark.waits
@pytest.mark.parametrize("api", [None, "responses"])
def test_usage_adds_up_to_what_the_server_counted(server: StubServer, model: ResponsesModel, api: str | None) -> None:
    """With calls, types, re-asks, retries after faults, failures under 200, and duplicates."""
    kinds_of_rows = ("row", "503", "failed", "call", "call once", "call never", "call 503", "call failed once")
    rows = [f"{what} {number}" for number in range(5) for what in kinds_of_rows]
    results = asked(engine(server, api=api, task=CALLING), [*rows, *rows], CALLING)

    assert 2 * 5 == kinds(results).count("invalid_response")
    assert {None, "invalid_response"} == set(kinds(results))
    assert model.tokens == billed(results)
    assert sum(model.requests.values()) == sum(result.requests for result in results)
    assert (0 if api else 1) == model.requests[CHAT]


def test_a_typed_answer_is_asked_for_in_the_text(server: StubServer, model: ResponsesModel) -> None:
    """Parsed, and asked for again where it does not fit."""
    results = asked(engine(server, task=STARS), ["json", "json once", "json never"], STARS)

    assert [{"stars": 3}, {"stars": 3}, None] == [result.parsed for result in results]
    assert [None, None, "schema_mismatch"] == kinds(results)
    assert "json_schema" == server.bodies[-1]["text"]["format"]["type"]
    assert model.tokens == billed(results) == TOKENS * (1 + 2 + 2)


@pytest.mark.parametrize(
    ("refused", "field"),
    [
        ({"format": "Unknown parameter: 'text.format'."}, "format"),
        ({"instructions": "System role not supported"}, "instructions"),
    ],
)
def test_a_field_that_is_refused_there_is_left_out(refused: dict[str, str], field: str) -> None:
    """Three rows show it, as at chat completions; then the type stands in words, and instructions in the input."""
    model = ResponsesModel(refused)
    with responses_server(model) as server:
        results = asked(engine(server, task=STARS), [f"json {number}" for number in range(20)], STARS)

    assert [{"stars": 3}] * 20 == [result.parsed for result in results]
    assert {CHAT: 1, RESPONSES: 23} == model.requests
    assert field not in server.bodies[-1]
    assert field not in server.bodies[-1].get("text", {})


@pytest.mark.parametrize(
    "given", [{"n": 2}, {"stop": "x"}, {"seed": 1}, {"max_tokens": 8}, {"max_completion_tokens": 15}]
)
def test_what_has_no_place_there_ends_every_row_after_one_refusal(
    server: StubServer, model: ResponsesModel, given: dict[str, Any]
) -> None:
    """`invalid_request`, with the hint to set the route; a later task of the engine is not asked at all."""
    task = Chat(parameters=encode_parameters(given, None), n=given.get("n", 1))
    asks = engine(server, task=task)
    results = asked(asks, distinct(50), task)
    messages = {result.error.message for result in results if result.error}

    assert ["invalid_request"] * 50 == kinds(results)
    assert all('Endpoint(…, api="responses")' in message for message in messages)
    assert {CHAT: 1, RESPONSES: 0} == model.requests
    assert 1 == sum(result.attempts for result in results)  # a request that is not sent is none
    assert [None] == kinds(asked(asks, ["row"]))
    asked(asks, distinct(5), task.__class__(parameters=task.parameters, n=task.n, system="Another."))
    assert {CHAT: 2, RESPONSES: 1} == model.requests


def test_audio_is_its_rows_error(server: StubServer, model: ResponsesModel) -> None:
    """The route has no place for it; the other rows are answered, and nothing is sent for it."""
    said: Any = [{"role": "user", "content": ["a", Media("audio", "audio/wav", b"RIFF")]}]
    results = asked(engine(server, api="responses"), [*[said] * 20, "b", said])

    assert [*["invalid_request"] * 20, None, "invalid_request"] == kinds(results)
    assert {CHAT: 0, RESPONSES: 1} == model.requests
    assert {0} == {result.requests for result in results if result.error}


def test_a_server_without_the_route_is_not_found(model: ResponsesModel) -> None:
    """The hint says how to go back, and three rows show it."""
    with stub_server({CHAT: (200, {})}) as server:
        results = asked(engine(server, api="responses"), distinct(50))
    assert results[0].error

    assert {"not_found"} == set(kinds(results))
    assert 3 == len(server.requests)
    assert "/v1/responses). Hint: there is no Responses route" in results[0].error.message
    assert 0 == model.tokens


def test_a_chat_that_is_set_stays_there(server: StubServer, model: ResponsesModel) -> None:
    """The user's `api` is not changed; the hint names the other route."""
    results = asked(engine(server, api="chat"), distinct(50))

    assert {"invalid_request", "cancelled"} == set(kinds(results))
    assert model.requests[CHAT] <= 10
    assert 0 == model.requests[RESPONSES]
    assert "served at the Responses route: set" in (results[0].error.message if results[0].error else "")


@pytest.mark.waits
def test_a_row_that_is_quoted_in_a_refusal_sinks_no_job() -> None:
    """A server that refuses it in its own words has no such route; the other rows are answered."""

    def reply(body: Any) -> tuple[int, object]:  # noqa: ANN401 -- JSON
        text = body["messages"][-1]["content"]
        if text == NAMES_ROUTE:
            return 400, {"error": {"message": f"Invalid message: {text}"}}
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        return 200, {"choices": [choice]}

    with stub_server({CHAT: reply}) as server:
        results = asked(engine(server), [NAMES_ROUTE, *distinct(50)])

    assert ["invalid_request", *[None] * 50] == kinds(results)
    assert [None, *distinct(50)] == texts(results)


def test_answers_of_one_route_are_in_the_cache_of_the_other(
    server: StubServer, model: ResponsesModel, tmp_path: Path
) -> None:
    """The same model gave them: a route that was found is no other request."""
    first = asked(engine(server, cache=tmp_path), distinct(5))
    second = asked(engine(server, api="responses", cache=tmp_path), distinct(5))

    assert texts(first) == texts(second)
    assert 5 == model.requests[RESPONSES]


def test_a_conversation_goes_on_there(server: StubServer) -> None:
    """Calls and their results are items of the input."""
    call = {"id": "call_1", "name": "f", "arguments": "{}"}
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "row"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3", "tool_call_id": "call_1"},
    ]

    assert ["row"] == texts(asked(engine(server, api="responses", task=CALLING), [turns], CALLING))
    assert "Be kind." == server.bodies[0]["instructions"]
    assert ["user", "function_call", "function_call_output"] == [
        item.get("type", item.get("role")) for item in server.bodies[0]["input"]
    ]
