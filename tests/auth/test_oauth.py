"""OAuth: an engine with client credentials at the local token endpoint."""

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.auth.credentials import ClientCredentials
from spark_llm.engine.registry import ENGINES, engine_for
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.values import Result
from spark_llm.serving import After, Echo, Faults, LocalEndpoints, ServingEndpoint
from tests.support.asking import CHAT, ask, distinct, engine_at, kinds, texts
from tests.support.stub_server import stub_server

if TYPE_CHECKING:
    from spark_llm.protocol.task import Task
    from spark_llm.protocol.values import Item


def client_environment(endpoints: LocalEndpoints, secret: str = "") -> Mapping[str, str]:
    """Return the environment of a driver with an OAuth client."""
    return {
        "DATABRICKS_HOST": endpoints.url,
        "DATABRICKS_CLIENT_ID": endpoints.client_id,
        "DATABRICKS_CLIENT_SECRET": secret or endpoints.client_secret,
    }


def client(endpoints: LocalEndpoints, **changes: str) -> ClientCredentials:
    """Return the client that the endpoints accept, with these changes."""
    known = {"client_secret": endpoints.client_secret, "token_url": f"{endpoints.url}/oidc/v1/token"}
    return ClientCredentials(endpoints.client_id, **{**known, **changes})


def results_for(
    credentials: ClientCredentials, endpoints: LocalEndpoints, rows: int, policy: Policy = Policy()
) -> list[Result | None]:
    """Ask `chat` this many rows with these credentials, and return the results."""
    return ask(engine_at(Endpoint(endpoints.invocations("chat"), token=credentials), policy), [distinct(rows)])


def messages(results: list[Result | None]) -> set[str]:
    """Return the messages of the errors."""
    return {result.error.message for result in results if result is not None and result.error is not None}


@pytest.fixture
def registry() -> Iterator[None]:
    """Close the engines of a test in the worker's registry."""
    yield
    ENGINES.close()


def test_one_token_serves_all_rows(endpoints: LocalEndpoints) -> None:
    """A worker requests one token with the client of the environment."""
    route = Endpoint("chat").resolve(CHAT.route, client_environment(endpoints))
    results = ask(engine_at(Endpoint(route.url, token=route.credential)), [distinct(200)])

    assert distinct(200) == texts(results)
    assert (1, 200) == (endpoints.tokens_issued, endpoints.stats.requests)


@pytest.mark.usefixtures("registry")
def test_one_token_serves_all_udfs_of_a_worker(endpoints: LocalEndpoints) -> None:
    """Chat, completions and embeddings have an engine each, and share the token."""
    tasks: list[tuple[str, Task]] = [("chat", Chat()), ("complete", Complete()), ("embed", Embed())]
    for name, task in tasks:
        recipe = RequestSpec(task, Endpoint(name).resolve(task.route, client_environment(endpoints)), Policy())
        assert [None] * 20 == kinds(
            [r for chunk in engine_for(recipe).stream(task, iter([distinct(20)])) for r in chunk]
        )

    assert 1 == endpoints.tokens_issued


@pytest.mark.waits
def test_a_token_that_expires_in_a_job_is_renewed_and_no_row_is_lost() -> None:
    """It is valid for 50 of 500 requests; requests in flight with it are sent again."""
    expire = lambda number: After(requests=50) if number == 0 else None  # noqa: E731
    with LocalEndpoints(issued_tokens_expire=expire) as endpoints:
        results = results_for(client(endpoints), endpoints, 500, Policy(max_in_flight=32))
        stats = endpoints.stats

        assert distinct(500) == texts(results)
        assert 2 == endpoints.tokens_issued
        assert {200: 500, 403: stats.requests - 500} == stats.by_status
        assert stats.requests <= 500 + 32


@pytest.mark.waits
def test_a_job_may_need_many_tokens() -> None:
    """Each token is valid for 100 requests; later requests get the next one, and no row is lost."""
    with LocalEndpoints(issued_tokens_expire=After(requests=100)) as endpoints:
        results = results_for(client(endpoints), endpoints, 550, Policy(max_in_flight=16))

        assert distinct(550) == texts(results)
        assert 6 == endpoints.tokens_issued


