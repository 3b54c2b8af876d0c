"""The embedding task: many texts in one request, one vector for each.

Wire format: the OpenAI embeddings request and response, as Databricks Model Serving documents them, with `instruction`
as Databricks' hosted models take it. Vectors are asked for in base64, which is a quarter of the bytes and needs no
parsing of numbers; a server that does not know the field may answer with numbers, or refuse it, and is then asked
without it. Vectors stay bytes (float32, little-endian) all the way to Arrow.
"""

import math
import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

import msgspec

from spark_llm.protocol.failures import document_of
from spark_llm.protocol.task import PLAIN
from spark_llm.protocol.values import Answer, Failure, Item, Outcome, Response, Result, RowError
from spark_llm.protocol.wire import body, count_of, header_of, not_an_answer, read_json, string_of, usage_of, write_json


@dataclass(frozen=True)
class Embed:
    """Texts to embed: the parameters as a JSON object."""

    parameters: bytes = b"{}"

    name = "embed"
    route = "/embeddings"
    repeatable = True  # a vector is not drawn by chance

    def most_inputs(self, dialect: int, batch_size: int) -> int:  # noqa: ARG002 -- both forms carry lists
        """Say that a request carries as many texts as the user allows."""
        return batch_size

    def shows(self, items: Sequence[Item], dialect: int) -> int:  # noqa: ARG002 -- one text is a list too
        """Return that every answer shows its form: the vectors came as they were asked for, or could be read."""
        return PLAIN

    def otherwise(self, items: Sequence[Item], dialect: int, words: str | None) -> int | None:  # noqa: ARG002 -- the protocol's signature
        """Return the form without base64."""
        return None if dialect else PLAIN

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
        """Read the vectors by their `index`; too few, too many or mixed up ones are `invalid_response`.

        A vector that cannot be read, is empty, holds NaN or infinity, or differs from the others in length is the error
        of its row alone. Where no vector has the `dimensions` that were asked for, no other try would bring them.
        """
        document = document_of(response, "data")
        if isinstance(document, Failure):
            return document
        entries = _in_order(document["data"], count)
        if isinstance(entries, str):
            return not_an_answer(response, entries, document)
        vectors = [_vector(entry.get("embedding")) for entry in entries]
        lengths = Counter(len(vector) // 4 for vector in vectors if vector)
        length, times = max(lengths.items(), key=itemgetter(1), default=(0, 1))
        if self._dimensions is not None and lengths and self._dimensions not in lengths:
            why = f"dimensions={self._dimensions} was asked for, and the vectors have {length} numbers"
            error = RowError("invalid_response", response.status, why, retryable=False)
            return Failure(error, usage=usage_of(document))
        if self._dimensions is None and 2 * times <= lengths.total():
            return not_an_answer(response, "the vectors differ in length", document)
        model = string_of(document.get("model")) or header_of(response, "served-model-name")
        whys = [_why_no_vector(vector, self._dimensions or length) for vector in vectors]
        if all(whys):
            return not_an_answer(response, whys[0] or "", document)
        results = [
            Result(model=model, error=RowError("invalid_response", response.status, why, retryable=True))
            if why
            else Result(embedding=vector, model=model)
            for vector, why in zip(vectors, whys, strict=True)
        ]
        return Answer(results, usage_of(document))

    @cached_property
    def _dimensions(self) -> int | None:
        return count_of(read_json(self.parameters).get("dimensions"))

    def typed(self, outcome: Outcome, items: Sequence[Item], dialect: int) -> Outcome:  # noqa: ARG002 -- the protocol's signature
        """Return the outcome: vectors are all that is asked for."""
        return outcome

    def again(self, item: Item, result: Result) -> Item:  # noqa: ARG002 -- the protocol's signature
        """Return the item: nothing is asked for that an answer could miss."""
        return item


def _in_order(data: list[dict[str, Any]], count: int) -> list[dict[str, Any]] | str:
    """Return one entry for each input, in the inputs' order, or what is wrong in words.

    Where no entry has an index of its own, they go by their place: LiteLLM wrote 0 into all of Gemini's vectors, and
    others leave the index out, both in the inputs' order. A server that answers in another order needs its indexes.
    """
    if len(data) != count:
        return f"{len(data)} vectors for {count} inputs"
    if len({count_of(entry.get("index")) for entry in data}) == 1:
        return data
    found = {count_of(entry.get("index", place)): entry for place, entry in enumerate(data)}
    if found.keys() != set(range(count)):
        return f"the vectors' indexes are not 0 to {count - 1}, each once"
    return [found[index] for index in range(count)]


def _why_no_vector(vector: bytes | None, length: int) -> str | None:
    """Return why a vector cannot be used, where its answer's vectors have `length` numbers; None for one that can."""
    if vector is None:
        return "the vector is neither numbers nor base64 of float32"
    if not vector:
        return "the vector is empty"
    if len(vector) != 4 * length:
        return f"the vector has {len(vector) // 4} numbers in place of {length}"
    return None if _is_finite(vector) else "the vector holds NaN or an infinite number"


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
