"""Rows of a custom model through the engine: packed, split down to the bad row, answered in their order; no Spark."""

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.protocol.predictions.task import Predict
from spark_llm.protocol.structured.schema import Nullable, Number, Scalar
from spark_llm.protocol.values import Item, Result
from tests.support.asking import ask, engine_at, kinds
from tests.support.scoring_server import TRACE, RefusedError, ScoringServer, scoring_server

DOUBLE = Predict(Nullable(Scalar("double")), columns=("x",))


def rows(count: int) -> list[Item | None]:
    """Return so many different rows."""
    return [b"[%d]" % number for number in range(count)]


def doubled(frame: list[Any]) -> list[float]:
    """Predict twice the number of each row; refuse any that is below 0."""
    if bad := [row["x"] for row in frame if row["x"] < 0]:
        raise RefusedError(f"row {bad[0]} is below 0")
    return [2.0 * row["x"] for row in frame]


@pytest.fixture
def served() -> Iterator[ScoringServer]:
    """A server of `doubled`."""
    with scoring_server(doubled) as running:
        yield running


def predict(
    server: ScoringServer,
    asked: Sequence[Item | None],
    task: Predict = DOUBLE,
    **policy: Any,  # noqa: ANN401 -- of a policy
) -> list[Result | None]:
    """Return the results of rows."""
    return ask(engine_at(Endpoint(server.url), Policy(**policy), task), [asked], task)


def predictions(results: Sequence[Result | None]) -> list[Any]:
    """Return the predictions of results."""
    return [None if result is None else result.prediction for result in results]


def test_each_row_gets_its_own_prediction_in_order(served: ScoringServer) -> None:
    """A thousand rows and a null; the model's name, one attempt, and no tokens."""
    asked = rows(1_000)
    results = predict(served, [*asked[:500], None, *asked[500:]])

    assert [*(2.0 * row for row in range(500)), None, *(2.0 * row for row in range(500, 1_000))] == predictions(results)
    assert {("score-1", 1, None, None)} == {
        (each.model, each.attempts, each.usage, each.error) for each in results if each
    }
    assert len(served.requests) == sum(each.requests for each in results if each) < 20


def test_requests_hold_as_many_rows_as_the_policy_says(served: ScoringServer) -> None:
    """Up to `batch_size`, and up to so many bytes."""
    predict(served, rows(2_000), batch_size=100)
    by_count = max(map(len, served.requests))
    served.requests.clear()
    served.bodies.clear()
    predict(served, rows(2_000), max_request_mb=0.002)

    assert 100 == by_count
    assert 2_000 < max(map(len, served.bodies)) <= 0.002 * 2**20


def test_a_reader_of_a_few_rows_pays_for_a_few(served: ScoringServer) -> None:
    """A LIMIT ends the stream after its first results: at most 128 rows of 5,000 were sent."""
    results = engine_at(Endpoint(served.url), Policy(), DOUBLE).stream(DOUBLE, iter([rows(5_000)]))
    first = [result for chunk in (next(results), next(results)) for result in chunk]
    results.close()  # type: ignore[attr-defined]  # a generator

    assert [0.0, 2.0, 4.0] == predictions(first)[:3]
    assert sum(map(len, served.requests)) <= 128


def test_the_last_results_have_their_flush_before_them(served: ScoringServer) -> None:
    """A reader with enough shows at that flush; one after the end would let it go while the worker ends."""
    at_once = list(engine_at(Endpoint(served.url), Policy(), DOUBLE).stream(DOUBLE, iter([rows(20)])))
    chunks = list(engine_at(Endpoint(served.url), Policy(), DOUBLE).stream(DOUBLE, iter([rows(300)])))

    assert [20] == [len(chunk) for chunk in at_once]
    assert [] == chunks[-2]
    assert [] != chunks[-1]


@pytest.mark.waits
def test_a_full_read_has_full_requests(served: ScoringServer) -> None:
    """After a few doublings a request carries the 5,000 rows that it may: a large table takes few requests."""
    results = engine_at(Endpoint(served.url), Policy(), DOUBLE).stream(
        DOUBLE, iter([rows(100_000)[at : at + 10_000] for at in range(0, 100_000, 10_000)])
    )
    answered = sum(map(len, results))
    sizes = sorted(map(len, served.requests), reverse=True)

    assert 100_000 == answered
    assert [5_000] * 15 == sizes[:15]
    assert len(sizes) <= 35


