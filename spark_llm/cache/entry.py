"""Cache keys and entries: a request becomes a key, an answer becomes bytes. No disk, clock or Spark."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from spark_llm.protocol.canonical import canonical_shape
from spark_llm.protocol.chat.content import digested
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.json_codec import NotJSONError, read_json, write_json
from spark_llm.protocol.predictions.scalars import write_prediction
from spark_llm.protocol.predictions.task import Predict
from spark_llm.protocol.rerank import Rerank, ranking_text
from spark_llm.protocol.structured.schema import NUMBERS, Number, Scalar, Shape, walk
from spark_llm.protocol.task import PLAIN, Task, UnsendableError
from spark_llm.protocol.urls import chat_url
from spark_llm.protocol.values import Item, Result, ToolCall, Usage

FORMAT = 1  # of the keys and of the bytes; another one shares nothing with this one
AUTHENTICATION_HEADERS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})


class Entry(NamedTuple):
    """An answer in bytes, with its vector apart: JSON would make that larger by a third."""

    answer: bytes
    vector: bytes | None


class Keys:
    """Cache keys of one task's requests: SHA-256 of task, URL, model, further headers, body for one input, output type.

    Nothing of all this can be read from a key. Authentication is not part of it, and neither is how a request travels:
    the inputs that share it, whether it asks for base64, and whether a chat takes the Responses route.

    >>> Keys(Chat(), "https://host/v1/chat/completions", "llama").of("Why?")
    """

    def __init__(self, task: Task, url: str, model: str | None, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Make keys for the requests of `task` to `model` at `url`."""
        lower = ((name.lower(), value) for name, value in headers)
        others = sorted(header for header in lower if header[0] not in AUTHENTICATION_HEADERS)
        self.task, self._model = task, model
        self._prefix = hashlib.sha256(write_json([FORMAT, task.name, chat_url(url), model, others, *_reading(task)]))

    def of(self, item: Item) -> bytes | None:
        """Return the key of a request for this input alone; None for a conversation that no request can carry.

        Media are in it by their digests, so that their bytes are read once.
        """
        try:
            body = self.task.encode([digested(item)], self._model, PLAIN)
        except (TypeError, ValueError, RecursionError, UnsendableError):
            return None
        key = self._prefix.copy()
        key.update(bytes(body))
        if isinstance(self.task, Rerank):
            key.update(item)  # type: ignore[arg-type]  # rows are bytes; the ranking has the places of this row
        if isinstance(self.task, Chat) and (output := self.task.output_of(item)) is not None:
            key.update(_widths(output.shape))
        return key.digest()


@lru_cache(maxsize=1_000)
def _widths(shape: Shape) -> bytes:
    """Return an output type with numbers as JSON: those of different widths have one schema in the body; cached."""
    parts = walk(shape)
    has_numbers = any(isinstance(part, Number) or (isinstance(part, Scalar) and part.kind in NUMBERS) for part in parts)
    return write_json(canonical_shape(shape)) if has_numbers else b""


def _reading(task: Task) -> list[object]:
    """Return what distinguishes answers that tasks with the same requests read in different ways."""
    if isinstance(task, Predict):
        return [canonical_shape(task.returns)]
    if isinstance(task, Rerank):
        return [task.top_n]
    if not isinstance(task, Chat):
        return []
    return [name for name, applies in (("answer", task.answer_only), ("calls", task.tools)) if applies]


def encoded_answer(result: Result) -> Entry:
    """Return an answer and its cost as bytes; a prediction or a ranking as a text, which the task reads again."""
    text = result.text if result.prediction is None else write_prediction(result.prediction)
    text = text if result.ranking is None else ranking_text(result.ranking)
    answer = [text, result.choices, result.finish_reason, result.usage, result.model, result.request_id]
    calls = None if result.tool_calls is None else [list(call.values()) for call in result.tool_calls]
    further = [calls, result.confidence]
    while further and further[-1] is None:  # an entry without them is as it was before there were any
        further.pop()
    return Entry(write_json([*answer, *further]), result.embedding)


def decoded_answer(entry: Entry) -> Result | None:
    """Return the answer of an entry; None if its bytes are not one."""
    try:
        text, choices, finish_reason, usage, model, request_id, *rest = read_json(entry.answer)
        cost = None if usage is None else Usage(*usage)
        calls, confidence = _further(*rest)
        if rest and rest[-1] is None:
            return None
    except (NotJSONError, TypeError, ValueError):
        return None
    answer = Result(text, choices, entry.vector, finish_reason, cost, model, request_id, tool_calls=calls)
    answer.confidence = confidence
    return answer


def _further(
    calls: list[list[str]] | None = None, confidence: float | None = None
) -> tuple[list[ToolCall] | None, float | None]:
    """Return what only some answers have: calls of tools, and the confidence of a label."""
    if calls is None:
        return None, confidence
    return [ToolCall(id=identifier, name=name, arguments=text) for identifier, name, text in calls], confidence
