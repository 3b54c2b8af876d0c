"""The bytes between a broker and its members."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.coordination.messages import MAX_NUMBER, Decoder, Kind, Message, encoded

FIGURES = st.floats(width=32, allow_nan=False, allow_infinity=False)
MESSAGES = st.builds(Message, st.sampled_from(Kind), st.integers(0, MAX_NUMBER), FIGURES, FIGURES)


@given(st.lists(MESSAGES), st.lists(st.integers(0, 200)))
def test_messages_arrive_as_they_were_sent_however_their_bytes_are_cut(
    messages: list[Message], cuts: list[int]
) -> None:
    """A stream of bytes may be cut anywhere: every message comes out once, whole and in order."""
    data, decoder = encoded(messages), Decoder()
    ends = [*sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    assert messages == [message for part in parts for message in decoder.decode(part)]
    assert 13 * len(messages) == len(data)


def test_figures_are_rounded_to_24_bits_and_may_be_missing() -> None:
    """A latency keeps seven digits; NaN stands for none."""
    [answered] = Decoder().decode(encoded([Message(Kind.ANSWERED, 7, 0.1234567891, math.nan)]))

    assert pytest.approx(0.1234567891, rel=1e-7) == answered.a
    assert math.isnan(answered.b)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<BIff", 99, 0, 0, 0),
        struct.pack("<BIff", 3, 0, math.inf, 0),
        struct.pack("<BIff", 8, 0, 0, -math.inf),
    ],
)
def test_bytes_that_are_no_message_raise_value_error(data: bytes) -> None:
    """An unknown kind and an infinite figure raise the error that ends the connection."""
    with pytest.raises(ValueError, match=r"."):
        list(Decoder().decode(data))
