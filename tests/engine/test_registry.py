"""The engines of a worker over days: as many as are used, few that are idle, none that is closed."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.engine.registry import EngineRegistry, SharedEngine, set_log_level
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.serving import LocalEndpoints
from tests.support.asking import CHAT, Held, comes_true, distinct, kinds, texts

PATIENCE_S = 20.0


@pytest.fixture
def engines() -> Iterator[EngineRegistry]:
    """A registry that keeps four idle engines."""
    kept = EngineRegistry(max_idle=4)
    yield kept
    kept.close()


def spec_for(endpoints: LocalEndpoints, timeout_s: float = 60.0) -> RequestSpec:
    """Return a request spec with a token function of its own, so that it has its own engine."""
    endpoint = Endpoint(endpoints.invocations("chat"), token=lambda: endpoints.token)
    return RequestSpec(CHAT, endpoint.resolve(CHAT.route, {}), Policy(timeout_s=timeout_s))


def ask(engines: EngineRegistry, asked: RequestSpec, rows: int = 3) -> list[str | None]:
    """Return the texts of so many rows."""
    chunks = SharedEngine(engines, asked).stream(CHAT, iter([distinct(rows)]))
    return texts([result for chunk in chunks for result in chunk])


@pytest.mark.waits
def test_a_cell_that_is_run_200_times_leaves_few_engines(endpoints: LocalEndpoints, engines: EngineRegistry) -> None:
    """Each run makes a new token function; threads and sockets are those of the idle engines."""
    ask(engines, spec_for(endpoints))
    engines.close()  # the first loop of a process leaves what all others use
    before = Held.now()
    most = before
    for _ in range(200):
        assert distinct(3) == ask(engines, spec_for(endpoints))
        most = Held(*map(max, most, Held.now()))

    assert 4 == len(engines)
    assert most.is_within(Held(before.threads + 5 * 3, before.files + 5 * 12))  # both ends of each connection are here
    engines.close()
    assert comes_true(lambda: Held.now().is_within(before))


def test_the_engine_that_was_idle_longest_is_closed(endpoints: LocalEndpoints, engines: EngineRegistry) -> None:
    """An engine that is used from time to time stays, with its window."""
    favourite, *others = [spec_for(endpoints) for _ in range(9)]
    with engines.engine(favourite) as engine:
        pass
    for each in others:
        ask(engines, each)
        with engines.engine(favourite) as again:
            assert engine is again

    assert 4 == len(engines)
    assert engine.is_alive


def test_an_engine_in_use_is_never_closed(endpoints: LocalEndpoints, engines: EngineRegistry) -> None:
    """However many others come and go; when it is idle it is one of those that are kept."""
    endpoints.hold("held")
    slow = SharedEngine(engines, spec_for(endpoints)).stream(CHAT, iter([["a", "held"]]))
    first = texts(next(slow))
    for _ in range(10):
        ask(engines, spec_for(endpoints))
    endpoints.release()

    assert ["a", "held"] == first + texts([result for chunk in slow for result in chunk])
    assert 4 == len(engines)


@pytest.mark.waits
def test_threads_that_race_never_have_a_closed_engine(endpoints: LocalEndpoints, engines: EngineRegistry) -> None:
    """Eight of them take and give back engines of ten specs, of which four may be idle."""
    specs = [spec_for(endpoints) for _ in range(10)]

    def run(thread: int) -> None:
        for turn in range(40):
            with engines.engine(specs[(thread * 7 + turn * 3) % 10]) as engine:
                assert engine.is_alive
            if turn % 8 == thread:
                assert distinct(3) == ask(engines, specs[turn % 10])

    with ThreadPoolExecutor(8) as threads:
        for each in [threads.submit(run, thread) for thread in range(8)]:
            each.result(PATIENCE_S)
    assert 4 == len(engines)


def test_a_dead_engine_is_replaced(endpoints: LocalEndpoints, engines: EngineRegistry) -> None:
    """Its thread ended: the next task has another."""
    asked = spec_for(endpoints)
    with engines.engine(asked) as engine:
        engine.close()

    assert distinct(3) == ask(engines, asked)
    assert 1 == len(engines)


def test_the_keepers_of_tokens_go_with_their_engines(endpoints: LocalEndpoints, engines: EngineRegistry) -> None:
    """Engines of one credential share its token; when all of them are closed, the next one gets a new token."""
    asked = []

    def token() -> str:
        asked.append(threading.current_thread())
        return endpoints.token

    route = Endpoint(endpoints.invocations("chat"), token=token).resolve(CHAT.route, {})
    for timeout_s in (10.0, 20.0, 10.0):
        ask(engines, RequestSpec(CHAT, route, Policy(timeout_s=timeout_s)))
    assert 1 == len(asked)
    for _ in range(5):
        ask(engines, spec_for(endpoints))
    ask(engines, RequestSpec(CHAT, route, Policy()))

    assert 2 == len(asked)


@pytest.mark.waits
def test_the_log_of_an_engine_shows_its_life_and_no_secret(
    endpoints: LocalEndpoints, engines: EngineRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Opened and closed, streams with their counts, the token's renewal, the window; no row, no token."""
    caplog.set_level(logging.DEBUG, "spark_llm")
    endpoint = Endpoint(f"{endpoints.invocations('chat')}?sig=s3cret", token=lambda: endpoints.token)
    asked = RequestSpec(CHAT, endpoint.resolve(CHAT.route, {}), Policy(max_in_flight=8))
    ask(engines, asked, rows=300)
    engines.close()
    shown = asked.route.shown
    lines = [(record.name.removeprefix("spark_llm."), record.getMessage()) for record in caplog.records]

    assert [
        ("engine", f"{shown}: engine opened"),
        ("engine", f"{shown}: chat stream begun"),
        ("auth", "got a token (token=), valid for inf s"),
    ] == [line for line in lines if line[0] != "flow"][:3]
    assert ("engine", f"{shown}: chat stream ended: 300 rows, 0 of them failed") in lines
    assert ("engine", f"{shown}: engine closed") == lines[-1]
    assert any(name == "flow" and words.startswith(f"{shown}: window 1 -> ") for name, words in lines)
    assert [] == [line for line in lines if endpoints.token in line[1] or "s3cret" in line[1] or "row 1" in line[1]]


@pytest.mark.parametrize(("level", "expected"), [("debug", logging.DEBUG), ("INFO", logging.INFO), ("", 0), ("x", 0)])
def test_a_variable_switches_the_log_on(level: str, expected: int) -> None:
    """Only SPARK_LLM_LOG reaches a Python worker's logging from outside."""
    logger = logging.getLogger("spark_llm")
    try:
        set_log_level({"SPARK_LLM_LOG": level})
        assert expected == logger.level
    finally:
        logger.setLevel(logging.NOTSET)


def test_failed_rows_are_counted_in_the_log(
    endpoints: LocalEndpoints, engines: EngineRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """The last line of a stream counts the rows with an error."""
    caplog.set_level(logging.DEBUG, "spark_llm.engine")
    endpoints.revoke()
    chunks = SharedEngine(engines, spec_for(endpoints)).stream(CHAT, iter([distinct(3)]))

    assert ["unauthorized"] * 3 == kinds([result for chunk in chunks for result in chunk])
    assert any(each.getMessage().endswith("3 rows, 3 of them failed") for each in caplog.records)
