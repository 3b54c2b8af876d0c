"""Requests that wait until a test lets them go, so that it can order answers without sleeping.

Lives on the endpoints' own loop; callers in other threads come in by `LocalEndpoints.hold` and `release`.
"""

import asyncio
from collections.abc import Iterator


class Holds:
    """The words that hold a request back, each with those who wait on it."""

    def __init__(self) -> None:
        self._words: dict[str, asyncio.Event] = {}

    def hold(self, word: str) -> None:
        """Hold requests that have `word` in one of their body's strings, from now on."""
        self._words.setdefault(word, asyncio.Event())

    def release(self, word: str | None = None) -> None:
        """Let go what is held by `word`, or by any."""
        for name in [*self._words] if word is None else [word]:
            if (event := self._words.pop(name, None)) is not None:
                event.set()

    async def wait(self, body: object) -> None:
        """Return when no word of `body` is held."""
        while held := [event for word, event in self._words.items() if any(word in text for text in _strings(body))]:
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
