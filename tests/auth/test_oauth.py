"""Signing in for real: an OAuth client at the local token endpoint, while an engine asks."""

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.auth.credentials import ClientCredentials
from spark_llm.engine.registry import ENGINES, engine_for
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.protocol.chat import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.values import Result
from spark_llm.serving import After, Echo, Faults, LocalEndpoints, ServingEndpoint
from tests.support.answering import answering
from tests.support.asking import CHAT, ask, distinct, engine_at, kinds, texts

if TYPE_CHECKING:
    from spark_llm.protocol.task import Task
    from spark_llm.protocol.values import Item


def signed_in(endpoints: LocalEndpoints, secret: str = "") -> Mapping[str, str]:
    """Return the environment of a driver that has an OAuth client."""
    return {
        "DATABRICKS_HOST": endpoints.url,
        "DATABRICKS_CLIENT_ID": endpoints.client_id,
        "DATABRICKS_CLIENT_SECRET": secret or endpoints.client_secret,
    }


def client(endpoints: LocalEndpoints, **changes: str) -> ClientCredentials:
    """Return the client that the endpoints know, or one with something wrong."""
    known = {"client_secret": endpoints.client_secret, "token_url": f"{endpoints.url}/oidc/v1/token"}
    return ClientCredentials(endpoints.client_id, **{**known, **changes})


def asked_by(
    credentials: ClientCredentials, endpoints: LocalEndpoints, rows: int, policy: Policy = Policy()
) -> list[Result | None]:
    """Ask `chat` so many rows as this client."""
    return ask(engine_at(Endpoint(endpoints.invocations("chat"), token=credentials), policy), [distinct(rows)])


def messages(results: list[Result | None]) -> set[str]:
    """Return what the errors say."""
    return {result.error.message for result in results if result is not None and result.error is not None}


@pytest.fixture
def registry() -> Iterator[None]:
    """Close what a test put into the worker's registry."""
    yield
    ENGINES.close()


def test_a_client_gets_one_token_for_all_rows(endpoints: LocalEndpoints) -> None:
    """Once a worker and not once a row; the environment is enough for it."""
    route = Endpoint("chat").resolve(CHAT.route, signed_in(endpoints))
    results = ask(engine_at(Endpoint(route.url, token=route.credential)), [distinct(200)])

    assert distinct(200) == texts(results)
    assert (1, 200) == (endpoints.tokens_issued, endpoints.stats.requests)


@pytest.mark.usefixtures("registry")
def test_a_worker_signs_in_once_for_all_its_udfs(endpoints: LocalEndpoints) -> None:
    """Chat, completions and embeddings have engines of their own, and share the token."""
    tasks: list[tuple[str, Task]] = [("chat", Chat()), ("complete", Complete()), ("embed", Embed())]
    for name, task in tasks:
        recipe = RequestSpec(task, Endpoint(name).resolve(task.route, signed_in(endpoints)), Policy())
        assert [None] * 20 == kinds(
            [r for chunk in engine_for(recipe).stream(task, iter([distinct(20)])) for r in chunk]
        )

    assert 1 == endpoints.tokens_issued


def test_a_token_that_expires_in_mid_job_is_renewed_once_and_no_row_is_lost() -> None:
    """It is good for 50 of 500 requests; those that were on their way with it are sent again."""
    expire = lambda number: After(requests=50) if number == 0 else None  # noqa: E731
    with LocalEndpoints(issued_tokens_expire=expire) as endpoints:
        results = asked_by(client(endpoints), endpoints, 500, Policy(max_in_flight=32))
        stats = endpoints.stats

        assert distinct(500) == texts(results)
        assert 2 == endpoints.tokens_issued
        assert {200: 500, 403: stats.requests - 500} == stats.by_status
        assert stats.requests <= 500 + 32


