"""Network checks of an endpoint: their findings, and failures with the message that a row would get."""

import asyncio
import base64
import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from pyspark.sql.types import DoubleType

from spark_llm import Endpoint, Policy, predict_udf, preflight
from spark_llm.auth.credentials import Bearer, ClientCredentials, TokenSource
from spark_llm.endpoint.client import run_outside_loop
from spark_llm.errors import ConfigError
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.task import Task
from spark_llm.readiness.checks import list_endpoints, run_driver_checks
from spark_llm.readiness.report import Check, Report
from spark_llm.readiness.target import Target, candidate_tasks, printable_name, workspace_route
from spark_llm.serving import After, Echo, Faults, LocalEndpoints, ServingEndpoint
from tests.support.asking import ask, engine_at
from tests.support.raw_server import AUTHORITY, RawServer
from tests.support.responses_server import CHAT as RESPONSES_CHAT
from tests.support.responses_server import RESPONSES, ResponsesModel, responses_server
from tests.support.scoring_server import RefusedError, scoring_server
from tests.support.stub_server import CHAT_RESPONSE, Responses, stub_server

SECRET = "dapi-5ecret-that-must-not-be-seen"
DESCRIBED = {"name": "chat", "task": "llm/v1/chat", "state": {"ready": "READY", "config_update": "NOT_UPDATING"}}
FOUND = {
    "GET /api/2.0/serving-endpoints/chat": (200, DESCRIBED),
    "POST /serving-endpoints/chat/invocations": (200, CHAT_RESPONSE),
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the machine's own proxies from the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def report_of(
    endpoint: Endpoint,
    task: str | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 10.0,
    own: Task | None = None,
) -> Report:
    """Return the report of the driver's checks; `own` is a UDF's task with its parameters."""
    environ = environ or {}
    tasks = candidate_tasks(endpoint, task) if own is None else (own,)
    path = tasks[0].route
    found = run_driver_checks(
        endpoint, path, lambda: Target(endpoint.resolve(path, environ, ()), tasks, timeout_s), environ
    )
    return Report(printable_name(endpoint), tuple(found.checks))


def outcomes(report: Report) -> dict[str, str]:
    """Return each check's outcome by its name."""
    return {check.name: check.outcome for check in report.checks}


def check_named(report: Report, name: str) -> Check:
    """Return the check of that name."""
    [found] = [check for check in report.checks if check.name == name]
    return found


def failed_check(report: Report) -> Check:
    """Return the one check that failed."""
    [failed] = report.failed
    return failed


def at(endpoints: LocalEndpoints, name: str = "chat") -> Endpoint:
    """Return one of the local endpoints, with its token."""
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
    """Every form of the address shows the task, and the request has a limit of one token."""
    url = endpoints.url + path.format(name=name)
    report = report_of(Endpoint(url, model=name if has_model else None, token=endpoints.token))
    described = "passed" if path.startswith("/serving-endpoints") else "skipped"

    assert report.ok
    assert {"address": "passed", "credentials": "passed", "description": described, "request": "passed"} == outcomes(
        report
    )
    assert check_named(report, "request").message.startswith(f"{name} was answered in ")
    assert (endpoints.requests[-1].body or {}).get("max_tokens") == (None if name == "embed" else 1)
    assert described == "skipped" or endpoints.stats.requests == 1  # the description tells the task


def test_a_name_is_looked_up_in_the_environments_workspace(endpoints: LocalEndpoints) -> None:
    """The checks use DATABRICKS_HOST and DATABRICKS_TOKEN as a UDF does, and the report names the variable."""
    report = report_of(
        Endpoint("embed"), environ={"DATABRICKS_HOST": endpoints.url, "DATABRICKS_TOKEN": endpoints.token}
    )

    assert report.ok
    assert endpoints.invocations("embed") == check_named(report, "address").message
    assert "a token (DATABRICKS_TOKEN)" == check_named(report, "credentials").message
    assert "embed is READY and serves llm/v1/embeddings" == check_named(report, "description").message
    assert re.fullmatch(
        r"embed was answered in \d+ ms by echo: a vector of 8 numbers, 1 token", check_named(report, "request").message
    )


