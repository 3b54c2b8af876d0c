"""The checks of an endpoint over the network: what each finds, and that a failure is told in a row's own words."""

import asyncio
import base64
import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.auth.credentials import Bearer, ClientCredentials, TokenSource
from spark_llm.errors import ConfigError
from spark_llm.protocol.chat import Chat
from spark_llm.protocol.task import Task
from spark_llm.readiness.checks import check_here, endpoints_at
from spark_llm.readiness.client import off_the_loop
from spark_llm.readiness.report import Check, Report
from spark_llm.readiness.target import Target, shown, tasks_of, workspace
from spark_llm.serving import After, Echo, Faults, LocalEndpoints, ServingEndpoint
from tests.support.asking import ask, engine_at
from tests.support.raw_server import AUTHORITY, RawServer
from tests.support.stub_server import CHAT_RESPONSE, Responses, stub_server

SECRET = "dapi-5ecret-that-must-not-be-seen"
DESCRIBED = {"name": "chat", "task": "llm/v1/chat", "state": {"ready": "READY", "config_update": "NOT_UPDATING"}}
FOUND = {
    "GET /api/2.0/serving-endpoints/chat": (200, DESCRIBED),
    "POST /serving-endpoints/chat/invocations": (200, CHAT_RESPONSE),
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the machine's own proxies out of the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def checked(
    endpoint: Endpoint,
    task: str | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 10.0,
    own: Task | None = None,
) -> Report:
    """Return the report of the driver's checks; `own` is a UDF's task with its parameters."""
    environ = environ or {}
    tasks = tasks_of(endpoint, task) if own is None else (own,)
    path = tasks[0].route
    found = check_here(endpoint, path, lambda: Target(endpoint.resolve(path, environ, ()), tasks, timeout_s), environ)
    return Report(shown(endpoint), tuple(found.checks))


def outcomes(report: Report) -> dict[str, str]:
    """Return each check's outcome by its name."""
    return {check.name: check.outcome for check in report.checks}


def named(report: Report, name: str) -> Check:
    """Return the check of that name."""
    [found] = [check for check in report.checks if check.name == name]
    return found


def wrong(report: Report) -> Check:
    """Return the one check that failed."""
    [failed] = report.failed
    return failed


def at(endpoints: LocalEndpoints, name: str = "chat") -> Endpoint:
    """Return one of the local endpoints as a user would name it."""
    return Endpoint(endpoints.invocations(name), token=endpoints.token)


@pytest.mark.parametrize("name", ["chat", "complete", "embed"])
@pytest.mark.parametrize(
    ("path", "has_model"),
    [
        ("/serving-endpoints/{name}/invocations", False),
        ("/serving-endpoints/{name}/served-models/{name}-1/invocations", False),
        ("/serving-endpoints", True),
        ("/v1", True),
        ("/ai-gateway/mlflow/v1", True),
        ("/openai/deployments/{name}?api-version=2024-10-21", True),
    ],
)
def test_an_endpoint_that_answers_is_ready(endpoints: LocalEndpoints, name: str, path: str, *, has_model: bool) -> None:
    """Under each form of its address the task is found, and one token is what it costs."""
    url = endpoints.url + path.format(name=name)
    report = checked(Endpoint(url, model=name if has_model else None, token=endpoints.token))
    described = "passed" if path.startswith("/serving-endpoints") else "skipped"

    assert report.ok
    assert {"address": "passed", "credentials": "passed", "description": described, "request": "passed"} == outcomes(
        report
    )
    assert named(report, "request").message.startswith(f"{name} was answered in ")
    assert (endpoints.requests[-1].body or {}).get("max_tokens") == (None if name == "embed" else 1)
    assert described == "skipped" or endpoints.stats.requests == 1  # the description tells the task


def test_a_name_is_asked_where_the_environment_says(endpoints: LocalEndpoints) -> None:
    """DATABRICKS_HOST and DATABRICKS_TOKEN are used as a UDF uses them, and the report says which it was."""
    report = checked(Endpoint("embed"), environ={"DATABRICKS_HOST": endpoints.url, "DATABRICKS_TOKEN": endpoints.token})

    assert report.ok
    assert endpoints.invocations("embed") == named(report, "address").message
    assert "a token (DATABRICKS_TOKEN)" == named(report, "credentials").message
    assert "embed is READY and serves llm/v1/embeddings" == named(report, "description").message
    assert re.fullmatch(
        r"embed was answered in \d+ ms by echo: a vector of 8 numbers, 1 token", named(report, "request").message
    )


