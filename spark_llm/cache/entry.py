"""What a cache keeps of a request and its answer: a key, and bytes. Knows no disk, no clock, no Spark."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from spark_llm.protocol.chat import Chat
from spark_llm.protocol.json_codec import NotJSONError, read_json, write_json
from spark_llm.protocol.task import PLAIN, Task
from spark_llm.protocol.values import Item, Result, Usage

FORMAT = 1  # of the keys and of the bytes; another one shares nothing with this one
WHO_IS_ASKING = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})


class Entry(NamedTuple):
    """An answer as it is kept: its vector apart, because JSON would make it larger by a third."""

    answer: bytes
    vector: bytes | None


class Keys:
    """Tells requests apart: by the task, the URL, the model, further headers, and the body that one input would have.

    A key is a SHA-256, so nothing of all this can be read from it. Who is asking has no part in it, and neither has how
    a request travels: which inputs share it, and whether it asks for base64.

    >>> Keys(Chat(), "https://host/v1/chat/completions", "llama").of("Why?")
    """

    def __init__(self, task: Task, url: str, model: str | None, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Tell apart what `task` asks `model` at `url`."""
        lower = ((name.lower(), value) for name, value in headers)
        others = sorted(header for header in lower if header[0] not in WHO_IS_ASKING)
        self.task, self._model = task, model
        kept = ["answer"] if isinstance(task, Chat) and task.answer_only else []  # not all of the text
        self._begun = hashlib.sha256(write_json([FORMAT, task.name, url, model, others, *kept]))

    def of(self, item: Item) -> bytes | None:
        """Return the key of a request for this input alone; None for a conversation that no request can carry."""
        try:
            body = self.task.encode([item], self._model, PLAIN)
        except (TypeError, ValueError, RecursionError):
            return None
        key = self._begun.copy()
        key.update(body)
        return key.digest()


def written(result: Result) -> Entry:
    """Write down an answer and what it has cost."""
    answer = [result.text, result.choices, result.finish_reason, result.usage, result.model, result.request_id]
    return Entry(write_json(answer), result.embedding)


def read(entry: Entry) -> Result | None:
    """Return the answer that was written down; None for bytes that are none."""
    try:
        text, choices, finish_reason, usage, model, request_id = read_json(entry.answer)
        cost = None if usage is None else Usage(*usage)
    except (NotJSONError, TypeError, ValueError):
        return None
    return Result(text, choices, entry.vector, finish_reason, cost, model, request_id)