def test_a_udfs_own_parameters_are_sent_with_one_token(endpoints: LocalEndpoints) -> None:
    """The request has all parameters of the UDF, with a limit of one token."""
    own = Chat("Be brief.", b'{"max_tokens":64,"temperature":0}')
    report = report_of(at(endpoints), own=own)

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
def test_a_refused_field_is_replaced(model: Echo, task: str, bodies: list[dict[str, object]]) -> None:
    """A model that refuses `max_tokens`, or base64, gets the request in the other wire format."""
    with LocalEndpoints({"it": model}) as endpoints:
        report = report_of(at(endpoints, "it"), task)
        requests = [recorded.body or {} for recorded in endpoints.requests if "invocations" in recorded.path]

    assert report.ok, report
    fields = {"max_tokens", "max_completion_tokens", "encoding_format"}
    assert bodies == [{name: body[name] for name in body.keys() & fields} for body in requests]


def test_a_reached_output_limit_is_an_answer() -> None:
    """OpenAI's reasoning models refuse so low a limit with a 400, which proves that they were reached."""
    text = "Could not finish the message because max_tokens or model output limit was reached. Please try again."
    refused = (400, {"error": {"message": text, "type": "invalid_request_error", "code": None}})
    with stub_server({"POST /v1/chat/completions": refused}) as server:
        report = report_of(Endpoint(f"{server.url}/v1", model="o"), "chat")

    assert report.ok, report
    assert check_named(report, "request").message.startswith("chat was answered in ")


def test_a_truncated_answer_is_an_answer() -> None:
    """A token that went into reasoning leaves the text empty."""
    choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "length"}
    with stub_server({"POST /v1/chat/completions": (200, {**CHAT_RESPONSE, "choices": [choice]})}) as server:
        report = report_of(Endpoint(f"{server.url}/v1", model="o"))

    assert report.ok, report
    assert check_named(report, "request").message.endswith(": 3 tokens")


@pytest.mark.parametrize(
    ("path", "api", "requests"),
    [
        ("/v1", None, {RESPONSES_CHAT: 1, RESPONSES: 1}),
        ("/v1", "responses", {RESPONSES_CHAT: 0, RESPONSES: 1}),
        ("/v1/responses", None, {RESPONSES_CHAT: 0, RESPONSES: 1}),
        ("/invocations", "responses", {RESPONSES_CHAT: 0, RESPONSES: 1}),
    ],
)
def test_a_model_of_the_responses_route_is_ready(path: str, api: Any, requests: dict[str, int]) -> None:  # noqa: ANN401 -- of an endpoint
    """At the route that is set, or that its refusal names: then the hint says how to save the refusal."""
    model = ResponsesModel()
    with responses_server(model) as server:
        report = report_of(Endpoint(server.url + path, model="m", api=api))
    check = check_named(report, "request")

    assert report.ok, report
    assert requests == model.requests
    assert "chat was answered in " in check.message
    assert ('api="responses"' in check.hint) == (requests[RESPONSES_CHAT] == 1)
    assert 16 == server.bodies[-1]["max_output_tokens"]


@pytest.mark.parametrize("parameters", [b'{"n":2}', b'{"max_tokens":8}'])
def test_what_has_no_place_at_the_found_route_fails(parameters: bytes) -> None:
    """The UDF's own parameters would fail every row."""
    with responses_server(ResponsesModel()) as server:
        report = report_of(Endpoint(f"{server.url}/v1", model="m"), own=Chat(parameters=parameters))

    assert "The model is served at the Responses route." in failed_check(report).message
    assert 'api="responses"' in failed_check(report).hint


def test_an_agent_that_takes_responses_is_named() -> None:
    """Its refusal does not say so, but its description does."""
    answers = {
        "GET /api/2.0/serving-endpoints/chat": (200, {**DESCRIBED, "task": "agent/v1/responses"}),
        "POST /serving-endpoints/chat/invocations": (
            400,
            {"error_code": "BAD_REQUEST", "message": "Model is missing inputs ['input']."},
        ),
    }
    with stub_server(answers) as server:
        environ = {"DATABRICKS_HOST": server.url, "DATABRICKS_TOKEN": "dapi-x"}
        report = report_of(Endpoint("chat"), environ=environ)

    assert 'it serves agent/v1/responses: use Endpoint(…, api="responses").' == failed_check(report).hint


def test_a_model_of_the_gateway_is_ready() -> None:
    """A name of three parts is asked at the gateway, which no workspace describes."""
    with LocalEndpoints({"system.ai.chat": Echo()}) as gateway:
        environ = {"DATABRICKS_HOST": gateway.url, "DATABRICKS_TOKEN": gateway.token}
        report = report_of(Endpoint("system.ai.chat"), environ=environ)
        unknown = report_of(Endpoint("system.ai.other"), environ=environ)

    assert report.ok, report
    assert check_named(report, "address").message.endswith("/ai-gateway/mlflow/v1/chat/completions")
    assert "AI Gateway lists its models" in failed_check(unknown).hint