@pytest.mark.slow
@pytest.mark.waits
def test_a_token_is_renewed_before_it_expires() -> None:
    """The server states its lifetime, and no request is sent with an expired token."""
    with LocalEndpoints(issued_tokens_expire=After(elapsed_s=5.0), latency_s=0.1) as endpoints:
        results = results_for(client(endpoints), endpoints, 120, Policy(max_in_flight=2))

        assert distinct(120) == texts(results)
        assert {200: 120} == endpoints.stats.by_status
        assert 2 == endpoints.tokens_issued


@pytest.mark.waits
def test_rows_that_are_refused_for_their_content_cost_few_tokens(endpoints: LocalEndpoints) -> None:
    """A 403 may be about the prompt: after a futile renewal, the next such row gets no new token."""
    endpoints.latency_s = 0.01
    endpoints.faults = Faults(poison="bad", poison_as="403")
    rows: list[Item | None] = [f"{'bad' if number % 10 == 5 else 'row'} {number}" for number in range(500)]
    asked = engine_at(Endpoint(endpoints.invocations("chat"), token=client(endpoints)), Policy(max_in_flight=16))
    results = ask(asked, [rows])

    assert list(range(5, 500, 10)) == [number for number, kind in enumerate(kinds(results)) if kind]
    assert endpoints.tokens_issued <= 4
    assert endpoints.stats.requests <= 520


@pytest.mark.waits
def test_a_token_that_expires_among_refused_rows_is_renewed() -> None:
    """After a futile renewal, an expired token costs no row: many requests are refused with it."""
    rows: list[Item | None] = [f"{'bad' if number % 10 == 5 else 'row'} {number}" for number in range(500)]
    faults = Faults(poison="bad", poison_as="403")
    expire = lambda number: After(requests=150)  # noqa: E731 -- each of them
    with LocalEndpoints(issued_tokens_expire=expire, faults=faults, latency_s=0.005) as endpoints:
        asked = engine_at(Endpoint(endpoints.invocations("chat"), token=client(endpoints)), Policy(max_in_flight=16))
        results = ask(asked, [rows])

        assert list(range(5, 500, 10)) == [number for number, kind in enumerate(kinds(results)) if kind]
        assert endpoints.tokens_issued <= 12


@pytest.mark.waits
@pytest.mark.parametrize("last", range(24, 31))
def test_a_token_that_expires_near_the_end_of_the_task_is_renewed(last: int) -> None:
    """With too few rows left to show whether a refusal is about all, the last one renews the token."""
    rows: list[Item | None] = [f"{'bad' if number == 3 else 'row'} {number}" for number in range(last)]
    with LocalEndpoints(
        issued_tokens_expire=After(requests=20), faults=Faults(poison="bad", poison_as="403")
    ) as endpoints:
        asked = engine_at(Endpoint(endpoints.invocations("chat"), token=client(endpoints)), Policy(max_in_flight=1))

        assert [3] == [number for number, kind in enumerate(kinds(ask(asked, [rows]))) if kind]


@pytest.mark.waits
def test_after_a_revocation_each_slot_sends_one_request_at_most(endpoints: LocalEndpoints) -> None:
    """A fixed token cannot be renewed: requests in flight are refused, and no other is sent."""
    endpoints.latency_s = 0.01
    asked = engine_at(Endpoint(endpoints.invocations("chat"), token=endpoints.token), Policy(max_in_flight=16))

    def revoke() -> None:
        endpoints.wait_for(lambda stats: stats.rows_answered >= 100)
        endpoints.revoke()

    revoking = threading.Thread(target=revoke)
    revoking.start()
    results = ask(asked, [distinct(2_000)])
    revoking.join()
    answered, stats = kinds(results).count(None), endpoints.stats

    assert 100 <= answered < 2_000
    assert {None, "unauthorized"} == set(kinds(results))
    assert stats.requests <= answered + 16
    assert len(messages(results)) == 1


@pytest.mark.waits
def test_a_client_whose_tokens_are_all_refused_gets_two(endpoints: LocalEndpoints) -> None:
    """A second token in a row without an answer is the last."""
    with LocalEndpoints(issued_tokens_expire=After(requests=0)) as refusing:
        results = results_for(client(refusing), refusing, 300)

        assert {"unauthorized"} == set(kinds(results))
        assert (2, 4) == (refusing.tokens_issued, refusing.stats.requests)


