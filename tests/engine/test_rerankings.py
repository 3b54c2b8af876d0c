"""Rows of a reranker through the engine: one request each, in the dialect that the server knows; no Spark."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.protocol.rerank import Rerank, rerank_item
from spark_llm.protocol.urls import SCORE_ROUTE
from spark_llm.protocol.values import Result, Row, Usage
from spark_llm.serving import Echo, Faults, LocalEndpoints
from tests.support.asking import ask, engine_at, kinds
from tests.support.scripted_server import Received, Sent, scripted_server

FAST = Policy(max_tries=3)
ALL = Rerank()
WORDS = ("red", "red fox", "a dog", "the red fox")


def rows(count: int) -> list[Row]:
    """Return rows whose second document is the best, and whose first is null."""
    return [rerank_item(f"red fox {number}", [None, f"a red fox {number}", "dog", "fox"]) for number in range(count)]


def rerank(
    endpoints: LocalEndpoints, asked: Sequence[Row], task: Rerank = ALL, policy: Policy = FAST
) -> list[Result | None]:
    """Return the results of rows at the local endpoint for embeddings."""
    endpoint = Endpoint(f"{endpoints.url}/v1", model="embed", token=endpoints.token)
    return ask(engine_at(endpoint, policy, task), [asked], task)


def indexes(results: Sequence[Result | None]) -> list[list[int] | None]:
    """Return the indexes of each ranking."""
    return [
        None if result is None or result.ranking is None else [each["index"] for each in result.ranking]
        for result in results
    ]


@pytest.mark.parametrize("route", ["/rerank", SCORE_ROUTE])
def test_each_row_is_one_request_and_gets_its_own_ranking(endpoints: LocalEndpoints, route: str) -> None:
    """In order, with the texts of its own documents; tokens add up to the server's."""
    results = rerank(endpoints, rows(50), Rerank(route=route))
    usage = [result.usage for result in results if result is not None and result.usage is not None]

    assert [[1, 3, 2]] * 50 == indexes(results)
    assert [f"a red fox {number}" for number in range(50)] == [
        result.ranking[0]["text"] for result in results if result is not None and result.ranking
    ]
    assert 50 == endpoints.stats.requests
    assert endpoints.stats.total_tokens == sum(each.total_tokens or 0 for each in usage) > 0


def test_what_asks_nothing_has_its_result_at_once(endpoints: LocalEndpoints) -> None:
    """A null stays null, an array without texts gives an empty ranking, and neither is a request."""
    asked = [rerank_item(None, ["a"]), rerank_item("q", []), rerank_item("q", [None, " "]), rerank_item("a", ["a"])]
    results = rerank(endpoints, asked)

    assert [None, [], [], [0]] == indexes(results)
    assert [0, 0, 1] == [result.attempts for result in results if result is not None]
    assert 1 == endpoints.stats.requests


def test_equal_rows_are_asked_once(endpoints: LocalEndpoints) -> None:
    """Each has the ranking, and the first has the tokens; another order of the documents is another row."""
    one, other = rerank_item("red", WORDS), rerank_item("red", WORDS[::-1])
    results = rerank(endpoints, [one, other] * 20)

    assert [[0, 1, 3, 2], [0, 2, 3, 1]] * 20 == indexes(results)
    assert 2 == endpoints.stats.requests
    assert endpoints.stats.total_tokens == sum(
        result.usage.total_tokens or 0 for result in results if result is not None and result.usage is not None
    )


@pytest.mark.waits
@pytest.mark.parametrize("fault", ["cut", "half", "garbage", "errorbody", "empty", "503@0.01", "429@0.01"])
def test_a_fault_is_tried_again(endpoints: LocalEndpoints, fault: str) -> None:
    """The row is answered by the second request; tokens of an answer without scores count too."""
    endpoints.faults = Faults(fault)
    results = rerank(endpoints, rows(2))

    assert [[1, 3, 2]] * 2 == indexes(results)
    assert 3 == endpoints.stats.requests
    assert endpoints.stats.total_tokens == sum(
        result.usage.total_tokens or 0 for result in results if result is not None and result.usage is not None
    )