@pytest.mark.waits
@pytest.mark.parametrize("bad", [[0], [499], [250], [7, 8, 400]])
def test_a_bad_row_of_500_fails_alone(served: ScoringServer, bad: list[int]) -> None:
    """Its request is split until it stands alone; the others get their predictions, in order, and no stack trace."""
    asked = [b"[-1]" if number in bad else row for number, row in enumerate(rows(500))]
    results = predict(served, asked, dedupe=False)
    errors = [each.error for each in results if each is not None and each.error is not None]

    assert [None if number in bad else 2.0 * number for number in range(500)] == predictions(results)
    assert ["invalid_request"] * len(bad) == [error.kind for error in errors]
    assert all(error.message.startswith("row -1 is below 0") for error in errors)
    assert "hidden" not in repr(results)
    assert len(served.requests) == sum(each.requests for each in results if each) <= 12 + len(bad) * (1 + 2 * 9)


def test_a_refused_size_is_split() -> None:
    """A server that answers 413 beyond 64 rows gets smaller requests, and every row its prediction."""

    def small(frame: list[Any]) -> list[float]:
        if len(frame) > 64:
            raise RefusedError("Request Entity Too Large", 413)
        return doubled(frame)

    with scoring_server(small) as server:
        results = predict(server, rows(1_000))

    assert [2.0 * row for row in range(1_000)] == predictions(results)


def test_a_request_that_is_wrong_for_all_rows_stops() -> None:
    """A model that misses a column refuses every row with one message: the task stops after ten requests at most."""

    def strict(frame: list[Any]) -> list[float]:
        raise RefusedError("Model is missing inputs ['y'].")

    with scoring_server(strict) as server:
        results = predict(server, rows(3_000))

    assert len(server.requests) <= 10
    assert {"invalid_request", "cancelled"} == set(kinds(results))


@pytest.mark.waits
@pytest.mark.parametrize(("short", "kind"), [(1, None), (1_000, "invalid_response")])
def test_fewer_predictions_than_rows_are_tried_again(short: int, kind: str | None) -> None:
    """One too few, and then the right number: no row is lost; if it stays so it is the rows' error."""
    calls: list[int] = []

    def forgetful(frame: list[Any]) -> list[float]:
        calls.append(len(frame))
        return doubled(frame)[: None if len(calls) > short else -1]

    with scoring_server(forgetful) as server:
        results = predict(server, rows(3), max_tries=2)

    assert [kind] * 3 == kinds(results)
    assert 2 <= len(server.requests) <= 2 + 2 * 3  # together, and then each row alone


def test_nan_and_infinity_are_read_without_another_attempt() -> None:
    """MLflow writes them bare; the answer costs one request."""
    values = [math.nan, math.inf, -math.inf, 1.5]
    with scoring_server(lambda frame: values) as server:
        results = predict(server, rows(4))

    assert repr(values) == repr(predictions(results))
    assert 1 == len(server.requests)


def test_a_prediction_that_does_not_fit_is_its_rows_error_and_not_asked_again() -> None:
    """A word among numbers is that row's `schema_mismatch`, whatever `reask` allows."""
    with scoring_server(lambda frame: [1.0, "none", 3.0]) as server:
        results = predict(server, rows(3), reask=5)

    assert [None, "schema_mismatch", None] == kinds(results)
    assert [1.0, None, 3.0] == predictions(results)
    assert 1 == len(server.requests)


def test_equal_rows_are_sent_once(served: ScoringServer) -> None:
    """Unless the policy says otherwise."""
    asked = [b"[%d]" % (number % 7) for number in range(300)]

    assert [2.0 * (number % 7) for number in range(300)] == predictions(predict(served, asked))
    assert 7 == sum(map(len, served.requests))
    predict(served, asked, dedupe=False)
    assert 307 == sum(map(len, served.requests))


def test_answers_are_cached_with_all_their_digits(tmp_path: Path) -> None:
    """Another task finds decimals, NaN and nulls as they were, and sends no request; another type asks again."""
    values = [0.1, math.nan, None, -0.0]
    exact = Predict(Nullable(Number(38, 20)))
    with scoring_server(lambda frame: values[: len(frame)]) as server:
        first, second = (predictions(predict(server, rows(4), cache=str(tmp_path))) for _ in range(2))
        requests = len(server.requests)
        decimals = predictions(predict(server, [b"[0]"], exact, cache=str(tmp_path)))
        again = predictions(predict(server, [b"[0]"], exact, cache=str(tmp_path)))

    assert repr(values) == repr(first) == repr(second)
    assert (1, 2) == (requests, len(server.requests))
    assert repr(decimals) == repr(again) == "[Decimal('0.10000000000000000000')]"


def test_a_stack_trace_is_in_no_log(served: ScoringServer, caplog: pytest.LogCaptureFixture) -> None:
    """Not at any level."""
    with caplog.at_level(logging.DEBUG):
        predict(served, [b"[-1]", b"[1]"])

    assert "hidden" in TRACE
    assert "hidden" not in caplog.text
