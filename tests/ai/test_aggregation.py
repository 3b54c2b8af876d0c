"""The requests of a group of texts, without a network: a model is a function."""

import json
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.ai.aggregation import (
    AggregateResult,
    Ask,
    Group,
    Instructions,
    Part,
    Window,
    instructions_of,
)
from spark_llm.ai.packing import line_bytes
from spark_llm.flow.batcher import BYTES_PER_TOKEN
from spark_llm.protocol.values import Result, RowError, Usage

TOO_LONG = RowError("context_length", 400, "too long", retryable=False)
BROKEN = RowError("content_filter", 400, "refused", retryable=False)
Model = Callable[[Ask, str], Result]


def instructions(budget_tokens: int = 64) -> Instructions:
    """Return instructions beside which so many tokens of texts fit."""
    made = instructions_of("Count.", Window(8_192, 100))
    assert isinstance(made, Instructions)
    return made._replace(budget_tokens=budget_tokens)


def answer(text: str = "ok", tokens: int | None = 10) -> Result:
    """Return an answer."""
    usage = None if tokens is None else Usage(tokens, 1, tokens + 1)
    return Result(text=text, usage=usage, attempts=1, requests=1)


def run(unit: Group | Part, model: Model, seed: int = 0) -> tuple[AggregateResult, list[Ask], list[Result]]:
    """Ask everything, in an order of the dice; return the result, what was asked, and what was answered."""
    dice, waiting, asked, results = random.Random(seed), unit.take(), list[Ask](), list[Result]()
    while waiting:
        ask = waiting.pop(dice.randrange(len(waiting)))
        asked.append(ask)
        results.append(model(ask, str(unit.instructions.prompt(ask).content)))
        unit.settle(ask, results[-1])
        waiting += unit.take()
    assert unit.is_done
    return unit.result, asked, results


def leaves(asked: Sequence[Ask]) -> list[Ask]:
    """Return the requests with texts."""
    return [ask for ask in asked if ask.level == 0]


def joined(_: Ask, content: str) -> Result:
    """Answer with all texts: so an answer about all parts has every text once."""
    return answer("".join(json.loads(line) for line in content.split("\n")), tokens=None)


GROUPS = st.lists(st.one_of(st.none(), st.text(max_size=300)), max_size=40)


@given(GROUPS, st.integers(64, 400), st.integers(0, 9))
def test_every_row_is_in_the_answer_once(texts: list[str | None], budget: int, seed: int) -> None:
    """By content, whatever the rows' order, and also where answers are longer than the budget; nulls are not."""
    result, asked, results = run(Group(texts, instructions(budget)), joined, seed)
    known = sorted(text for text in texts if text is not None)

    assert (None, len(known)) == (result.error, result.rows)
    assert ("".join(known) if known else None) == result.text
    assert len(leaves(asked)) == result.leaves
    assert len({ask.level for ask in asked}) == result.levels
    assert len(results) == result.attempts
    for ask in leaves(asked):
        assert sum(line_bytes(piece.text) for piece in ask.pack) <= budget * BYTES_PER_TOKEN
    assert len({piece.first for ask in asked for piece in ask.pack if piece.is_cut}) == result.split_rows


