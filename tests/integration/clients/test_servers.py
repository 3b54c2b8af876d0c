"""The library's requests to other servers: the second table of docs/clients.md."""

import struct
from typing import Any

import pytest
import requests

from spark_llm import Policy
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.chat.tools import tool_parameters
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.media import media_at, media_of
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Result, ToolCall
from spark_llm.serving import Echo, Faults, LocalEndpoints, ServingEndpoint, echo_media, echo_vector
from tests.integration.clients.client import ENDPOINTS, ROUTES, TIMEOUT_S
from tests.integration.clients.conftest import FindServer
from tests.integration.clients.gateways import LIMITED, PATIENT
from tests.integration.clients.servers import ALL, LLAMA, LOCAL, MORE, PREDICTIONS, SERVER, SERVERS, YAML, local
from tests.support.asking import CHAT, ask, distinct, kinds, texts
from tests.support.media import image

TASKS: dict[str, Task] = {
    "chat": Chat(),
    "completions": Complete(),
    "embeddings": Embed(),
    "responses": Chat(parameters=encode_parameters({"reasoning_effort": "low", "verbosity": "low"}, None)),
}
SCHEMA = {"type": "object", "properties": {"order": {"type": "integer"}}}
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}]
CALLING = Chat(parameters=encode_parameters(tool_parameters(TOOLS, None), None), tools=True)
GATEWAYS = {YAML: "/gateway/{name}/invocations", SERVER: "/gateway/{name}/mlflow/invocations"}
# Parameters that make a small model deterministic.
DETERMINISTIC: dict[str, dict[str, object]] = {
    "chat": {"temperature": 0, "max_tokens": 4},
    "responses": {"temperature": 0, "max_tokens": 16},
    "completions": {"temperature": 0, "max_tokens": 4},
    "embeddings": {},
}
COUNTING = "1, 2, 3, 4, 5,"


def cells(*servers: str, marks: tuple[pytest.MarkDecorator, ...] = ()) -> list[Any]:
    """Return the tested combinations of these servers: URLs with the tasks they serve."""
    return [
        pytest.param(server, url_template, task, marks=marks)
        for server in servers
        for url_template, tasks in SERVERS[server].items()
        for task in tasks
        if task not in (*MORE, PREDICTIONS)
    ]


def dashes(*servers: str) -> list[tuple[str, str, str]]:
    """Return the combinations with a dash: URLs and the tasks they do not serve."""
    return [
        (server, url_template, task)
        for server in servers
        for url_template, tasks in SERVERS[server].items()
        for task in ALL
        if task not in tasks
    ]


def vectors(results: list[Result | None]) -> list[list[float] | None]:
    """Return the results' vectors."""
    return [
        None
        if result is None or result.embedding is None
        else [x for (x,) in struct.iter_unpack("<f", result.embedding)]
        for result in results
    ]


@pytest.mark.parametrize(
    ("server", "url_template", "task"), [*cells(LOCAL), *cells(YAML, SERVER, marks=(pytest.mark.slow,))]
)
def test_every_row_is_answered_and_billed(
    server: str, url_template: str, task: str, find_server: FindServer, endpoints: LocalEndpoints
) -> None:
    """At every URL each row gets its own answer, a null gets null, and usage adds up to the billed tokens."""
    engine = find_server(server).engine(url_template, task, TASKS[task])
    results = ask(engine, [["red green", None, "blue"]], TASKS[task])

    assert [None] * 3 == kinds(results)
    if task == "embeddings":
        assert [echo_vector("red green"), None, echo_vector("blue")] == vectors(results)
    else:
        assert ["red green", None, "blue"] == texts(results)
    assert endpoints.stats.total_tokens == sum(each.usage.total_tokens or 0 for each in results if each and each.usage)
    name = ENDPOINTS.get(task, "chat")
    assert ([name], 2) == (list(endpoints.stats.endpoints), endpoints.stats.rows_answered)


def forms(column: str) -> list[Any]:
    """Return the tested combinations of a column of chats: URLs with both forms of a chat."""
    return [
        pytest.param(server, url_template, task, marks=() if server == LOCAL else pytest.mark.slow)
        for server in (LOCAL, YAML, SERVER)
        for url_template, tasks in SERVERS[server].items()
        for task in (column, "responses")
        if task in tasks
    ]


