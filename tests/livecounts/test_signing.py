"""Signed datagrams: only what the job itself has signed is read."""

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.livecounts.signing import MAC_BYTES, signed, verified

PAYLOADS = st.binary(max_size=60)
SECRETS = st.binary(min_size=16, max_size=16)


@given(SECRETS, PAYLOADS)
def test_what_is_signed_is_verified(secret: bytes, payload: bytes) -> None:
    """The signature takes `MAC_BYTES`."""
    datagram = signed(secret, payload)

    assert payload == verified(secret, datagram)
    assert MAC_BYTES == len(datagram) - len(payload)


@given(SECRETS, PAYLOADS, st.data())
def test_a_wrong_bit_another_secret_and_a_lost_end_show(secret: bytes, payload: bytes, data: st.DataObject) -> None:
    """So do bytes that nobody signed."""
    datagram = signed(secret, payload)
    flipped = bytearray(datagram)
    bit = data.draw(st.integers(0, 8 * len(datagram) - 1))
    flipped[bit // 8] ^= 1 << bit % 8

    assert verified(secret, bytes(flipped)) is None
    assert verified(secret[::-1] + b"?", datagram) is None
    assert verified(secret, datagram[: data.draw(st.integers(0, len(datagram) - 1))]) is None
    assert verified(secret, payload) is None