@given(GROUPS, st.integers(0, 9), st.randoms(use_true_random=False))
def test_a_groups_requests_do_not_depend_on_the_order_of_rows_or_of_answers(
    texts: list[str | None], seed: int, dice: random.Random
) -> None:
    """So the cache has them again: also where the estimate was measured, and where it was paid for before."""

    def model(ask: Ask, content: str) -> Result:
        return answer(str(ask.place), tokens=len(content) // 2 + 1)

    def cached(ask: Ask, content: str) -> Result:
        result = model(ask, content)
        usage, result.usage = result.usage, Usage(0, 0, 0)
        result.shared_prompt_tokens = usage and usage.prompt_tokens
        return result

    shuffled = dice.sample(texts, len(texts))
    first = {(ask.level, ask.pack, ask.is_last) for ask in run(Group(texts, instructions()), model)[1]}

    for again in (model, cached):
        asked = run(Group(shuffled, instructions()), again, seed)[1]
        assert first == {(ask.level, ask.pack, ask.is_last) for ask in asked}


def test_one_request_is_enough_where_all_texts_fit() -> None:
    """It has the instructions for a whole group."""
    result, [ask], _ = run(Group(["b", None, "a"], instructions()), joined)

    assert ("ab", 2, 1, 1, 0) == (result.text, result.rows, result.leaves, result.levels, result.split_rows)
    assert instructions().whole == instructions().prompt(ask).system


@pytest.mark.parametrize("texts", [[], [None, None]])
def test_without_texts_nothing_is_asked(texts: list[None]) -> None:
    """The text is null, and so is the usage."""
    result, asked, _ = run(Group(texts, instructions()), joined)

    assert [] == asked
    assert (None, 0, 0, 0, None, None) == (
        *(result.text, result.rows, result.leaves),
        *(result.levels, result.usage, result.error),
    )


@given(st.lists(st.text(max_size=200), min_size=1, max_size=40), st.integers(150, 400), st.integers(0, 9))
def test_a_refused_leaf_is_halved(texts: list[str], limit: int, seed: int) -> None:
    """Each text gets through a smaller window than the one that was told; what was refused counts as usage."""

    def model(ask: Ask, content: str) -> Result:
        if ask.level == 0 and len(content.encode()) > limit:
            return Result(error=TOO_LONG, usage=Usage(1, 0, 1), attempts=1, requests=1)
        return joined(ask, content)

    result, asked, results = run(Group(texts, instructions(400)), model, seed)

    assert "".join(sorted(texts)) == result.text
    assert len([each for each in results if each.error]) == (result.usage.total_tokens if result.usage else 0)
    assert len(asked) == result.requests


def test_the_estimate_learns_from_the_first_leaf() -> None:
    """Where a token has six bytes, the other leaves carry nearly twice as much; where it has one, a third."""
    texts = [f"{number:03} {'x' * 20}" for number in range(200)]

    def packed(bytes_per_token: int) -> list[int]:
        def model(ask: Ask, content: str) -> Result:
            prompt = instructions().prompt(ask)
            return answer(tokens=len(f"{prompt.system}{content}") // bytes_per_token)

        first, *others = sorted(leaves(run(Group(texts, instructions(200)), model)[1]), key=lambda ask: ask.place)
        return [len(each.pack) for each in (first, *others[:-1])]

    first, *many = packed(6)
    assert {round(1.9 * first), round(1.9 * first) + 1, round(1.9 * first) - 1} >= set(many)
    first, *few = packed(1)
    assert {round(first * 0.95 / 3), round(first * 0.95 / 3) - 1} >= set(few)


def test_a_refused_first_leaf_teaches_the_others() -> None:
    """Only the first is refused, until it fits; the others are packed as it is."""
    texts = [f"{number:03} {'x' * 20}" for number in range(200)]

    def model(_: Ask, content: str) -> Result:
        return Result(error=TOO_LONG, attempts=1) if len(content) > 200 else answer(tokens=None)

    result, asked, results = run(Group(texts, instructions(256)), model)

    assert result.error is None
    assert 2 == len([each for each in results if each.error])
    assert [0, 0, 0] == [ask.pack[0].first for ask in asked[:3]]


@given(st.integers(0, 19), st.integers(0, 9))
def test_a_leaf_that_fails_is_the_groups_error(bad: int, seed: int) -> None:
    """It says how many rows it left out; no answer is made of the others, and what they cost is in the usage."""
    texts = [f"{number:02}{'x' * 90}" for number in range(20)]  # two in a leaf

    def model(_: Ask, content: str) -> Result:
        is_bad = f'"{bad:02}' in content
        return Result(error=BROKEN, usage=Usage(5, 0, 5), attempts=1) if is_bad else answer(tokens=None)

    result, asked, results = run(Group(texts, instructions()), model, seed)
    left_out = 20 if bad < 2 else 2  # nothing more is asked after the first leaf has failed

    assert (None, "content_filter", 400, False) == (result.text, *(result.error or BROKEN)[:2], False)
    assert f"{left_out} of 20 rows were left out: refused" == (result.error and result.error.message)
    assert {0} == {ask.level for ask in asked}
    assert 5 == (result.usage and result.usage.total_tokens)
    assert len(results) == (1 if bad < 2 else 10)


def test_a_node_that_fails_is_the_groups_error() -> None:
    """Its rows are those of all of its answers."""

    def model(ask: Ask, _: str) -> Result:
        return answer(tokens=None) if ask.level == 0 else Result(error=BROKEN)

    result, _, _ = run(Group([f"{n}{'x' * 90}" for n in range(8)], instructions()), model)

    assert "8 of 8 rows were left out: refused" == (result.error and result.error.message)
    assert 2 == result.levels


def test_a_window_into_which_nothing_fits_ends_in_an_error() -> None:
    """Halving ends: at texts that are too small to cut, and at two answers that do not fit together."""
    always, _, _ = run(Group(["x" * 500, "y"], instructions()), lambda *_: Result(error=TOO_LONG))
    nodes, _, _ = run(
        Group(["x" * 500, "y"], instructions()),
        lambda ask, _: Result(error=TOO_LONG) if ask.level else answer(tokens=None),
    )

    assert ["context_length"] * 2 == [result.error and result.error.kind for result in (always, nodes)]
    assert "2 of 2 rows were left out: too long" == (nodes.error and nodes.error.message)


@given(st.lists(st.text(max_size=200), min_size=1, max_size=10), st.integers(100, 400))
def test_a_part_has_the_answers_about_all_its_texts(texts: list[str], limit: int) -> None:
    """One, or several in order where it was refused."""

    def model(ask: Ask, content: str) -> Result:
        return Result(error=TOO_LONG) if len(content.encode()) > limit else joined(ask, content)

    result, _, _ = run(Part(texts, 0, 5, instructions(), is_last=False), model)

    assert "".join(texts) == "".join(result.answers or ())
    assert all(5 <= row < 5 + len(texts) for row in result.cut_rows or ())


@pytest.mark.parametrize("instruction", ["", " \n", "x" * 40_000])
def test_an_instruction_that_cannot_be_asked_is_an_error(instruction: str) -> None:
    """It is blank, or it fills the window."""
    error = instructions_of(instruction, Window(8_192, 1_000))

    assert isinstance(error, RowError)
    assert "invalid_request" == error.kind
    assert error.hint


def test_braces_in_an_instruction_stay() -> None:
    """They are no fields."""
    made = instructions_of("Make {json} of {0}", Window(8_192, 1_000))

    assert isinstance(made, Instructions)
    assert all("Make {json} of {0}" in system for system in made[:4])
