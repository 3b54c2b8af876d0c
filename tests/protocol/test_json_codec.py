"""JSON documents: read from any bytes, and written as UTF-8."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.protocol.json_codec import (
    NotJSONError,
    read_json,
    read_object,
    replace_surrogates,
    write_json,
)
from tests.support.growth import grows_linearly
from tests.support.strategies import JSON, TEXTS

ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])


@given(JSON)
def test_written_documents_are_read_back(document: Any) -> None:  # noqa: ANN401 -- a JSON document has any type
    """Lone surrogates are replaced, since UTF-8 cannot hold them."""
    assert json.loads(json.dumps(replace_surrogates(document))) == json.loads(write_json(document))
    assert json.loads(write_json(document)) == json.loads(json.dumps(read_json(write_json(document))))


@given(JSON.map(json.dumps), ENCODINGS)
def test_documents_of_any_encoding_are_read(text: str, encoding: str) -> None:
    """The first bytes show the encoding, with a byte order mark or without."""
    assert replace_surrogates(json.loads(text)) == replace_surrogates(read_json(text.encode(encoding)))


@given(st.binary())
def test_any_bytes_are_json_or_an_error(body: bytes) -> None:
    """No other exception is raised."""
    try:
        read_json(body)
    except NotJSONError:
        assert {} == read_object(body)


@pytest.mark.parametrize(
    "body",
    [b'data: {"a": 1}\n\ndata: [DONE]\n', b'event: message\ndata:{"a":1}\n\n', b': alive\n\ndata: {"a": 1}\r\n'],
)
def test_the_frame_of_one_event_is_removed(body: bytes) -> None:
    """Some servers stream although the request does not ask for it."""
    assert {"a": 1} == read_object(body)


@pytest.mark.parametrize("unit", [b" ", b"\t", b"x ", b"\ndata: x"])
def test_a_long_frame_is_read_in_linear_time(unit: bytes) -> None:
    """A line of an event may be blank for as long as a server likes."""
    assert grows_linearly(read_object, lambda size: b"data: x" + unit * (size // len(unit)) + b"x", 2_000)


@pytest.mark.parametrize("body", [b"", b"ok", b"[1]", b'"a"', b'data: {"a": 1}\ndata: {"b": 2}\n', b"[" * 100_000])
def test_other_bytes_are_an_empty_object(body: bytes) -> None:
    """Two events, a list and endless nesting are not one object."""
    assert {} == read_object(body)


@given(TEXTS)
def test_replaced_surrogates_leave_a_text_of_the_same_length(text: str) -> None:
    """The result can be encoded as UTF-8."""
    replaced = replace_surrogates(text)

    assert len(text) == len(replaced)
    assert replaced == replaced.encode("utf-8").decode("utf-8")