def test_the_task_of_an_embedding_server_is_found() -> None:
    """Without a description, chat, embed and complete are tried in this order, each at its own path."""
    answer = {"data": [{"index": 0, "embedding": [0.5, 0.25]}], "model": "m", "usage": {"total_tokens": 1}}
    with stub_server({"POST /v1/embeddings": (200, answer)}) as server:
        report = report_of(Endpoint(f"{server.url}/v1", model="m"))

    assert report.ok, report
    assert ["POST /v1/chat/completions", "POST /v1/embeddings"] == server.requests
    assert "a vector of 2 numbers" in check_named(report, "request").message


# Failures, with the message that a row would get.


@contextmanager
def _silent() -> Iterator[str]:
    """Yield the URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@contextmanager
def _closed() -> Iterator[str]:
    """Yield a URL with a closed port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def _untrusted() -> Iterator[str]:
    """Yield the URL of a server whose certificate is not trusted."""
    with stub_server({}, tls=True) as server:
        yield f"{server.url}/v1"


@contextmanager
def _plain() -> Iterator[str]:
    """Yield an https URL of a server that speaks plain HTTP."""
    with stub_server({}) as server:
        yield f"{server.url.replace('http', 'https')}/v1"


@contextmanager
def _unknown() -> Iterator[str]:
    """Yield the URL of a host that cannot be resolved."""
    yield "https://nowhere.invalid/v1"


@pytest.mark.waits
@pytest.mark.parametrize(
    ("place", "message", "hint"),
    [
        (_silent, "no complete answer within 0.4 s", "allow more time"),
        (_closed, "connection refused", "nothing listens there"),
        (_untrusted, "certificate verify failed: ", "Endpoint(…, ca_bundle=…)"),
        (_plain, "no TLS with 127.0.0.1", "write http://"),
        (_unknown, "the name nowhere.invalid cannot be resolved: ", "check the host's spelling"),
    ],
)
def test_a_connection_failure_has_a_rows_message(
    place: Callable[[], AbstractContextManager[str]], message: str, hint: str
) -> None:
    """A server that hangs, is absent or is not trusted fails the request with the message of a row."""
    timeout_s = 0.4 if place is _silent else 10.0
    with place() as url:
        endpoint = Endpoint(url, model="m", token=SECRET)
        began = time.monotonic()
        report = report_of(endpoint, "chat", timeout_s=timeout_s)
        took_s = time.monotonic() - began
        row = row_message(endpoint, timeout_s=timeout_s)

    # Each of the two waits its own time.
    text, row = (re.sub(r"\d+\.\d s waited", "", each) for each in (failed_check(report).text, row))
    assert ("request", row) == (failed_check(report).name, text)
    assert message in failed_check(report).message
    assert hint in failed_check(report).hint
    assert took_s < 10


