"""Cache keys and entries: a request becomes a key, an answer becomes bytes. No disk, clock or Spark."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from spark_llm.protocol.chat.content import digested
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.json_codec import NotJSONError, read_json, write_json
from spark_llm.protocol.task import PLAIN, Task
from spark_llm.protocol.values import Item, Result, Usage

FORMAT = 1  # of the keys and of the bytes; another one shares nothing with this one
AUTHENTICATION_HEADERS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})


class Entry(NamedTuple):
    """An answer in bytes, with its vector apart: JSON would make that larger by a third."""

    answer: bytes
    vector: bytes | None


class Keys:
    """Cache keys of one task's requests: SHA-256 of task, URL, model, further headers and the body for one input.

    Nothing of all this can be read from a key. Authentication is not part of it, and neither is how a request travels:
    the inputs that share it, and whether it asks for base64.

    >>> Keys(Chat(), "https://host/v1/chat/completions", "llama").of("Why?")
    """

    def __init__(self, task: Task, url: str, model: str | None, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Make keys for the requests of `task` to `model` at `url`."""
        lower = ((name.lower(), value) for name, value in headers)
        others = sorted(header for header in lower if header[0] not in AUTHENTICATION_HEADERS)
        self.task, self._model = task, model
        truncated = ["answer"] if isinstance(task, Chat) and task.answer_only else []  # not all of the text is kept
        self._prefix = hashlib.sha256(write_json([FORMAT, task.name, url, model, others, *truncated]))

    def of(self, item: Item) -> bytes | None:
        """Return the key of a request for this input alone; None for a conversation that no request can carry.

        Media are in it by their digests, so that their bytes are read once.
        """
        try:
            body = self.task.encode([digested(item)], self._model, PLAIN)
        except (TypeError, ValueError, RecursionError):
            return None
        key = self._prefix.copy()
        key.update(body)
        return key.digest()


def encoded_answer(result: Result) -> Entry:
    """Return an answer and its cost as bytes."""
    answer = [result.text, result.choices, result.finish_reason, result.usage, result.model, result.request_id]
    return Entry(write_json(answer), result.embedding)


def decoded_answer(entry: Entry) -> Result | None:
    """Return the answer of an entry; None if its bytes are not one."""
    try:
        text, choices, finish_reason, usage, model, request_id = read_json(entry.answer)
        cost = None if usage is None else Usage(*usage)
    except (NotJSONError, TypeError, ValueError):
        return None
    return Result(text, choices, entry.vector, finish_reason, cost, model, request_id)