def test_a_udfs_own_parameters_are_sent_with_one_token(endpoints: LocalEndpoints) -> None:
    """What would refuse the rows refuses the check, and the answer is as short as can be."""
    own = Chat("Be brief.", b'{"max_tokens":64,"temperature":0}')
    report = checked(at(endpoints), own=own)

    assert report.ok
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]
    assert {"max_tokens": 1, "temperature": 0, "messages": messages} == endpoints.requests[-1].body


@pytest.mark.parametrize(
    ("model", "task", "bodies"),
    [
        (Echo(refuse_fields=("max_tokens",)), "chat", [{"max_tokens": 1}, {"max_completion_tokens": 1}]),
        (Echo(refuse_fields=("encoding_format",)), "embed", [{"encoding_format": "base64"}, {}]),
    ],
)
def test_a_field_that_is_refused_is_left_out(model: Echo, task: str, bodies: list[dict[str, object]]) -> None:
    """A model that does not know `max_tokens`, or base64, is asked in the other way that UDFs have."""
    with LocalEndpoints({"it": model}) as endpoints:
        report = checked(at(endpoints, "it"), task)
        asked = [recorded.body or {} for recorded in endpoints.requests if "invocations" in recorded.path]

    assert report.ok, report
    fields = {"max_tokens", "max_completion_tokens", "encoding_format"}
    assert bodies == [{name: body[name] for name in body.keys() & fields} for body in asked]


def test_a_model_that_thinks_longer_than_one_token_has_answered() -> None:
    """OpenAI's thinking models refuse so short an answer with a 400: they were reached, and that is what is asked."""
    words = "Could not finish the message because max_tokens or model output limit was reached. Please try again."
    refused = (400, {"error": {"message": words, "type": "invalid_request_error", "code": None}})
    with stub_server({"POST /v1/chat/completions": refused}) as server:
        report = checked(Endpoint(f"{server.url}/v1", model="o"), "chat")

    assert report.ok, report
    assert named(report, "request").message.startswith("chat was answered in ")


def test_a_truncated_answer_is_an_answer() -> None:
    """A token that went into thinking leaves the text empty."""
    choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "length"}
    with stub_server({"POST /v1/chat/completions": (200, {**CHAT_RESPONSE, "choices": [choice]})}) as server:
        report = checked(Endpoint(f"{server.url}/v1", model="o"))

    assert report.ok, report
    assert named(report, "request").message.endswith(": 3 tokens")


def test_a_server_that_only_embeds_is_found_out() -> None:
    """Where nothing tells the task, chat, embed and complete are tried in this order, each at its own path."""
    answer = {"data": [{"index": 0, "embedding": [0.5, 0.25]}], "model": "m", "usage": {"total_tokens": 1}}
    with stub_server({"POST /v1/embeddings": (200, answer)}) as server:
        report = checked(Endpoint(f"{server.url}/v1", model="m"))

    assert report.ok, report
    assert ["POST /v1/chat/completions", "POST /v1/embeddings"] == server.requests
    assert "a vector of 2 numbers" in named(report, "request").message


# What goes wrong, told as a row tells it.


@contextmanager
def _silent() -> Iterator[str]:
    """Take connections, and never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@contextmanager
def _nobody() -> Iterator[str]:
    """Name an address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def _untrusted() -> Iterator[str]:
    """Speak TLS with a certificate that nobody trusts."""
    with stub_server({}, tls=True) as server:
        yield f"{server.url}/v1"


@contextmanager
def _plain() -> Iterator[str]:
    """Speak plain HTTP where TLS is expected."""
    with stub_server({}) as server:
        yield f"{server.url.replace('http', 'https')}/v1"


@contextmanager
def _unknown() -> Iterator[str]:
    """Name a host that no name server knows."""
    yield "https://nowhere.invalid/v1"


