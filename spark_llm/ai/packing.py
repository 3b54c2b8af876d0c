"""Packs texts into requests by estimated tokens, and cuts those that are longer than a request. It is pure.

A request has a line for each text: the text as a JSON string, which holds no line break, so no text can be taken for
two. The estimate begins with `flow.batcher`'s, and is measured where an answer reports the tokens of its prompt.
"""

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from spark_llm.flow.batcher import BYTES_PER_TOKEN
from spark_llm.protocol.json_codec import write_json

MOST_BYTES_PER_TOKEN = 2.0 * BYTES_PER_TOKEN  # that a measurement is believed: some servers count a part of the prompt
LEAST_BYTES_PER_TOKEN = 1.0
MARGIN = 0.95  # of what was measured, since other texts differ; so close to it the estimate stays as it is
MIN_CUT_BYTES = 64  # a text of fewer bytes is not cut

_BREAKS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"[.!?。！？]\s*"), re.compile(r"\s+"))  # noqa: RUF001 -- marks of Chinese and Japanese


class Piece(NamedTuple):
    """A text, or the answer about several: `first` and `last` are the rows that it stands for, counted from 0."""

    text: str
    first: int
    last: int
    is_cut: bool = False  # a part of a longer text


Pack = tuple[Piece, ...]  # what one request carries


def pieces_of(texts: Iterable[str], first: int = 0) -> list[Piece]:
    """Return a piece for each text."""
    return [Piece(text, row, row) for row, text in enumerate(texts, first)]


def line_bytes(text: str) -> int:
    """Return the size of a text's line in a request."""
    return len(write_json(text)) + 1


def lines(pack: Sequence[Piece]) -> str:
    """Return the message that carries a pack."""
    return "\n".join(write_json(piece.text).decode() for piece in pack)


def take_pack(waiting: deque[Piece], max_bytes: int) -> Pack:
    """Remove the pieces of the next request from the front; a text that is larger by itself is cut."""
    pack: list[Piece] = []
    room = max_bytes
    while waiting:
        size = line_bytes(waiting[0].text)
        if size <= room:
            pack.append(waiting.popleft())
            room -= size
            continue
        if not pack:
            head, tail = cut(waiting.popleft(), max_bytes)
            waiting.appendleft(tail)
            pack.append(head)
        break
    return tuple(pack)


def take_node(waiting: deque[Piece], max_bytes: int) -> Pack:
    """Remove the answers that the next request combines: two at least, so that each level is smaller than the last."""
    pack: list[Piece] = []
    room = max_bytes
    while waiting and (len(pack) < 2 or line_bytes(waiting[0].text) <= room):
        room -= line_bytes(waiting[0].text)
        pack.append(waiting.popleft())
    return tuple(pack)


def cut(piece: Piece, max_bytes: int) -> tuple[Piece, Piece]:
    """Return the beginning of a text, of at most so many bytes, and the rest.

    The cut is behind a paragraph, else a line, a sentence, a word, in the second half; else it is anywhere.
    """
    text = piece.text
    low, high = 1, max(1, min(len(text) - 1, max_bytes))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if line_bytes(text[:middle]) <= max_bytes else (low, middle - 1)
    end = low
    for mark in _BREAKS:
        if ends := [found.end() for found in mark.finditer(text, low // 2, low) if found.end() > low // 2]:
            end = ends[-1]
            break
    return piece._replace(text=text[:end], is_cut=True), piece._replace(text=text[end:], is_cut=True)


def halves(pack: Pack) -> tuple[Pack, Pack] | None:
    """Return a refused pack as two; None for a text that is too small to be cut."""
    if len(pack) > 1:
        return pack[: len(pack) // 2], pack[len(pack) // 2 :]
    size = line_bytes(pack[0].text)
    if size < MIN_CUT_BYTES or len(pack[0].text) < 2:
        return None
    head, tail = cut(pack[0], size // 2)
    return (head,), (tail,)


def rows_of(pieces: Iterable[Piece]) -> int:
    """Return how many rows the pieces stand for; a row that was cut counts once."""
    rows, end = 0, -1  # the last row that is counted
    for piece in sorted(pieces, key=lambda piece: piece.first):
        rows += max(0, piece.last - max(piece.first, end + 1) + 1)
        end = max(end, piece.last)
    return rows


def measured_bytes_per_token(prompt_bytes: int, prompt_tokens: int | None) -> float | None:
    """Return the bytes of a token in a prompt whose tokens the server counted; None where it did not count them."""
    if not prompt_tokens or prompt_tokens < 0:
        return None
    measured = min(max(prompt_bytes / prompt_tokens, LEAST_BYTES_PER_TOKEN), MOST_BYTES_PER_TOKEN)
    if BYTES_PER_TOKEN * MARGIN <= measured <= BYTES_PER_TOKEN / MARGIN:
        return float(BYTES_PER_TOKEN)
    return MARGIN * measured
