"""Tools in a chat: the calls that `Echo` makes, and the tools, choices and messages that are refused."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import ChatRequest, Choice, Echo, LocalEndpoints, Model, Texts, ToolCall, Usage
from tests.support.local_client import Client, chat_body, connected, is_databricks, paths_of

Body = dict[str, Any]
STOCK, SUM = "stock-price", "sum_2"
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]))


class Reader:
    """A custom model that answers with a text and a call, and reads the calls it gets."""

    name = "reader"

    async def chat(self, request: ChatRequest) -> Texts:
        """Return the calls of the conversation as text, beside a call of its own."""
        told = [tuple(call) for message in request.messages for call in message.calls]
        ids = [message.tool_call_id for message in request.messages if message.role == "tool"]
        return Texts([Choice(repr((told, ids)), "tool_calls", [ToolCall("c", "f", "{}")])], Usage(1, 1))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """An `Echo`, and a model of a test's own."""
    models: dict[str, Model] = {"chat": Echo(), "reader": Reader()}
    with connected(LocalEndpoints(models)) as client:
        yield client


def tool(name: str, **function: object) -> Body:
    """Return a function as a tool."""
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}, **function}}


def body(*texts: str, **fields: object) -> Body:
    """Return a chat request with two tools."""
    return chat_body(*texts, **{"tools": [tool(STOCK), tool(SUM, strict=True, description="Adds.")], **fields})


def chosen(name: str) -> Body:
    """Return the choice of one function."""
    return {"type": "function", "function": {"name": name}}


def choice(client: Client, request: Body) -> Body:
    """Return the first choice of the answer."""
    answer = client.query("chat", request)
    assert 200 == answer.status_code, answer.text
    first: Body = answer.json()["choices"][0]
    return first


def calls(client: Client, request: Body) -> list[tuple[str, str]]:
    """Return the calls of an answer that has nothing else."""
    first = choice(client, request)
    assert ("tool_calls", None) == (first["finish_reason"], first["message"]["content"])
    assert {"function"} == {call["type"] for call in first["message"]["tool_calls"]}
    return [(call["function"]["name"], call["function"]["arguments"]) for call in first["message"]["tool_calls"]]


# --- The calls of Echo ---


@pytest.mark.parametrize("path", paths_of("chat/completions"))
def test_a_line_calls_a_tool(path: str, client: Client) -> None:
    """A line that tells a call makes one, as OpenAI writes it, on every route."""
    answer = client.post(path, {"model": "chat", **body('Please:\ncall sum_2 {"a": 1}')}).json()
    [first] = answer["choices"]
    [call] = first["message"].pop("tool_calls")

    assert call.pop("id").startswith("call_")
    assert {"type": "function", "function": {"name": SUM, "arguments": '{"a": 1}'}} == call
    assert {"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "tool_calls"} == first
    assert {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8} == answer["usage"]


@given(arguments=st.lists(LINES.map(str.strip), min_size=1, max_size=4))
def test_arguments_are_taken_as_they_stand(arguments: list[str], client: Client) -> None:
    """Each line is a call of its own, its arguments unchanged, JSON or not; none are `{}`."""
    text = "\n".join(f"call {STOCK} {each}".rstrip() for each in arguments)

    assert [(STOCK, each or "{}") for each in arguments] == calls(client, body(text))


def test_ids_differ_and_repeat(client: Client) -> None:
    """The calls of an answer have different ids, and an equal request gets equal ones."""
    request = body(f"call {SUM} 1\ncall {SUM} 1\ncall {STOCK}")
    ids = [[call["id"] for call in choice(client, request)["message"]["tool_calls"]] for _ in range(2)]

    assert ids[0] == ids[1]
    assert 3 == len(set(ids[0]))


@pytest.mark.parametrize(
    ("text", "fields", "expected"),
    [
        ("hi", {"tool_choice": "required"}, [(STOCK, "{}")]),
        ("hi", {"tool_choice": chosen(SUM)}, [(SUM, "{}")]),
        ('{"a": [1]}', {"tool_choice": "required"}, [(STOCK, '{"a": [1]}')]),
        ('{"a": [1]}', {"tool_choice": chosen(SUM)}, [(SUM, '{"a": [1]}')]),
        ("[1]", {"tool_choice": chosen(SUM)}, [(SUM, "{}")]),
        ("call sum_2 x", {"tool_choice": "required"}, [(SUM, "x")]),
        ("call sum_2 x\ncall stock-price y", {"tool_choice": chosen(SUM)}, [(SUM, "x")]),
        ("call stock-price y", {"tool_choice": chosen(SUM)}, [(SUM, "{}")]),
        ("call sum_2 x\ncall sum_2 y", {}, [(SUM, "x"), (SUM, "y")]),
        ("call sum_2 x\ncall sum_2 y", {"tool_choice": "auto", "parallel_tool_calls": True}, [(SUM, "x"), (SUM, "y")]),
        ("call sum_2 x\ncall sum_2 y", {"parallel_tool_calls": False}, [(SUM, "x")]),
        ("call other x\ncall sum_2", {}, [(SUM, "{}")]),
    ],
)
def test_a_choice_makes_calls(text: str, fields: Body, expected: list[tuple[str, str]], client: Client) -> None:
    """A choice forces a call, `parallel_tool_calls` false allows one, and only tools are called."""
    assert expected == calls(client, body(text, **fields))


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("hi", {}),
        ("call other x", {}),
        ("Please call sum_2 x", {}),
        ("call sum_2 x", {"tool_choice": "none"}),
        ("call sum_2 x", {"tools": None}),
        ("call sum_2 x", {"tools": None, "tool_choice": "none"}),
    ],
)
def test_without_a_told_call_the_answer_is_a_text(text: str, fields: Body, client: Client) -> None:
    """Without a told or forced call, `Echo` answers as always."""
    expected = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}

    assert expected == choice(client, body(text, **fields))


