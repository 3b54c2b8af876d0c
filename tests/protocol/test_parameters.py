"""The request fields that a user sets: how they are sent, and which are refused when the UDF is built."""

import json
import math
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import ConfigError
from spark_llm.protocol.parameters import encode_parameters, is_repeatable
from tests.support.strategies import JSON, TEXTS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 1),
        ("max_completion_tokens", 2**31 - 1),
        ("n", 2),
        ("dimensions", 256),
        ("seed", 0),
        ("seed", -(2**63)),
        ("temperature", 0),
        ("temperature", 0.0),
        ("temperature", 2),
        ("top_p", 1),
        ("top_p", 1e-9),
        ("stop", "\n"),
        ("stop", ["\n", "END"]),
        ("response_format", {"type": "json_object"}),
        ("instruction", "Represent this sentence:"),
    ],
)
def test_parameters_are_sent_unchanged(name: str, value: object) -> None:
    """A valid value stands in the request under its name, alone."""
    assert {name: value} == json.loads(encode_parameters({name: value, "other": None}, None))


def test_missing_parameters_are_not_sent() -> None:
    """Neither the value None nor its name is sent."""
    assert b"{}" == encode_parameters({"max_tokens": None, "stop": None}, None) == encode_parameters({}, {})


def test_stop_may_be_any_sequence() -> None:
    """It is sent as a list."""
    assert {"stop": ["a", "b"]} == json.loads(encode_parameters({"stop": ("a", "b")}, None))


@pytest.mark.parametrize(
    ("parameters", "alike"),
    [
        (b"{}", True),
        (b'{"max_tokens":5}', True),
        (b'{"temperature":0}', True),
        (b'{"temperature":0.0}', True),
        (b'{"temperature":null}', True),
        (b'{"temperature":0.7}', False),
        (b'{"temperature":"0.7"}', False),
        (b'{"temperature":0.7,"seed":null}', False),
        (b'{"temperature":0.7,"seed":0}', True),
        (b'{"seed":7}', True),
    ],
)
def test_a_temperature_without_a_seed_is_not_repeatable(parameters: bytes, alike: bool) -> None:  # noqa: FBT001 -- a table
    """All other requests may share one answer."""
    assert alike == is_repeatable(parameters)


def circle() -> list[object]:
    """Return a list that holds itself."""
    endless: list[object] = []
    endless.append(endless)
    return endless


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_tokens", value) for value in (0, -1, 1.0, "8", True, 2**31, math.nan)),
        *(("max_completion_tokens", value) for value in (0, False)),
        *(("n", value) for value in (0, 1.5, "2")),
        *(("dimensions", value) for value in (0, -256, [256])),
        *(("seed", value) for value in (2**63, 0.5, "1", True)),
        *(("temperature", value) for value in (-0.1, 2.1, "0", True, math.nan, math.inf, [0])),
        *(("top_p", value) for value in (0, 0.0, 1.1, -1, "1", True, math.nan)),
        *(("stop", value) for value in ("", [], [""], ["a", 1], 7, b"a", {"a"}, {"a": "b"})),
        *(
            ("response_format", value)
            for value in ("json_object", {}, {"type": 1}, ["type"], {"type": "a", "x": object()})
        ),
        *(("response_format", {"type": "a", "x": value}) for value in (math.nan, b"a", circle(), {("a",): 1})),
        *(("instruction", value) for value in ("", "  ", 7, ["a"])),
    ],
)
def test_wrong_parameters_are_refused(name: str, value: object) -> None:
    """The error names the parameter, and ends in a hint."""
    with pytest.raises(ConfigError, match=rf"(?s){name}.* Hint: .+\."):
        encode_parameters({name: value}, None)


@given(st.dictionaries(TEXTS.map("x_{}".format), JSON, max_size=4))
def test_extra_body_is_merged_into_the_top_level(extra_body: dict[str, Any]) -> None:
    """Its fields stand next to the parameters, with every value that JSON can hold."""
    merged = json.loads(encode_parameters({"max_tokens": 8}, extra_body))
    expected = json.loads(json.dumps({"max_tokens": 8, **extra_body}, ensure_ascii=False).encode("utf-8", "replace"))

    assert len(expected) == len(merged)
    assert json.loads(json.dumps(merged)) == merged
    assert 8 == merged["max_tokens"]


def test_extra_body_is_sent_unchanged() -> None:
    """Nested fields stay nested, and a null is a null."""
    extra_body = {"extra_params": {"top_p": "0.9"}, "top_k": 40, "user": None, "usage_context": {"job": "é🙂"}}

    assert extra_body == json.loads(encode_parameters({}, MappingProxyType(extra_body)))


@pytest.mark.parametrize("name", ["messages", "prompt", "input", "model", "stream", "stream_options"])
def test_extra_body_may_not_set_reserved_fields(name: str) -> None:
    """The column is the prompt, the endpoint names the model, and a column cannot receive a stream."""
    with pytest.raises(ConfigError, match=rf"{name}.* Hint: .+\."):
        encode_parameters({}, {name: True})


def test_a_field_may_not_be_given_twice() -> None:
    """A parameter and `extra_body` may not both set a field; a parameter of None does not count."""
    with pytest.raises(ConfigError, match=r"'seed'.* Hint: .+\."):
        encode_parameters({"seed": 1}, {"seed": 2})

    assert {"seed": 2} == json.loads(encode_parameters({"seed": None}, {"seed": 2}))


@pytest.mark.parametrize(
    "extra_body",
    [
        [("top_k", 40)],
        "top_k",
        7,
        {1: 2},
        {"x": object()},
        {"x": {1, 2}},
        {"x": b"bytes"},
        {"x": math.nan},
        {"x": math.inf},
        {"x": [-math.inf]},
        {"x": {("a", "b"): 1}},
        {"x": circle()},
    ],
)
def test_an_extra_body_beyond_json_is_refused(extra_body: Any) -> None:  # noqa: ANN401 -- every wrong type
    """No value is converted silently: NaN is not null, and bytes are not text."""
    with pytest.raises(ConfigError, match=r"(?s)extra_body.* Hint: .+\."):
        encode_parameters({}, extra_body)


def test_parameters_are_encoded_once() -> None:
    """A mapping that changes after the UDF was built changes nothing."""
    extra_body = {"top_k": 40}
    before = encode_parameters({}, extra_body)
    extra_body["top_k"] = 1

    assert {"top_k": 40} == json.loads(before)