@pytest.mark.parametrize(
    ("place", "message", "hint"),
    [
        (_silent, "no complete answer within 0.4 s", "allow more time"),
        (_nobody, "connection refused", "nothing listens there"),
        (_untrusted, "certificate verify failed: ", "Endpoint(…, ca_bundle=…)"),
        (_plain, "no TLS with 127.0.0.1", "write http://"),
        (_unknown, "the name nowhere.invalid cannot be resolved: ", "check the host's spelling"),
    ],
)
def test_no_way_to_the_server_is_told_as_a_row_tells_it(
    place: Callable[[], AbstractContextManager[str]], message: str, hint: str
) -> None:
    """A server that hangs, is not there or is not trusted fails the request, in the words of a row's error."""
    with place() as url:
        endpoint = Endpoint(url, model="m", token=SECRET)
        began = time.monotonic()
        report = checked(endpoint, "chat", timeout_s=0.4)
        took_s = time.monotonic() - began
        row = told_to_a_row(endpoint, timeout_s=0.4)

    assert ("request", row) == (wrong(report).name, wrong(report).words)
    assert message in wrong(report).message
    assert hint in wrong(report).hint
    assert took_s < 10


def told_to_a_row(endpoint: Endpoint, *, timeout_s: float = 10.0) -> str:
    """Return the error message of a row that was asked there."""
    policy = Policy(max_tries=1, timeout_s=timeout_s, give_up_after_s=0.0)
    [result] = ask(engine_at(endpoint, policy), [["Hello."]])
    assert result is not None
    assert result.error is not None
    return result.error.message


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "HTTPS_PROXY"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "HTTPS_PROXY"),
        (None, "HTTPS_PROXY"),
    ],
    ids=["wants a login", "refuses", "is not there"],
)
def test_a_proxy_that_stands_in_the_way_is_told_as_a_row_tells_it(
    answer: bytes | None, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is named as what refuses, and its password is not."""
    endpoint = Endpoint("https://model.invalid/v1", model="m")
    with _proxy(answer) as authority:
        monkeypatch.setenv("https_proxy", f"http://user:{SECRET}@{authority}")
        words = wrong(checked(endpoint, "chat")).words.replace(authority, "PROXY")
    with _proxy(answer) as authority:
        monkeypatch.setenv("https_proxy", f"http://user:{SECRET}@{authority}")
        row = told_to_a_row(endpoint).replace(authority, "PROXY")

    assert row == words
    message, _, told = words.partition(" Hint: ")
    assert "proxy" in message
    assert hint in told
    assert SECRET not in words


@pytest.mark.parametrize("address", [f"socks5://user:{SECRET}@127.0.0.1:1", f"http://user:{SECRET}@proxy:port"])
def test_a_proxy_that_cannot_be_used_is_told_as_a_row_tells_it(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy, or an address that cannot be read: its variable is named, what to do, and no password."""
    monkeypatch.setenv("ALL_PROXY", address)
    endpoint = Endpoint("https://model.invalid/v1", model="m")
    words = wrong(checked(endpoint, "chat")).words

    assert told_to_a_row(endpoint) == words
    assert re.search(r"\bproxy\b.*ALL_PROXY|ALL_PROXY.*\bproxy\b.* Hint: ", words)
    assert SECRET not in words


@pytest.mark.parametrize("status", [200, 500])
def test_a_secret_that_an_error_repeats_is_in_no_report_and_no_row(status: int) -> None:
    """A gateway that answers 200 with an error body is read as one that answers 500."""
    with stub_server({"POST /invocations": (status, {"error": {"message": f"bad key {SECRET}"}})}) as server:
        endpoint = Endpoint(f"{server.url}/invocations", headers={"Authorization": f"Bearer {SECRET}"})
        words = wrong(checked(endpoint, "chat")).words
        row = told_to_a_row(endpoint)

    assert words.startswith("bad key ***")
    assert row.startswith("bad key ***")
    assert SECRET not in words + row


@contextmanager
def _proxy(answer: bytes | None) -> Iterator[str]:
    """Start a proxy for one connection; None leaves its port closed."""
    if answer is None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            authority = f"127.0.0.1:{listener.getsockname()[1]}"
        yield authority
        return
    server = RawServer(answer)
    yield server.authority
    server.close()


def test_a_ca_bundle_makes_the_server_trusted() -> None:
    """With the certificates of whoever signed it the same server is ready."""
    pem = AUTHORITY.cert_pem.bytes().decode()
    with stub_server(FOUND, tls=True) as server:
        url = f"{server.url}/serving-endpoints/chat/invocations"
        report = checked(Endpoint(url, ca_bundle=pem))

    assert report.ok, report
    assert "passed" == named(report, "description").outcome


def test_a_ca_bundle_that_is_none_is_told_as_a_row_tells_it() -> None:
    """A path that leads nowhere is named, with what to do about it."""
    with stub_server(FOUND, tls=True) as server:
        endpoint = Endpoint(f"{server.url}/serving-endpoints/chat/invocations", ca_bundle="no/such/file.pem")
        report = checked(endpoint)
        row = told_to_a_row(endpoint)

    assert row == wrong(report).words
    assert "no/such/file.pem" in wrong(report).message


def _wrong(endpoints: LocalEndpoints) -> TokenSource | None:
    return endpoints.token + "-wrong"


def _revoked(endpoints: LocalEndpoints) -> TokenSource | None:
    token = endpoints.token
    endpoints.revoke()
    return token


def _expired(endpoints: LocalEndpoints) -> TokenSource | None:
    endpoints.token_expires = After(elapsed_s=1e-9)
    return endpoints.token


def _none(endpoints: LocalEndpoints) -> TokenSource | None:
    return None


def _spoilt(endpoints: LocalEndpoints) -> TokenSource | None:
    return lambda: endpoints.token + "\n"


def _broken(endpoints: LocalEndpoints) -> TokenSource | None:
    def raises() -> str:
        raise PermissionError("no keyring here")

    return raises


@pytest.mark.parametrize(
    ("token", "name", "message", "hint"),
    [
        (_wrong, "request", "Invalid access token", "(token=) was refused"),
        (_revoked, "request", "Invalid access token", "revoked"),
        (_expired, "request", "Invalid access token", "expired"),
        (_none, "request", "Credential was not sent", "no token was sent"),
        (_spoilt, "credentials", "The token that the token function returned is empty, or has", "token.strip()"),
        (_broken, "credentials", "The token function raised PermissionError.", "call it alone"),
    ],
)
def test_a_token_that_is_no_good_is_told_as_a_row_tells_it(
    endpoints: LocalEndpoints,
    token: Callable[[LocalEndpoints], TokenSource | None],
    name: str,
    message: str,
    hint: str,
) -> None:
    """Wrong, revoked, expired, none, unfit for a header or not to be had: the row's words, and nothing of the token."""
    secret = endpoints.token
    endpoint = Endpoint(endpoints.invocations("chat"), token=token(endpoints))
    report = checked(endpoint)

    assert (name, told_to_a_row(endpoint)) == (wrong(report).name, wrong(report).words)
    assert message in wrong(report).message
    assert hint in wrong(report).hint
    assert secret not in str(report) + report._repr_html_()


def test_a_token_that_is_refused_is_replaced_as_a_worker_replaces_it(endpoints: LocalEndpoints) -> None:
    """A function that gives out a stale token first is asked once more, and the endpoint is ready."""
    tokens = ["stale", endpoints.token]
    report = checked(Endpoint(endpoints.invocations("chat"), token=lambda: tokens.pop(0)))

    assert report.ok, report
    assert ("passed", []) == (named(report, "description").outcome, tokens)


def test_a_token_with_a_newline_fails_the_credentials_and_not_the_address(endpoints: LocalEndpoints) -> None:
    """What is found where the endpoint is looked up is told under the check that it belongs to."""
    environ = {"DATABRICKS_HOST": endpoints.url, "DATABRICKS_TOKEN": f"{SECRET}\n"}
    report = checked(Endpoint("chat"), environ=environ)

    assert {"address": "passed", "credentials": "failed", "description": "skipped", "request": "skipped"} == outcomes(
        report
    )
    assert wrong(report).message.startswith("The token (DATABRICKS_TOKEN) is empty, or has a space, a line end")
    assert SECRET not in str(report)
    assert 0 == endpoints.stats.requests


def test_a_token_that_tells_its_end_is_read() -> None:
    """A JSON web token that is past its end fails at once; one that is not says for how long it is good."""

    def jwt(ends_at: float) -> str:
        claims = base64.urlsafe_b64encode(json.dumps({"exp": ends_at}).encode()).decode().rstrip("=")
        return f"e30.{claims}.{SECRET}"

    with stub_server(FOUND) as server:
        url = f"{server.url}/serving-endpoints/chat/invocations"
        past = checked(Endpoint(url, token=jwt(time.time() - 7_300)))
        fresh = checked(Endpoint(url, token=jwt(time.time() + 3_590)))

    assert f"the token expired 2 h 2 min ago (at {url})." == wrong(past).message
    assert wrong(past).hint.startswith("the token (token=) has expired; create a new one")
    assert "a token (token=), good for another 1 h" == named(fresh, "credentials").message
    assert SECRET not in str(past) + str(fresh)


def test_an_oauth_client_gets_a_token(endpoints: LocalEndpoints) -> None:
    """The check signs in as the workers do, and names the client, not its secret."""
    client = ClientCredentials(endpoints.client_id, endpoints.client_secret, f"{endpoints.url}/oidc/v1/token")
    report = checked(Endpoint(endpoints.invocations("embed"), token=client))

    assert report.ok, report
    told = f"a token of the OAuth client {endpoints.client_id} (token=), good for another 1 h"
    assert told == named(report, "credentials").message
    assert endpoints.client_secret not in str(report)


def test_an_oauth_client_that_is_refused_is_told_as_a_row_tells_it(endpoints: LocalEndpoints) -> None:
    """A wrong secret fails the credentials; nothing else is asked."""
    client = ClientCredentials(endpoints.client_id, SECRET, f"{endpoints.url}/oidc/v1/token")
    endpoint = Endpoint(endpoints.invocations("chat"), token=client)
    report = checked(endpoint)

    assert ("credentials", told_to_a_row(endpoint)) == (wrong(report).name, wrong(report).words)
    assert "invalid_client" in wrong(report).message
    assert "id or secret" in wrong(report).hint
    assert 0 == endpoints.stats.requests
    assert SECRET not in str(report)


def test_no_credentials_at_all_are_said_before_anything_is_asked(endpoints: LocalEndpoints) -> None:
    """A workspace answers nobody without a token, so none is sent without one."""
    report = checked(Endpoint("chat"), environ={"DATABRICKS_HOST": endpoints.url})

    assert "credentials" == wrong(report).name
    assert wrong(report).message.startswith(f"There is no token for {endpoints.url}. ")
    assert "set DATABRICKS_TOKEN on the driver, or pass Endpoint(…, token=…)." == wrong(report).hint


@pytest.mark.parametrize(
    ("endpoint", "environ", "message"),
    [
        (Endpoint("chat"), {}, "DATABRICKS_HOST names no workspace"),
        (Endpoint("http://far.example/v1", model="m"), {}, "plain http to another machine"),
        (Endpoint("http://127.0.0.1:1/v1"), {}, "a base URL, which needs a model"),
        (Endpoint("chat"), {"DATABRICKS_HOST": "http://far.example", "DATABRICKS_TOKEN": "t"}, "plain http"),
    ],
)
def test_an_address_that_cannot_be_right_is_said(endpoint: Endpoint, environ: dict[str, str], message: str) -> None:
    """No host, no model or no TLS: the words are those of the exception that a UDF raises, and the rest is skipped."""
    with pytest.raises(ConfigError) as raised:
        endpoint.resolve("/chat/completions", environ, ())
    report = checked(endpoint, environ=environ)

    assert ("address", str(raised.value)) == (wrong(report).name, wrong(report).words)
    assert message in wrong(report).message
    assert ["skipped"] * 3 == [check.outcome for check in report.checks[1:]]


def test_a_task_that_the_url_does_not_answer_is_said() -> None:
    """A URL of embeddings with chat asked of it is the wrong address."""
    report = checked(Endpoint("http://127.0.0.1:1/v1/embeddings"), "chat")

    assert "address" == wrong(report).name
    assert "serves /embeddings, but this UDF sends requests to /chat/completions" in wrong(report).message


# What a workspace says of its endpoint.


def test_a_name_that_is_not_there_is_told_with_those_that_are_near(endpoints: LocalEndpoints) -> None:
    """The server's words, the name, and what it may have meant; the request is not sent."""
    report = checked(at(endpoints, "chta"))

    assert ("description", "skipped") == (wrong(report).name, named(report, "request").outcome)
    assert f"Endpoint with name 'chta' does not exist (at {endpoints.invocations('chta')})." == wrong(report).message
    assert "did you mean 'chat'? `spark-llm endpoints` lists those of the workspace." == wrong(report).hint
    assert "check the name; `spark-llm endpoints`" in wrong(checked(at(endpoints, "zzz"))).hint
    assert 0 == endpoints.stats.requests


def test_an_endpoint_that_is_stopped_is_said(endpoints: LocalEndpoints) -> None:
    """Its state is told, and that it must be started; no request is sent."""
    endpoints.set_ready("chat", ready=False)
    report = checked(at(endpoints))

    assert ("description", "The endpoint chat is NOT_READY (stopped).") == (wrong(report).name, wrong(report).message)
    assert "start it on its page under Serving, then check again." == wrong(report).hint
    assert 0 == endpoints.stats.requests


@pytest.mark.parametrize("asked", ["embed", "complete"])
def test_a_task_that_does_not_fit_is_said(endpoints: LocalEndpoints, asked: str) -> None:
    """Embeddings asked of a chat endpoint: it refuses in the row's words, and the hint names the UDF that fits."""
    report = checked(at(endpoints), asked)

    assert ("passed", "request") == (named(report, "description").outcome, wrong(report).name)
    assert f"(at {endpoints.invocations('chat')})." in wrong(report).message
    assert wrong(report).hint.startswith(
        f"the endpoint chat serves chat (llm/v1/chat), and {asked} was asked of it: use chat_udf, or name an endpoint"
    )


def test_an_endpoint_may_answer_more_than_it_is_described_by() -> None:
    """Where it does answer, it is ready for the task that was asked."""
    with LocalEndpoints({"it": Echo()}) as endpoints:
        report = checked(at(endpoints, "it"), "embed")

    assert report.ok, report
    assert "it is READY and serves llm/v1/chat" == named(report, "description").message


def test_a_task_that_does_not_fit_is_told_as_a_row_tells_it_where_nobody_describes(endpoints: LocalEndpoints) -> None:
    """Without a workspace the endpoint's own refusal says it, in the words of the rows that it would refuse."""
    endpoint = Endpoint(endpoints.openai_url, model="embed", token=endpoints.token)
    report = checked(endpoint, "chat")
    policy = Policy(max_tries=1)
    results = ask(engine_at(endpoint, policy), [[f"row {number}" for number in range(20)]])
    last_words = {result.error.message for result in results if result is not None and result.error is not None}

    assert "request" == wrong(report).name
    assert wrong(report).words in last_words


def test_a_served_model_that_is_not_there_is_said(endpoints: LocalEndpoints) -> None:
    """Those that are there are named."""
    url = f"{endpoints.url}/serving-endpoints/chat/served-models/nobody/invocations"
    report = checked(Endpoint(url, token=endpoints.token))

    assert "The endpoint chat has no served model 'nobody'." == wrong(report).message
    assert "it has chat-1: name one of these." == wrong(report).hint


def test_a_route_optimised_endpoint_is_told_its_own_url() -> None:
    """At its ordinary URL it may refuse: then the way that it wants to be asked is the next step."""
    own = "https://1.serving.example/7/serving-endpoints/chat/invocations"
    described = {**DESCRIBED, "route_optimized": True, "endpoint_url": own}
    refused = (400, {"error_code": "BAD_REQUEST", "message": "This endpoint is asked at its own URL."})
    answers: Responses = {**FOUND, "GET /api/2.0/serving-endpoints/chat": (200, described)}
    refusing: Responses = {**answers, "POST /serving-endpoints/chat/invocations": refused}
    with stub_server(answers) as willing, stub_server(refusing) as unwilling:
        ready = checked(Endpoint(f"{willing.url}/serving-endpoints/chat/invocations"))
        refusal = checked(Endpoint(f"{unwilling.url}/serving-endpoints/chat/invocations"))
    way = f"it is route-optimised: ask {own} with an OAuth token, such as ClientCredentials get."

    assert ready.ok
    assert way == named(ready, "description").hint
    assert ("request", way) == (wrong(refusal).name, wrong(refusal).hint)


def test_a_route_optimised_endpoint_is_ready_at_its_own_url() -> None:
    """There a client's token is good for it alone; nothing describes it there."""
    models = {"fast": ServingEndpoint(Echo(), tasks=["chat"], route_optimized=True)}
    with LocalEndpoints(models) as endpoints:
        described = endpoints_at(workspace({"DATABRICKS_HOST": endpoints.url}, (), Bearer.of(endpoints.token)))
        url = f"{endpoints.url}/1270010000000001/serving-endpoints/fast/invocations"
        client = ClientCredentials(endpoints.client_id, endpoints.client_secret)
        report = checked(Endpoint(url, token=client), environ={"DATABRICKS_HOST": endpoints.url})

    assert ["fast"] == [each.name for each in described]
    assert report.ok, report
    assert "skipped" == named(report, "description").outcome


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((403, {"error_code": "PERMISSION_DENIED", "message": "No CAN_VIEW."}), "403 No CAN_VIEW."),
        ((404, {"detail": "Not Found"}), "404 Not Found"),
        ((200, ["not", "one"]), "what came back is no description"),
        ((302, {}), "302"),
        ((500, {"message": "oops"}), "500 oops"),
    ],
)
def test_without_a_description_the_request_decides(answer: tuple[int, object], words: str) -> None:
    """A right to ask is enough: who may not look, or finds no such API, is not held up by it."""
    with stub_server({**FOUND, "GET /api/2.0/serving-endpoints/chat": answer}) as server:
        report = checked(Endpoint(f"{server.url}/serving-endpoints/chat/invocations"))

    assert report.ok, report
    assert "skipped" == named(report, "description").outcome
    assert words in named(report, "description").message