def test_a_job_may_outlive_many_tokens() -> None:
    """Each is good for 100 requests: who comes too late with one gets the next, and no row is lost."""
    with LocalEndpoints(issued_tokens_expire=After(requests=100)) as endpoints:
        results = asked_by(client(endpoints), endpoints, 550, Policy(max_in_flight=16))

        assert distinct(550) == texts(results)
        assert 6 == endpoints.tokens_issued


@pytest.mark.slow
@pytest.mark.waits
def test_a_token_is_renewed_before_it_expires() -> None:
    """The server says how long it is good, and no request is ever sent with one that is not."""
    with LocalEndpoints(issued_tokens_expire=After(elapsed_s=5.0), latency_s=0.1) as endpoints:
        results = asked_by(client(endpoints), endpoints, 120, Policy(max_in_flight=2))

        assert distinct(120) == texts(results)
        assert {200: 120} == endpoints.stats.by_status
        assert 2 == endpoints.tokens_issued


def test_rows_that_are_refused_for_their_content_cost_a_token_or_two(endpoints: LocalEndpoints) -> None:
    """A 403 may be about the text: once another token did not help, the next such row gets no token of its own."""
    endpoints.latency_s = 0.01
    endpoints.faults = Faults(poison="bad", poison_as="403")
    rows: list[Item | None] = [f"{'bad' if number % 10 == 5 else 'row'} {number}" for number in range(500)]
    asked = engine_at(Endpoint(endpoints.invocations("chat"), token=client(endpoints)), Policy(max_in_flight=16))
    results = ask(asked, [rows])

    assert list(range(5, 500, 10)) == [number for number, kind in enumerate(kinds(results)) if kind]
    assert endpoints.tokens_issued <= 4
    assert endpoints.stats.requests <= 520


def test_a_token_that_ends_among_refused_rows_is_renewed() -> None:
    """Though another token had not helped a row before, one that ends costs no other row: it is found by many."""
    rows: list[Item | None] = [f"{'bad' if number % 10 == 5 else 'row'} {number}" for number in range(500)]
    faults = Faults(poison="bad", poison_as="403")
    expire = lambda number: After(requests=150)  # noqa: E731 -- each of them
    with LocalEndpoints(issued_tokens_expire=expire, faults=faults, latency_s=0.005) as endpoints:
        asked = engine_at(Endpoint(endpoints.invocations("chat"), token=client(endpoints)), Policy(max_in_flight=16))
        results = ask(asked, [rows])

        assert list(range(5, 500, 10)) == [number for number, kind in enumerate(kinds(results)) if kind]
        assert endpoints.tokens_issued <= 12


@pytest.mark.parametrize("last", range(24, 31))
def test_a_token_that_ends_with_the_task_is_renewed(last: int) -> None:
    """Where too few rows are left to show whether a refusal is everybody's, the last one renews the token."""
    rows: list[Item | None] = [f"{'bad' if number == 3 else 'row'} {number}" for number in range(last)]
    with LocalEndpoints(
        issued_tokens_expire=After(requests=20), faults=Faults(poison="bad", poison_as="403")
    ) as endpoints:
        asked = engine_at(Endpoint(endpoints.invocations("chat"), token=client(endpoints)), Policy(max_in_flight=1))

        assert [3] == [number for number, kind in enumerate(kinds(ask(asked, [rows]))) if kind]


def test_revoked_for_good_stops_after_a_request_a_slot(endpoints: LocalEndpoints) -> None:
    """Of a token that nobody can renew, each request in flight is refused once, and nothing else is sent."""
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


def test_a_client_whose_tokens_are_all_refused_is_not_asked_for_ever(endpoints: LocalEndpoints) -> None:
    """A second token in a row that never worked is the last: two tokens, and three rows that are refused."""
    with LocalEndpoints(issued_tokens_expire=After(requests=0)) as refusing:
        results = asked_by(client(refusing), refusing, 300)

        assert {"unauthorized"} == set(kinds(results))
        assert (2, 4) == (refusing.tokens_issued, refusing.stats.requests)


