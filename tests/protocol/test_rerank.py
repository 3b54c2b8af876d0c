"""The reranking task: a query and documents in, the best documents out, and its reading of any response."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.rerank import Rerank, ranking_text, rerank_item
from spark_llm.protocol.task import PLAIN, TEXTS
from spark_llm.protocol.urls import SCORE_ROUTE
from spark_llm.protocol.values import Answer, Failure, Outcome, Response, Result, Usage
from tests.support.strategies import JSON, REPLIES, STATUSES, plain
from tests.support.strategies import TEXTS as ANY_TEXTS

DOCUMENTS = st.lists(st.none() | st.sampled_from(["", " \n"]) | ANY_TEXTS, min_size=1, max_size=8)
QUERIES = ANY_TEXTS.filter(str.strip)
SCORES = st.sampled_from([0.0, 0.5, 1.0]) | st.floats(allow_nan=False, allow_infinity=False)
ROUTES = ["/rerank", SCORE_ROUTE]
FEW = ["a", None, "b", " ", "c"]


def item_of(query: str, documents: Sequence[str | None]) -> bytes:
    """Return the input of a row that asks something."""
    item = rerank_item(query, documents)
    assert isinstance(item, bytes)
    return item


def sent(task: Rerank, item: bytes, wire_format: int = 0, model: str | None = None) -> dict[str, Any]:
    """Return the fields of a request."""
    fields: dict[str, Any] = json.loads(task.encode([item], model, wire_format))
    return fields


def read(task: Rerank, item: bytes, document: object, wire_format: int = 0) -> Outcome:
    """Read a response of 200."""
    outcome = task.decode(Response(200, json.dumps(document).encode()), 1, wire_format)
    return task.parse_output(outcome, [item], wire_format)


def ranking_of(outcome: Outcome) -> list[Any] | str:
    """Return the ranking as tuples of index, score and text, or the error's kind."""
    if isinstance(outcome, Failure):
        return outcome.error.kind
    return [tuple(each.values()) for each in outcome.results[0].ranking or ()]


def has_text(document: str | None) -> bool:
    """Return whether a document is sent."""
    return document is not None and bool(document.strip())


@given(QUERIES, DOCUMENTS, st.none() | ANY_TEXTS, st.sampled_from([0, PLAIN, TEXTS]), st.none() | st.integers(1, 9))
def test_the_documents_with_text_are_sent_in_order(
    query: str, documents: list[str | None], model: str | None, wire_format: int, top_n: int | None
) -> None:
    """Any texts give JSON with exactly those that are not null or blank; a row without any asks nothing."""
    texts = [plain(text) for text in documents if text is not None and text.strip()]
    item = rerank_item(query, documents)
    if not texts:
        assert Result(ranking=[]) == item
        return
    assert isinstance(item, bytes)
    named = {} if model is None else {"model": plain(model)}
    wanted = {"top_n": top_n} if top_n is not None and wire_format == 0 else {}
    name = "texts" if wire_format == TEXTS else "documents"

    assert named | {"query": plain(query), name: texts} | wanted == sent(Rerank(top_n=top_n), item, wire_format, model)
    score = Rerank(top_n=top_n, route=SCORE_ROUTE)
    assert named | {"text_1": plain(query), "text_2": texts} == sent(score, item, wire_format, model)


@pytest.mark.parametrize(("query", "documents"), [(None, ["a"]), ("a", None), (" \n", ["a"]), (None, []), ("", [])])
def test_a_row_without_a_query_or_an_array_is_null(query: str | None, documents: list[str | None] | None) -> None:
    """It asks nothing."""
    assert rerank_item(query, documents) is None


