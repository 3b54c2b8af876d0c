"""Fields of responses, read whatever their type is."""

from typing import Any

import pytest
from hypothesis import given

from spark_llm.protocol.fields import count_of, header_of, string_of, text_of, usage_of
from spark_llm.protocol.values import Response, Usage
from tests.support.strategies import JSON, TEXTS


@given(JSON)
def test_any_value_is_read(value: Any) -> None:  # noqa: ANN401 -- a JSON document has any type
    """No value raises, and each function returns its type or None."""
    assert isinstance(text_of(value), str | None)
    assert isinstance(string_of(value), str | None)
    assert isinstance(usage_of({"usage": value}), Usage | None)
    assert isinstance(usage_of(value), Usage | None)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (7, 7),
        (7.0, 7),
        (2**31 - 1, 2**31 - 1),
        (2**31, None),
        (-1, None),
        (1.5, None),
        (True, None),
        ("7", None),
    ],
)
def test_a_count_fits_32_bits(value: object, count: int | None) -> None:
    """A float may be a whole number; a boolean and a text are no counts."""
    assert count == count_of(value)


def test_usage_of_several_documents_is_their_sum() -> None:
    """A missing total is the sum of prompt and completion."""
    document = {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}

    assert Usage(3, 2, 5) == usage_of(document)
    assert Usage(6, 4, 10) == usage_of([document, {}, None, document])
    assert None is usage_of([]) is usage_of({"usage": {"prompt_tokens": "3"}})


def test_text_parts_are_joined() -> None:
    """Parts of other types are left out; without any text part there is no text."""
    parts = [{"type": "reasoning", "text": "Hm"}, {"type": "text", "text": "a"}, None, {"type": "text", "text": "b"}]

    assert ("ab", None, None) == (text_of(parts), text_of(parts[:1]), text_of({}))


@given(TEXTS)
def test_a_header_can_be_encoded(value: str) -> None:
    """Lone surrogates are replaced, and an empty header counts as missing."""
    found = header_of(Response(200, headers={"x-request-id": value}), "x-request-id")

    assert (found is None) == (value == "")
    assert None is header_of(Response(200), "x-request-id")
    assert found is None or found == found.encode("utf-8").decode("utf-8")
