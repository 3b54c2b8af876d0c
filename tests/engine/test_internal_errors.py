"""An engine whose own parts fail: every stream ends, with errors that name the exception; the next one is answered."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.protocol.bodies import RequestBody
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.values import Answer, Item, Outcome, Response, Result, RowError, Usage
from spark_llm.serving import Faults, LocalEndpoints
from tests.support.asking import Held, ask, comes_true, distinct, engine, engine_at, kinds, texts

PATIENCE_S = 20.0  # how long a stream may take that should end at once
ONE = Policy(max_in_flight=1, tokens_per_minute=1e9)  # a slot that is lost stops everything
NAMED = [LookupError, MemoryError, SystemExit, asyncio.CancelledError]


@dataclass(frozen=True)
class Breaking(Chat):
    """A task that raises in one of its methods, on the engine's thread alone."""

    where: str = ""
    error: type[BaseException] = LookupError

    def _break(self, where: str) -> None:
        if where == self.where and threading.current_thread().name == "spark_llm engine":
            raise self.error("broken")

    def max_inputs(self, wire_format: int, batch_size: int) -> int:
        """Break as "max_inputs"."""
        self._break("max_inputs")
        return super().max_inputs(wire_format, batch_size)

    def required_features(self, items: Sequence[Item], wire_format: int) -> int:
        """Break as "required_features"."""
        self._break("required_features")
        return super().required_features(items, wire_format)

    def fallback_format(self, items: Sequence[Item], wire_format: int, message: str | None) -> int | None:
        """Break as "fallback_format"."""
        self._break("fallback_format")
        return super().fallback_format(items, wire_format, message)

    def encode(self, items: Sequence[Item], model: str | None, wire_format: int) -> RequestBody:
        """Break as "encode"."""
        self._break("encode")
        return super().encode(items, model, wire_format)

    def decode(self, response: Response, count: int, wire_format: int = 0) -> Outcome:
        """Break as "decode", or give an answer that cannot be: without results, or with tokens that are no number."""
        self._break("decode")
        if self.where == "reask":
            mismatch = Result(error=RowError("schema_mismatch", 200, "another type", retryable=True))
            return Answer([mismatch], None, mismatched=True)
        if self.where == "results":
            return Answer([], None)
        if self.where == "tokens":
            return Answer([Result(text="text")], Usage(total_tokens="many"))  # type: ignore[arg-type]
        if self.where == "unwritable":
            return Answer([Result(text=object())], None)  # type: ignore[arg-type]
        return super().decode(response, count, wire_format)

    def parse_output(self, outcome: Outcome, items: Sequence[Item], wire_format: int) -> Outcome:
        """Break as "parse_output"."""
        self._break("parse_output")
        return super().parse_output(outcome, items, wire_format)

    def reask(self, item: Item, result: Result) -> Item:
        """Break as "reask"."""
        self._break("reask")
        return super().reask(item, result)


@dataclass(frozen=True)
class Ending(Chat):
    """A task whose first answer makes the event loop end."""

    end: Callable[[asyncio.AbstractEventLoop], object] = field(kw_only=True)

    def decode(self, response: Response, count: int, wire_format: int = 0) -> Outcome:
        """Have the loop end when this callback is over."""
        if b'"row 0"' in response.body:
            loop = asyncio.get_running_loop()
            loop.call_soon(self.end, loop)
        return super().decode(response, count, wire_format)