def row_message(endpoint: Endpoint, *, timeout_s: float = 10.0) -> str:
    """Return the error message of a row that is sent there."""
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
def test_a_proxy_failure_has_a_rows_message(answer: bytes | None, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message blames the proxy and hides its password."""
    endpoint = Endpoint("https://model.invalid/v1", model="m")
    with _proxy(answer) as authority:
        monkeypatch.setenv("https_proxy", f"http://user:{SECRET}@{authority}")
        text = failed_check(report_of(endpoint, "chat")).text.replace(authority, "PROXY")
    with _proxy(answer) as authority:
        monkeypatch.setenv("https_proxy", f"http://user:{SECRET}@{authority}")
        row = row_message(endpoint).replace(authority, "PROXY")

    assert row == text
    message, _, found_hint = text.partition(" Hint: ")
    assert "proxy" in message
    assert hint in found_hint
    assert SECRET not in text


@pytest.mark.parametrize("address", [f"socks5://user:{SECRET}@127.0.0.1:1", f"http://user:{SECRET}@proxy:port"])
def test_an_unusable_proxy_has_a_rows_message(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable and a next step, and hides the password of the proxy."""
    monkeypatch.setenv("ALL_PROXY", address)
    endpoint = Endpoint("https://model.invalid/v1", model="m")
    text = failed_check(report_of(endpoint, "chat")).text

    assert row_message(endpoint) == text
    assert re.search(r"\bproxy\b.*ALL_PROXY|ALL_PROXY.*\bproxy\b.* Hint: ", text)
    assert SECRET not in text


@pytest.mark.parametrize("status", [200, 500])
def test_a_secret_in_an_error_does_not_print(status: int) -> None:
    """It is masked in the report and in the row, for a 200 with an error body as for a 500."""
    with stub_server({"POST /invocations": (status, {"error": {"message": f"bad key {SECRET}"}})}) as server:
        endpoint = Endpoint(f"{server.url}/invocations", headers={"Authorization": f"Bearer {SECRET}"})
        text = failed_check(report_of(endpoint, "chat")).text
        row = row_message(endpoint)

    assert text.startswith("bad key ***")
    assert row.startswith("bad key ***")
    assert SECRET not in text + row


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
    """With its authority's certificates the server is ready."""
    pem = AUTHORITY.cert_pem.bytes().decode()
    with stub_server(FOUND, tls=True) as server:
        url = f"{server.url}/serving-endpoints/chat/invocations"
        report = report_of(Endpoint(url, ca_bundle=pem))

    assert report.ok, report
    assert "passed" == check_named(report, "description").outcome


def test_a_missing_ca_bundle_has_a_rows_message() -> None:
    """The message names the path and a next step."""
    with stub_server(FOUND, tls=True) as server:
        endpoint = Endpoint(f"{server.url}/serving-endpoints/chat/invocations", ca_bundle="no/such/file.pem")
        report = report_of(endpoint)
        row = row_message(endpoint)

    assert row == failed_check(report).text
    assert "no/such/file.pem" in failed_check(report).message


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
def test_an_invalid_token_has_a_rows_message(
    endpoints: LocalEndpoints,
    token: Callable[[LocalEndpoints], TokenSource | None],
    name: str,
    message: str,
    hint: str,
) -> None:
    """Wrong, revoked, expired, missing or malformed: the check has the row's message and hides the token."""
    secret = endpoints.token
    endpoint = Endpoint(endpoints.invocations("chat"), token=token(endpoints))
    report = report_of(endpoint)

    assert (name, row_message(endpoint)) == (failed_check(report).name, failed_check(report).text)
    assert message in failed_check(report).message
    assert hint in failed_check(report).hint
    assert secret not in str(report) + report._repr_html_()


def test_a_refused_token_is_replaced_once(endpoints: LocalEndpoints) -> None:
    """A function that first returns a stale token is called once more, and the endpoint is ready."""
    tokens = ["stale", endpoints.token]
    report = report_of(Endpoint(endpoints.invocations("chat"), token=lambda: tokens.pop(0)))

    assert report.ok, report
    assert ("passed", []) == (check_named(report, "description").outcome, tokens)


def test_a_token_with_a_newline_fails_the_credentials_and_not_the_address(endpoints: LocalEndpoints) -> None:
    """The address passes although the same step finds the malformed token."""
    environ = {"DATABRICKS_HOST": endpoints.url, "DATABRICKS_TOKEN": f"{SECRET}\n"}
    report = report_of(Endpoint("chat"), environ=environ)

    assert {"address": "passed", "credentials": "failed", "description": "skipped", "request": "skipped"} == outcomes(
        report
    )
    assert failed_check(report).message.startswith("The token (DATABRICKS_TOKEN) is empty, or has a space, a line end")
    assert SECRET not in str(report)
    assert 0 == endpoints.stats.requests


def test_a_tokens_expiry_is_read() -> None:
    """A JSON web token fails after its expiry; before it, the check says how long the token is valid."""

    def jwt(ends_at: float) -> str:
        claims = base64.urlsafe_b64encode(json.dumps({"exp": ends_at}).encode()).decode().rstrip("=")
        return f"e30.{claims}.{SECRET}"

    with stub_server(FOUND) as server:
        url = f"{server.url}/serving-endpoints/chat/invocations"
        past = report_of(Endpoint(url, token=jwt(time.time() - 7_300)))
        fresh = report_of(Endpoint(url, token=jwt(time.time() + 3_590)))

    assert f"the token expired 2 h 2 min ago (at {url})." == failed_check(past).message
    assert failed_check(past).hint.startswith("the token (token=) has expired; create a new one")
    assert "a token (token=), valid for another 1 h" == check_named(fresh, "credentials").message
    assert SECRET not in str(past) + str(fresh)


def test_an_oauth_client_gets_a_token(endpoints: LocalEndpoints) -> None:
    """The check signs in as workers do, and names the client and not its secret."""
    client = ClientCredentials(endpoints.client_id, endpoints.client_secret, f"{endpoints.url}/oidc/v1/token")
    report = report_of(Endpoint(endpoints.invocations("embed"), token=client))

    assert report.ok, report
    message = f"a token of the OAuth client {endpoints.client_id} (token=), valid for another 1 h"
    assert message == check_named(report, "credentials").message
    assert endpoints.client_secret not in str(report)


def test_a_refused_oauth_client_has_a_rows_message(endpoints: LocalEndpoints) -> None:
    """A wrong secret fails the credentials, and no request is sent."""
    client = ClientCredentials(endpoints.client_id, SECRET, f"{endpoints.url}/oidc/v1/token")
    endpoint = Endpoint(endpoints.invocations("chat"), token=client)
    report = report_of(endpoint)

    assert ("credentials", row_message(endpoint)) == (failed_check(report).name, failed_check(report).text)
    assert "invalid_client" in failed_check(report).message
    assert "id or secret" in failed_check(report).hint
    assert 0 == endpoints.stats.requests
    assert SECRET not in str(report)


def test_missing_credentials_fail_before_any_request(endpoints: LocalEndpoints) -> None:
    """A workspace needs a token, so the check fails without one."""
    report = report_of(Endpoint("chat"), environ={"DATABRICKS_HOST": endpoints.url})

    assert "credentials" == failed_check(report).name
    assert failed_check(report).message.startswith(f"There is no token for {endpoints.url}. ")
    assert "set DATABRICKS_TOKEN on the driver, or pass Endpoint(…, token=…)." == failed_check(report).hint


@pytest.mark.parametrize(
    ("endpoint", "environ", "message"),
    [
        (Endpoint("chat"), {}, "DATABRICKS_HOST names no workspace"),
        (Endpoint("http://far.example/v1", model="m"), {}, "plain http to another machine"),
        (Endpoint("http://127.0.0.1:1/v1"), {}, "a base URL, which needs a model"),
        (Endpoint("chat"), {"DATABRICKS_HOST": "http://far.example", "DATABRICKS_TOKEN": "t"}, "plain http"),
    ],
)
def test_an_invalid_address_fails(endpoint: Endpoint, environ: dict[str, str], message: str) -> None:
    """Without host, model or TLS the check has the UDF's exception as its message, and the others are skipped."""
    with pytest.raises(ConfigError) as raised:
        endpoint.resolve("/chat/completions", environ, ())
    report = report_of(endpoint, environ=environ)

    assert ("address", str(raised.value)) == (failed_check(report).name, failed_check(report).text)
    assert message in failed_check(report).message
    assert ["skipped"] * 3 == [check.outcome for check in report.checks[1:]]


def test_a_task_of_another_url_fails_the_address() -> None:
    """A URL for embeddings is the wrong address for chat."""
    report = report_of(Endpoint("http://127.0.0.1:1/v1/embeddings"), "chat")

    assert "address" == failed_check(report).name
    assert "serves /embeddings, but this UDF sends requests to /chat/completions" in failed_check(report).message


# Descriptions by a workspace.


def test_an_unknown_name_is_shown_with_similar_names(endpoints: LocalEndpoints) -> None:
    """The check has the server's message and the similar names; no request is sent."""
    report = report_of(at(endpoints, "chta"))

    assert ("description", "skipped") == (failed_check(report).name, check_named(report, "request").outcome)
    assert (
        f"Endpoint with name 'chta' does not exist (at {endpoints.invocations('chta')})."
        == failed_check(report).message
    )
    assert "did you mean 'chat'? `spark-llm endpoints` lists those of the workspace." == failed_check(report).hint
    assert "check the name; `spark-llm endpoints`" in failed_check(report_of(at(endpoints, "zzz"))).hint
    assert 0 == endpoints.stats.requests


def test_a_stopped_endpoint_fails_the_description(endpoints: LocalEndpoints) -> None:
    """The check has the state and the hint to start it; no request is sent."""
    endpoints.set_ready("chat", ready=False)
    report = report_of(at(endpoints))

    assert ("description", "The endpoint chat is NOT_READY (stopped).") == (
        failed_check(report).name,
        failed_check(report).message,
    )
    assert "start it on its page under Serving, then check again." == failed_check(report).hint
    assert 0 == endpoints.stats.requests


@pytest.mark.parametrize("task", ["embed", "complete"])
def test_another_task_fails_the_request(endpoints: LocalEndpoints, task: str) -> None:
    """The endpoint refuses with the row's message, and the hint names the UDF for its task."""
    report = report_of(at(endpoints), task)

    assert ("passed", "request") == (check_named(report, "description").outcome, failed_check(report).name)
    assert f"(at {endpoints.invocations('chat')})." in failed_check(report).message
    assert failed_check(report).hint.startswith(
        f"the endpoint chat serves chat (llm/v1/chat), not {task}: use chat_udf, or name an endpoint"
    )


def test_an_endpoint_may_answer_another_task_than_described() -> None:
    """An endpoint that answers is ready for the task."""
    with LocalEndpoints({"it": Echo()}) as endpoints:
        report = report_of(at(endpoints, "it"), "embed")

    assert report.ok, report
    assert "it is READY and serves llm/v1/chat" == check_named(report, "description").message


def test_another_task_without_a_description_has_a_rows_message(endpoints: LocalEndpoints) -> None:
    """Outside a workspace the endpoint's refusal is the message, as for a row."""
    endpoint = Endpoint(endpoints.openai_url, model="embed", token=endpoints.token)
    report = report_of(endpoint, "chat")
    policy = Policy(max_tries=1)
    results = ask(engine_at(endpoint, policy), [[f"row {number}" for number in range(20)]])
    last_words = {result.error.message for result in results if result is not None and result.error is not None}

    assert "request" == failed_check(report).name
    assert failed_check(report).text in last_words


def test_an_unknown_served_model_fails_the_description(endpoints: LocalEndpoints) -> None:
    """The hint names the served models."""
    url = f"{endpoints.url}/serving-endpoints/chat/served-models/nobody/invocations"
    report = report_of(Endpoint(url, token=endpoints.token))

    assert "The endpoint chat has no served model 'nobody'." == failed_check(report).message
    assert "name one of chat-1." == failed_check(report).hint


def test_the_hint_for_a_route_optimised_endpoint_is_its_own_url() -> None:
    """Its ordinary URL may refuse requests."""
    own = "https://1.serving.example/7/serving-endpoints/chat/invocations"
    described = {**DESCRIBED, "route_optimized": True, "endpoint_url": own}
    refused = (400, {"error_code": "BAD_REQUEST", "message": "This endpoint has its own URL."})
    answers: Responses = {**FOUND, "GET /api/2.0/serving-endpoints/chat": (200, described)}
    refusing: Responses = {**answers, "POST /serving-endpoints/chat/invocations": refused}
    with stub_server(answers) as willing, stub_server(refusing) as unwilling:
        ready = report_of(Endpoint(f"{willing.url}/serving-endpoints/chat/invocations"))
        refusal = report_of(Endpoint(f"{unwilling.url}/serving-endpoints/chat/invocations"))
    hint = f"it is route-optimised: use {own} with an OAuth token, for example ClientCredentials(…)."

    assert ready.ok
    assert hint == check_named(ready, "description").hint
    assert ("request", hint) == (failed_check(refusal).name, failed_check(refusal).hint)


def test_a_route_optimised_endpoint_is_ready_at_its_own_url() -> None:
    """A client's token is valid there for this endpoint only, and no workspace describes the URL."""
    models = {"fast": ServingEndpoint(Echo(), tasks=["chat"], route_optimized=True)}
    with LocalEndpoints(models) as endpoints:
        described = list_endpoints(workspace_route({"DATABRICKS_HOST": endpoints.url}, (), Bearer.of(endpoints.token)))
        url = f"{endpoints.url}/1270010000000001/serving-endpoints/fast/invocations"
        client = ClientCredentials(endpoints.client_id, endpoints.client_secret)
        report = report_of(Endpoint(url, token=client), environ={"DATABRICKS_HOST": endpoints.url})

    assert ["fast"] == [each.name for each in described]
    assert report.ok, report
    assert "skipped" == check_named(report, "description").outcome


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((403, {"error_code": "PERMISSION_DENIED", "message": "No CAN_VIEW."}), "403 No CAN_VIEW."),
        ((404, {"detail": "Not Found"}), "404 Not Found"),
        ((200, ["not", "one"]), "the response is not a description"),
        ((302, {}), "302"),
        ((500, {"message": "oops"}), "500 oops"),
    ],
)
def test_without_a_description_the_request_decides(answer: tuple[int, object], text: str) -> None:
    """Users who may send requests but not read descriptions have a ready endpoint."""
    with stub_server({**FOUND, "GET /api/2.0/serving-endpoints/chat": answer}) as server:
        report = report_of(Endpoint(f"{server.url}/serving-endpoints/chat/invocations"))

    assert report.ok, report
    assert "skipped" == check_named(report, "description").outcome
    assert text in check_named(report, "description").message


