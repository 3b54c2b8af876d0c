"""Plans of the aggregates: the groups of a Spark task, whose requests share one stream, and so the engine's window.

A stream's rows are the requests of all groups. As answers leave the stream, their groups add requests to its end, so
that no group waits for another one, and no level of a group for that of another. Results leave in the order of groups.
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from spark_llm.ai.aggregation import (
    ANSWER_SHARE,
    MIN_CONTEXT_TOKENS,
    AggregateResult,
    Ask,
    Group,
    Instructions,
    Part,
    Window,
    instructions_of,
)
from spark_llm.ai.plans import ArgumentsPlan, model_words
from spark_llm.ai.prompts import SUMMARIZE_ALL
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.engine.row_stream import NOT_YET
from spark_llm.errors import ConfigError
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.json_codec import read_json
from spark_llm.protocol.values import Result, Row, RowError
from spark_llm.udf.arguments import Columns
from spark_llm.udf.plan import Results, answers
from spark_llm.validation.numbers import check_whole, is_whole
from spark_llm.validation.parameter import Parameter

CONTEXT_TOKENS = 8_192  # by default
MAX_HELD_BYTES = 64_000_000  # of texts of groups that are not answered, beyond which no further group begins
_CONTENT, _INSTRUCTION = Parameter("content", "texts"), Parameter("instruction")


class Unit(Protocol):
    """A group, or a part of one."""

    instructions: Instructions
    result: AggregateResult
    held_bytes: int

    @property
    def is_done(self) -> bool:
        """Whether the result is whole."""

    def take(self) -> list[Ask]:
        """Remove and return the requests to send now."""

    def settle(self, ask: Ask, result: Result) -> None:
        """Take note of an answer, or of a failure."""


Entry = Unit | AggregateResult | None  # a group to answer, its result where nothing is asked, or null


class _Feed:
    """The rows of one stream: the requests of units, which depend on the results of earlier rows."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self._line = deque[Entry]()  # whose results have not left, in order
        self._asks = deque[tuple[Unit, Ask]]()  # to be sent
        self._sent = deque[tuple[Unit, Ask]]()  # in the stream, in order
        self._held_bytes = 0
        self._ended = False

    def __iter__(self) -> Iterator[Sequence[Row]]:
        while True:
            if self._asks:
                asks, self._asks = self._asks, deque()
                self._sent += asks
                yield [unit.instructions.prompt(ask) for unit, ask in asks]
            elif self._sent and (self._ended or self._held_bytes >= MAX_HELD_BYTES):
                yield NOT_YET
            elif self._ended:
                return
            else:
                self._begin_next()

    def settle(self, results: Iterable[Result | None]) -> None:
        """Give results of the stream to the units that asked for them."""
        for result in results:
            unit, ask = self._sent.popleft()
            held = unit.held_bytes
            unit.settle(ask, result or Result())
            self._asks += [(unit, each) for each in unit.take()]
            self._held_bytes += (0 if unit.is_done else unit.held_bytes) - held

    def done(self) -> list[Result | None]:
        """Remove and return the results at the head of the line."""
        results: list[Result | None] = []
        while self._line and (isinstance(self._line[0], AggregateResult | None) or self._line[0].is_done):
            entry = self._line.popleft()
            results.append(entry if isinstance(entry, AggregateResult | None) else entry.result)
        return results

    def _begin_next(self) -> None:
        entry = next(self._entries, self)
        if isinstance(entry, _Feed):
            self._ended = True
            return
        self._line.append(entry)
        if not isinstance(entry, AggregateResult | None) and not entry.is_done:
            self._held_bytes += entry.held_bytes
            self._asks += [(entry, ask) for ask in entry.take()]


def aggregate_results(spec: RequestSpec, entries: Iterator[Entry]) -> Results:
    """Yield the result of each entry, in order; an empty list asks for a flush."""
    feed = _Feed(entries)
    for chunk in answers(spec, iter(feed)):
        feed.settle(chunk)
        if (done := feed.done()) or not chunk:
            yield done
    if done := feed.done():
        yield done


def window_of(context_tokens: object, chat: Chat) -> Window:
    """Return the window of a model that is asked with the parameters of a task; raises `ConfigError`."""
    context = check_whole("context_tokens", context_tokens, MIN_CONTEXT_TOKENS, unit="tokens")
    fields = read_json(chat.parameters)
    given = [fields[name] for name in ("max_tokens", "max_completion_tokens") if is_whole(fields.get(name))]
    window = Window(context, max(given) if given else context // ANSWER_SHARE)
    if isinstance(error := instructions_of("x", window), RowError):
        raise ConfigError(error.what, error.hint)
    return window


def aggregate_signature(*, summarizes: bool) -> tuple[str, tuple[Parameter, ...]]:
    """Return the name in SQL of `ai_agg`, or of `ai_summarize_agg`, and its parameters."""
    return ("ai_summarize_agg", (_CONTENT,)) if summarizes else ("ai_agg", (_CONTENT, _INSTRUCTION))


class _UnitsPlan(ArgumentsPlan):
    """Base of the plans: each row becomes an entry."""

    spec: RequestSpec

    @property
    def canonical(self) -> dict[str, Any]:
        """The function, its parameters, and the user's choices for its model; not how texts are packed."""
        return self._canonical(model_words(self.spec))

    def _results(self, slices: Iterator[Columns]) -> Results:
        rows = (row for columns in slices for row in zip(*columns, strict=True))
        return aggregate_results(self.spec, map(self._entry, rows))

    @abstractmethod
    def _entry(self, row: tuple[Any, ...]) -> Entry:
        """Return the entry of a row's arguments."""


@dataclass(frozen=True)
class AggregatePlan(_UnitsPlan):
    """Plan of `ai_agg`, or with `summarizes` of `ai_summarize_agg`: each row has the texts of a group."""

    spec: RequestSpec
    window: Window
    summarizes: bool = False

    @property
    def signature(self) -> tuple[str, tuple[Parameter, ...]]:
        """The function's name in SQL, and its parameters."""
        return aggregate_signature(summarizes=self.summarizes)

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        texts, instruction = (*row, SUMMARIZE_ALL) if self.summarizes else row
        if texts is None or instruction is None:
            return None
        instructions = instructions_of(instruction, self.window)
        if isinstance(instructions, RowError):
            return AggregateResult(error=instructions)
        return Group(texts, instructions)


@dataclass(frozen=True)
class LevelPlan(_UnitsPlan):
    """Plan of a level of `functions.aggregate`: each row has the texts, or the answers, of one request."""

    spec: RequestSpec
    instructions: Instructions
    level: int

    signature = "aggregate", (_CONTENT, Parameter("first", "whole"), Parameter("parts", "whole"))

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        texts, first, parts = row
        if not texts:
            return None
        return Part(texts, self.level, first, self.instructions, is_last=parts == 1)
