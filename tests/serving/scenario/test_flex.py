"""The flex tier: what an answer says of it, and a server that has no room for it."""

import json

import pytest

from spark_llm.serving import After, Capacity, Faults
from tests.support.local_client import Client, chat_body

PATHS = ("/v1/chat/completions", "/v1/responses", "/serving-endpoints/chat/invocations")


def body(path: str, **parameters: object) -> dict[str, object]:
    """Return a request to a path."""
    return {"model": "chat", **({"input": "a"} if "responses" in path else chat_body("a")), **parameters}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("asked", "answered"), [("flex", "flex"), ("priority", "priority"), ("auto", "default"), (None, None)]
)
def test_an_answer_says_its_tier(path: str, asked: str | None, answered: str | None, client: Client) -> None:
    """It is the one that was asked for; a chat that asks for none is told none."""
    answer = client.post(path, body(path, service_tier=asked)).json()

    assert answered == (None if asked is None and "responses" in path else answer.get("service_tier"))


def test_a_stream_says_its_tier(client: Client) -> None:
    """Each chunk of a chat has it."""
    lines = client.chat("a b", stream=True, service_tier="flex").text.split("\n\n")[:-2]

    assert {"flex"} == {json.loads(each.removeprefix("data: "))["service_tier"] for each in lines}


@pytest.mark.parametrize("path", PATHS)
def test_flex_requests_are_refused_for_a_while(path: str, client: Client) -> None:
    """They get the code of OpenAI until the step, and others are answered meanwhile."""
    client.endpoints.capacity = Capacity(flex=False, steps=((After(requests=3), Capacity()),))
    refused = [client.post(path, body(path, service_tier="flex")) for _ in range(2)]
    other = client.post(path, body(path, service_tier="default"))
    later = client.post(path, body(path, service_tier="flex"))

    assert [429, 429, 200, 200] == [*(each.status_code for each in refused), other.status_code, later.status_code]
    assert "error_code" in refused[0].json() or "resource_unavailable" == refused[0].json()["error"]["code"]
    assert {200: 2, 429: 2} == client.endpoints.stats.by_status


def test_a_script_can_refuse_as_the_flex_tier_does(client: Client) -> None:
    """The refusal is a step of `Faults` too."""
    client.endpoints.faults = Faults("flex@2")
    refused = client.post(PATHS[0], body(PATHS[0]))

    assert (429, "2", "resource_unavailable") == (
        refused.status_code,
        refused.headers["Retry-After"],
        refused.json()["error"]["code"],
    )