def test_every_2xx_is_a_success() -> None:
    """A token, a description, a list and an answer may come with another 2xx than 200."""
    answers = {
        request: (status, document) for status, (request, (_, document)) in enumerate(FOUND.items(), start=201)
    } | {
        "POST /token": (201, {"access_token": SECRET, "expires_in": 3600}),
        "GET /api/2.0/serving-endpoints": (203, {"endpoints": [DESCRIBED]}),
    }
    with stub_server(answers) as server:
        client = ClientCredentials("id", "secret", f"{server.url}/token")
        report = report_of(Endpoint(f"{server.url}/serving-endpoints/chat/invocations", token=client))
        names = [found.name for found in list_endpoints(workspace_route({"DATABRICKS_HOST": server.url}, (), client))]

    assert {"passed"} == {check.outcome for check in report.checks}, report
    assert ["chat"] == names


def test_a_description_is_requested_with_the_workers_headers() -> None:
    """The request has the gateway's header and the token."""
    with stub_server(FOUND) as server:
        endpoint = Endpoint(
            f"{server.url}/serving-endpoints/chat/invocations", token=SECRET, headers={"X-Team": "data"}
        )
        report = report_of(endpoint)

    assert report.ok, report
    assert [("data", f"Bearer {SECRET}")] * 2 == [
        (headers.get("x-team"), headers.get("authorization")) for headers in server.headers
    ]