def test_the_error_of_a_refused_client_has_the_token_url_and_a_hint(endpoints: LocalEndpoints) -> None:
    """The endpoint gets no request, and the message has no secret."""
    results = results_for(client(endpoints, client_secret="wrong-secret"), endpoints, 100)
    [message] = messages(results)

    assert {"unauthorized"} == set(kinds(results))
    assert 0 == endpoints.stats.requests
    assert message.startswith(f"requesting a token at {endpoints.url}/oidc/v1/token: ")
    assert " Hint: " in message
    assert "wrong-secret" not in message


def test_a_secret_in_the_token_servers_error_is_masked(endpoints: LocalEndpoints) -> None:
    """Its message is in every row, without the secret."""
    with stub_server(
        {"POST /token": (401, {"error": "invalid_client", "error_description": "not wrong-secret"})}
    ) as login:
        wrong = client(endpoints, client_secret="wrong-secret", token_url=f"{login.url}/token")
        [message] = messages(results_for(wrong, endpoints, 3))

    assert f"requesting a token at {login.url}/token: invalid_client: not ***" in message


@pytest.mark.parametrize("answer", [{"access_token": "t0p-s3cret token"}, {"token": "t0p-s3cret"}])
def test_an_unusable_token_is_not_printed(endpoints: LocalEndpoints, answer: dict[str, str]) -> None:
    """Such a token has another name in the answer, or a character that no header can hold."""
    with stub_server({"POST /token": (200, answer)}) as login:
        results = results_for(client(endpoints, token_url=f"{login.url}/token"), endpoints, 3)
    [message] = messages(results)

    assert {"unauthorized"} == set(kinds(results))
    assert "the answer has no access_token that a header can hold" in message
    assert "t0p" not in message


def test_an_unreachable_token_server_is_a_transient_error(endpoints: LocalEndpoints) -> None:
    """The request is retried as for the endpoint, and the row's error has the token server's address."""
    results = results_for(
        client(endpoints, token_url="http://127.0.0.1:9/oidc/v1/token"), endpoints, 3, Policy(max_tries=2)
    )
    [message] = messages(results)

    assert ["connection"] * 3 == kinds(results)
    assert message.startswith("requesting a token at http://127.0.0.1:9/oidc/v1/token: no connection to 127.0.0.1:9")


def test_a_wrong_token_url_is_unauthorized(endpoints: LocalEndpoints) -> None:
    """The server answers with a page in place of a token."""
    results = results_for(client(endpoints, token_url=f"{endpoints.url}/nothing/here"), endpoints, 3)

    assert {"unauthorized"} == set(kinds(results))
    assert 0 == endpoints.stats.requests


def test_a_token_request_does_not_block_the_event_loop(endpoints: LocalEndpoints) -> None:
    """A slow token function ends only when the engine's event loop runs."""
    gate = threading.Event()

    def slow() -> str:
        asked._loop_thread.call(gate.set)  # noqa: SLF001 -- a blocked loop never runs it
        return endpoints.token if gate.wait(10) else "the loop was blocked"

    asked = engine_at(Endpoint(endpoints.invocations("chat"), token=slow))

    assert ["hello"] == texts(ask(asked, [["hello"]]))


def test_a_route_optimised_endpoint_gets_a_token_of_its_own() -> None:
    """The client reads the rights that the endpoint needs, and requests a token with these alone."""
    served = {"fast": ServingEndpoint(Echo(), tasks=["chat"], route_optimized=True)}
    with LocalEndpoints(served) as endpoints:
        url = f"{endpoints.url}/1234567890/serving-endpoints/fast/invocations"
        route = Endpoint(url).resolve(CHAT.route, client_environment(endpoints))
        results = ask(engine_at(Endpoint(url, token=route.credential)), [distinct(50)])
        refused = ask(engine_at(Endpoint(url, token=endpoints.token)), [["with another token"]])

        assert distinct(50) == texts(results)
        assert 2 == endpoints.tokens_issued
        assert ["unauthorized"] == kinds(refused)
