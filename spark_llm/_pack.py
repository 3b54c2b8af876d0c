"""Which inputs travel together in one request: as many as fit by count and by bytes, in their order.

Knows no socket, no clock, no Spark.
"""

from collections.abc import Iterable

from spark_llm._tasks._wire import write_json
from spark_llm._values import Item

BODY_BYTES = 4_000_000  # Databricks' limit for foundation and external models is 4 MB

Numbered = tuple[int, Item]  # an input with its row's number


class Packer:
    """Fills requests: inputs go in, whole packs come out, and the rest waits for more or for `flush`."""

    def __init__(self, count: int, body_bytes: int = BODY_BYTES) -> None:
        """Take at most `count` inputs and `body_bytes` bytes of JSON in one pack; a larger input goes alone."""
        self._count = count
        self._body_bytes = body_bytes
        self._pack: list[Numbered] = []
        self._bytes = 0

    def add(self, numbered: Iterable[Numbered]) -> list[list[Numbered]]:
        """Put inputs in and return the packs that are full."""
        full = []
        for entry in numbered:
            weight = len(write_json(entry[1])) + 1 if self._count > 1 else 0
            if self._pack and self._bytes + weight > self._body_bytes:
                full.append(self._taken())
            self._pack.append(entry)
            self._bytes += weight
            if len(self._pack) >= self._count:
                full.append(self._taken())
        return full

    def flush(self) -> list[list[Numbered]]:
        """Return what waits, as a last pack, if anything does."""
        return [self._taken()] if self._pack else []

    def __len__(self) -> int:
        """Return how many inputs wait."""
        return len(self._pack)

    def _taken(self) -> list[Numbered]:
        pack, self._pack, self._bytes = self._pack, [], 0
        return pack
