"""`/stats` as server-sent events."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from spark_llm.serving.scenario.timeline import SECONDS
from tests.support.local_client import Client

jsonschema = pytest.importorskip("jsonschema")
ACCEPT = {"Accept": "text/event-stream"}


@contextmanager
def live(client: Client) -> Iterator[Iterator[dict[str, Any]]]:
    """Open the stream, and yield its events."""
    headers = {"Authorization": f"Bearer {client.endpoints.token}", **ACCEPT}
    with requests.get(f"{client.endpoints.url}/stats", headers=headers, stream=True, timeout=10) as response:
        assert (200, "text/event-stream") == (response.status_code, response.headers["Content-Type"])
        lines = response.iter_lines(chunk_size=None)
        yield (json.loads(line.removeprefix(b"data: ")) for line in lines if line)


@pytest.mark.waits
def test_each_event_has_the_counters_and_five_minutes(client: Client) -> None:
    """An event comes at once and each second, with the same counters as the JSON, and series that add up to them."""
    client.endpoints.set_ready("embed", False)
    client.chat("a b")
    client.chat("c")
    with live(client) as events:
        first = next(events)
        client.query("embed", {"input": "a"})
        second = next(events)

    document = client.get("/openapi.json").json()
    schema = {"$ref": "#/components/schemas/LiveStats", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(second)
    assert {"chat": True, "complete": True, "embed": False} == first["ready"]
    assert client.get("/stats").json() == second["stats"]
    assert (2, 3) == (first["stats"]["requests"], second["stats"]["requests"])
    assert ["chat"] == list(first["endpoints"])
    assert {"200", "400"} == set(second["total"]["by_status"])
    for series in (second["total"], *second["endpoints"].values()):
        assert {SECONDS} == {len(series[name]) for name in ("in_flight", "requests", "tokens", "disconnects")}
    assert (3, 6) == tuple(sum(second["total"][name]) for name in ("requests", "tokens"))
    assert 0 == client.endpoints.stats.in_flight


@pytest.mark.waits
def test_the_stream_ends_with_its_token(client: Client) -> None:
    """A stream needs the token at its start, and ends when that is revoked or replaced."""
    url = f"{client.endpoints.url}/stats"
    assert 401 == requests.get(url, headers=ACCEPT, timeout=10).status_code
    with live(client) as events:
        next(events)
        client.endpoints.revoke()
        assert [] == list(events)


@pytest.mark.waits
def test_a_reader_that_goes_leaves_no_record(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A client that hangs up is no error in the server's log, and the endpoints stop at once beside an open stream."""
    with live(client) as events:
        next(events)
    with live(client) as events:
        next(events)
        began = time.monotonic()
        client.endpoints.stop()

    assert time.monotonic() - began < 3
    assert [] == caplog.records