def test_every_success_is_one() -> None:
    """A token, a description, a list and an answer that come by another 2xx than 200 are taken."""
    answers = {asked: (status, document) for status, (asked, (_, document)) in enumerate(FOUND.items(), start=201)} | {
        "POST /token": (201, {"access_token": SECRET, "expires_in": 3600}),
        "GET /api/2.0/serving-endpoints": (203, {"endpoints": [DESCRIBED]}),
    }
    with stub_server(answers) as server:
        client = ClientCredentials("id", "secret", f"{server.url}/token")
        report = checked(Endpoint(f"{server.url}/serving-endpoints/chat/invocations", token=client))
        names = [found.name for found in endpoints_at(workspace({"DATABRICKS_HOST": server.url}, (), client))]

    assert {"passed"} == {check.outcome for check in report.checks}, report
    assert ["chat"] == names


def test_a_description_is_asked_for_with_the_workers_headers() -> None:
    """A gateway's header and the token go with it, to the same host."""
    with stub_server(FOUND) as server:
        endpoint = Endpoint(
            f"{server.url}/serving-endpoints/chat/invocations", token=SECRET, headers={"X-Team": "data"}
        )
        report = checked(endpoint)

    assert report.ok, report
    assert [("data", f"Bearer {SECRET}")] * 2 == [
        (headers.get("x-team"), headers.get("authorization")) for headers in server.headers
    ]


