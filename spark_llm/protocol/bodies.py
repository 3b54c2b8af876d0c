"""Bodies of requests: JSON in pieces, with the bytes of media among them.

An image of a megabyte is a third larger in base64, and many requests are in flight. So a body holds media as they are,
and writes their base64 a few kilobytes at a time, whenever it is sent.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import overload

from spark_llm.protocol.json_codec import write_json

_SOURCE_BYTES = 3 * 2**14  # of media whose base64 is written at once; a multiple of 3 has no padding


@dataclass(frozen=True, slots=True)
class Base64:
    """Bytes that are written in base64, inside a JSON string."""

    data: bytes

    def __len__(self) -> int:
        """Return the length of the base64."""
        return 4 * -(-len(self.data) // 3)

    def __iter__(self) -> Iterator[memoryview]:
        """Yield the base64, 64 KB at a time."""
        view = memoryview(self.data)
        for start in range(0, len(view), _SOURCE_BYTES):
            # Twice as fast as `binascii`; without the quotes.
            yield memoryview(write_json(view[start : start + _SOURCE_BYTES]))[1:-1]


Piece = bytes | Base64
Pieces = Iterator[Piece]  # of JSON


class Body:
    """A JSON object with media, to be sent as often as it takes; its bytes are written as it is iterated over."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        """Keep the pieces."""
        self._pieces = tuple(pieces)

    def __len__(self) -> int:
        """Return how many bytes it has."""
        return sum(map(len, self._pieces))

    def __iter__(self) -> Iterator[bytes | memoryview]:
        """Yield its bytes."""
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from piece

    def __bytes__(self) -> bytes:
        """Return all its bytes."""
        return b"".join(self)

    def with_fields(self, fields: bytes) -> "Body":
        """Return the object with further fields."""
        *pieces, _ = self._pieces
        return Body([*pieces, b",", fields, b"}"])


RequestBody = bytes | Body


def json_list(entries: Iterable[Pieces]) -> Pieces:
    """Write a list of entries, each in pieces."""
    separator = b"["
    for pieces in entries:
        yield separator
        yield from pieces
        separator = b","
    yield b"[]" if separator == b"[" else b"]"


@overload
def request_body(model: str | None, parameters: bytes, *fields: bytes) -> bytes: ...


@overload
def request_body(model: str | None, parameters: bytes, *fields: Piece) -> RequestBody: ...


def request_body(model: str | None, parameters: bytes, *fields: Piece) -> RequestBody:
    """Write a request's body: the model, the parameters (a JSON object) and the task's `fields`."""
    pieces: list[Piece] = [b"{"] if model is None else [b'{"model":', write_json(model), b","]
    if len(parameters) > len(b"{}"):
        pieces += [parameters[1:-1], b","]
    pieces += [*fields, b"}"]
    try:
        return b"".join(pieces)  # type: ignore[arg-type]  # as most bodies have no media
    except TypeError:
        return Body(pieces)


def with_fields(body: RequestBody, fields: bytes) -> RequestBody:
    """Return a body, which is a JSON object that is not empty, with further fields."""
    if isinstance(body, Body):
        return body.with_fields(fields)
    return b"".join((memoryview(body)[:-1], b",", fields, b"}"))
