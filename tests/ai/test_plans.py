"""`ai_query` over a column of endpoints' names, on a worker's side: no Spark session is needed."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pytest

from spark_llm import Endpoint, Policy
from spark_llm.ai.plans import MAX_LANES, QueryPlan
from spark_llm.engine.registry import ENGINES, IDLE_MOST
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.errors import InputTypeError, RowFailedError
from spark_llm.protocol.values import Result
from spark_llm.serving import Echo, LocalEndpoints
from tests.support.asking import CHAT, texts

PATIENCE_S = 10.0  # how long something may take that should be done at once
NAMES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Close what a test put into the worker's registry."""
    yield
    ENGINES.close()


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """Three chat endpoints."""
    with LocalEndpoints({name: Echo() for name in NAMES}) as running:
        yield running


def recipe_of(endpoints: LocalEndpoints, name: str, policy: Policy = Policy()) -> RequestSpec:
    """Return how one of them is asked."""
    endpoint = Endpoint(endpoints.invocations(name), token=endpoints.token)
    return RequestSpec(CHAT, endpoint.resolve(CHAT.route, {}), policy)


def plan(endpoints: LocalEndpoints, policy: Policy = Policy(), *, raises: bool = False) -> QueryPlan:
    """Return what a worker does where these are known."""
    return QueryPlan(tuple((name, recipe_of(endpoints, name, policy)) for name in NAMES), None, raises)


def batches(*rows: Sequence[tuple[str | None, str | None]]) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Make batches of names and requests."""
    for each in rows:
        names, requests = zip(*each, strict=True)
        yield pa.array(names, pa.string()), pa.array(requests, pa.string())


def answered(chunks: Iterator[list[Result | None]]) -> list[str | None]:
    """Return the texts of all rows."""
    return texts([result for chunk in chunks for result in chunk])


def test_alternating_endpoints_are_asked_at_the_same_time(endpoints: LocalEndpoints) -> None:
    """While one holds its answers the others are asked, many requests at once; rows keep their order and nulls."""
    endpoints.latency_s = 0.02
    rows: list[tuple[str | None, str | None]] = [
        (NAMES[number % 3], None if number % 10 == 7 else f"row {number}") for number in range(300)
    ]
    rows[5] = (None, None)

    assert [request for _, request in rows] == answered(
        plan(endpoints, Policy(max_in_flight=8)).arrow(batches(rows[:100], rows[100:110], rows[110:]))
    )
    assert {8} == {each.max_in_flight for each in endpoints.stats.endpoints.values()}
    assert 24 == endpoints.stats.max_in_flight


def test_a_name_that_comes_late_is_asked_beside_the_others(endpoints: LocalEndpoints) -> None:
    """One name needs no lane; when a second and a third come, they have theirs."""
    rows = [("a" if number < 600 else NAMES[number % 3], f"row {number}") for number in range(1_200)]

    assert [request for _, request in rows] == answered(plan(endpoints).arrow(batches(*[rows])))
    assert {"a", "b", "c"} == set(endpoints.stats.endpoints)


def test_each_row_is_answered_by_the_endpoint_that_it_names(endpoints: LocalEndpoints) -> None:
    """However many names there are: no row goes to another one's endpoint."""
    rows = [(NAMES[number * number % 3], f"{NAMES[number * number % 3]} {number}") for number in range(120)]
    answered(plan(endpoints).arrow(batches(rows)))

    for name in NAMES:
        bodies = [each.body or {} for each in endpoints.requests if each.endpoint == name]
        asked = [body["messages"][0]["content"] for body in bodies]
        assert sorted(request for wanted, request in rows if wanted == name) == sorted(asked)


def test_a_hundred_names_leave_few_engines(endpoints: LocalEndpoints) -> None:
    """They take turns in a bounded number of lanes; what is idle is closed, and the rows keep their order."""
    at_a = recipe_of(endpoints, "a")
    known = tuple(
        (f"n{number}", replace(at_a, route=replace(at_a.route, url=f"{at_a.route.url}?n={number}")))
        for number in range(100)
    )
    rows = [(f"n{number % 100}", f"row {number}") for number in range(200)]
    threads = most = threading.active_count()

    def counted() -> Iterator[list[Result | None]]:
        nonlocal most
        for chunk in QueryPlan(known, None, raises=False).arrow(batches(rows)):
            most = max(most, threading.active_count())
            yield chunk

    assert [request for _, request in rows] == answered(counted())
    assert most - threads <= 4 * (2 * MAX_LANES + IDLE_MOST)
    assert len(ENGINES) <= IDLE_MOST


@pytest.mark.parametrize(("name", "why"), [(None, "its name is null"), ("d", "does not know the endpoint 'd'")])
def test_a_wrong_name_is_found_before_its_slice_is_asked(name: str | None, why: str, endpoints: LocalEndpoints) -> None:
    """With rows of other names before it."""
    with pytest.raises(InputTypeError, match=why):
        answered(plan(endpoints).arrow(batches([("a", "x"), ("b", "y"), (name, "z")])))

    assert 0 == endpoints.stats.requests


def test_a_row_that_fails_raises_where_that_was_asked_for(endpoints: LocalEndpoints) -> None:
    """Whichever lane it is in; nothing stays in flight in the others."""
    endpoints.hold("held")
    known = (("a", recipe_of(endpoints, "a")), ("nobody", recipe_of(endpoints, "nobody")))
    with pytest.raises(RowFailedError, match="not_found"):
        answered(QueryPlan(known, None, raises=True).arrow(batches([("a", "held"), ("nobody", "x")])))

    endpoints.wait_for(lambda stats: stats.in_flight == 0)


def test_a_reader_that_has_enough_ends_all_lanes(endpoints: LocalEndpoints) -> None:
    """A LIMIT costs a few dozen requests, and no thread is left."""
    threads = threading.active_count()
    chunks = plan(endpoints).arrow(batches([(NAMES[number % 3], f"row {number}") for number in range(5_000)]))
    read = 0
    for chunk in chunks:
        read += len(chunk)
        if read >= 5:
            break
    chunks.close()  # type: ignore[attr-defined]

    assert endpoints.stats.requests <= 64
    assert threading.active_count() <= threads + 2 * len(NAMES)