def test_a_token_goes_before_a_header_of_its_name() -> None:
    """As a worker sends it: one header, however it is written, and the token in it."""
    with stub_server(FOUND) as server:
        url = f"{server.url}/serving-endpoints/chat/invocations"
        checked(Endpoint(url, token=SECRET, headers={"authorization": "Basic x"}))
        basic = checked(Endpoint(url, headers={"authorization": "Basic x"}))

    assert [f"Bearer {SECRET}"] * 2 + ["Basic x"] * 2 == [headers["authorization"] for headers in server.headers]
    assert "no token, but the header authorization" == named(basic, "credentials").message


def test_a_workspace_that_hangs_is_not_waited_for_longer_than_was_said() -> None:
    """The time for one request holds for the description too."""
    with _silent() as url:
        began = time.monotonic()
        report = checked(Endpoint(url.replace("/v1", "/serving-endpoints/chat/invocations")), "chat", timeout_s=0.2)
        took_s = time.monotonic() - began

    assert ("skipped", "request") == (named(report, "description").outcome, wrong(report).name)
    assert took_s < 5


def test_being_told_to_wait_is_said(endpoints: LocalEndpoints) -> None:
    """A 429 is not ready, and the advice is about the limit."""
    endpoints.faults = Faults("429*9")
    report = checked(at(endpoints))

    assert "request" == wrong(report).name
    assert "Policy(requests_per_minute=…)" in wrong(report).hint


