"""The reranking task: a query and its documents in, the documents with their scores out, the best first.

Wire formats, told by the URL's path and by the first refusal:

- /rerank: `query`, `documents` and `top_n` in; `results` of `index` and `relevance_score` out, as Jina, Cohere (v1 and
  v2), vLLM, LiteLLM and Infinity document them. Voyage answers in `data`, and names `top_n` otherwise.
- /rerank of Text Embeddings Inference: `texts` in place of `documents`, and a bare list of `index` and `score` out.
- /score of vLLM: `text_1` and `text_2` in; `data` of `index` and `score` out.

An input is the JSON of the query and its documents. A document that is null or blank is not sent, and has no score.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from spark_llm.protocol.bodies import request_body
from spark_llm.protocol.failures import failure_of, invalid_response_failure, is_error, json_of
from spark_llm.protocol.fields import count_of, string_of, usage_of
from spark_llm.protocol.json_codec import read_json, write_json
from spark_llm.protocol.task import PLAIN, TEXTS, Task
from spark_llm.protocol.urls import RERANK_ROUTE, SCORE_ROUTE
from spark_llm.protocol.values import Answer, Failure, Item, Outcome, RankedDocument, Response, Result, RowError, Usage

_MISSING_TEXTS = re.compile(r"missing field\W+texts")  # of Text Embeddings Inference
_SCORES = ("relevance_score", "score")


@dataclass(frozen=True)
class Rerank(Task):
    """A reranking task: its parameters as a JSON object, the most documents of a ranking, and its route."""

    parameters: bytes = b"{}"
    top_n: int | None = None
    route: str = RERANK_ROUTE

    name = "rerank"
    repeatable = True  # equal documents have equal scores

    def max_inputs(self, wire_format: int, batch_size: int) -> int:  # noqa: ARG002 -- the protocol's signature
        """Return that a request carries one query."""
        return 1

    def required_features(self, items: Sequence[Item], wire_format: int) -> int:  # noqa: ARG002 -- as above
        """Return the fields `documents` and `top_n`: every answer shows whether the server knows them."""
        return TEXTS | PLAIN

    def fallback_format(self, items: Sequence[Item], wire_format: int, message: str | None) -> int | None:  # noqa: ARG002 -- as above
        """Return the format with `texts` if the message asks for these, else the one without `top_n`."""
        if self.route == SCORE_ROUTE or wire_format & TEXTS:
            return None
        if message is not None and _MISSING_TEXTS.search(message):
            return wire_format | TEXTS
        if self._sends_top_n(wire_format):
            return wire_format | PLAIN
        return wire_format | TEXTS if message is None else None

    def encode(self, items: Sequence[Item], model: str | None, wire_format: int) -> bytes:
        """Write the query, its documents that are not blank, and how many are wanted."""
        query, documents = _read(items[0])
        texts = [documents[index] for index in _sent(documents)]
        if self.route == SCORE_ROUTE:
            fields = {"text_1": query, "text_2": texts}
        else:
            fields = {"query": query, "texts" if wire_format & TEXTS else "documents": texts}
        wanted = {"top_n": self.top_n} if self._sends_top_n(wire_format) else {}
        return request_body(model, self.parameters, write_json(fields | wanted)[1:-1])

    def decode(self, response: Response, count: int, wire_format: int = 0) -> Outcome:  # noqa: ARG002 -- they are read alike
        """Read the scores; each index is still a place among the documents that were sent.

        An index that is missing or comes twice, and a score that is no finite number, are `invalid_response`.
        """
        document = json_of(response)
        if isinstance(document, Failure):
            return document
        fields = document if isinstance(document, dict) else {"results": document}
        entries = fields.get("results", fields.get("data"))
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
            if is_error(fields):
                return failure_of(response)
            return invalid_response_failure(response, "the answer has no results", document)
        ranking = [_ranked(entry) for entry in entries]
        known = [each for each in ranking if each is not None]
        usage = _usage_of(fields)
        if len({each["index"] for each in known}) < len(entries):
            failure = invalid_response_failure(response, "the results have not each an index of their own and a score")
            return Failure(failure.error, usage=usage)
        return Answer([Result(ranking=known, model=string_of(fields.get("model")))], usage)

    def parse_output(self, outcome: Outcome, items: Sequence[Item], wire_format: int) -> Outcome:
        """Return the ranking of the row's own documents, with their texts; that of a cached answer is in its text.

        A ranking with another document than those that were sent, or with fewer than were asked for, is
        `invalid_response`.
        """
        if not isinstance(outcome, Answer):
            return outcome
        _, documents = _read(items[0])
        [result] = outcome.results
        if result.text is not None:
            scores = dict(read_json(result.text.encode()))
        else:
            sent, places = _sent(documents), {each["index"]: each["score"] for each in result.ranking or ()}
            wanted = len(sent) if self.top_n is None else min(self.top_n, len(sent))
            expected = wanted if self._sends_top_n(wire_format) else len(sent)
            if len(places) < expected or max(places) >= len(sent):
                message = f"{len(places)} results, up to index {max(places)}, for {len(sent)} documents"
                error = RowError("invalid_response", 200, message, retryable=True)
                return Failure(error, usage=outcome.usage, served=True)
            scores = {sent[place]: score for place, score in places.items()}
        best = sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))[: self.top_n]
        result.text = None
        result.ranking = [{"index": index, "score": score, "text": documents[index]} for index, score in best]
        return outcome

    def _sends_top_n(self, wire_format: int) -> bool:
        return self.top_n is not None and self.route == RERANK_ROUTE and not wire_format & (PLAIN | TEXTS)


def rerank_item(query: str | None, documents: Sequence[str | None] | None) -> bytes | Result | None:
    """Return the input of a row; None where the query is null or blank or the array is null.

    Without a document that is not blank there is nothing to ask: its result is an empty ranking.
    """
    if query is None or documents is None or not query.strip():
        return None
    return write_json([query, documents]) if _sent(documents) else Result(ranking=[])


def ranking_text(ranking: Sequence[RankedDocument]) -> str:
    """Return the indexes and scores of a ranking as JSON, of which `parse_output` makes it again."""
    return write_json(list(map(itemgetter("index", "score"), ranking))).decode()


def _read(item: Item) -> tuple[str, list[Any]]:
    query, documents = read_json(item)  # type: ignore[arg-type]  # rows are bytes
    return query, documents


def _sent(documents: Sequence[str | None]) -> list[int]:
    """Return the indexes of the documents that are sent."""
    return [index for index, text in enumerate(documents) if text is not None and text.strip()]


def _ranked(entry: dict[str, Any]) -> RankedDocument | None:
    """Return one result, still without its text; None where it is not readable."""
    index = count_of(entry.get("index"))
    score = next((entry[name] for name in _SCORES if name in entry), None)
    if index is None or isinstance(score, bool) or not isinstance(score, (int, float)):
        return None
    try:
        number = float(score)
    except OverflowError:
        return None
    return {"index": index, "score": number, "text": None} if math.isfinite(number) else None


def _usage_of(fields: dict[str, Any]) -> Usage | None:
    """Return the tokens that an answer reports: in `usage`, or in Cohere's `meta`, whose search units are no tokens."""
    meta = fields.get("meta")
    reports = [meta.get("tokens"), meta.get("billed_units")] if isinstance(meta, dict) else []
    found = (usage_of({"usage": report}) for report in (fields.get("usage"), *reports))
    return next((usage for usage in found if usage is not None), None)
