"""The engines of a worker over days: as many as are used, few that are idle, none that is closed."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.engine.registry import Asking, Engines, log_as_asked
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.serving import LocalEndpoints
from tests.support.asking import CHAT, Held, comes_true, distinct, kinds, texts

PATIENCE_S = 20.0


@pytest.fixture
def engines() -> Iterator[Engines]:
    """A registry that keeps four idle engines."""
    kept = Engines(idle_most=4)
    yield kept
    kept.close()


def recipe(endpoints: LocalEndpoints, timeout_s: float = 60.0) -> RequestSpec:
    """Return how the endpoint is asked, by a token function of its own: none has the engine of another."""
    endpoint = Endpoint(endpoints.invocations("chat"), token=lambda: endpoints.token)
    return RequestSpec(CHAT, endpoint.resolve(CHAT.route, {}), Policy(timeout_s=timeout_s))


def ask(engines: Engines, asked: RequestSpec, rows: int = 3) -> list[str | None]:
    """Return the texts of so many rows."""
    chunks = Asking(engines, asked).stream(CHAT, iter([distinct(rows)]))
    return texts([result for chunk in chunks for result in chunk])


def test_a_cell_that_is_run_200_times_leaves_few_engines(endpoints: LocalEndpoints, engines: Engines) -> None:
    """Each run makes a new token function; threads and sockets are those of the idle engines that are kept."""
    ask(engines, recipe(endpoints))
    engines.close()  # the first loop of a process leaves what all others use
    before = Held.now()
    most = before
    for _ in range(200):
        assert distinct(3) == ask(engines, recipe(endpoints))
        most = Held(*map(max, most, Held.now()))

    assert 4 == len(engines)
    assert most.is_within(Held(before.threads + 5 * 3, before.files + 5 * 12))  # both ends of each connection are here
    engines.close()
    assert comes_true(lambda: Held.now().is_within(before))


def test_the_engine_that_was_idle_longest_is_closed(endpoints: LocalEndpoints, engines: Engines) -> None:
    """One that is used from time to time stays, with what it has learned."""
    favourite, *others = [recipe(endpoints) for _ in range(9)]
    with engines.engine(favourite) as engine:
        pass
    for each in others:
        ask(engines, each)
        with engines.engine(favourite) as again:
            assert engine is again

    assert 4 == len(engines)
    assert engine.is_alive


def test_an_engine_in_use_is_never_closed(endpoints: LocalEndpoints, engines: Engines) -> None:
    """However many others come and go; when it is idle it is one of those that are kept."""
    endpoints.hold("held")
    slow = Asking(engines, recipe(endpoints)).stream(CHAT, iter([["a", "held"]]))
    first = texts(next(slow))
    for _ in range(10):
        ask(engines, recipe(endpoints))
    endpoints.release()

    assert ["a", "held"] == first + texts([result for chunk in slow for result in chunk])
    assert 4 == len(engines)


def test_threads_that_race_never_have_a_closed_engine(endpoints: LocalEndpoints, engines: Engines) -> None:
    """Eight of them take and give back engines of ten recipes, of which four may be idle."""
    recipes = [recipe(endpoints) for _ in range(10)]

    def run(thread: int) -> None:
        for turn in range(40):
            with engines.engine(recipes[(thread * 7 + turn * 3) % 10]) as engine:
                assert engine.is_alive
            if turn % 8 == thread:
                assert distinct(3) == ask(engines, recipes[turn % 10])

    with ThreadPoolExecutor(8) as threads:
        for each in [threads.submit(run, thread) for thread in range(8)]:
            each.result(PATIENCE_S)
    assert 4 == len(engines)


def test_a_dead_engine_is_replaced(endpoints: LocalEndpoints, engines: Engines) -> None:
    """Its thread ended: the next task has another."""
    asked = recipe(endpoints)
    with engines.engine(asked) as engine:
        engine.close()

    assert distinct(3) == ask(engines, asked)
    assert 1 == len(engines)


def test_the_keepers_of_tokens_go_with_their_engines(endpoints: LocalEndpoints, engines: Engines) -> None:
    """Engines of one credential share its token; where all of them are closed, the next one gets it again."""
    asked = []

    def token() -> str:
        asked.append(threading.current_thread())
        return endpoints.token

    route = Endpoint(endpoints.invocations("chat"), token=token).resolve(CHAT.route, {})
    for timeout_s in (10.0, 20.0, 10.0):
        ask(engines, RequestSpec(CHAT, route, Policy(timeout_s=timeout_s)))
    assert 1 == len(asked)
    for _ in range(5):
        ask(engines, recipe(endpoints))
    ask(engines, RequestSpec(CHAT, route, Policy()))

    assert 2 == len(asked)


def test_the_log_of_an_engine_tells_its_life_and_no_secret(
    endpoints: LocalEndpoints, engines: Engines, caplog: pytest.LogCaptureFixture
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
    """SPARK_LLM_LOG is the one thing that reaches a Python worker's logging from outside."""
    logger = logging.getLogger("spark_llm")
    try:
        log_as_asked({"SPARK_LLM_LOG": level})
        assert expected == logger.level
    finally:
        logger.setLevel(logging.NOTSET)


def test_kinds_of_rows_are_counted(
    endpoints: LocalEndpoints, engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    """The line of a stream's end says how many rows have an error."""
    caplog.set_level(logging.DEBUG, "spark_llm.engine")
    endpoints.revoke()
    chunks = Asking(engines, recipe(endpoints)).stream(CHAT, iter([distinct(3)]))

    assert ["unauthorized"] * 3 == kinds([result for chunk in chunks for result in chunk])
    assert any(each.getMessage().endswith("3 rows, 3 of them failed") for each in caplog.records)
