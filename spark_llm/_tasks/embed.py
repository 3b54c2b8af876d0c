"""The embedding task: many texts in one request, one vector for each.

Wire format: the OpenAI embeddings request and response, as Databricks Model Serving documents them, with `instruction`
as Databricks' hosted models take it. Vectors are asked for in base64, which is a quarter of the bytes and needs no
parsing of numbers; a server that does not know the field may answer with numbers, or refuse it, and is then asked
without it. Vectors stay bytes (float32, little-endian) all the way to Arrow.
"""

import math
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from spark_llm._tasks._failure import document_of
from spark_llm._tasks._wire import body, count_of, header_of, not_an_answer, string_of, usage_of, write_json
from spark_llm._values import Answer, Failure, Item, Outcome, Response, Result, RowError

_NOT_FINITE = RowError("invalid_response", 200, "the vector holds NaN or an infinite number", retryable=True)


@dataclass(frozen=True)
class Embed:
    """Texts to embed: the parameters as a JSON object."""

    parameters: bytes = b"{}"

    name = "embed"
    route = "/embeddings"
    dialects = 2
    repeatable = True  # a vector is not drawn by chance

    def most_inputs(self, dialect: int, batch_size: int) -> int:  # noqa: ARG002 -- both forms carry lists
        """Say that a request carries as many texts as the user allows."""
        return batch_size

    def proves(self, dialect: int, count: int) -> bool:  # noqa: ARG002 -- one text is a list too
        """Say that every answer proves its form: the vectors came as they were asked for, or could be read."""
        return True

    def costs_nothing(self, item: Item) -> bool:
        """Say that a blank text is never sent: it has no meaning, and many servers refuse it."""
        return not isinstance(item, str) or not item.strip()

    def encode(self, items: Sequence[Item], model: str | None, dialect: int) -> bytes:
        """Write the texts; the first dialect asks for base64, the second leaves the form to the server."""
        chosen = dialect > 0 or b'"encoding_format":' in self.parameters
        return body(
            model,
            self.parameters,
            (b"" if chosen else b'"encoding_format":"base64",') + b'"input":' + write_json(items),
        )

    def decode(self, response: Response, count: int) -> Outcome:
        """Read the vectors by their `index`; a missing, doubled, empty or uneven one is `invalid_response`.

        So is one that holds NaN or infinity, and then for its row alone: its neighbours' are as good as ever.
        """
        document = document_of(response, "data")
        if isinstance(document, Failure):
            return document
        vectors = _in_order(document["data"], count)
        if isinstance(vectors, str):
            return not_an_answer(response, vectors, document)
        model = string_of(document.get("model")) or header_of(response, "served-model-name")
        results = [
            Result(embedding=vector, model=model) if _is_finite(vector) else Result(model=model, error=_NOT_FINITE)
            for vector in vectors
        ]
        if all(result.error for result in results):
            return not_an_answer(response, _NOT_FINITE.message, document)
        return Answer(results, usage_of(document))

    def typed(self, outcome: Outcome, items: Sequence[Item], dialect: int) -> Outcome:  # noqa: ARG002 -- the protocol's signature
        """Return the outcome: vectors are all that is asked for."""
        return outcome

    def again(self, item: Item, result: Result) -> Item:  # noqa: ARG002 -- the protocol's signature
        """Return the item: nothing is asked for that an answer could miss."""
        return item


def _in_order(data: list[dict[str, Any]], count: int) -> list[bytes] | str:
    """Return one vector for each input, in the inputs' order, or what is wrong in words."""
    if len(data) != count:
        return f"{len(data)} vectors for {count} inputs"
    vectors: list[bytes | None] = [None] * count
    for position, entry in enumerate(data):
        index = count_of(entry.get("index", position))
        if index is None or index >= count or vectors[index] is not None:
            return f"the vectors' indexes are not 0 to {count - 1}, each once"
        vector = _vector(entry.get("embedding"))
        if vector is None:
            return f"vector {index} is neither numbers nor base64 of float32"
        vectors[index] = vector
    whole = [vector for vector in vectors if vector]
    if len(whole) != count or len({len(vector) for vector in whole}) != 1:
        return "the vectors are empty or differ in length"
    return whole


def _vector(value: object) -> bytes | None:
    """Return a vector's float32 bytes from base64 or from a list of numbers; None for anything else."""
    try:
        if isinstance(value, str):
            raw: bytes = msgspec.convert(value, bytes)  # base64, five times as fast as the standard library's
            return raw if len(raw) % 4 == 0 else None
        if isinstance(value, list):
            floats = array("f", value)
            if sys.byteorder == "big":
                floats.byteswap()
            return floats.tobytes()
    except (ValueError, TypeError, OverflowError, msgspec.ValidationError):
        return None
    return None


def _is_finite(vector: bytes) -> bool:
    """Return whether every number is one; only those whose highest byte is 7F or FF have to be looked at."""
    highest = vector[3::4]
    if 0x7F not in highest and 0xFF not in highest:
        return True
    floats = array("f", vector)
    if sys.byteorder == "big":
        floats.byteswap()
    return math.isfinite(sum(floats))  # in float64, where no sum of float32 overflows
