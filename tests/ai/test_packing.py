"""Packing of texts into requests."""

import json
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.ai.packing import (
    MIN_CUT_BYTES,
    Piece,
    cut,
    halves,
    line_bytes,
    lines,
    measured_bytes_per_token,
    pieces_of,
    rows_of,
    take_node,
    take_pack,
)

TEXTS = st.lists(st.text(max_size=400), max_size=30)


@given(TEXTS, st.integers(MIN_CUT_BYTES, 500))
def test_each_text_is_carried_once_and_in_order(texts: list[str], max_bytes: int) -> None:
    """No request is above the budget, and the pieces of a row, put together again, are its text."""
    waiting, packs = deque(pieces_of(texts)), []
    while waiting:
        packs.append(take_pack(waiting, max_bytes))
    again = [""] * len(texts)
    for piece in [piece for pack in packs for piece in pack]:
        assert piece.is_cut or texts[piece.first] == piece.text
        again[piece.first] += piece.text

    assert texts == again
    assert all(sum(line_bytes(piece.text) for piece in pack) <= max_bytes for pack in packs)
    assert all(packs)


@given(TEXTS)
def test_a_message_has_a_line_for_each_text(texts: list[str]) -> None:
    """No text, whatever is in it, can be taken for two, or for a part of another."""
    message = lines(tuple(pieces_of(texts)))

    assert texts == [json.loads(line) for line in message.split("\n") if line]
    assert sum(map(line_bytes, texts)) == len(message.encode()) + bool(texts)


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("a" * 50 + "\n\n" + "b b. b\n" * 20, "a" * 50 + "\n\n"),
        ("a" * 50 + "\n" + "b b. b " * 20, "a" * 50 + "\n"),
        ("a" * 50 + ". " + "b b " * 20, "a" * 50 + ". "),
        ("a" * 50 + " " + "b" * 90, "a" * 50 + " "),
        ("a" * 500, "a" * 77),
    ],
)
def test_a_text_is_cut_where_it_hurts_least(text: str, head: str) -> None:
    """Behind a paragraph, else a line, a sentence, a word; else where the budget ends."""
    first, rest = cut(Piece(text, 7, 7), 80)

    assert (head, text) == (first.text, first.text + rest.text)
    assert [(7, 7, True)] * 2 == [(piece.first, piece.last, piece.is_cut) for piece in (first, rest)]


@given(TEXTS.filter(lambda texts: len(texts) > 1), st.integers(1, 500))
def test_a_level_of_nodes_is_at_most_half_as_large(texts: list[str], max_bytes: int) -> None:
    """Also where every answer is as long as the budget."""
    waiting, nodes = deque(pieces_of(texts)), 0
    while waiting:
        take_node(waiting, max_bytes)
        nodes += 1

    assert nodes <= (len(texts) + 1) // 2


@given(TEXTS.filter(bool))
def test_halves_are_smaller_and_lose_nothing(texts: list[str]) -> None:
    """A refused request becomes two; only a text that is too small stays."""
    pack = tuple(pieces_of(texts))
    parts = halves(pack)

    if parts is None:
        assert len(pack) == 1
        assert line_bytes(texts[0]) < MIN_CUT_BYTES
        return
    assert "".join(texts) == "".join(piece.text for part in parts for piece in part)
    assert all(part and len(lines(part)) < len(lines(pack)) for part in parts)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(250, 3.8), (340, 3.0), (320, 3.0), (None, None), (0, None), (-3, None), (1, 5.7), (10**6, 0.95)],
)
def test_what_a_server_counts_is_believed_within_bounds(tokens: int | None, expected: float | None) -> None:
    """A thousand bytes; a count that no tokenizer has is brought to the nearest one that may be."""
    assert expected == (None if expected is None else pytest.approx(measured_bytes_per_token(1_000, tokens)))


def test_rows_that_were_cut_count_once() -> None:
    """Two parts of one text stand for one row."""
    assert 4 == rows_of([Piece("", 4, 5), Piece("", 1, 1), Piece("", 1, 1), Piece("", 0, 0)])
