"""`ai_query` over a column of endpoint names, on the worker's side. Needs no Spark session."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pytest

from spark_llm import Endpoint, Policy
from spark_llm.ai.plans import MAX_LANES, QueryPlan
from spark_llm.engine.registry import ENGINES, MAX_IDLE
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


def spec_of(endpoints: LocalEndpoints, name: str, policy: Policy = Policy()) -> RequestSpec:
    """Return the request spec of one of them."""
    endpoint = Endpoint(endpoints.invocations(name), token=endpoints.token)
    return RequestSpec(CHAT, endpoint.resolve(CHAT.route, {}), policy)


def plan(endpoints: LocalEndpoints, policy: Policy = Policy(), *, raises: bool = False) -> QueryPlan:
    """Return the plan that knows the three endpoints."""
    return QueryPlan(tuple((name, spec_of(endpoints, name, policy)) for name in NAMES), None, raises)


def batches(*rows: Sequence[tuple[str | None, str | None]]) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Yield batches of names and requests."""
    for each in rows:
        names, requests = zip(*each, strict=True)
        yield pa.array(names, pa.string()), pa.array(requests, pa.string())


def texts_of(chunks: Iterator[list[Result | None]]) -> list[str | None]:
    """Return the texts of all rows."""
    return texts([result for chunk in chunks for result in chunk])


@pytest.mark.waits
def test_alternating_endpoints_are_asked_in_parallel(endpoints: LocalEndpoints) -> None:
    """All endpoints have many requests in flight at once; rows keep their order and their nulls."""
    endpoints.latency_s = 0.02
    rows: list[tuple[str | None, str | None]] = [
        (NAMES[number % 3], None if number % 10 == 7 else f"row {number}") for number in range(300)
    ]
    rows[5] = (None, None)

    assert [request for _, request in rows] == texts_of(
        plan(endpoints, Policy(max_in_flight=8)).arrow(batches(rows[:100], rows[100:110], rows[110:]))
    )
    assert {8} == {each.max_in_flight for each in endpoints.stats.endpoints.values()}
    assert 24 == endpoints.stats.max_in_flight


@pytest.mark.waits
def test_a_late_name_gets_a_lane(endpoints: LocalEndpoints) -> None:
    """The first name has one lane; a second and a third name get theirs when they come."""
    rows = [("a" if number < 600 else NAMES[number % 3], f"row {number}") for number in range(1_200)]

    assert [request for _, request in rows] == texts_of(plan(endpoints).arrow(batches(*[rows])))
    assert {"a", "b", "c"} == set(endpoints.stats.endpoints)


def test_each_row_is_answered_by_the_endpoint_that_it_names(endpoints: LocalEndpoints) -> None:
    """No row goes to an endpoint that it does not name."""
    rows = [(NAMES[number * number % 3], f"{NAMES[number * number % 3]} {number}") for number in range(120)]
    texts_of(plan(endpoints).arrow(batches(rows)))

    for name in NAMES:
        bodies = [each.body or {} for each in endpoints.requests if each.endpoint == name]
        contents = [body["messages"][0]["content"] for body in bodies]
        assert sorted(request for wanted, request in rows if wanted == name) == sorted(contents)


@pytest.mark.waits
def test_a_hundred_names_need_few_engines(endpoints: LocalEndpoints) -> None:
    """Names share a bounded number of lanes, idle engines are closed, and rows keep their order."""
    at_a = spec_of(endpoints, "a")
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

    assert [request for _, request in rows] == texts_of(counted())
    assert most - threads <= 4 * (2 * MAX_LANES + MAX_IDLE)
    assert len(ENGINES) <= MAX_IDLE


def test_a_name_of_three_parts_is_a_model_of_the_gateway() -> None:
    """It is asked there, and the workspace's endpoints at their own URLs."""
    models = {name: Echo() for name in ("a", "system.ai.b")}
    with LocalEndpoints(models) as endpoints:
        workspace = spec_of(endpoints, "any")
        found = texts_of(QueryPlan((), workspace, raises=False).arrow(batches([("a", "x"), ("system.ai.b", "y")])))
        paths = {request.path for request in endpoints.requests}

    assert ["x", "y"] == found
    assert {"/serving-endpoints/a/invocations", "/ai-gateway/mlflow/v1/chat/completions"} == paths


@pytest.mark.parametrize(("name", "why"), [(None, "its name is null"), ("d", "does not know the endpoint 'd'")])
def test_a_wrong_name_raises_before_its_slice_is_sent(name: str | None, why: str, endpoints: LocalEndpoints) -> None:
    """No request is sent for the rows in front of it either."""
    with pytest.raises(InputTypeError, match=why):
        texts_of(plan(endpoints, raises=True).arrow(batches([("a", "x"), ("b", "y"), (name, "z")])))

    assert 0 == endpoints.stats.requests


def results_of(asked: QueryPlan, *rows: tuple[str | None, str | None]) -> list[tuple[str | None, str | None]]:
    """Return the text and the message of the error of each row."""
    results = [result for chunk in asked.arrow(batches(rows)) for result in chunk]
    errors = [result.error if result else None for result in results]
    return [(text, error and error.message) for text, error in zip(texts(results), errors, strict=True)]


def test_a_wrong_name_is_its_rows_alone_without_raises(endpoints: LocalEndpoints) -> None:
    """A null name gives a null, and an unknown one the row's error, in front of all others and between them."""
    rows = [(None, "v"), ("d", "w"), ("a", "x"), ("d", "y"), (None, "z"), ("b", "x"), ("d" * 9_000, None)]
    found = results_of(plan(endpoints), *rows)
    unknown = "ai_query does not know the endpoint 'd', and there is no workspace to look it up in. Hint: name one of"

    assert [None, None, "x", None, None, "x", None] == [text for text, _ in found]
    assert [False, True, False, True, False, False, False] == [
        (message or "").startswith(unknown) for _, message in found
    ]
    assert 2 == endpoints.stats.requests
    [(_, alone)] = results_of(plan(endpoints), ("d" * 9_000, "x"))
    assert "the endpoint 'ddd" in (alone or "")
    assert len(alone or "") < 300
    [(_, of_workspace)] = results_of(QueryPlan((), spec_of(endpoints, "a"), raises=False), ("a name?", "x"))
    assert (of_workspace or "").startswith("'a name?' is not an endpoint's name. Hint: register an endpoint")


@pytest.mark.waits
def test_a_failed_row_raises_with_raises(endpoints: LocalEndpoints) -> None:
    """The exception comes from any lane, and nothing stays in flight in the others."""
    endpoints.hold("held")
    known = (("a", spec_of(endpoints, "a")), ("nobody", spec_of(endpoints, "nobody")))
    with pytest.raises(RowFailedError, match="not_found"):
        texts_of(QueryPlan(known, None, raises=True).arrow(batches([("a", "held"), ("nobody", "x")])))

    endpoints.wait_for(lambda stats: stats.in_flight == 0)


def test_a_reader_that_stops_ends_all_lanes(endpoints: LocalEndpoints) -> None:
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
