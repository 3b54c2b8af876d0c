"""The messages between a host's broker and its members: 13 bytes each, many in one write. Pure.

A message has a kind, a number and two figures. A permit's number is unique for its member. What is wanted, and what has
to come back, is told as a total since the connection began. So it is right whatever crosses it on its way, as the
credits of QUIC's and HTTP/2's flow control are.
"""

import math
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

_FORMAT = struct.Struct("<BIff")
MAX_NUMBER = 0xFFFFFFFF
_INFINITE = (math.inf, -math.inf)


class Kind(IntEnum):
    """What a message says; to its right `number`, and the figures `a` and `b`."""

    # From a member to the broker.
    HELLO = 1  # the number of permits that it holds; as many `HELD` follow
    HELD = 2  # a permit
    WANT = 3  # how many grants it wants in all, on this connection; the next request's characters; its open streams
    ANSWERED = 4  # a permit; the latency in seconds or NaN; the tokens or NaN
    ANSWERED_AND_KEPT = 5  # the same, and its next request has gone with this permit
    FAULT = 6  # a permit; 1 where the provider has no room left at the request's tier
    INCONCLUSIVE = 7  # a permit
    RATE_LIMITED = 8  # a permit; the seconds to send nothing; 1 where a Retry-After said so
    WIDEN = 9  # the requests that may go before any outcome
    ALIVE = 10  # nothing
    SENT = 11  # a permit; the characters of the request that has gone with it, where they count
    UNUSED = 12  # a permit that no request has gone with
    ANSWERED_ROWS = 13  # a job; how many of its rows were answered; the share of failed rows at which it stops
    FAILED_ROWS = 14  # a job; how many of its rows failed; the same share

    # From the broker to a member.
    GRANT = 20  # a permit; the member's part of the window; 1 where it may be kept for the next request
    RETURN = 21  # how many permits to have given back in all, on this connection
    STATE = 22  # the member's part of the window; 1 where permits may be kept; the seconds of outage, or NaN
    STOP = 23  # a job that has too many failed rows


class Message(NamedTuple):
    """One message."""

    kind: int
    number: int = 0
    a: float = 0.0
    b: float = 0.0


def encoded(messages: Iterable[Message]) -> bytes:
    """Return the bytes of messages; figures are rounded to 24 bits."""
    return b"".join([_FORMAT.pack(*message) for message in messages])


class Decoder:
    """Splits a stream of bytes into messages."""

    def __init__(self) -> None:
        """Begin without bytes."""
        self._rest = b""

    def decode(self, data: bytes) -> Iterator[Message]:
        """Return the messages that are whole; raises `ValueError` for what no member or broker sends."""
        data = self._rest + data
        whole = len(data) // _FORMAT.size * _FORMAT.size
        self._rest = data[whole:]
        for kind, number, a, b in _FORMAT.iter_unpack(data[:whole]):
            if a in _INFINITE or b in _INFINITE:
                raise ValueError(a, b)
            yield Message(Kind(kind), number, a, b)
