"""Lines of files of batches: what is written can be read, and no bytes of a server raise."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.protocol.batches.lines import (
    CANCELLED,
    EXPIRED,
    LEFT_OUT,
    line_length,
    read_line,
    reply_lines,
    replyless_line,
    unanswered_line,
    write_line,
)
from spark_llm.protocol.bodies import Base64, Body
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.values import Failure
from tests.support.strategies import JSON, REPLIES, STATUSES, TEXTS

IDS = st.text("abcXYZ012_-", min_size=1, max_size=64)
NAMES = st.sampled_from(["custom_id", "response", "error", "status_code", "request_id", "body", "code", "message"])
LINES = st.recursive(
    REPLIES | IDS | STATUSES | st.none(),
    lambda inner: st.dictionaries(NAMES, inner, max_size=6) | st.lists(inner, max_size=2),
    max_leaves=12,
)


@given(IDS, JSON, st.binary(max_size=100))
def test_a_line_has_the_body_as_it_is(custom_id: str, value: Any, media: bytes) -> None:  # noqa: ANN401 -- any JSON
    """It is one line of the length that is told before; its media are in base64."""
    plain = write_json({"input": value})
    with_media = Body([b'{"input":"', Base64(media), b'"}'])
    for body, expected in ((plain, json.loads(plain)["input"]), (with_media, base64.b64encode(media).decode())):
        line = b"".join(map(bytes, write_line(custom_id, "/v1/embeddings", body)))

        assert line_length(custom_id, "/v1/embeddings", body) == len(line)
        assert line.endswith(b"\n")
        assert b"\n" not in line[:-1]
        assert {
            "custom_id": custom_id,
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"input": expected},
        } == json.loads(line)


@given(IDS, STATUSES.filter(bool), JSON.filter(lambda value: value not in (None, "", {}, [], 0, False)))
def test_a_reply_has_the_bytes_of_its_body(custom_id: str, status: int, value: Any) -> None:  # noqa: ANN401 -- any JSON
    """They are not written anew: a number keeps its digits."""
    raw = b'{"value": %b, "number": 1.50}' % write_json(value)
    line = b'{"id":"x","custom_id":"%b","response":{"status_code":%d,"body":%b,"request_id":"r1"},"error":null}' % (
        custom_id.encode(),
        status,
        raw,
    )
    for written in (line, line.decode()):
        reply = read_line(written)

        assert reply is not None
        assert reply.response is not None
        assert (custom_id, status, raw, "r1", "") == (
            reply.custom_id,
            reply.response.status,
            reply.response.body,
            reply.response.headers["x-request-id"],
            reply.code,
        )


@given(IDS, TEXTS, TEXTS)
def test_a_request_without_a_reply_has_a_line_of_its_own(custom_id: str, code: str, message: str) -> None:
    """It is read as those that a server writes."""
    for known in (EXPIRED, LEFT_OUT):
        assert known == getattr(read_line(replyless_line(custom_id, known)), "code", None)

    reply = read_line(unanswered_line(custom_id, code or "x", message))

    assert reply is not None
    assert (custom_id, None) == (reply.custom_id, reply.response)


@given(IDS, st.sampled_from([EXPIRED, LEFT_OUT]))
def test_a_request_is_cancelled_only_with_its_batch(custom_id: str, code: str) -> None:
    """A cancelled request is no try, and is sent again; in a batch that came to its end it would be so for ever."""
    line = unanswered_line(custom_id, CANCELLED, "cancelled by the server")
    for given_code, found in ((None, CANCELLED), (code, code)):
        [(same_id, text)] = reply_lines([b"no reply", line], given_code)
        assert (custom_id, found) == (same_id, getattr(read_line(text), "code", None))


@given(LINES | st.fixed_dictionaries({"custom_id": IDS}, optional={"response": LINES, "error": LINES}))
def test_no_document_raises(document: Any) -> None:  # noqa: ANN401 -- any JSON
    """A reply has a response that a task can read, or a code."""
    reply = read_line(json.dumps(document).encode("utf-8", "surrogatepass"))
    if reply is not None:
        assert (reply.response is None) == bool(reply.code)
        assert reply.custom_id
        if reply.response is not None:
            Chat().decode(reply.response, 1)


@given(st.binary(max_size=200) | st.text(st.characters(), max_size=50))
def test_what_is_no_json_is_no_reply(line: bytes | str) -> None:
    """Whatever bytes or text it is."""
    assert read_line(line) is None


@pytest.mark.parametrize("depth", [500, 100_000])
def test_a_deep_document_is_no_trouble(depth: int) -> None:
    """It is passed on as it is, or no reply."""
    line = b'{"custom_id":"a","response":{"status_code":200,"body":' + b"[" * depth + b"]" * depth + b"}}"
    reply = read_line(line)

    assert reply is None or (reply.response is not None and isinstance(Chat().decode(reply.response, 1), Failure))


@pytest.mark.parametrize("status", ["9" * 5_000, "0200", "2"])
def test_an_odd_status_does_not_lose_a_reply(status: str) -> None:
    """It is taken for one of an answer."""
    reply = read_line(b'{"custom_id":"a","response":{"status_code":"%b","body":{}}}' % status.encode())

    assert reply is not None
    assert reply.response is not None
    assert 200 == reply.response.status


def test_nan_and_invalid_utf_8_do_not_lose_a_reply() -> None:
    """Python writes NaN; the other is replaced, as in any answer."""
    for value in (b"NaN", b'"\xff"'):
        reply = read_line(b'{"custom_id":"a","response":{"status_code":200,"body":{"x":%b}},"error":null}' % value)

        assert reply is not None
        assert reply.response is not None
        assert 200 == reply.response.status
