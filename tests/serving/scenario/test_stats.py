"""The counters, the recorded requests, and the order and latency of responses."""

import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from spark_llm.serving import Faults
from tests.support.local_client import POST_PATHS, Client, chat_body

CHAT = chat_body("hello big world")


@pytest.mark.waits
def test_every_counter_is_exact_under_load(client: Client) -> None:
    """With 16 clients and a fault in one request of four, the counters equal those of the clients."""
    client.endpoints.faults = Faults("ok*6 429 503", cycle=True)
    texts = [" ".join(["word"] * (i % 7 + 1)) for i in range(400)]
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(client.chat, texts))
    answers = [response.json()["usage"] for response in responses if response.ok]

    stats = client.endpoints.stats
    assert {200: 300, 429: 50, 503: 50} == Counter(response.status_code for response in responses) == stats.by_status
    assert (400, 400, 300) == (stats.requests, stats.rows_asked, stats.rows_answered)
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert sum(usage[name] for usage in answers) == getattr(stats, name)
    assert (0, 0) == (stats.in_flight, stats.disconnects)


def test_rows_are_counted_by_endpoint(client: Client) -> None:
    """Each endpoint has its own counters, which add up to the total."""
    client.chat("a b")
    client.query("embed", {"input": ["a", "b", "c"]})
    client.query("embed", {"input": []})
    client.query("nobody", {"input": []})

    stats = client.endpoints.stats
    assert {"chat": (1, 1, 2), "embed": (2, 3, 3)} == {
        name: (each.requests, each.rows_answered, each.prompt_tokens) for name, each in stats.endpoints.items()
    }
    assert (4, 4, 5) == (stats.requests, stats.rows_answered, stats.prompt_tokens)
    assert {200: 2, 400: 1, 404: 1} == stats.by_status


def test_stats_are_served_as_json(client: Client) -> None:
    """GET /stats returns the counters to clients with the token, and is itself not counted."""
    client.chat("a b")
    served = client.get("/stats").json()

    assert (1, {"200": 1}, 4) == (served["requests"], served["by_status"], served["total_tokens"])
    assert 1 == served["endpoints"]["chat"]["requests"]
    assert 401 == requests.get(f"{client.endpoints.url}/stats", timeout=10).status_code
    assert 1 == client.endpoints.stats.requests


def test_requests_in_flight_are_counted(client: Client) -> None:
    """Waiting requests are in flight, and `max_in_flight` keeps their maximum."""
    client.endpoints.hold("slow")
    waiting = [client.chat_in_background("slow") for _ in range(5)]
    assert 5 == client.endpoints.wait_for(lambda stats: stats.in_flight == 5, timeout_s=10).max_in_flight
    client.endpoints.release("slow")

    assert [200] * 5 == [response.result().status_code for response in waiting]
    client.chat("alone")
    assert (0, 5) == (client.endpoints.stats.in_flight, client.endpoints.stats.max_in_flight)


def test_a_client_that_hangs_up_is_a_disconnect(client: Client) -> None:
    """A client that hangs up before the response is a disconnect, without rows, tokens or status."""
    client.endpoints.hold("slow")
    client.chat_and_hang_up("slow")
    stats = client.endpoints.wait_for(lambda stats: stats.disconnects == 1, timeout_s=10)

    assert (1, 0, 1, 0, {}) == (stats.requests, stats.in_flight, stats.rows_asked, stats.total_tokens, stats.by_status)


def test_a_client_that_hangs_up_in_its_body_is_a_disconnect(client: Client) -> None:
    """A request whose body never completes is a disconnect."""
    head = f"POST {POST_PATHS[0]} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.endpoints.token}\r\n"
    with socket.create_connection(("127.0.0.1", int(client.endpoints.url.rpartition(":")[2]))) as half:
        half.sendall(head.encode() + b"Content-Length: 100\r\n\r\n{")
        client.endpoints.wait_for(lambda stats: stats.in_flight == 1, timeout_s=10)
    stats = client.endpoints.wait_for(lambda stats: stats.in_flight == 0, timeout_s=10)

    assert (1, 1, {}) == (stats.requests, stats.disconnects, stats.by_status)


def test_wait_for_times_out(client: Client) -> None:
    """`wait_for` raises after its timeout, with the counters in its message."""
    with pytest.raises(TimeoutError, match=r"predicate was false for 0.01 s: Stats\(requests=0"):
        client.endpoints.wait_for(lambda stats: stats.requests == 1, timeout_s=0.01)


def test_requests_are_recorded_without_the_token(client: Client) -> None:
    """Recorded requests have endpoint, body, headers and path with its query, and the token is masked."""
    client.post("/v1/chat/completions?api-version=1", {**CHAT, "model": "chat"}, headers={"X-Mine": "yes"})
    client.post("/v1/chat/completions", data=b"{", headers={"api-key": "sesame"})
    client.post("/v1/chat/completions", {}, headers={"Authorization": "sesame"})

    first, second, third = client.endpoints.requests
    assert ("chat", {**CHAT, "model": "chat"}, "yes") == (first.endpoint, first.body, first.headers["x-mine"])
    assert ("Bearer ***", "/v1/chat/completions?api-version=1") == (first.headers["authorization"], first.path)
    assert ("", None, "***") == (second.endpoint, second.body, second.headers["api-key"])
    assert ("", None, "***") == (third.endpoint, third.body, third.headers["authorization"])
    assert client.endpoints.token not in repr((client.endpoints, client.endpoints.requests))


def test_reset_sets_the_counters_to_zero(client: Client) -> None:
    """A reset clears counters and records, restarts the script, and drops requests in flight from the counts."""
    client.endpoints.faults = Faults("429")
    client.endpoints.hold("slow")
    assert 429 == client.chat("a").status_code
    waiting = client.chat_in_background("slow")
    client.endpoints.wait_for(lambda stats: stats.in_flight == 1, timeout_s=10)
    client.endpoints.reset()
    client.endpoints.release()

    assert 200 == waiting.result().status_code
    assert ({}, 0) == (client.endpoints.stats.by_status, len(client.endpoints.requests))
    assert [429, 200] == [client.chat("a").status_code for _ in range(2)]


# --- Order and time ---


def test_held_requests_are_answered_in_the_order_of_their_release(client: Client) -> None:
    """A test can decide which request is answered first."""
    client.endpoints.hold("one")
    client.endpoints.hold("two")
    one, two = client.chat_in_background("one"), client.chat_in_background("two")
    client.endpoints.wait_for(lambda stats: stats.in_flight == 2, timeout_s=10)

    assert 200 == client.chat("three").status_code
    client.endpoints.release("two")
    assert (200, False) == (two.result().status_code, one.done())
    client.endpoints.release()
    assert 200 == one.result().status_code


def test_latency_may_depend_on_the_number_of_the_request(client: Client) -> None:
    """A function of the request's number, 0 first, returns its latency."""
    numbers = []

    def latency_s(number: int) -> float:
        numbers.append(number)
        return 0.05 if number == 1 else 0.0

    client.endpoints.latency_s = latency_s
    elapsed_s = [client.chat("a").elapsed.total_seconds() for _ in range(3)]

    assert [0, 1, 2] == numbers
    assert elapsed_s[1] >= 0.05
