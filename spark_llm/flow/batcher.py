"""Which inputs travel together in one request: as many as fit by count, by bytes and by tokens, in their order.

Tokens are estimated, because only the server knows its tokenizer: one for every three bytes of JSON, where English
has about four to a token. Where that is too low, as it may be for Chinese, a margin below the limit takes it up;
beyond the margin the server refuses the request, which is then cut in two. Source of the limit: the OpenAI API
reference (embeddings, `input`: "a maximum of 300,000 tokens summed across all inputs in a single request"). Knows no
socket, no clock, no Spark.
"""

from collections.abc import Iterable

from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.values import Item

BODY_BYTES = 4_000_000  # Databricks' limit for foundation and external models is 4 MB
REQUEST_TOKENS = 250_000  # OpenAI's limit is 300,000; a sixth of it is the margin of the estimate
BYTES_PER_TOKEN = 3

Indexed = tuple[int, Item]  # an input with its row's number


class Batcher:
    """Fills requests: inputs go in, whole packs come out, and the rest waits for more or for `flush`."""

    def __init__(self, count: int, body_bytes: int = BODY_BYTES, tokens: int = REQUEST_TOKENS) -> None:
        """Take at most `count` inputs in one pack, of `body_bytes` bytes of JSON and `tokens` estimated tokens.

        An input that is larger by itself goes alone.
        """
        self._count = count
        self._most_bytes = min(body_bytes, tokens * BYTES_PER_TOKEN)  # two limits, one sum to keep
        self._pack: list[Indexed] = []
        self._bytes = 0

    def add(self, numbered: Iterable[Indexed]) -> list[list[Indexed]]:
        """Put inputs in and return the packs that are full."""
        full = []
        for entry in numbered:
            weight = len(write_json(entry[1])) + 1 if self._count > 1 else 0
            if self._pack and self._bytes + weight > self._most_bytes:
                full.append(self._taken())
            self._pack.append(entry)
            self._bytes += weight
            if len(self._pack) >= self._count:
                full.append(self._taken())
        return full

    def flush(self) -> list[list[Indexed]]:
        """Return what waits, as a last pack, if anything does."""
        return [self._taken()] if self._pack else []

    def __len__(self) -> int:
        """Return how many inputs wait."""
        return len(self._pack)

    def _taken(self) -> list[Indexed]:
        pack, self._pack, self._bytes = self._pack, [], 0
        return pack
