"""Bodies of requests: JSON with media among it, which is written as it is sent."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.protocol.bodies import Base64, Body, json_list, request_body, with_fields
from spark_llm.protocol.json_codec import write_json
from tests.support.strategies import JSON, TEXTS

KB64 = 3 * 2**14  # the bytes of 64 KB in base64


@given(st.none() | TEXTS, st.dictionaries(st.sampled_from(["a", "b"]), JSON), TEXTS)
def test_a_request_body_has_the_model_the_parameters_and_the_fields(
    model: str | None, parameters: dict[str, Any], text: str
) -> None:
    """There is no field `model` without a model."""
    body = json.loads(request_body(model, write_json(parameters), b'"input":', write_json(text)))
    expected = {**({} if model is None else {"model": model}), **parameters, "input": text}

    assert json.loads(write_json(expected)) == body


@given(st.none() | TEXTS, st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.booleans())
def test_media_stand_in_a_body_in_base64(model: str | None, media: list[bytes], further: bool) -> None:  # noqa: FBT001 -- drawn
    """Its length is known before it is written, it can be written again, and fields can be added."""
    strings = [(b'"data:', Base64(data), b'"') for data in media]
    body = request_body(model, b'{"n":1}', b'"input":', *json_list(map(iter, strings)))
    if further:
        body = with_fields(body, b'"user":"me"')
    expected = {
        **({} if model is None else {"model": model}),
        "n": 1,
        "input": [f"data:{base64.b64encode(data).decode()}" for data in media],
        **({"user": "me"} if further else {}),
    }

    assert isinstance(body, Body)
    assert json.loads(write_json(expected)) == json.loads(bytes(body))
    assert [len(body)] * 2 == [len(bytes(body)) for _ in range(2)]


@pytest.mark.parametrize("size", [0, 1, 2, 3, KB64 - 1, KB64, KB64 + 1, 3 * KB64 + 2])
def test_base64_is_written_piece_by_piece(size: int) -> None:
    """No piece is larger than 64 KB, and only the last one has padding."""
    data = bytes(number % 251 for number in range(size))
    pieces = [bytes(piece) for piece in Base64(data)]

    assert base64.b64encode(data) == b"".join(pieces)
    assert len(Base64(data)) == sum(map(len, pieces))
    assert {2**16} >= set(map(len, pieces[:-1]))
    assert 2**16 >= max(map(len, pieces), default=0)


def test_a_body_of_texts_is_bytes() -> None:
    """Nothing is gained by writing it later."""
    assert b'{"input":"a"}' == request_body(None, b"{}", b'"input":"a"')
    assert b'{"input":"a","user":"me"}' == with_fields(b'{"input":"a"}', b'"user":"me"')
    assert b"[]" == b"".join(piece for piece in json_list([]) if isinstance(piece, bytes))
