"""Rows with large texts and media: held back by their bytes, freed when they are answered, sent as they are."""

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.flow.read_ahead import MIN_BACKLOG_BYTES
from spark_llm.protocol.media import Media, media_at, media_of
from spark_llm.protocol.values import Item, Row, RowError
from spark_llm.serving import LocalEndpoints
from tests.support.asking import ask, comes_true, distinct, engine, engine_at, kinds, texts
from tests.support.parts import JPEG, PNG
from tests.support.stub_server import CHAT_RESPONSE, stub_server

ROW_BYTES = 1_000_000
BACKLOG_ROWS = MIN_BACKLOG_BYTES // ROW_BYTES


def about(*media: Media) -> Item:
    """Return a conversation about media."""
    return [{"role": "user", "content": ["What is this?", *media]}]


@pytest.mark.waits
def test_rows_wait_to_be_read_while_a_few_megabytes_are_unsent(endpoints: LocalEndpoints) -> None:
    """Beside those in flight eight rows of a megabyte are read; as they are sent, others are, to the end."""
    asked = engine(endpoints, policy=Policy(max_in_flight=2))
    ask(asked, [distinct(100)])  # past the opening
    read = 0

    def large() -> Iterator[list[Item | None]]:
        nonlocal read
        for number in range(20):
            read += 1
            yield [f"held {number} ".ljust(ROW_BYTES, "x")]

    endpoints.hold("held")
    results: list[object] = []
    asking = threading.Thread(target=lambda: results.extend(ask(asked, large())), daemon=True)
    asking.start()
    endpoints.wait_for(lambda stats: stats.in_flight == 2, timeout_s=30)
    assert comes_true(lambda: read == 2 + BACKLOG_ROWS)
    threading.Event().wait(0.2)
    assert 2 + BACKLOG_ROWS == read
    endpoints.release()
    asking.join(timeout=30)

    assert (20, 20) == (read, len(results))


@pytest.mark.waits
def test_a_row_larger_than_that_is_read_by_itself() -> None:
    """No row is too large to be read: one at a time is."""
    rows = [[f"row {number} ".ljust(MIN_BACKLOG_BYTES + 1, "x")] for number in range(3)]
    with stub_server({"POST /v1/chat/completions": (200, CHAT_RESPONSE)}) as server:
        assert ["Hi"] * 3 == texts(ask(engine_at(Endpoint(f"{server.url}/v1", model="m")), rows))


@pytest.mark.slow  # forty full garbage collections
def test_media_are_freed_when_their_row_is_answered() -> None:
    """While the task goes on, only the rows that are not answered are in memory."""
    alive: list[weakref.ref[Media]] = []
    most = 0

    def rows() -> Iterator[list[Row]]:
        nonlocal most
        for number in range(40):
            gc.collect()
            most = max(most, sum(reference() is not None for reference in alive))
            media = media_of(PNG + bytes(2 * ROW_BYTES) + bytes([number]))
            alive.append(weakref.ref(media))
            yield [about(media)]
            del media

    with stub_server({"POST /v1/chat/completions": (200, CHAT_RESPONSE)}) as server:
        asked = engine_at(Endpoint(f"{server.url}/v1", model="m"), Policy(max_in_flight=1))
        results = ask(asked, rows())

    assert 40 == len(results)
    assert most <= 1 + BACKLOG_ROWS // 2 + 1


def test_an_image_beyond_the_limit_of_its_endpoint_is_not_sent(endpoints: LocalEndpoints) -> None:
    """Its size in base64 counts: 30 MB become 40. One of 2 MB is within the 4 MB of Databricks."""
    rows = [about(media_of(JPEG + bytes(mb * 2**20))) for mb in (30, 2)]
    [too_large, answered] = ask(engine(endpoints), [rows])

    assert too_large is not None
    assert too_large.error is not None
    assert ("invalid_request", 0, True) == (
        too_large.error.kind,
        too_large.requests,
        "40 MB" in too_large.error.message,
    )
    assert answered is not None
    assert None is not answered.text
    assert 1 == endpoints.stats.requests


def test_media_are_sent_and_bad_rows_are_not() -> None:
    """Each row has its own request, in order; the error of a row that cannot be sent costs none."""
    bad = RowError("invalid_request", None, "photo has no bytes", retryable=False)
    rows = [about(media_of(PNG)), bad, None, about(media_at("https://a/b.pdf", "file")), about(media_of(JPEG)), "Why?"]
    with stub_server({"POST /v1/chat/completions": (200, CHAT_RESPONSE)}) as server:
        asked = engine_at(Endpoint(f"{server.url}/v1", model="m"))
        results = ask(asked, [rows])
        bodies = sorted(str(body["messages"]) for body in server.bodies)

    assert [None, "invalid_request", None, "invalid_request", None, None] == kinds(results)
    assert ["Hi", None, None, None, "Hi", "Hi"] == texts(results)
    assert [1, 0, 0, 1, 1] == [result.requests for result in results if result is not None]
    assert results[2] is None
    assert 3 == len(bodies)
    assert [False, True, True] == ["data:image/" in body for body in bodies]
    assert results[3] is not None
    assert results[3].error is not None
    assert results[3].error.hint.startswith("pass its bytes as data")