def test_a_token_replaces_a_header_of_its_name() -> None:
    """The request has one header, in any spelling, with the token."""
    with stub_server(FOUND) as server:
        url = f"{server.url}/serving-endpoints/chat/invocations"
        report_of(Endpoint(url, token=SECRET, headers={"authorization": "Basic x"}))
        basic = report_of(Endpoint(url, headers={"authorization": "Basic x"}))

    assert [f"Bearer {SECRET}"] * 2 + ["Basic x"] * 2 == [headers["authorization"] for headers in server.headers]
    assert "no token, but the header authorization" == check_named(basic, "credentials").message


@pytest.mark.waits
def test_a_hanging_workspace_is_bounded_by_the_timeout() -> None:
    """The limit for one request holds for the description too."""
    with _silent() as url:
        began = time.monotonic()
        report = report_of(Endpoint(url.replace("/v1", "/serving-endpoints/chat/invocations")), "chat", timeout_s=0.2)
        took_s = time.monotonic() - began

    assert ("skipped", "request") == (check_named(report, "description").outcome, failed_check(report).name)
    assert took_s < 5


def test_a_rate_limited_endpoint_is_not_ready(endpoints: LocalEndpoints) -> None:
    """The hint is about the limit."""
    endpoints.faults = Faults("429*9")
    report = report_of(at(endpoints))

    assert "request" == failed_check(report).name
    assert "Policy(requests_per_minute=…)" in failed_check(report).hint


