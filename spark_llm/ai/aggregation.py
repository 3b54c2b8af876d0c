"""The requests of one group of texts: leaves that carry texts, nodes that combine answers, one answer. It is pure.

A group is asked level by level. The first leaf of several is asked alone: its answer tells how many tokens the server
counts in such texts, by which the others are packed. So the requests of a group depend on its texts and its answers
alone, and not on when those came: the cache has them again.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from spark_llm.ai import prompts
from spark_llm.ai.judgements import option_error
from spark_llm.ai.packing import (
    MIN_CUT_BYTES,
    Pack,
    Piece,
    halves,
    line_bytes,
    lines,
    measured_bytes_per_token,
    pieces_of,
    rows_of,
    take_node,
    take_pack,
)
from spark_llm.flow.batcher import BYTES_PER_TOKEN
from spark_llm.protocol.values import Prompt, Result, RowError

MIN_CONTEXT_TOKENS = 256
MIN_BUDGET_TOKENS = 64  # for texts, beside the instructions and the answer
ANSWER_SHARE = 8  # an answer without max_tokens has this part of the window
WORDS_PER_TOKEN = 0.5  # that instructions ask for, so that an answer is whole
FRAME_TOKENS = 32  # of roles and marks around the messages
_MAX_CACHED = 100  # instructions that stay in memory; a column may have many


class AggregateResult(Result, gc=False):
    """The result of a group; each attribute is the field of the same name in `schemas.AGGREGATE`."""

    rows: int | None = None
    leaves: int | None = None
    levels: int | None = None
    split_rows: int | None = None

    answers: list[str] | None = None  # of a part, which are combined elsewhere
    cut_rows: list[int] | None = None  # of a part

    def add_cost(self, result: Result) -> None:
        """Add what a request cost, whether it was answered or not."""
        if result.usage is not None:
            self.usage = result.usage.plus(self.usage)
        self.attempts += result.attempts
        self.requests += result.requests
        self.refusals += result.refusals
        self.model = self.model or result.model
        self.latency_ms = max((each for each in (self.latency_ms, result.latency_ms) if each is not None), default=None)


class Window(NamedTuple):
    """The context window of a model: all its tokens, and those that the answer may have."""

    context_tokens: int
    answer_tokens: int


class Instructions(NamedTuple):
    """The system prompts of a group, and how many tokens of texts fit beside the longest of them and the answer."""

    whole: str
    part: str
    combine: str
    combine_part: str
    budget_tokens: int

    def prompt(self, ask: "Ask") -> Prompt:
        """Return the prompt of a request."""
        systems = (self.whole, self.part) if ask.level == 0 else (self.combine, self.combine_part)
        return Prompt(lines(ask.pack), systems[not ask.is_last])


@lru_cache(maxsize=_MAX_CACHED)
def instructions_of(instruction: str, window: Window) -> Instructions | RowError:
    """Return the system prompts of an instruction; an error for a blank one, and for one that fills the window."""
    if not instruction.strip():
        return option_error("the instruction is blank", "say what to do with the texts, as in 'List the complaints'")
    words = max(1, int(window.answer_tokens * WORDS_PER_TOKEN))
    whole, part, combine, combine_part = (
        template.format(instruction=instruction, max_words=words)
        for template in (prompts.AGGREGATE, prompts.AGGREGATE_PART, prompts.COMBINE, prompts.COMBINE_PART)
    )
    longest = max(len(system.encode("utf-8", "replace")) for system in (whole, part, combine, combine_part))
    budget = window.context_tokens - window.answer_tokens - -(-longest // BYTES_PER_TOKEN) - FRAME_TOKENS
    if budget < MIN_BUDGET_TOKENS:
        return option_error(
            f"context_tokens={window.context_tokens:,} has no room for texts beside an instruction of"
            f" {len(instruction):,} characters and an answer of {window.answer_tokens:,} tokens",
            "raise context_tokens, shorten the instruction, or lower the max_tokens of the chat_udf",
        )
    return Instructions(whole, part, combine, combine_part, budget)


class Ask(NamedTuple):
    """A request of a group: its level, from 0 for texts on, its place in the level, and what it carries."""

    level: int
    place: tuple[int, ...]
    pack: Pack
    is_last: bool  # whether its answer is the group's


class Level:
    """The requests of one level, and their answers in order. A refused request is halved; any other failure stays."""

    def __init__(self, number: int, total: AggregateResult) -> None:
        """Begin without requests; what they cost is added to `total`."""
        self.number = number
        self.error: RowError | None = None
        self.left_out: list[Piece] = []  # what a failed request carried, or one that was not sent any more
        self._total = total
        self._waiting: list[Ask] = []
        self._sent = 0  # without an answer
        self._answers: dict[tuple[int, ...], Piece] = {}
        self._packs = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing waits for an answer, or to be sent."""
        return not self._sent and not self._waiting

    @property
    def answers(self) -> list[Piece]:
        """The answers in the order of their texts."""
        return [self._answers[place] for place in sorted(self._answers)]

    def add(self, pack: Pack, *, is_last: bool = False) -> Ask:
        """Add a request and return it."""
        ask = Ask(self.number, (self._packs,), pack, is_last)
        self._packs += 1
        self._place(ask)
        return ask

    def take(self) -> list[Ask]:
        """Remove and return the requests to send now."""
        asks, self._waiting = self._waiting, []
        self._sent += len(asks)
        return asks

    def settle(self, ask: Ask, result: Result) -> None:
        """Take note of an answer, or of a failure."""
        self._sent -= 1
        self._total.add_cost(result)
        if result.error is None:
            first, last = ask.pack[0].first, ask.pack[-1].last
            self._answers[ask.place] = Piece(result.text or "", first, last)
            return
        parts = halves(ask.pack) if result.error.kind == "context_length" else None
        if parts is None or self.error is not None or (self.number and len(ask.pack) < 3):
            self.fail(ask, result.error)
            return
        for number, part in enumerate(parts):
            self._place(Ask(ask.level, (*ask.place, number), part, is_last=False))

    def fail(self, ask: Ask, error: RowError) -> None:
        """Leave a request out, and all that were not sent yet."""
        self.error = self.error or error
        self.left_out += [*ask.pack, *(piece for each in self._waiting for piece in each.pack)]
        self._waiting = []

    def unsettle(self, result: Result) -> None:
        """Take note that a request was refused, and that what it carried comes again."""
        self._sent -= 1
        self._total.add_cost(result)

    def _place(self, ask: Ask) -> None:
        if self.number and len(ask.pack) == 1:  # a single answer needs no combining
            self._answers[ask.place] = ask.pack[0]
        else:
            self._waiting.append(ask)