def test_every_choice_has_the_calls(client: Client) -> None:
    """With `n`, each reply has its calls, and the tokens of each count."""
    answer = client.query("chat", body("call sum_2 a b", n=3)).json()

    assert 3 == sum(1 for each in answer["choices"] if each["message"]["tool_calls"])
    assert (4, 9) == (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(1, [(SUM, "")]), (2, [(SUM, '{"a":')]), (3, [(SUM, '{"a": 1}')]), (4, [(SUM, '{"a": 1}'), (STOCK, "")])],
)
def test_a_limit_breaks_off_the_arguments(limit: int, expected: list[tuple[str, str]], client: Client) -> None:
    """A limit cuts calls as it cuts texts: the name is a token, and so is each word of the arguments."""
    first = choice(client, body(f'call {SUM} {{"a": 1}}\ncall {STOCK} x y', max_tokens=limit))
    made = [(call["function"]["name"], call["function"]["arguments"]) for call in first["message"]["tool_calls"]]

    assert ("length", expected) == (first["finish_reason"], made)


# --- Results ---


def conversation(*messages: Body, **fields: object) -> Body:
    """Return a request whose assistant called two tools."""
    called = [{"id": name, "type": "function", "function": {"name": SUM, "arguments": "{}"}} for name in ("c1", "c2")]
    asked = {"role": "user", "content": "call sum_2\ncall sum_2"}
    return {"messages": [asked, {"role": "assistant", "content": None, "tool_calls": called}, *messages], **fields}


def result(call_id: str, text: str) -> Body:
    """Return the message of a tool."""
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def test_a_tools_result_is_read_back(client: Client) -> None:
    """After the results of all calls, `Echo` answers with the last; a user's next message is answered too."""
    tools = body()["tools"]
    results = [result("c2", "3"), result("c1", "4 5")]

    assert "4 5" == choice(client, conversation(*results, tools=tools))["message"]["content"]
    user = {"role": "user", "content": "Thanks."}
    assert "Thanks." == choice(client, conversation(*results, user, tools=tools))["message"]["content"]


def test_a_model_reads_calls_and_may_answer_with_both(client: Client) -> None:
    """A model of a test's own gets the calls and their results, and answers with a text and a call."""
    answer = client.query("reader", conversation(result("c1", "a"), result("c2", "b"))).json()
    message = answer["choices"][0]["message"]

    assert repr(([("c1", SUM, "{}"), ("c2", SUM, "{}")], ["c1", "c2"])) == message["content"]
    assert [("c", "f")] == [(call["id"], call["function"]["name"]) for call in message["tool_calls"]]


@pytest.mark.parametrize(
    ("messages", "message", "param"),
    [
        (
            [{"role": "tool", "content": "3"}],
            "Missing parameter 'tool_call_id': messages with role 'tool' must",
            "[2].tool_call_id",
        ),
        ([result("", "3")], "Missing parameter 'tool_call_id'", "[2].tool_call_id"),
        ([result("c3", "3")], "messages with role 'tool' must be a response to a preceeding message", "[2].role"),
        ([result("c1", "3"), result("c1", "3")], "must be a response to a preceeding message", "[3].role"),
        ([result("c1", "3")], "did not have response messages: c2", "[3].role"),
        ([], "did not have response messages: c1, c2", "[2].role"),
        ([result("c1", "3"), {"role": "user", "content": "hi"}], "did not have response messages: c2", "[3].role"),
    ],
)
def test_calls_and_results_belong_together(messages: list[Body], message: str, param: str, client: Client) -> None:
    """A result without its call, or a call without its result, gets a 400 in OpenAI's words."""
    error = client.post("/v1/chat/completions", conversation(*messages, model="chat")).json()["error"]

    assert (True, f"messages.{param}") == (message in error["message"], error["param"])
    assert 400 == client.query("chat", conversation(*messages)).status_code