def test_checks_run_beside_an_event_loop(endpoints: LocalEndpoints) -> None:
    """The main thread of a notebook runs one."""

    async def cell() -> Report:
        return report_of(at(endpoints))

    assert asyncio.run(cell()).ok


def test_an_exception_outside_the_loop_reaches_the_caller() -> None:
    """The thread passes its exception on."""

    async def cell() -> None:
        run_outside_loop(lambda: int("none"))

    with pytest.raises(ValueError, match="none"):
        asyncio.run(cell())


def test_an_unknown_task_raises() -> None:
    """It is an argument's error and not the endpoint's."""
    with pytest.raises(ConfigError, match=r"Unknown task 'sing'. Hint: pass one of chat, embed, complete, predict"):
        candidate_tasks(Endpoint("chat"), "sing")


@pytest.mark.parametrize(
    ("endpoint", "name", "names"),
    [
        (Endpoint("chat"), None, ["chat", "embed", "complete"]),
        (Endpoint("chat"), "embed", ["embed"]),
        (Endpoint("score"), "predict", ["predict"]),
        (Endpoint("http://127.0.0.1/v1", model="m"), "rerank", ["rerank"]),
        (Endpoint("http://127.0.0.1/v1/rerank"), None, ["rerank"]),
        (Endpoint("http://127.0.0.1/score?a=b"), None, ["rerank"]),
        (Endpoint("http://127.0.0.1/v1/chat/completions"), None, ["chat"]),
        (Endpoint("http://127.0.0.1/v1/responses"), None, ["chat"]),
        (Endpoint("chat", api="responses"), None, ["chat"]),
        (Endpoint("http://127.0.0.1/v1/completions?a=b"), None, ["complete"]),
        (Endpoint("http://127.0.0.1/v1/embeddings/"), None, ["embed"]),
        (Endpoint("http://127.0.0.1/v1/embeddings"), "chat", ["chat"]),
        (Endpoint("http://127.0.0.1/serving-endpoints/x/invocations"), None, ["chat", "embed", "complete"]),
    ],
)
def test_candidate_tasks(endpoint: Endpoint, name: str | None, names: Sequence[str]) -> None:
    """The named task takes precedence, then the path's; else every task is a candidate."""
    assert names == [task.name for task in candidate_tasks(endpoint, name)]