class Group:
    """One group of texts, on the way to its answer: `take` what to ask, `settle` each answer, until it `is_done`."""

    def __init__(self, texts: Iterable[str | None], instructions: Instructions) -> None:
        """Begin with the first leaf; nulls are skipped, and the order is that of the texts, not of the rows."""
        self.instructions = instructions
        self.result = AggregateResult(rows=0, leaves=0, levels=0, split_rows=0)
        self._rest = deque(pieces_of(sorted(text for text in texts if text is not None)))
        self._rows = len(self._rest)
        self.held_bytes = sum(len(piece.text) for piece in self._rest)
        self.result.rows = self._rows
        self._bytes_per_token: float | None = None  # as measured
        self._max_bytes = instructions.budget_tokens * BYTES_PER_TOKEN
        self._cut_rows = set[int]()
        self._pilot: Ask | None = None  # the first leaf, as long as the others wait for it
        self._level = Level(0, self.result)
        self.is_done = False
        if self._rest:
            self._begin()
        else:
            self.is_done = True

    def take(self) -> list[Ask]:
        """Remove and return the requests to send now."""
        asks = self._level.take()
        for ask in asks:
            self.result.levels = ask.level + 1
            self._cut_rows |= {piece.first for piece in ask.pack if piece.is_cut}
        return asks

    def settle(self, ask: Ask, result: Result) -> None:
        """Take note of an answer, or of a failure."""
        if ask is self._pilot:
            self._settle_pilot(ask, result)
        else:
            self._learn(ask, result)
            self._level.settle(ask, result)
        if self._level.is_done:
            self._end_level()

    def _begin(self) -> None:
        """Ask the first leaf; it is the only one if it holds all texts."""
        pack = take_pack(self._rest, self._max_bytes)
        self._pilot = self._level.add(pack, is_last=not self._rest)

    def _settle_pilot(self, ask: Ask, result: Result) -> None:
        self._pilot = None
        if result.error is not None and result.error.kind == "context_length":
            smaller = min(self._max_bytes, sum(line_bytes(piece.text) for piece in ask.pack)) // 2
            if smaller >= MIN_CUT_BYTES:
                self._max_bytes = smaller
                self._bytes_per_token = smaller / self.instructions.budget_tokens
                self._level.unsettle(result)
                self._rest.extendleft(reversed(ask.pack))
                self._begin()
                return
        self._learn(ask, result)
        self._level.settle(ask, result)
        if self._level.error is not None:
            self._level.left_out += self._rest
            self._rest.clear()
        while self._rest:
            self._level.add(take_pack(self._rest, self._max_bytes))

    def _learn(self, ask: Ask, result: Result) -> None:
        """Measure the bytes of a token: the first time as they are, later only downwards."""
        counted = result.shared_prompt_tokens or (result.usage and result.usage.prompt_tokens)
        prompt = self.instructions.prompt(ask)
        prompt_bytes = len(f"{prompt.system}{prompt.content}".encode("utf-8", "replace"))
        measured = measured_bytes_per_token(prompt_bytes, counted) if result.error is None else None
        if measured is None:
            return
        if self._bytes_per_token is None or measured < self._bytes_per_token:
            self._bytes_per_token = measured
            self._max_bytes = max(MIN_CUT_BYTES, int(self.instructions.budget_tokens * measured))

    def _end_level(self) -> None:
        level, answers = self._level, self._level.answers
        if level.number == 0:
            self.result.leaves = len(answers)
            self.result.split_rows = len(self._cut_rows)
            self.held_bytes = sum(len(piece.text) for piece in answers)
        if level.error is not None:
            self.result.error = left_out_error(level.error, rows_of(level.left_out), self._rows)
            self.is_done = True
        elif len(answers) == 1:
            self.result.text = answers[0].text
            self.is_done = True
        else:
            waiting, self._level = deque(answers), Level(level.number + 1, self.result)
            while waiting:
                pack = take_node(waiting, self._max_bytes)
                self._level.add(pack, is_last=len(pack) == len(answers))