@given(st.data(), DOCUMENTS.filter(lambda each: any(map(has_text, each))), st.none() | st.integers(1, 9))
def test_scores_in_any_order_give_the_best_documents_first(
    data: st.DataObject, documents: list[str | None], top_n: int | None
) -> None:
    """Each has its own place, its text and its score; equal scores are in the given order; nulls are not ranked."""
    places = [place for place, text in enumerate(documents) if has_text(text)]
    scores = data.draw(st.lists(SCORES, min_size=len(places), max_size=len(places)))
    task, item = Rerank(top_n=top_n), item_of("q", documents)
    results = [{"index": number, "relevance_score": score} for number, score in enumerate(scores)]
    found = read(task, item, {"results": data.draw(st.permutations(results))})
    best = sorted(zip(places, scores, strict=True), key=lambda each: (-each[1], each[0]))[:top_n]

    assert [(place, score, plain(documents[place] or "")) for place, score in best] == ranking_of(found)


@given(st.data(), st.integers(1, 6), st.sampled_from(ROUTES), st.sampled_from([0, PLAIN]))
def test_an_answer_without_one_of_the_scores_is_none(
    data: st.DataObject, count: int, route: str, wire_format: int
) -> None:
    """A missing, doubled or strange index and a score that is no finite number are tried again."""
    results: list[dict[str, Any]] = [{"index": number, "score": number / 8} for number in range(count)]
    field = "data" if route == SCORE_ROUTE else "results"
    task, item = Rerank(route=route), item_of("q", [str(number) for number in range(count)])
    at = data.draw(st.integers(0, count - 1))
    strange_index = st.sampled_from([count, -1, None, "0", 0.5, True, (at + 1) % count if count > 1 else count])
    strange_score = st.sampled_from([float("nan"), float("inf"), None, "0.5", True, 10**400, [0.5]])
    how = data.draw(st.sampled_from(["drop", "index", "score", "double"]))
    if how == "drop":
        del results[at]
    elif how == "double":
        results.append(results[at])
    else:
        results[at][how] = data.draw(strange_index if how == "index" else strange_score)

    assert "invalid_response" == ranking_of(read(task, item, {field: results}, wire_format))


@pytest.mark.parametrize(
    ("top_n", "wire_format", "results", "expected"),
    [
        (2, 0, 2, [0, 2]),
        (2, 0, 3, [0, 2]),  # the server ignores it
        (2, 0, 1, "invalid_response"),
        (2, PLAIN, 3, [0, 2]),  # it is not sent
        (2, PLAIN, 2, "invalid_response"),
        (2, TEXTS, 2, "invalid_response"),
        (9, 0, 3, [0, 2, 4]),
        (9, 0, 2, "invalid_response"),
        (None, 0, 2, "invalid_response"),
    ],
)
def test_top_n_is_how_many_are_returned(
    top_n: int | None, wire_format: int, results: int, expected: list[int] | str
) -> None:
    """The server may return more and the rest is cut off; it has to return as many as were asked for."""
    document = {"results": [{"index": number, "relevance_score": -number} for number in range(results)]}
    found = ranking_of(read(Rerank(top_n=top_n), item_of("q", FEW), document, wire_format))

    assert expected == (found if isinstance(found, str) else [index for index, *_ in found])