@pytest.mark.parametrize("refuses", [True, False])
def test_a_custom_model_is_asked_without_rows(*, refuses: bool) -> None:
    """Whether it answers an empty frame or refuses it, it is there; no row is made up."""

    def model(rows: list[object]) -> list[object]:
        if refuses:
            raise RefusedError("Found array with 0 sample(s)")
        return rows

    with scoring_server(model) as server:
        report = preflight(predict_udf(server.url, returns=DoubleType()))

    assert report.ok
    assert "predict was answered in" in str(report)
    assert [[]] == server.requests


def test_a_custom_model_without_its_task_is_hinted_at() -> None:
    """It refuses a chat, a text and a prompt alike; the hint says how to check it."""
    with LocalEndpoints({"score": list}) as endpoints:
        report = preflight(at(endpoints, "score"))

    assert "request" == failed_check(report).name
    assert "preflight(predict_udf(…))" in failed_check(report).hint
    assert "--task predict" in failed_check(report).hint


def test_a_chat_endpoint_is_no_custom_model(endpoints: LocalEndpoints) -> None:
    """The request fails, and the hint names the task that the endpoint serves."""
    report = preflight(predict_udf(at(endpoints), returns=DoubleType()))

    assert "request" == failed_check(report).name
    assert "use chat_udf" in failed_check(report).hint


# The list of a workspace's endpoints.


def test_a_workspace_lists_its_endpoints(endpoints: LocalEndpoints) -> None:
    """The list has names, tasks and states."""
    environ = {"DATABRICKS_HOST": endpoints.url, "DATABRICKS_TOKEN": endpoints.token}
    endpoints.set_ready("embed", ready=False)
    found = [(each.name, each.task, each.state) for each in list_endpoints(workspace_route(environ, ()))]

    assert [("chat", "chat", "READY"), ("complete", "complete", "READY"), ("embed", "embed", "NOT_READY")] == found


@pytest.mark.parametrize(
    ("token", "text"),
    [(SECRET, "Invalid access token"), (None, "There is no token for "), (f"{SECRET}\n", "no header can hold")],
)
def test_a_failed_list_raises(endpoints: LocalEndpoints, token: str | None, text: str) -> None:
    """The exception has a next step and hides the token."""
    environ = {"DATABRICKS_HOST": endpoints.url} | ({} if token is None else {"DATABRICKS_TOKEN": token})
    with pytest.raises(ConfigError, match=r" Hint: .+\.$") as raised:
        list_endpoints(workspace_route(environ, ()))

    assert text in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_missing_workspace_raises() -> None:
    """It is missing without DATABRICKS_HOST and without a credentials provider."""
    with pytest.raises(ConfigError, match=r"DATABRICKS_HOST names no workspace. Hint: set "):
        workspace_route({}, ())


@pytest.mark.parametrize(("route", "task"), [("v1", "rerank"), ("v1/rerank", None), ("score", None)])
def test_a_reranker_is_asked_for_one_score(route: str, task: str | None) -> None:
    """Its URL tells the task, and a base URL needs its name."""
    with LocalEndpoints() as endpoints:
        report = report_of(Endpoint(f"{endpoints.url}/{route}", model="embed", token=endpoints.token), task)

        assert report.ok
        assert re.search(r"rerank was answered in .* by echo: a score of 1, 2 tokens", str(report))
        assert 1 == endpoints.stats.requests


def test_a_serving_endpoint_is_no_reranker() -> None:
    """The address is what fails."""
    report = report_of(Endpoint("my-endpoint"), "rerank", {"DATABRICKS_HOST": "https://h", "DATABRICKS_TOKEN": "t"})

    assert "failed" == outcomes(report)["address"]
    assert "serves no reranking" in check_named(report, "address").message
