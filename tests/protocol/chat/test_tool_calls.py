"""Calls of tools: read from answers, checked, asked for again, and written into messages."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.chat.tool_calls import correction, defect_of, read_calls
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.task import FOLDED
from spark_llm.protocol.values import Answer, Failure, Outcome, Prompt, Response, Result, RowError, ToolCall, Usage
from spark_llm.udf.conversations import conversation_row
from tests.support.strategies import JSON, REPLIES, TEXTS

TOOLS = Chat(tools=True)
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"order": 3}'}}
READ = ToolCall(id="call_1", name="look_up", arguments='{"order": 3}')
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def call(arguments: object = "{}", **changed: object) -> dict[str, object]:
    """Return a call as a server sends it."""
    return {**CALL, "function": {"name": "look_up", "arguments": arguments}, **changed}


def read(message: object, finish_reason: str | None = "tool_calls", task: Chat = TOOLS, item: Any = "row") -> Outcome:  # noqa: ANN401 -- any item
    """Read an answer with this message, and check it."""
    body = {"choices": [{"message": message, "finish_reason": finish_reason}], "usage": USAGE}
    return task.parse_output(task.decode(Response(200, json.dumps(body).encode()), 1), [item], 0)


def only(outcome: Outcome) -> Result:
    """Return the result of an answer."""
    assert isinstance(outcome, Answer)
    [result] = outcome.results
    return result


@pytest.mark.parametrize("content", [None, "", []])
@pytest.mark.parametrize("finish_reason", ["tool_calls", "stop", None, "tool_use", "a new word"])
def test_calls_without_a_text_are_an_answer(content: object, finish_reason: str | None) -> None:
    """The text is null, whatever the server sends in its place."""
    result = only(read({"content": content, "tool_calls": [CALL, call(id="call_2")]}, finish_reason))

    assert (None, None, finish_reason) == (result.text, result.error, result.finish_reason)
    assert [READ, ToolCall(id="call_2", name="look_up", arguments="{}")] == result.tool_calls


def test_a_text_beside_calls_is_kept() -> None:
    """A model may say what it does."""
    result = only(read({"content": "One moment.", "tool_calls": [CALL]}))

    assert ("One moment.", [READ]) == (result.text, result.tool_calls)


@pytest.mark.parametrize("calls", [None, []])
def test_a_text_without_calls_has_none(calls: object) -> None:
    """The field is null then."""
    result = only(read({"content": "No need.", "tool_calls": calls}, "stop"))

    assert ("No need.", None, None) == (result.text, result.tool_calls, result.error)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [("", "{}"), (" ", "{}"), (None, "{}"), ({"a": [1.5]}, '{"a":[1.5]}'), ('{"a": "\\ud83d"}', '{"a": "\\ud83d"}')],
)
def test_arguments_in_other_forms_are_read(arguments: object, text: str) -> None:
    """Some servers send nothing for no arguments, and some an object."""
    found = only(read({"tool_calls": [call(arguments)]})).tool_calls or []

    assert [text] == [each["arguments"] for each in found]


@pytest.mark.parametrize("identifier", [None, 5])
def test_a_call_without_an_id_has_none(identifier: object) -> None:
    """It is not invented."""
    assert [{**READ, "id": None}] == only(read({"tool_calls": [{**CALL, "id": identifier}]})).tool_calls


@pytest.mark.parametrize(
    "calls",
    [
        [{"id": "call_1"}],
        [CALL, None],
        [call(5)],
        [{**CALL, "function": {"arguments": "{}"}}],
        [{**CALL, "function": {"name": ""}}],
        "look_up",
        {"name": "look_up"},
    ],
)
@pytest.mark.parametrize("content", [None, "One moment."])
def test_what_is_no_call_is_tried_again(calls: object, content: str | None) -> None:
    """An answer whose calls cannot be read is none, whatever stands beside them; its tokens count."""
    outcome = read({"content": content, "tool_calls": calls})

    assert isinstance(outcome, Failure)
    assert ("invalid_response", True) == (outcome.error.kind, outcome.error.retryable)
    assert Usage(7, 3, 10) == outcome.usage


def test_a_reason_without_a_call_is_tried_again() -> None:
    """It says that there are calls, and there are none."""
    outcome = read({"content": None})

    assert isinstance(outcome, Failure)
    assert "no tool call" in outcome.error.message


@pytest.mark.parametrize("arguments", ['{"order": 3', "order=3", "[1]", "3", "null", '{"a": NaN}', '"{}"', "[" * 9_000])
def test_arguments_that_are_no_object_are_asked_for_again(arguments: str) -> None:
    """The row keeps the calls, in case no better answer comes."""
    outcome = read({"tool_calls": [CALL, call(arguments)]})
    result = only(outcome)

    assert isinstance(outcome, Answer)
    assert outcome.mismatched
    assert not outcome.format_unsupported
    assert result.error is not None
    assert ("invalid_response", True, 2) == (result.error.kind, result.error.retryable, len(result.tool_calls or ()))
    assert "the arguments of look_up are no" in result.error.message


def test_calls_that_ran_out_of_tokens_are_truncated() -> None:
    """Another attempt would end the same."""
    outcome = read({"tool_calls": [call('{"order":')]}, "length")

    assert isinstance(outcome, Answer)
    assert (["truncated"], False) == (
        [result.error and result.error.kind for result in outcome.results],
        outcome.mismatched,
    )


def test_one_of_several_choices_may_be_calls() -> None:
    """`choices` has a null in its place; the first answer counts."""
    task = Chat(n=3, tools=True)
    choices = [
        {"index": 0, "message": {"tool_calls": [CALL]}, "finish_reason": "tool_calls"},
        {"index": 1, "message": {"content": "No need."}, "finish_reason": "stop"},
    ]
    outcome = task.decode(Response(200, json.dumps({"choices": choices}).encode()), 1)
    result = only(outcome)

    assert (None, [READ], [None, "No need.", None]) == (result.text, result.tool_calls, result.choices)


@given(REPLIES, REPLIES, REPLIES)
def test_any_calls_raise_nothing(content: object, calls: object, finish_reason: object) -> None:
    """A result has a text, calls or an error."""
    outcome = read({"content": content, "tool_calls": calls}, finish_reason)  # type: ignore[arg-type]  # anything

    if isinstance(outcome, Answer):
        [result] = outcome.results
        assert result.error is not None or result.text is not None or result.tool_calls


@given(st.dictionaries(TEXTS, JSON, max_size=3))
def test_every_object_is_an_argument(arguments: dict[str, Any]) -> None:
    """As any server may write it."""
    for text in (json.dumps(arguments), json.dumps(arguments, indent=1), json.dumps(arguments, ensure_ascii=False)):
        assert None is defect_of([ToolCall(id="1", name="f", arguments=text)])


def test_a_typed_answer_may_call() -> None:
    """Calls are no text, and no mismatch."""
    from tests.flow.test_typed_answers import REPLY

    result = only(read({"content": "One moment.", "tool_calls": [CALL]}, task=Chat(output=REPLY, tools=True)))

    assert (None, None, [READ]) == (result.parsed, result.error, result.tool_calls)


@pytest.mark.parametrize("item", ["row", [{"role": "user", "content": "row"}], Prompt("row", "Be brief.")])
def test_reask_names_the_defect(item: Any) -> None:  # noqa: ANN401 -- any item
    """The conversation goes on with the calls as a text, since servers read the arguments of calls as JSON."""
    bad = ToolCall(id="call_1", name="look_up", arguments='{"order": 3')
    again = TOOLS.reask(item, Result(text="One moment.", tool_calls=[bad]))
    *_, first, assistant, user = json.loads(bytes(TOOLS.encode([again], None, 0)))["messages"]

    assert {"role": "user", "content": "row"} == first
    assert {"role": "assistant", "content": 'One moment.\nlook_up({"order": 3)'} == assistant
    assert "user" == user["role"]
    assert "the arguments of look_up are not JSON" in user["content"]
    assert isinstance(item, Prompt) == isinstance(again, Prompt)
    assert correction([bad], None, "x")[0]["content"] == 'look_up({"order": 3)'


TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "Where is order 3?", "tool_calls": None, "tool_call_id": None},
    {"role": "assistant", "content": None, "tool_calls": [dict(READ)], "tool_call_id": None},
    {"role": "tool", "content": "On its way.", "tool_calls": [], "tool_call_id": "call_1"},
]


@pytest.mark.parametrize("wire_format", [0, FOLDED])
def test_tool_fields_are_written_as_the_api_has_them(wire_format: int) -> None:
    """Null fields are not sent, and a call is a function."""
    messages = json.loads(bytes(TOOLS.encode([conversation_row(TURNS)], None, wire_format)))["messages"]  # type: ignore[list-item]  # no error

    assert [
        {"role": "user", "content": "Where is order 3?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "On its way.", "tool_call_id": "call_1"},
    ] == messages


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"role": "tool", "content": "x", "tool_call_id": None}, "Message 2 is a tool's, and lacks its tool_call_id."),
        ({"role": "tool", "content": "x", "tool_call_id": " "}, "lacks its tool_call_id"),
        ({"role": "tool", "content": "x"}, "lacks its tool_call_id"),
        ({"role": "assistant", "content": "x", "tool_calls": [{**READ, "id": None}]}, "a tool call without its id"),
        ({"role": "assistant", "content": "x", "tool_calls": [READ, {**READ, "name": ""}]}, "without its name"),
        ({"role": "assistant", "content": "x", "tool_calls": [None]}, "without its id and name"),
    ],
)
def test_incomplete_tool_fields_are_the_rows_error(message: dict[str, Any], why: str) -> None:
    """It says which message, and what to copy."""
    error = conversation_row([{"role": "user", "content": "x"}, message])

    assert isinstance(error, RowError)
    assert ("invalid_request", None, False) == (error.kind, error.status, error.retryable)
    assert why in error.message
    assert error.hint


def test_null_messages_and_arguments_are_left() -> None:
    """The server judges the first, and gets an object for the second."""
    call = {**READ, "arguments": None}
    column: Any = [None, {"role": "assistant", "content": "x", "tool_calls": [call]}]
    messages = conversation_row(column)
    first, second = json.loads(bytes(TOOLS.encode([messages], None, 0)))["messages"]  # type: ignore[list-item]  # no error

    assert first is None
    assert "{}" == second["tool_calls"][0]["function"]["arguments"]


@pytest.mark.parametrize("found", [None, [], "", 0, {}])
def test_nothing_is_no_call(found: object) -> None:
    """An empty field is as a missing one."""
    assert [] == read_calls(found)


def test_tools_are_parameters() -> None:
    """They stand in the request beside the messages."""
    tools = [{"type": "function", "function": {"name": "now"}}]
    parameters = encode_parameters({"tools": tools, "tool_choice": "auto"}, None)
    body = json.loads(bytes(Chat(parameters=parameters, tools=True).encode(["?"], None, 0)))

    assert (tools, "auto") == (body["tools"], body["tool_choice"])
