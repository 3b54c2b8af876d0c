"""Tools through the engine: calls as answers, asked for again where they cannot be read, and what they cost."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.chat.tools import tool_parameters
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.values import Result, ToolCall
from tests.support.asking import ask, distinct, engine_at, kinds, texts
from tests.support.stub_server import Answer, StubServer, stub_server

TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
TASK = Chat(parameters=encode_parameters(tool_parameters(TOOLS, None), None), tools=True)
ROUTE = "POST /v1/chat/completions"
CUT = '{"row":'


class Model:
    """Calls the tool with each row's text; a row may ask for a fault or for broken arguments, once or always."""

    def __init__(self) -> None:
        """Count from zero."""
        self.tokens = 0
        self.requests = 0
        self._ids = count()
        self._failed: set[str] = set()

    def __call__(self, body: Any) -> Answer:  # noqa: ANN401 -- JSON
        """Answer a request."""
        self.requests += 1
        row = body["messages"][0]["content"]
        first = row not in self._failed
        self._failed.add(row)
        if first and "503" in row:
            return 503, {"error": {"message": "busy"}}
        self.tokens += 10
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        if first and "empty" in row:
            return 200, {"choices": [{"message": {"content": None}, "finish_reason": "stop"}], "usage": usage}
        broken = "never" in row or ("once" in row and first)
        arguments = CUT if broken else f'{{"row": "{row}"}}'
        call = {"id": f"call_{next(self._ids)}", "function": {"name": "look_up", "arguments": arguments}}
        message = {"content": "No need."} if "text" in row else {"content": None, "tool_calls": [call]}
        return 200, {"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": usage, "model": "m"}


@pytest.fixture
def model() -> Model:
    """A model that counts."""
    return Model()


@pytest.fixture
def server(model: Model) -> Iterator[StubServer]:
    """A server with this model."""
    with stub_server({ROUTE: model}) as running:
        yield running


def asked(server: StubServer, rows: list[Any], **policy: Any) -> list[Result]:  # noqa: ANN401 -- of a policy
    """Return the results of rows."""
    endpoint = Endpoint(f"{server.url}/v1/chat/completions")
    return [result or Result() for result in ask(engine_at(endpoint, Policy(**policy), TASK), [rows], TASK)]


def arguments(results: list[Result]) -> list[list[str]]:
    """Return the arguments of the results' calls."""
    return [[call["arguments"] for call in result.tool_calls or ()] for result in results]


def billed(results: list[Result]) -> int:
    """Return the tokens of all rows."""
    return sum(result.usage.total_tokens or 0 for result in results if result.usage)


def test_a_row_is_answered_by_a_call(server: StubServer, model: Model) -> None:
    """Without a text, and at the cost of one request; a text has no calls."""
    results = asked(server, ["row 1", "text", None])

    assert [None] * 3 == kinds(results)
    assert [None, "No need.", None] == texts(results)
    assert [ToolCall(id="call_0", name="look_up", arguments='{"row": "row 1"}')] == results[0].tool_calls
    assert [1, 1, 0] == [result.attempts for result in results]
    assert TOOLS == server.bodies[0]["tools"]
    assert (2, 20) == (model.requests, billed(results))


@pytest.mark.parametrize("reask", [0, 1, 3])
def test_arguments_that_are_not_json_are_asked_for_as_the_policy_says(
    server: StubServer, model: Model, reask: int
) -> None:
    """Then the row is `invalid_response`, keeps its calls, and carries the cost of all attempts."""
    [result] = asked(server, ["never"], reask=reask)

    assert ["invalid_response"] == kinds([result])
    assert ([[CUT]], reask + 1) == (arguments([result]), result.attempts)
    assert (reask + 1, 10 * (reask + 1)) == (model.requests, billed([result]))
    assert ["user", *["assistant", "user"] * reask] == [each["role"] for each in server.bodies[-1]["messages"]]


@pytest.mark.waits
def test_usage_adds_up_to_what_the_server_counted(server: StubServer, model: Model) -> None:
    """With calls and texts, re-asks, retries after faults, duplicates and rows that never succeed."""
    rows = [
        f"{what} {number}"
        for number in range(6)
        for what in ("row", "text", "503", "empty", "once", "never", "503 once")
    ]
    results = asked(server, [*rows, *rows])

    assert {None, "invalid_response"} == set(kinds(results))
    assert 2 * 6 == kinds(results).count("invalid_response")
    assert model.tokens == billed(results)
    assert model.requests == sum(result.requests for result in results)
    assert model.requests == sum(result.attempts for result in results)


def test_equal_rows_share_a_call(server: StubServer, model: Model) -> None:
    """One is sent, and all have its call; its tokens count once."""
    results = asked(server, ["row"] * 20)

    assert [[{"id": "call_0", "name": "look_up", "arguments": '{"row": "row"}'}]] * 20 == [
        result.tool_calls for result in results
    ]
    assert (1, 10) == (model.requests, billed(results))


def test_a_cached_call_is_not_paid_again(server: StubServer, model: Model, tmp_path: Path) -> None:
    """It comes back whole; one that could not be read is asked for again."""
    first = asked(server, ["row", "text", "never"], cache=tmp_path)
    second = asked(server, ["row", "text", "never"], cache=tmp_path)

    assert 2 + 2 + 2 == model.requests
    assert [result.tool_calls for result in first[:2]] == [result.tool_calls for result in second[:2]]
    assert [0, 0, 2] == [result.attempts for result in second]


@pytest.mark.waits
def test_calls_count_as_answered_rows(server: StubServer) -> None:
    """The share of failed rows is that of rows without a call and without a text."""
    results = asked(server, distinct(50), max_failure_rate=0.001)

    assert [None] * 50 == kinds(results)


def test_a_conversation_carries_a_result_back(server: StubServer) -> None:
    """Its messages have the form of the API."""
    call = ToolCall(id="call_9", name="look_up", arguments="{}")
    turns = [
        {"role": "user", "content": "text"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "On its way.", "tool_call_id": "call_9"},
    ]
    assert ["No need."] == texts(asked(server, [turns]))
    assert [{"id": "call_9", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}] == server.bodies[
        0
    ]["messages"][1]["tool_calls"]
