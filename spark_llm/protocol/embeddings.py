"""The embedding task: many texts in one request, one vector for each.

Wire format: the OpenAI embeddings request and response, as Databricks Model Serving documents them, with `instruction`
as Databricks' hosted models take it. Vectors are requested in base64, which is a quarter of the bytes and needs no
parsing of numbers. A server that does not know the field may answer with numbers, or refuse it; then the field is left
out. Vectors stay bytes (float32, little-endian) all the way to Arrow.
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

from spark_llm.protocol.bodies import request_body
from spark_llm.protocol.failures import document_of, invalid_response_failure
from spark_llm.protocol.fields import count_of, header_of, string_of, usage_of
from spark_llm.protocol.json_codec import read_json, write_json
from spark_llm.protocol.task import PLAIN, Task
from spark_llm.protocol.values import Answer, Failure, Item, Outcome, Response, Result, RowError


@dataclass(frozen=True)
class Embed(Task):
    """An embedding task: its parameters as a JSON object."""

    parameters: bytes = b"{}"

    name = "embed"
    route = "/embeddings"
    repeatable = True  # equal texts have equal vectors

    def max_inputs(self, wire_format: int, batch_size: int) -> int:  # noqa: ARG002 -- both formats carry lists
        """Return that a request carries as many texts as the user allows."""
        return batch_size

    def required_features(self, items: Sequence[Item], wire_format: int) -> int:  # noqa: ARG002 -- one text is a list too
        """Return the field `encoding_format`: every answer shows whether the server knows it."""
        return PLAIN

    def fallback_format(self, items: Sequence[Item], wire_format: int, message: str | None) -> int | None:  # noqa: ARG002 -- the protocol's signature
        """Return the format without base64."""
        return None if wire_format & PLAIN else wire_format | PLAIN

    def skips(self, item: Item) -> bool:
        """Return whether a text is blank: it has no meaning, and many servers refuse it."""
        return not isinstance(item, str) or not item.strip()

    def encode(self, items: Sequence[Item], model: str | None, wire_format: int) -> bytes:
        """Write the texts; the first format requests base64, the second leaves the encoding to the server."""
        chosen = bool(wire_format & PLAIN) or b'"encoding_format":' in self.parameters
        return request_body(
            model,
            self.parameters,
            (b"" if chosen else b'"encoding_format":"base64",') + b'"input":' + write_json(items),
        )

    def decode(self, response: Response, count: int, wire_format: int = 0) -> Outcome:  # noqa: ARG002 -- they are read alike
        """Read the vectors by their `index`; a wrong number of vectors or wrong indexes are `invalid_response`.

        A vector that cannot be read, is empty, holds NaN or infinity, or differs from the others in length is the error
        of its row alone. Where no vector has the requested `dimensions`, the failure is permanent.
        """
        document = document_of(response, "data")
        if isinstance(document, Failure):
            return document
        entries = _in_order(document["data"], count)
        if isinstance(entries, str):
            return invalid_response_failure(response, entries, document)
        vectors = [_vector(entry.get("embedding")) for entry in entries]
        lengths = Counter(len(vector) // 4 for vector in vectors if vector)
        length, occurrences = max(lengths.items(), key=itemgetter(1), default=(0, 1))
        if self._dimensions is not None and lengths and self._dimensions not in lengths:
            message = f"dimensions={self._dimensions} was requested, and the vectors have {length} numbers"
            error = RowError("invalid_response", response.status, message, retryable=False)
            return Failure(error, usage=usage_of(document))
        if self._dimensions is None and 2 * occurrences <= lengths.total():
            return invalid_response_failure(response, "the vectors differ in length", document)
        model = string_of(document.get("model")) or header_of(response, "served-model-name")
        defects = [_defect(vector, self._dimensions or length) for vector in vectors]
        if all(defects):
            return invalid_response_failure(response, defects[0] or "", document)
        results = [
            Result(model=model, error=RowError("invalid_response", response.status, defect, retryable=True))
            if defect
            else Result(embedding=vector, model=model)
            for vector, defect in zip(vectors, defects, strict=True)
        ]
        return Answer(results, usage_of(document))

    @cached_property
    def _dimensions(self) -> int | None:
        return count_of(read_json(self.parameters).get("dimensions"))


def _in_order(data: list[dict[str, Any]], count: int) -> list[dict[str, Any]] | str:
    """Return one entry for each input, in the order of the inputs, or a description of what is wrong.

    Where all indexes are equal, or missing, the entries count in the order in which they stand: LiteLLM wrote 0 into
    all of Gemini's vectors. A server that answers in another order has to send indexes.
    """
    if len(data) != count:
        return f"{len(data)} vectors for {count} inputs"
    if len({count_of(entry.get("index")) for entry in data}) == 1:
        return data
    found = {count_of(entry.get("index", place)): entry for place, entry in enumerate(data)}
    if found.keys() != set(range(count)):
        return f"the vectors' indexes are not 0 to {count - 1}, each once"
    return [found[index] for index in range(count)]


def _defect(vector: bytes | None, length: int) -> str | None:
    """Return why a vector cannot be used in an answer of vectors of `length` numbers; None for one that can."""
    if vector is None:
        return "the vector is neither a list of numbers nor base64 of float32"
    if not vector:
        return "the vector is empty"
    if len(vector) != 4 * length:
        return f"the vector has {len(vector) // 4} numbers, not {length}"
    return None if _is_finite(vector) else "the vector holds NaN or an infinite number"


def _vector(value: object) -> bytes | None:
    """Return a vector's float32 bytes from base64 or from a list of numbers; None for any other value."""
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
    """Return whether every number is finite; only a highest byte of 7F or FF can belong to another."""
    highest = vector[3::4]
    if 0x7F not in highest and 0xFF not in highest:
        return True
    floats = array("f", vector)
    if sys.byteorder == "big":
        floats.byteswap()
    return math.isfinite(sum(floats))  # in float64, where no sum of float32 overflows