def test_it_works_where_an_event_loop_runs(endpoints: LocalEndpoints) -> None:
    """A notebook's main thread runs one."""

    async def cell() -> Report:
        return checked(at(endpoints))

    assert asyncio.run(cell()).ok


def test_what_raises_beside_the_loop_raises_here() -> None:
    """The thread beside the loop hands back what became of its work."""

    async def cell() -> None:
        off_the_loop(lambda: int("none"))

    with pytest.raises(ValueError, match="none"):
        asyncio.run(cell())


def test_a_task_that_there_is_not_raises() -> None:
    """It is an argument, and no fault of the endpoint."""
    with pytest.raises(ConfigError, match=r"task='sing' is no task. Hint: pass one of chat, embed, complete"):
        tasks_of(Endpoint("chat"), "sing")


@pytest.mark.parametrize(
    ("endpoint", "told", "names"),
    [
        (Endpoint("chat"), None, ["chat", "embed", "complete"]),
        (Endpoint("chat"), "embed", ["embed"]),
        (Endpoint("http://127.0.0.1/v1/chat/completions"), None, ["chat"]),
        (Endpoint("http://127.0.0.1/v1/completions?a=b"), None, ["complete"]),
        (Endpoint("http://127.0.0.1/v1/embeddings/"), None, ["embed"]),
        (Endpoint("http://127.0.0.1/v1/embeddings"), "chat", ["chat"]),
        (Endpoint("http://127.0.0.1/serving-endpoints/x/invocations"), None, ["chat", "embed", "complete"]),
    ],
)
def test_the_tasks_that_come_into_question(endpoint: Endpoint, told: str | None, names: Sequence[str]) -> None:
    """What is told goes first, then what the path says; else each is tried."""
    assert names == [task.name for task in tasks_of(endpoint, told)]