def test_more_documents_than_the_server_takes_are_the_rows_error(endpoints: LocalEndpoints) -> None:
    """The others are answered."""
    results = rerank(endpoints, [*rows(2), rerank_item("q", [f"word {number}" for number in range(1_001)])])

    assert [None, None, "invalid_request"] == kinds(results)
    assert [[1, 3, 2], [1, 3, 2], None] == indexes(results)


def test_top_n_is_left_out_where_the_server_refuses_it() -> None:
    """Three rows show it; the rest is asked without, and every ranking is cut."""
    with LocalEndpoints({"embed": Echo(refuse_fields=("top_n",))}) as endpoints:
        results = rerank(endpoints, rows(40), Rerank(top_n=2))

        assert [[1, 3]] * 40 == indexes(results)
        assert endpoints.stats.requests <= 43
        assert [True, False] == ["top_n" in (endpoints.requests[number].body or {}) for number in (0, -1)]


def tei(request: Received) -> Sent:
    """Answer as Text Embeddings Inference does: it wants `texts`, and scores them by their length."""
    if "texts" not in request.json:
        message = b"Failed to deserialize the JSON body into the target type: missing field `texts` at line 1 column 9"
        return Sent(422, message, {"content-type": "text/plain; charset=utf-8"})
    scores = [{"index": index, "score": len(text) / 64} for index, text in enumerate(request.json["texts"])]
    return Sent(200, sorted(scores, key=lambda each: -each["score"]))


def test_text_embeddings_inference_gets_texts() -> None:
    """Its first refusals say so; its answers report no tokens."""
    with scripted_server(tei) as server:
        task = Rerank(top_n=2)
        results = ask(engine_at(Endpoint(f"{server.url}/rerank"), FAST, task), [rows(30)], task)

        assert [[1, 2]] * 30 == indexes(results)
        assert [None] * 30 == kinds(results)
        assert {None} == {result.usage for result in results if result is not None}
        assert len(server.requests) <= 33


@pytest.mark.waits
@pytest.mark.parametrize(
    "results",
    [
        [{"index": 0, "relevance_score": 0.5}],
        [{"index": number % 2, "relevance_score": 0.5} for number in range(3)],
        [{"index": number + 1, "relevance_score": 0.5} for number in range(3)],
        [{"index": number, "relevance_score": float("nan")} for number in range(3)],
    ],
    ids=["fewer", "twice", "out of range", "NaN"],
)
def test_a_wrong_ranking_is_tried_again_and_then_the_rows_error(results: list[dict[str, Any]]) -> None:
    """Its tokens count: they were billed."""
    body = json.dumps({"results": results, "usage": {"total_tokens": 5}}).encode()
    with scripted_server(lambda _: Sent(200, body)) as server:
        [result] = ask(engine_at(Endpoint(f"{server.url}/rerank"), FAST, Rerank()), [rows(1)], Rerank())

        assert result is not None
        assert ["invalid_response"] == kinds([result])
        assert (3, Usage(total_tokens=15)) == (len(server.requests), result.usage)


def test_a_cached_ranking_costs_nothing(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """It is the same again; another `top_n` is another request."""
    policy = Policy(cache=str(tmp_path))
    first = rerank(endpoints, rows(5), policy=policy)
    again = rerank(endpoints, rows(5), policy=policy)
    few = rerank(endpoints, rows(5), Rerank(top_n=1), policy)

    assert [result.ranking for result in first if result] == [result.ranking for result in again if result]
    assert [[1]] * 5 == indexes(few)
    assert 10 == endpoints.stats.requests


def test_a_cached_ranking_has_the_places_of_its_own_row(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """Rows that differ by a null alone send the same documents, from other places."""
    policy = Policy(cache=str(tmp_path))
    found = [
        rerank(endpoints, [rerank_item("red", documents)], policy=policy) for documents in ([None, "red"], ["red"])
    ]

    assert [[[1]], [[0]]] == list(map(indexes, found))