@pytest.mark.parametrize(("server", "url_template", "task"), forms("tools"))
def test_a_tool_is_called(
    server: str, url_template: str, task: str, find_server: FindServer, endpoints: LocalEndpoints
) -> None:
    """Calls are answers, a broken one is asked for again, and its result is carried back: at both routes."""
    call = ToolCall(id="call_1", name="look_up", arguments="{}")
    turns = [
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "On its way.", "tool_call_id": "call_1"},
    ]
    rows: list[Any] = ['call look_up {"order": 3}', "red", 'call look_up {"order":', None, turns]
    results = ask(find_server(server).engine(url_template, task, CALLING), [rows], CALLING)
    first, said, again, _, last = results

    assert [None] * 5 == kinds(results)
    assert (None, "red", "On its way.") == (first and first.text, said and said.text, last and last.text)
    assert ['{"order": 3}'] == [made["arguments"] for made in (first and first.tool_calls) or ()]
    assert "That call cannot be read" in str(again and again.text)  # `Echo` repeats what asks again
    assert [1, 1, 2, 1] == [each.attempts for each in results if each]
    assert endpoints.stats.total_tokens == sum(each.usage.total_tokens or 0 for each in results if each and each.usage)


@pytest.mark.parametrize(("server", "url_template", "task"), forms("images"))
def test_an_image_is_a_part(
    server: str, url_template: str, task: str, find_server: FindServer, endpoints: LocalEndpoints
) -> None:
    """An image travels as its bytes or by its URL, between texts, and its tokens are counted."""
    png, at = image(), "https://images.example/1.png"
    row: Any = [{"role": "user", "content": ["See ", media_of(png), " and ", media_at(at)]}]
    (answer,) = ask(find_server(server).engine(url_template, task, CHAT), [[row]], CHAT)

    assert answer is not None
    assert answer.error is None
    assert f"See {echo_media(png).text} and {echo_media(at).text}" == answer.text
    assert answer.usage is not None
    assert endpoints.stats.total_tokens == answer.usage.total_tokens
    if task == "images":  # the Responses API tells no such count
        assert 0 < endpoints.stats.image_tokens == answer.usage.image_tokens


@pytest.mark.parametrize(
    "url_template", [url_template for url_template in SERVERS[LOCAL] if "{name}" in url_template][:4]
)
def test_an_agent_takes_responses_at_its_own_url(url_template: str) -> None:
    """Where an endpoint serves no chat completions, a URL of invocations takes Responses requests: set, or found."""
    agent = ServingEndpoint(Echo(), tasks=["responses"], route_optimized=True)
    with LocalEndpoints({"agent": agent}) as endpoints:
        server = local(endpoints)
        for task, requests_sent in (("responses", 2), ("chat", 3)):
            endpoints.reset()
            results = ask(server.engine(url_template, task, CHAT, name="agent"), [["red green", None, "blue"]])

            assert ["red green", None, "blue"] == texts(results)
            assert requests_sent == endpoints.stats.requests
            assert endpoints.stats.total_tokens == sum(
                each.usage.total_tokens or 0 for each in results if each and each.usage
            )


@pytest.mark.slow
@pytest.mark.parametrize(("server", "url_template", "task"), dashes(*SERVERS))
def test_an_unsupported_task_is_refused(
    server: str, url_template: str, task: str, find_server: FindServer, endpoints: LocalEndpoints
) -> None:
    """A task that a URL does not serve gives each row a final error, and no request reaches the model."""
    results = ask(find_server(server).engine(url_template, task, TASKS[task]), [["red", "green"]], TASKS[task])

    assert {(None, True)} == {
        (each.text, each.error is not None and not each.error.retryable) for each in results if each
    }
    assert 0 == endpoints.stats.requests


@pytest.mark.parametrize(("server", "url_template", "task"), cells(LLAMA, marks=(pytest.mark.models,)))
def test_llama_cpp_answers_the_library_as_other_clients(
    server: str, url_template: str, task: str, find_server: FindServer
) -> None:
    """A row gets the text or vector that a plain request to llama.cpp gets."""
    running = find_server(server)
    question: dict[str, dict[str, object]] = {
        "chat": {"messages": [{"role": "user", "content": COUNTING}]},
        "responses": {"input": COUNTING, "max_output_tokens": 16},
        "completions": {"prompt": COUNTING},
        "embeddings": {"input": [COUNTING]},
    }
    plain = requests.post(
        f"{running.url}/v1/{ROUTES.get(task, task)}",
        json={**DETERMINISTIC[task], **question[task]},
        headers={"Authorization": f"Bearer {running.token}"},
        timeout=TIMEOUT_S,
    ).json()
    kind = {"chat": Chat, "responses": Chat, "completions": Complete, "embeddings": Embed}[task]
    library_task = kind(parameters=encode_parameters(DETERMINISTIC[task], None))
    results = ask(running.engine(url_template, task, library_task), [[COUNTING, None, COUNTING]], library_task)

    assert [None] * 3 == kinds(results)
    if task == "embeddings":
        [first, null, second] = vectors(results)
        assert pytest.approx(plain["data"][0]["embedding"], abs=1e-6) == first
        assert (None, first) == (null, second)
    else:
        if task == "responses":
            text = plain["output"][-1]["content"][0]["text"]
        else:
            [choice] = plain["choices"]
            text = choice["message"]["content"] if task == "chat" else choice["text"]
        assert [text, None, text] == texts(results)
        assert text
    assert plain["usage"]["total_tokens"] == sum(
        each.usage.total_tokens or 0 for each in results if each and each.usage
    )


