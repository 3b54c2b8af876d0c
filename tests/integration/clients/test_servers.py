"""The library's own requests, at servers that are not ours: the second table of docs/clients.md."""

import struct
from typing import Any

import pytest
import requests

from spark_llm import Policy
from spark_llm.protocol.chat import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Result
from spark_llm.serving import Faults, LocalEndpoints, echo_vector
from tests.integration.clients.client import ENDPOINTS, ROUTES, TIMEOUT_S
from tests.integration.clients.conftest import Find
from tests.integration.clients.gateways import LIMITED, PATIENT
from tests.integration.clients.servers import ALL, LLAMA, LOCAL, SERVER, SERVERS, YAML
from tests.support.asking import CHAT, ask, distinct, kinds, texts

TASKS: dict[str, Task] = {"chat": Chat(), "completions": Complete(), "embeddings": Embed()}
GATEWAYS = {YAML: "/gateway/{name}/invocations", SERVER: "/gateway/{name}/mlflow/invocations"}
# What a small model is sure of, so that two requests for it have one answer.
SURE: dict[str, dict[str, object]] = {
    "chat": {"temperature": 0, "max_tokens": 4},
    "completions": {"temperature": 0, "max_tokens": 4},
    "embeddings": {},
}
COUNTING = "1, 2, 3, 4, 5,"


def cells(*servers: str, marks: tuple[pytest.MarkDecorator, ...] = ()) -> list[Any]:
    """Return the cells of these servers' rows."""
    return [
        pytest.param(server, form, task, marks=marks)
        for server in servers
        for form, tasks in SERVERS[server].items()
        for task in tasks
    ]