# The list of a workspace.


def test_a_workspace_lists_its_endpoints(endpoints: LocalEndpoints) -> None:
    """By name, task and state."""
    environ = {"DATABRICKS_HOST": endpoints.url, "DATABRICKS_TOKEN": endpoints.token}
    endpoints.set_ready("embed", ready=False)
    found = [(each.name, each.task, each.state) for each in endpoints_at(workspace(environ, ()))]

    assert [("chat", "chat", "READY"), ("complete", "complete", "READY"), ("embed", "embed", "NOT_READY")] == found


@pytest.mark.parametrize(
    ("token", "words"),
    [(SECRET, "Invalid access token"), (None, "There is no token for "), (f"{SECRET}\n", "no header can hold")],
)
def test_a_workspace_that_lists_nothing_says_why(endpoints: LocalEndpoints, token: str | None, words: str) -> None:
    """One exception with its next step, and without the token."""
    environ = {"DATABRICKS_HOST": endpoints.url} | ({} if token is None else {"DATABRICKS_TOKEN": token})
    with pytest.raises(ConfigError, match=r" Hint: .+\.$") as raised:
        endpoints_at(workspace(environ, ()))

    assert words in str(raised.value)
    assert SECRET not in str(raised.value)


def test_no_workspace_is_said() -> None:
    """Without DATABRICKS_HOST and without a login there is none to ask."""
    with pytest.raises(ConfigError, match=r"DATABRICKS_HOST does not say at which workspace. Hint: set "):
        workspace({}, ())