@pytest.mark.models
def test_llama_cpp_refuses_a_text_over_its_context(find_server: FindServer) -> None:
    """A conversation over the context gets the error `context_length`, and its neighbours get answers."""
    chat = Chat(parameters=encode_parameters({"max_tokens": 2}, None))
    results = ask(find_server(LLAMA).engine("/v1", "chat", chat), [["hi", "word " * 3000, "ho"]], chat)

    assert [None, "context_length", None] == kinds(results)


@pytest.mark.models
def test_llama_cpp_refuses_a_wrong_key(find_server: FindServer) -> None:
    """Without the key all rows are `unauthorized` after three attempts."""
    running = find_server(LLAMA)._replace(token="wrong")
    results = ask(running.engine("/v1", "chat", CHAT), [distinct(20)])

    assert {"unauthorized"} == set(kinds(results))
    assert 3 == sum(each.attempts for each in results if each)


@pytest.mark.slow
def test_a_gateways_limit_is_waited_out(find_server: FindServer, endpoints: LocalEndpoints) -> None:
    """A gateway with five calls a second refuses more with 429, and every row gets its answer."""
    results = ask(find_server(YAML).engine(GATEWAYS[YAML], "chat", CHAT, name=PATIENT), [distinct(20)])

    assert distinct(20) == texts(results)
    assert 20 < sum(each.attempts for each in results if each)
    assert {200: 20} == endpoints.stats.by_status


@pytest.mark.slow
def test_a_gateways_limit_outlasts_the_policy(find_server: FindServer, endpoints: LocalEndpoints) -> None:
    """With three calls a minute and give_up_after_s=1, three rows get answers, and the rest `rate_limited`."""
    impatient = Policy(give_up_after_s=1)
    results = ask(find_server(YAML).engine(GATEWAYS[YAML], "chat", CHAT, impatient, LIMITED), [distinct(6)])
    errors = [each.error for each in results if each and each.error]

    assert [("rate_limited", 429, True)] * 3 == [(error.kind, error.status, error.retryable) for error in errors]
    assert all("Rate limit exceeded: 3 per 1 minute" in error.message for error in errors)
    assert 3 == endpoints.stats.requests


@pytest.mark.slow
@pytest.mark.parametrize("server", GATEWAYS)
@pytest.mark.parametrize("faults", ["429*2", "503*2", "500*2", "cut", "garbage"])
def test_a_fault_behind_a_gateway_is_retried(
    server: str, faults: str, find_server: FindServer, endpoints: LocalEndpoints
) -> None:
    """A refusal, a failure or a broken answer behind a gateway is retried until it passes."""
    endpoints.faults = Faults(faults)
    results = ask(find_server(server).engine(GATEWAYS[server], "chat", CHAT), [distinct(5)])

    assert distinct(5) == texts(results)
    # A gateway may also fail by itself, on a cut connection.
    assert 5 < endpoints.stats.requests <= sum(each.attempts for each in results if each)


@pytest.mark.slow
@pytest.mark.parametrize("server", GATEWAYS)
def test_a_bad_input_behind_a_gateway_costs_one_row(
    server: str, find_server: FindServer, endpoints: LocalEndpoints
) -> None:
    """An input that the model behind refuses is the error of its row only."""
    endpoints.faults = Faults(poison="row 3")
    results = ask(find_server(server).engine(GATEWAYS[server], "chat", CHAT), [distinct(5)])
    [error] = [each.error for each in results if each and each.error]

    assert ["row 0", "row 1", "row 2", None, "row 4"] == texts(results)
    assert ("invalid_request", 400) == (error.kind, error.status)


@pytest.mark.slow
@pytest.mark.parametrize("server", GATEWAYS)
def test_an_unknown_endpoint_of_a_gateway_gets_three_requests(server: str, find_server: FindServer) -> None:
    """An unknown name ends the run after three responses."""
    results = ask(find_server(server).engine(GATEWAYS[server], "chat", CHAT, name="nowhere"), [distinct(20)])

    assert {"not_found"} == set(kinds(results))
    assert 3 == sum(each.attempts for each in results if each)