def dashes(*servers: str) -> list[tuple[str, str, str]]:
    """Return the cells that have a dash: URLs at which a server does not have a task."""
    return [
        (server, form, task)
        for server in servers
        for form, tasks in SERVERS[server].items()
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


@pytest.mark.parametrize(("server", "form", "task"), [*cells(LOCAL), *cells(YAML, SERVER, marks=(pytest.mark.slow,))])
def test_every_row_is_answered_and_billed(
    server: str, form: str, task: str, find: Find, endpoints: LocalEndpoints
) -> None:
    """At every URL each row gets its own answer, a null gets null, and the tokens add up to what was billed."""
    engine = find(server).engine(form, task, TASKS[task])
    results = ask(engine, [["red green", None, "blue"]], TASKS[task])

    assert [None] * 3 == kinds(results)
    if task == "embeddings":
        assert [echo_vector("red green"), None, echo_vector("blue")] == vectors(results)
    else:
        assert ["red green", None, "blue"] == texts(results)
    assert endpoints.stats.total_tokens == sum(each.usage.total_tokens or 0 for each in results if each and each.usage)
    assert ([ENDPOINTS[task]], 2) == (list(endpoints.stats.endpoints), endpoints.stats.rows_answered)


@pytest.mark.slow
@pytest.mark.parametrize(("server", "form", "task"), dashes(*SERVERS))
def test_a_task_that_a_server_does_not_have_is_refused(
    server: str, form: str, task: str, find: Find, endpoints: LocalEndpoints
) -> None:
    """Where the page has a dash, each row says that it was refused, and nothing reaches the model behind."""
    results = ask(find(server).engine(form, task, TASKS[task]), [["red", "green"]], TASKS[task])

    assert {(None, True)} == {
        (each.text, each.error is not None and not each.error.retryable) for each in results if each
    }
    assert 0 == endpoints.stats.requests


@pytest.mark.parametrize(("server", "form", "task"), cells(LLAMA, marks=(pytest.mark.models,)))
def test_llama_cpp_answers_as_it_answers_others(server: str, form: str, task: str, find: Find) -> None:
    """A row gets the text, or the vector, that llama.cpp gives to a plain request for it."""
    place = find(server)
    question: dict[str, dict[str, object]] = {
        "chat": {"messages": [{"role": "user", "content": COUNTING}]},
        "completions": {"prompt": COUNTING},
        "embeddings": {"input": [COUNTING]},
    }
    plain = requests.post(
        f"{place.url}/v1/{ROUTES[task]}",
        json={**SURE[task], **question[task]},
        headers={"Authorization": f"Bearer {place.token}"},
        timeout=TIMEOUT_S,
    ).json()
    kind = {"chat": Chat, "completions": Complete, "embeddings": Embed}[task]
    asked = kind(parameters=encode_parameters(SURE[task], None))
    results = ask(place.engine(form, task, asked), [[COUNTING, None, COUNTING]], asked)

    assert [None] * 3 == kinds(results)
    if task == "embeddings":
        [first, nothing, second] = vectors(results)
        assert pytest.approx(plain["data"][0]["embedding"], abs=1e-6) == first
        assert (None, first) == (nothing, second)
    else:
        [choice] = plain["choices"]
        text = choice["message"]["content"] if task == "chat" else choice["text"]
        assert [text, None, text] == texts(results)
        assert text
    assert plain["usage"]["total_tokens"] == sum(
        each.usage.total_tokens or 0 for each in results if each and each.usage
    )


@pytest.mark.models
def test_llama_cpp_refuses_a_text_over_its_context(find: Find) -> None:
    """A conversation that does not fit is an error of its own kind, and its neighbours are answered."""
    chat = Chat(parameters=encode_parameters({"max_tokens": 2}, None))
    results = ask(find(LLAMA).engine("/v1", "chat", chat), [["hi", "word " * 3000, "ho"]], chat)

    assert [None, "context_length", None] == kinds(results)


@pytest.mark.models
def test_llama_cpp_refuses_a_wrong_key(find: Find) -> None:
    """Without the key nothing is answered, and three rows show it for all."""
    place = find(LLAMA)._replace(token="wrong")
    results = ask(place.engine("/v1", "chat", CHAT), [distinct(20)])

    assert {"unauthorized"} == set(kinds(results))
    assert 3 == sum(each.attempts for each in results if each)


@pytest.mark.slow
def test_a_gateways_limit_is_waited_out(find: Find, endpoints: LocalEndpoints) -> None:
    """Five calls a second are all that the gateway takes: it refuses more with 429, and every row is answered."""
    results = ask(find(YAML).engine(GATEWAYS[YAML], "chat", CHAT, name=PATIENT), [distinct(20)])

    assert distinct(20) == texts(results)
    assert 20 < sum(each.attempts for each in results if each)
    assert {200: 20} == endpoints.stats.by_status


@pytest.mark.slow
def test_a_gateways_limit_outlasts_patience(find: Find, endpoints: LocalEndpoints) -> None:
    """With three calls a minute and no patience for a minute, three rows are answered; the rest say why not."""
    impatient = Policy(give_up_after_s=1)
    results = ask(find(YAML).engine(GATEWAYS[YAML], "chat", CHAT, impatient, LIMITED), [distinct(6)])
    errors = [each.error for each in results if each and each.error]

    assert [("rate_limited", 429, True)] * 3 == [(error.kind, error.status, error.retryable) for error in errors]
    assert all("Rate limit exceeded: 3 per 1 minute" in error.message for error in errors)
    assert 3 == endpoints.stats.requests


@pytest.mark.slow
@pytest.mark.parametrize("server", GATEWAYS)
@pytest.mark.parametrize("faults", ["429*2", "503*2", "500*2", "cut", "garbage"])
def test_what_goes_wrong_behind_a_gateway_is_tried_again(
    server: str, faults: str, find: Find, endpoints: LocalEndpoints
) -> None:
    """A refusal, a failure or a broken answer of the model behind comes through in the gateway's words, and passes."""
    endpoints.faults = Faults(faults)
    results = ask(find(server).engine(GATEWAYS[server], "chat", CHAT), [distinct(5)])

    assert distinct(5) == texts(results)
    # A gateway may fail by itself, too: on a connection that was cut.
    assert 5 < endpoints.stats.requests <= sum(each.attempts for each in results if each)


@pytest.mark.slow
@pytest.mark.parametrize("server", GATEWAYS)
def test_a_bad_input_behind_a_gateway_costs_one_row(server: str, find: Find, endpoints: LocalEndpoints) -> None:
    """What the model behind refuses is the error of its row, in the model's words."""
    endpoints.faults = Faults(poison="row 3")
    results = ask(find(server).engine(GATEWAYS[server], "chat", CHAT), [distinct(5)])
    [error] = [each.error for each in results if each and each.error]

    assert ["row 0", "row 1", "row 2", None, "row 4"] == texts(results)
    assert ("invalid_request", 400) == (error.kind, error.status)


@pytest.mark.slow
@pytest.mark.parametrize("server", GATEWAYS)
def test_an_endpoint_that_a_gateway_does_not_have_is_asked_once(server: str, find: Find) -> None:
    """A name that is not there ends the asking with the first answer."""
    results = ask(find(server).engine(GATEWAYS[server], "chat", CHAT, name="nowhere"), [distinct(20)])

    assert {"not_found"} == set(kinds(results))
    assert 1 == sum(each.attempts for each in results if each)