# --- Refusals ---


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools": []}, "Expected `array` of length >= 1"),
        ({"tools": [tool("a b")]}, "matching regex"),
        ({"tools": [tool("a" * 65)]}, "matching regex"),
        ({"tools": [tool("a\n")]}, "matching regex"),
        ({"tools": [tool("")]}, "matching regex"),
        ({"tools": [{"type": "function"}]}, "missing required field `function`"),
        ({"tools": [{"name": "f", "type": "function"}]}, "missing required field `function`"),
        ({"tools": [{"type": "web"}]}, "Invalid value: 'web'. Supported values are: 'function' and 'custom'."),
        ({"tools": [tool("a"), tool("b"), tool("a")]}, "tools: Tool names must be unique."),
        ({"tools": [tool("a", parameters="text")]}, "Expected `object | null`, got `str`"),
        ({"tools": [tool("a", parameters={})]}, "Invalid schema for function 'a': schema must be a JSON Schema of"),
        ({"tools": [tool("a", parameters={"type": "array"})]}, "got 'type: \"array\"'."),
        ({"tool_choice": "sometimes"}, "Invalid enum value 'sometimes'"),
        ({"tool_choice": chosen("nobody")}, "Tool choice 'nobody' not found in 'tools' parameter."),
        ({"tool_choice": {"type": "function", "name": "f"}}, "missing required field `function`"),
        ({"tools": None, "tool_choice": "auto"}, "'tool_choice' is only allowed when 'tools' are specified."),
        ({"tools": None, "tool_choice": chosen(SUM)}, "'tool_choice' is only allowed when 'tools' are specified."),
        ({"tools": None, "parallel_tool_calls": True}, "'parallel_tool_calls' is only allowed when 'tools' are"),
        ({"parallel_tool_calls": "yes"}, "Expected `bool | null`"),
    ],
)
def test_a_wrong_tool_or_choice_is_named(fields: Body, message: str, client: Client) -> None:
    """Tools without a name or a schema, and choices of none, get a 400."""
    answer = client.query("chat", body("hi", **fields))

    assert (400, True) == (answer.status_code, message in answer.json()["message"]), answer.text


@pytest.mark.parametrize("path", paths_of("chat/completions"))
def test_each_service_has_its_number_of_tools(path: str, client: Client) -> None:
    """Databricks takes 32 tools, OpenAI and Azure 128; one more gets a 400."""
    limit = 32 if is_databricks(path) else 128
    bodies = [body("hi", model="chat", tools=[tool(f"f{number}") for number in range(limit + more)]) for more in (0, 1)]
    fits, more = (client.post(path, each) for each in bodies)

    assert (200, 400) == (fits.status_code, more.status_code)
    assert f"maximum length {limit}, but got an array with length {limit + 1} instead." in more.text


# --- Streams ---


def deltas(client: Client, request: Body) -> list[Body]:
    """Return the choices of a stream."""
    response = client.post("/v1/chat/completions", {**request, "model": "chat", "stream": True})
    events = [line.removeprefix("data: ") for line in response.content.decode().split("\n\n") if line]
    assert "[DONE]" == events[-1]
    return [each for event in events[:-1] for each in json.loads(event)["choices"]]


def test_calls_are_streamed_as_openai_streams_them(client: Client) -> None:
    """The first piece of a call has its id and name, the others arguments; the last has the finish reason."""
    request = body(f'call {SUM} {{"a": 1}}\ncall {STOCK} x')
    whole = choice(client, request)["message"]["tool_calls"]
    role, *pieces, last = deltas(client, request)

    assert {"role": "assistant", "content": None} == role["delta"]
    assert ({}, "tool_calls") == (last["delta"], last["finish_reason"])
    told = [piece["delta"]["tool_calls"][0] for piece in pieces]
    heads = [
        {"index": number, **call, "function": {"name": call["function"]["name"], "arguments": ""}}
        for number, call in enumerate(whole)
    ]
    assert [
        heads[0],
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": " 1}"}},
        heads[1],
        {"index": 1, "function": {"arguments": "x"}},
    ] == told


@given(arguments=st.lists(LINES.map(str.strip), min_size=1, max_size=3), n=st.integers(1, 2))
def test_streamed_calls_equal_whole_ones(arguments: list[str], n: int, client: Client) -> None:
    """The pieces of each call, joined, are the call, in every reply."""
    request = body("\n".join(f"call {STOCK} {each}".rstrip() for each in arguments), n=n)
    joined: dict[tuple[int, int], str] = {}
    for each in deltas(client, request):
        for piece in each["delta"].get("tool_calls", ()):
            key = (each["index"], piece["index"])
            joined[key] = joined.get(key, "") + piece["function"]["arguments"]

    assert {(i, j): each or "{}" for i in range(n) for j, each in enumerate(arguments)} == joined
