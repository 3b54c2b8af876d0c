"""Faults on the wire."""

import time
from email.utils import parsedate_to_datetime

import pytest
import requests

from spark_llm.serving import Faults
from tests.support.local_client import Client, chat_body

CHAT = chat_body("hello big world")


@pytest.mark.parametrize(
    ("step", "status", "error_code", "code"),
    [
        ("400", 400, "INVALID_PARAMETER_VALUE", None),
        ("context", 400, "BAD_REQUEST", "context_length_exceeded"),
        ("guardrail", 400, "BAD_REQUEST", "content_filter"),
        ("401", 401, "UNAUTHENTICATED", "invalid_api_key"),
        ("403", 403, "PERMISSION_DENIED", None),
        ("403number", 403, 403, None),
        ("429", 429, "REQUEST_LIMIT_EXCEEDED", "rate_limit_exceeded"),
        ("quota", 429, "RESOURCE_EXHAUSTED", "insufficient_quota"),
        ("500", 500, "INTERNAL_ERROR", None),
        ("502", 502, "INTERNAL_ERROR", None),
        ("503", 503, "TEMPORARILY_UNAVAILABLE", None),
        ("504", 504, "TEMPORARILY_UNAVAILABLE", None),
    ],
)
def test_a_refusal_has_both_dialects(
    step: str, status: int, error_code: str | int, code: str | None, client: Client
) -> None:
    """A scripted refusal has its status and its code on either route, and costs no tokens."""
    client.endpoints.faults = Faults(f"{step}*2")
    databricks = client.chat("a")
    openai = client.post("/v1/chat/completions", {**CHAT, "model": "chat"})

    assert (status, error_code) == (databricks.status_code, databricks.json()["error_code"])
    assert (status, code) == (openai.status_code, openai.json()["error"]["code"])
    assert databricks.json()["message"] == openai.json()["error"]["message"]
    assert "Retry-After" not in databricks.headers
    assert (2, 0, 0) == (
        client.endpoints.stats.requests,
        client.endpoints.stats.rows_answered,
        client.endpoints.stats.total_tokens,
    )


@pytest.mark.parametrize(
    ("step", "status", "code"), [("429", 429, "429"), ("503", 503, "503"), ("context", 400, "context_length_exceeded")]
)
def test_azure_sends_the_status_as_the_code(step: str, status: int, code: str, client: Client) -> None:
    """Azure's gateway sends the status as the code, and passes a model's own 400 unchanged."""
    client.endpoints.faults = Faults(step)
    response = client.post("/openai/deployments/chat/chat/completions?api-version=1", CHAT)

    assert (status, code) == (response.status_code, response.json()["error"]["code"])
    assert ({"code", "message"} if status != 400 else {"code", "message", "param", "type"}) == set(
        response.json()["error"]
    )


def test_the_wait_is_sent_in_every_way_of_the_services(client: Client) -> None:
    """The wait is sent as seconds, as milliseconds, as a date, or in the body."""
    client.endpoints.faults = Faults("429@1.5 503@250ms 429@+90 429body@15")
    seconds, milliseconds, date, body = (client.chat("a") for _ in range(4))

    assert "1.5" == seconds.headers["Retry-After"]
    assert "250" == milliseconds.headers["retry-after-ms"]
    assert (
        0
        <= (parsedate_to_datetime(date.headers["Retry-After"]) - parsedate_to_datetime(date.headers["Date"])).seconds
        - 89
        <= 2
    )
    assert ("rate_limit_exceeded", 15.0) == (body.json()["error"]["type"], body.json()["error"]["retry_after"])


def test_a_cut_answer_breaks_off(client: Client) -> None:
    """A cut answer has its full Content-Length and half of its body, and answers no row."""
    client.endpoints.faults = Faults("cut")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        client.chat("a b c")

    stats = client.endpoints.stats
    assert ({200: 1}, 0, 0, 0) == (stats.by_status, stats.rows_answered, stats.total_tokens, stats.disconnects)
    assert 200 == client.chat("a").status_code


def test_half_an_answer_has_its_true_length(client: Client) -> None:
    """A halved answer has a true Content-Length and broken JSON, keeps the connection, and answers no row."""
    client.endpoints.faults = Faults("half ok half")
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {client.endpoints.token}"
        half, whole, vectors = (
            session.post(client.endpoints.invocations(name), json=body)
            for name, body in (("chat", CHAT), ("chat", CHAT), ("embed", {"input": "a"}))
        )

    assert (200, str(len(half.content))) == (half.status_code, half.headers["Content-Length"])
    assert len(whole.content) // 2 == len(half.content)
    for cut in (half, vectors):
        with pytest.raises(requests.JSONDecodeError):
            cut.json()
    assert ({200: 3}, 1) == (client.endpoints.stats.by_status, client.endpoints.stats.rows_answered)