def in_time(act: Callable[[], list[Result | None]]) -> list[Result | None]:
    """Return the result of `act`; a stream that waits for ever fails the test and not the run."""
    got: list[list[Result | None]] = []
    thread = threading.Thread(target=lambda: got.append(act()), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert got, "the stream did not end"
    return got[0]


def messages(results: Sequence[Result | None]) -> set[str]:
    """Return the messages of the results' errors."""
    return {result.error.message for result in results if result is not None and result.error is not None}


@pytest.mark.waits
@pytest.mark.parametrize("error", NAMED)
@pytest.mark.parametrize(
    "where", ["fallback_format", "max_inputs", "required_features", "encode", "decode", "parse_output", "reask"]
)
def test_an_exception_anywhere_ends_the_stream_and_not_the_engine(
    where: str, error: type[BaseException], endpoints: LocalEndpoints
) -> None:
    """Each row has an error with the exception's type, and the next stream finds its slot free."""
    if where == "fallback_format":  # asked when a form is refused
        endpoints.faults = Faults("400 ok*99")
    asked = engine(endpoints, policy=ONE)
    results = in_time(lambda: ask(asked, [distinct(40), distinct(20)], Breaking(where=where, error=error)))

    assert [True] * 60 == [result is not None and result.error is not None for result in results]
    assert {True} == {error.__name__ in message for message in messages(results)}
    assert distinct(30) == texts(in_time(lambda: ask(asked, [distinct(30)])))


@pytest.mark.waits
@pytest.mark.parametrize("where", ["results", "tokens"])
def test_an_impossible_answer_ends_the_stream(where: str, endpoints: LocalEndpoints) -> None:
    """A codec without results, or with tokens that are not numbers, ends the stream and loses no slot."""
    asked = engine(endpoints, policy=ONE)
    results = in_time(lambda: ask(asked, [distinct(40)], Breaking(where=where)))

    assert ["cancelled"] * 40 == kinds(results)
    assert distinct(30) == texts(in_time(lambda: ask(asked, [distinct(30)])))


@pytest.mark.waits
def test_one_broken_stream_leaves_the_others_alone(endpoints: LocalEndpoints) -> None:
    """Two streams share an engine: what ends the one costs the other nothing."""
    endpoints.latency_s = 0.01
    asked = engine(endpoints, policy=Policy(max_in_flight=4))
    with ThreadPoolExecutor(1) as threads:
        whole = threads.submit(ask, asked, [distinct(100)])
        broken = in_time(lambda: ask(asked, [distinct(20)], Breaking(where="reask")))

        assert ["cancelled"] * 20 == kinds(broken)
        assert distinct(100) == texts(whole.result(PATIENCE_S))


def test_an_answer_that_the_cache_cannot_store_is_an_answer(
    endpoints: LocalEndpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cache is a convenience: what it cannot write costs a warning and no row."""
    results = in_time(
        lambda: ask(engine(endpoints, policy=Policy(cache=tmp_path)), [distinct(40)], Breaking(where="unwritable"))
    )

    assert [None] * 40 == kinds(results)
    assert ["is not used for the rest of this task"] == [
        words for each in caplog.records if (words := "is not used for the rest of this task") in each.getMessage()
    ]


@pytest.mark.parametrize("end", [lambda loop: loop.stop(), sys.exit], ids=["stop", "exit"])
def test_a_loop_that_ended_is_noticed(
    end: Callable[[asyncio.AbstractEventLoop], object], endpoints: LocalEndpoints
) -> None:
    """Its rows have errors, no thread is left, and the engine is not alive."""
    asked = engine(endpoints)
    results = in_time(lambda: ask(asked, [distinct(40)], Ending(end=end)))

    assert {None, "cancelled"} == set(kinds(results))
    assert not asked.is_alive


def test_a_token_function_that_ends_its_thread_is_a_row_error(endpoints: LocalEndpoints) -> None:
    """`sys.exit()` in it does not reach the event loop."""
    asked = engine_at(Endpoint(endpoints.invocations("chat"), token=sys.exit))

    assert ["unauthorized"] * 3 == kinds(in_time(lambda: ask(asked, [distinct(3)])))
    assert asked.is_alive


@pytest.mark.waits
def test_an_engine_that_is_closed_under_a_stream_ends_it(endpoints: LocalEndpoints) -> None:
    """No row waits for a closed engine."""
    endpoints.hold("row")
    asked = engine(endpoints)
    with ThreadPoolExecutor(1) as threads:
        results = threads.submit(ask, asked, [distinct(40)])
        endpoints.wait_for(lambda stats: stats.in_flight > 0)
        asked.close()

        assert ["cancelled"] * 40 == kinds(results.result(PATIENCE_S))
    assert not asked.is_alive
    assert ["cancelled"] * 3 == kinds(in_time(lambda: ask(asked, [distinct(3)])))


def test_a_closed_engine_leaves_no_thread_and_no_socket(endpoints: LocalEndpoints) -> None:
    """Neither the loop's, nor those that got tokens, nor the connections that were kept open."""
    engine(endpoints).close()  # the first loop of a process leaves what all others use
    before = Held.now()
    asked = engine_at(Endpoint(endpoints.invocations("chat"), token=lambda: endpoints.token))
    ask(asked, [distinct(100)])
    during = Held.now()
    asked.close()

    assert Held(before.threads + 2, before.files + 2).is_within(during)
    assert comes_true(lambda: Held.now().is_within(before))


@pytest.mark.waits
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it forks with threads, as workers may
def test_a_fork_does_not_wait_for_the_engine_of_its_parent(endpoints: LocalEndpoints) -> None:
    """Its thread is not in the child, whose rows have errors; the parent's engine goes on."""
    asked = engine(endpoints)
    ask(asked, [distinct(3)])
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if ["cancelled"] * 3 == kinds(in_time(lambda: ask(asked, [distinct(3)]))) else 1)
        finally:
            os._exit(2)  # whatever happens, the child is not a second pytest

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert distinct(3) == texts(ask(asked, [distinct(3)]))
