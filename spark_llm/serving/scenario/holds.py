"""Holds: requests that wait until a test releases them, so that it can order answers without sleeping.

They live on the endpoints' event loop; other threads come in by `LocalEndpoints.hold` and `release`.
"""

import asyncio
from collections.abc import Iterator


class Holds:
    """The words that hold requests back, each with an event for the requests that wait on it."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def hold(self, word: str) -> None:
        """Hold requests that have `word` in one of their body's strings, from now on."""
        self._events.setdefault(word, asyncio.Event())

    def release(self, word: str | None = None) -> None:
        """Release the requests that `word` holds, or all."""
        for name in [*self._events] if word is None else [word]:
            if (event := self._events.pop(name, None)) is not None:
                event.set()

    async def wait(self, body: object) -> None:
        """Return when no word in `body` is held."""
        while held := [event for word, event in self._events.items() if any(word in text for text in _strings(body))]:
            await held[0].wait()


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