def test_a_dripping_answer_is_complete(client: Client) -> None:
    """A dripping answer has the right body after its time, and counts like any."""
    client.endpoints.faults = Faults("drip ok", drip_s=0.05)
    start_s = time.monotonic()
    dripping = client.chat("a b c")
    elapsed_s = time.monotonic() - start_s
    whole = client.chat("a b c")

    assert (200, whole.headers["Content-Length"]) == (dripping.status_code, dripping.headers["Content-Length"])
    assert whole.json()["choices"] == dripping.json()["choices"]
    assert elapsed_s >= 0.05
    assert (2, 12, {200: 2}) == (
        client.endpoints.stats.rows_answered,
        client.endpoints.stats.total_tokens,
        client.endpoints.stats.by_status,
    )


def test_a_client_can_hang_up_on_a_dripping_answer(client: Client) -> None:
    """The first piece comes at once; a client that hangs up before the last is a disconnect, and the drip ends."""
    client.endpoints.faults = Faults("drip", drip_s=3600.0)
    with requests.post(
        client.endpoints.invocations("chat"),
        json=CHAT,
        headers={"Authorization": f"Bearer {client.endpoints.token}"},
        stream=True,
        timeout=10,
    ) as response:
        assert (200, b"{") == (response.status_code, next(response.iter_content(1)))
        assert (1, 1) == (client.endpoints.stats.in_flight, client.endpoints.stats.in_work)
    stats = client.endpoints.wait_for(lambda stats: stats.disconnects == 1)

    assert (0, 0, 0, {}) == (stats.in_flight, stats.in_work, stats.rows_answered, stats.by_status)


def test_an_error_may_have_status_200(client: Client) -> None:
    """A 200 may have the error document of its dialect, and answers no row."""
    client.endpoints.faults = Faults("errorbody*2")
    databricks = client.chat("a")
    openai = client.post("/v1/chat/completions", {**CHAT, "model": "chat"})

    assert (200, {"error_code", "message"}) == (databricks.status_code, set(databricks.json()))
    assert (200, {"error"}) == (openai.status_code, set(openai.json()))
    assert databricks.json()["message"] == openai.json()["error"]["message"]
    assert (0, 0) == (client.endpoints.stats.rows_answered, client.endpoints.stats.total_tokens)


def test_garbage_and_pages_have_status_200(client: Client) -> None:
    """A 200 may have bytes that are not JSON, or a proxy's page."""
    client.endpoints.faults = Faults("garbage html")
    garbage, page = client.chat("a"), client.chat("a")

    assert (200, "application/json") == (garbage.status_code, garbage.headers["Content-Type"])
    assert not garbage.content.isascii()
    assert (200, "text/html", "<!DOCTYPE") == (page.status_code, page.headers["Content-Type"], page.text[:9])
    assert (0, 0) == (client.endpoints.stats.rows_answered, client.endpoints.stats.total_tokens)


def test_an_empty_answer_is_billed(client: Client) -> None:
    """An empty text with finish_reason 'length' reports its tokens, and so does an empty list of vectors."""
    client.endpoints.faults = Faults("empty", cycle=True)
    chat = client.chat("a b", n=2).json()
    text = client.query("complete", {"prompt": "a"}).json()
    vectors = client.query("embed", {"input": "a"}).json()

    assert [("", "length")] * 2 == [
        (choice["message"]["content"], choice["finish_reason"]) for choice in chat["choices"]
    ]
    assert [("", "length")] == [(choice["text"], choice["finish_reason"]) for choice in text["choices"]]
    assert [] == vectors["data"]
    assert 6 + 2 + 1 == client.endpoints.stats.total_tokens


def test_a_poisoned_input_refuses_its_request(client: Client) -> None:
    """One input with the poison word refuses the whole request; the word in other fields does not."""
    client.endpoints.faults = Faults(poison="cyanide", poison_as="context")

    clean, bad, alone = {"input": ["a", "b"]}, {"input": ["a", "some cyanide"]}, {"input": "cyanide"}
    elsewhere = {"input": "a", "user": "cyanide"}

    assert [200, 400, 400, 200] == [client.query("embed", body).status_code for body in (clean, bad, alone, elsewhere)]
    assert 400 == client.query("chat", chat_body("a", "cyanide", "b")).status_code