def test_a_client_that_is_refused_says_where_and_what_to_do(endpoints: LocalEndpoints) -> None:
    """The endpoint is never asked, and no secret is told."""
    results = asked_by(client(endpoints, client_secret="wrong-secret"), endpoints, 100)
    [message] = messages(results)

    assert {"unauthorized"} == set(kinds(results))
    assert 0 == endpoints.stats.requests
    assert message.startswith(f"signing in at {endpoints.url}/oidc/v1/token: ")
    assert " Hint: " in message
    assert "wrong-secret" not in message


def test_a_token_server_that_repeats_the_secret_is_masked(endpoints: LocalEndpoints) -> None:
    """What it says is in every row, and the secret is not."""
    with answering(
        {"POST /token": (401, {"error": "invalid_client", "error_description": "not wrong-secret"})}
    ) as login:
        wrong = client(endpoints, client_secret="wrong-secret", token_url=f"{login.url}/token")
        [message] = messages(asked_by(wrong, endpoints, 3))

    assert f"signing in at {login.url}/token: invalid_client: not ***" in message


@pytest.mark.parametrize("answer", [{"access_token": "t0p-s3cret token"}, {"token": "t0p-s3cret"}])
def test_a_token_that_cannot_be_used_is_not_printed(endpoints: LocalEndpoints, answer: dict[str, str]) -> None:
    """It may come under another name, or with a line end that no header can hold; it is somebody's token."""
    with answering({"POST /token": (200, answer)}) as login:
        results = asked_by(client(endpoints, token_url=f"{login.url}/token"), endpoints, 3)
    [message] = messages(results)

    assert {"unauthorized"} == set(kinds(results))
    assert "the answer has no access_token that a header can hold" in message
    assert "t0p" not in message


def test_a_token_server_that_is_away_is_a_fault_that_passes(endpoints: LocalEndpoints) -> None:
    """It is tried again like the endpoint itself; the row says what could not be reached."""
    results = asked_by(
        client(endpoints, token_url="http://127.0.0.1:9/oidc/v1/token"), endpoints, 3, Policy(max_tries=2)
    )
    [message] = messages(results)

    assert ["connection"] * 3 == kinds(results)
    assert message.startswith("signing in at http://127.0.0.1:9/oidc/v1/token: no connection to 127.0.0.1:9")


def test_a_token_server_that_is_none_is_named(endpoints: LocalEndpoints) -> None:
    """A page in place of a token."""
    results = asked_by(client(endpoints, token_url=f"{endpoints.url}/nothing/here"), endpoints, 3)

    assert {"unauthorized"} == set(kinds(results))
    assert 0 == endpoints.stats.requests


def test_getting_a_token_does_not_block_the_loop(endpoints: LocalEndpoints) -> None:
    """A token function may take its time: here it is the engine's own loop that lets it end."""
    gate = threading.Event()

    def slow() -> str:
        asked._loop_thread.call(gate.set)  # noqa: SLF001 -- a loop that is blocked never gets to it
        return endpoints.token if gate.wait(10) else "the loop was blocked"

    asked = engine_at(Endpoint(endpoints.invocations("chat"), token=slow))

    assert ["hello"] == texts(ask(asked, [["hello"]]))


def test_a_route_optimised_endpoint_is_asked_with_a_token_of_its_own() -> None:
    """The client finds out what rights it needs, and gets a token with them alone."""
    served = {"fast": ServingEndpoint(Echo(), tasks=["chat"], route_optimized=True)}
    with LocalEndpoints(served) as endpoints:
        url = f"{endpoints.url}/1234567890/serving-endpoints/fast/invocations"
        route = Endpoint(url).resolve(CHAT.route, signed_in(endpoints))
        results = ask(engine_at(Endpoint(url, token=route.credential)), [distinct(50)])
        refused = ask(engine_at(Endpoint(url, token=endpoints.token)), [["with the plain token"]])

        assert distinct(50) == texts(results)
        assert 2 == endpoints.tokens_issued
        assert ["unauthorized"] == kinds(refused)