@pytest.mark.parametrize(
    ("document", "usage"),
    [
        ({"usage": {"total_tokens": 7}}, Usage(total_tokens=7)),
        ({"usage": {"prompt_tokens": 7, "total_tokens": 7}}, Usage(prompt_tokens=7, total_tokens=7)),
        ({"meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}}, None),
        ({"meta": {"billed_units": {"total_tokens": 7}}}, Usage(total_tokens=7)),
        (
            {"meta": {"tokens": {"input_tokens": 6, "output_tokens": 0}, "billed_units": {"search_units": 1}}},
            Usage(6, 0, 6),
        ),
        ({"meta": [1], "usage": "7"}, None),
        ({}, None),
    ],
)
def test_tokens_are_those_that_the_server_reports(document: dict[str, Any], usage: Usage | None) -> None:
    """Search units are none, and nothing is made up; they count where the answer is unusable too."""
    scores: list[dict[str, Any]] = [{"index": number, "relevance_score": 0.5} for number in range(3)]
    answer = read(Rerank(), item_of("q", FEW), {"results": scores, **document})
    failures = [read(Rerank(), item_of("q", FEW), {"results": each, **document}) for each in (scores[:2], scores * 2)]

    assert isinstance(answer, Answer)
    assert [usage] * 3 == [answer.usage, *(failure.usage for failure in failures)]
    assert [Failure, Failure] == list(map(type, failures))


def test_a_refusal_leads_to_the_format_that_the_server_knows() -> None:
    """Text Embeddings Inference asks for `texts`; any other refusal is tried without `top_n`, where it was sent."""
    item, missing = [item_of("q", ["a"])], "Failed to deserialize the JSON body: missing field `texts` at line 1"
    plain_task, few, score = Rerank(), Rerank(top_n=1), Rerank(top_n=1, route=SCORE_ROUTE)

    assert [TEXTS, None] == [plain_task.fallback_format(item, each, missing) for each in (0, TEXTS)]
    assert [TEXTS, PLAIN | TEXTS] == [few.fallback_format(item, each, missing) for each in (0, PLAIN)]
    assert [PLAIN, None] == [few.fallback_format(item, each, "top_n?") for each in (0, PLAIN)]
    assert [None, None] == [task.fallback_format(item, 0, "no") for task in (plain_task, score)]
    assert [TEXTS, PLAIN] == [task.fallback_format(item, 0, None) for task in (plain_task, few)]


def test_parameters_are_sent_and_a_request_carries_one_row() -> None:
    """They stand beside the query."""
    task = Rerank(encode_parameters({}, {"truncate": True}), 2)

    assert {"model": "m", "truncate": True, "query": "q", "documents": ["a", "b", "c"], "top_n": 2} == sent(
        task, item_of("q", FEW), model="m"
    )
    assert 1 == task.max_inputs(0, 64)


@given(st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=6), st.none() | st.integers(1, 6))
def test_a_kept_ranking_is_the_same_again(scores: list[tuple[float, bool]], top_n: int | None) -> None:
    """Its indexes and scores are kept; the row has the texts."""
    documents = [str(number) if known else None for number, (_, known) in enumerate(scores)] + ["last"]
    task, item = Rerank(top_n=top_n), item_of("q", documents)
    known = [score for score, known in scores if known] + [0.25]
    results = [{"index": number, "relevance_score": score} for number, score in enumerate(known)]
    outcome = read(task, item, {"results": results})
    assert isinstance(outcome, Answer)
    kept = Answer([Result(ranking_text(outcome.results[0].ranking or []))], None)

    assert ranking_of(outcome) == ranking_of(task.parse_output(kept, [item], PLAIN))
    assert kept.results[0].text is None


@given(REPLIES | JSON, STATUSES, st.sampled_from(ROUTES), st.none() | st.integers(1, 3))
def test_any_response_is_read(document: object, status: int, route: str, top_n: int | None) -> None:
    """It is a ranking of the row's documents, with as many as are wanted, or a failure of a known kind."""
    task, item = Rerank(top_n=top_n, route=route), item_of("q", FEW)
    response = Response(status, json.dumps(document).encode("utf-8", "surrogatepass"))
    outcome = task.parse_output(task.decode(response, 1), [item], 0)

    if isinstance(outcome, Failure):
        assert outcome.error.kind in KINDS
    else:
        ranking = outcome.results[0].ranking or []
        assert min(top_n or 3, 3) == len(ranking)
        assert {each["text"] for each in ranking} <= {"a", "b", "c"}
        assert [each["text"] for each in ranking] == [FEW[each["index"]] for each in ranking]


@pytest.mark.parametrize("document", [{"results": []}, [], {}, {"results": {}}, {"results": [1]}, "no", None])
def test_an_answer_without_results_is_invalid(document: object) -> None:
    """The message shows what came."""
    assert "invalid_response" == ranking_of(read(Rerank(), item_of("q", ["a"]), document))


def test_an_error_under_200_is_an_error() -> None:
    """It has its own kind."""
    body: Mapping[str, object] = {"error": {"message": "Rate limit exceeded", "code": 429}}

    assert "rate_limited" == ranking_of(read(Rerank(), item_of("q", ["a"]), body))
