"""Datagrams of needs and allotments: what is sent is read, and nothing else is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.coordination.allotment import Allotment, HardLimits, Need
from spark_llm.coordination.allotment_datagrams import (
    answer_to_need,
    decoded_allotment,
    decoded_need,
    encoded_allotment,
    encoded_need,
)
from spark_llm.coordination.allotter import Allotter
from spark_llm.livecounts.column_count import Count
from spark_llm.livecounts.datagrams import Report, Sender, decoded_counts, encoded_counts
from spark_llm.livecounts.signing import signed, verified
from tests.support.strategies import JSON, TEXTS

SECRET = b"0123456789abcdef"
WHOLE = st.integers(0, 2**53)
NUMBERS = st.floats(0, 1e12)
LIMITS = st.builds(HardLimits, st.none() | WHOLE, st.none() | NUMBERS, st.none() | NUMBERS)
NEEDS = st.builds(Need, TEXTS, TEXTS, LIMITS, NUMBERS, WHOLE, WHOLE, LIMITS, st.booleans())
ALLOTMENTS = st.builds(Allotment, TEXTS, TEXTS, WHOLE, NUMBERS, LIMITS, LIMITS)
NEED = Need("host", "chat", HardLimits(5), 1.0, 0, 3, HardLimits(1))


@given(NEEDS, ALLOTMENTS)
def test_what_is_encoded_is_decoded(need: Need, allotment: Allotment) -> None:
    """Neither is taken for the other one, nor for live counts; nor are these taken for one of them."""
    need_payload, allotment_payload = encoded_need(need), encoded_allotment(allotment)
    report = Report(Sender(1, 2, 3, 4, 5), ended=True, columns={"mood": Count(1)})
    counts = verified(SECRET, next(encoded_counts(SECRET, report)))

    assert need == decoded_need(need_payload)
    assert allotment == decoded_allotment(allotment_payload)
    assert (None, None) == (decoded_need(allotment_payload), decoded_allotment(need_payload))
    assert counts is not None
    assert (None, None) == (decoded_need(counts), decoded_allotment(counts))
    assert decoded_counts(SECRET, signed(SECRET, need_payload)) is None
    assert decoded_counts(SECRET, signed(SECRET, allotment_payload)) is None


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_another_payload_is_dropped(payload: bytes) -> None:
    """A worker may run another version, which signs with our secret."""
    assert (None, None) == (decoded_need(payload), decoded_allotment(payload))
    assert answer_to_need(Allotter(), payload, 0.0) is None


@pytest.mark.parametrize(
    "change",
    [
        ('"host"', "7"),
        ("[5,null,null]", "[5,null]"),
        ("[5,null,null]", "5"),
        ("[5,null,null]", "[5.5,null,null]"),
        ("[5,null,null]", "[5,NaN,null]"),
        ("[5,null,null]", "[5,null,Infinity]"),
        ("[5,null,null]", "[5,-1,null]"),
        ("[5,null,null]", f"[1{'0' * 400},null,null]"),
        ("[5,null,null]", f"[5,1{'0' * 400},null]"),
        ("1.0", "true"),
        ('"need"', '"allotment"'),
    ],
)
def test_impossible_needs_are_dropped(change: tuple[str, str]) -> None:
    """Such are limits that are no numbers, or no finite ones."""
    payload = encoded_need(NEED).decode()

    assert NEED == decoded_need(payload.encode())
    assert decoded_need(payload.replace(*change).encode()) is None


def test_a_need_is_answered_once() -> None:
    """A duplicate changes nothing, and has no answer."""
    allotter = Allotter()
    answer = answer_to_need(allotter, encoded_need(NEED), 100.0)

    assert answer is not None
    assert Allotment("host", "chat", 1, 1.0, HardLimits(5), HardLimits(5)) == decoded_allotment(answer)
    assert answer_to_need(allotter, encoded_need(NEED), 100.0) is None
