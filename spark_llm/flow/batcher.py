"""Batches inputs into requests: as many as fit by count, by bytes and by tokens, in their order.

Tokens are estimated, because only the server knows its tokenizer: one for every three bytes of JSON, where English
has about four bytes to a token. The estimate may be too low, for Chinese say. A margin below the limit allows for that;
beyond the margin the server refuses the request, which is then split. Source of the limit: the OpenAI API reference
(embeddings, `input`: "a maximum of 300,000 tokens summed across all inputs in a single request").

Bytes are exact: those of the JSON of each input and its comma. A body that is too large nevertheless is split before it
is sent (`flow.scheduler`).
"""

from collections.abc import Iterable

from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.values import Item

MB = 2**20
PACKED_BYTES = 4 * MB  # enough to fill a request, where no limit is known
BYTES_PER_TOKEN = 3

Indexed = tuple[int, Item]  # an input with its row's number


class Batcher:
    """Fills batches with inputs; the last batch waits for more inputs or for `flush`."""

    def __init__(self, max_inputs: int, max_bytes: int = PACKED_BYTES, max_tokens: int | None = None) -> None:
        """Put at most `max_inputs` inputs into a batch, of so many bytes of JSON and so many estimated tokens, or any.

        An input that is larger by itself has a batch of its own.
        """
        self._max_inputs = max_inputs
        self._max_bytes = max_bytes if max_tokens is None else min(max_bytes, max_tokens * BYTES_PER_TOKEN)
        self._batch: list[Indexed] = []
        self._bytes = 0

    def add(self, inputs: Iterable[Indexed]) -> list[list[Indexed]]:
        """Add inputs; return the batches that are full."""
        full = []
        for entry in inputs:
            input_bytes = len(write_json(entry[1])) + 1 if self._max_inputs > 1 else 0
            if self._batch and self._bytes + input_bytes > self._max_bytes:
                full.append(self._pop_batch())
            self._batch.append(entry)
            self._bytes += input_bytes
            if len(self._batch) >= self._max_inputs:
                full.append(self._pop_batch())
        return full

    def flush(self) -> list[list[Indexed]]:
        """Return the inputs that wait as the only batch, or nothing."""
        return [self._pop_batch()] if self._batch else []

    def __len__(self) -> int:
        """Return how many inputs wait."""
        return len(self._batch)

    def _pop_batch(self) -> list[Indexed]:
        batch, self._batch, self._bytes = self._batch, [], 0
        return batch