class Part:
    """What one row of a level carries, on the way to its answers: one, or several where it was refused and halved."""

    def __init__(
        self, texts: Sequence[str], level: int, first: int, instructions: Instructions, *, is_last: bool
    ) -> None:
        """Begin with one request; `first` is the row of the first text, and the others follow."""
        self.instructions = instructions
        self.result = AggregateResult()
        self.held_bytes = sum(map(len, texts))
        self._level = Level(level, self.result)
        self._cut_rows = set[int]()
        self._level.add(tuple(pieces_of(texts, first)), is_last=is_last)

    @property
    def is_done(self) -> bool:
        """Whether the result is whole."""
        return self._level.is_done

    def take(self) -> list[Ask]:
        """Remove and return the requests to send now."""
        asks = self._level.take()
        self._cut_rows |= {piece.first for ask in asks for piece in ask.pack if piece.is_cut}
        return asks

    def settle(self, ask: Ask, result: Result) -> None:
        """Take note of an answer, or of a failure."""
        self._level.settle(ask, result)
        self.result.answers = [piece.text for piece in self._level.answers]
        self.result.error = self._level.error
        self.result.cut_rows = sorted(self._cut_rows)


def left_out_error(error: RowError, left_out: int, rows: int) -> RowError:
    """Return the error of a group, a request of which failed."""
    return error._replace(message=f"{left_out:,} of {rows:,} rows were left out: {error.message}")
