"""Deduplicates the rows of a task: of equal inputs one is sent, and its answer is the result of all."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from sys import getsizeof
from typing import Any

from spark_llm.flow.batcher import Indexed
from spark_llm.protocol.chat.content import digested
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.values import Item, Prompt, Result

MAX_ANSWERS = 10_000
MAX_BYTES = 16_000_000
ENTRY_BYTES = 700  # of an answer beside its key and its texts: objects, numbers, its places in the tables
PARSED_BYTES = 16  # of a parsed value, for each character of its JSON: as many as a list of small numbers takes

ContentKey = str | bytes  # a text as it is, or a conversation as JSON, with digests of media: they are never equal
Key = ContentKey | tuple[Any, str | None, Hashable]  # … and of a prompt its instructions and type as well

_NONE: Indexed = (-1, "")


class Dedupe:
    """Lets one of several equal inputs through, holds the others back, and remembers the last answers.

    One instance serves one task. Spark's thread admits rows, the event loop's settles them as answers come. The caller
    holds a lock around each call. Every row that was returned to be sent has to be settled once. Then the memory holds
    only rows in flight, rows held back, and the last answers.

    >>> dedupe = Dedupe()
    >>> dedupe.admit([(0, "Why?"), (1, "Why?"), (2, "How?")])
    ([(0, 'Why?'), (2, 'How?')], [])
    >>> settled, to_send = dedupe.settle([(0, Result("So."))])
    >>> [(number, result.text) for number, result in settled], to_send
    ([(0, 'So.'), (1, 'So.')], [])
    """

    def __init__(self, max_answers: int = MAX_ANSWERS, max_bytes: int = MAX_BYTES) -> None:
        """Remember at most so many answers, in so many bytes with their inputs; the longest unused go first."""
        self._max_answers = max_answers
        self._max_bytes = max_bytes
        self._sent: dict[Key, Indexed] = {}  # by input, the row that was sent and that equal ones wait for
        self._keys: dict[int, Key] = {}  # the inputs of the rows that were sent
        self._duplicates: dict[int, list[Indexed]] = {}  # by row, those that wait for it
        self._answers: OrderedDict[Key, tuple[Result, int]] = (
            OrderedDict()
        )  # with their sizes in memory, last used last
        self._bytes = 0

    def admit(self, inputs: Iterable[Indexed]) -> tuple[list[Indexed], list[tuple[int, Result]]]:
        """Return the inputs to send, and the results of those that were answered before; the others wait."""
        to_send: list[Indexed] = []
        known: list[tuple[int, Result]] = []
        for entry in inputs:
            number, item = entry
            key = item if isinstance(item, (str, bytes)) else _dedupe_key(item)
            if key is None:
                to_send.append(entry)
            elif key in self._answers:
                self._answers.move_to_end(key)
                known.append((number, shared_result(self._answers[key][0])))
            elif (sent := self._sent.setdefault(key, entry)) is entry:
                self._keys[number] = key
                to_send.append(entry)
            else:
                self._duplicates.setdefault(sent[0], []).append((number, sent[1]))  # its own copy can be freed
        return to_send, known

    def settle(self, results: Iterable[tuple[int, Result]]) -> tuple[list[tuple[int, Result]], list[Indexed]]:
        """Return the results, with copies for the rows that waited for them, and the inputs to send after all.

        A failure is its row's alone: the rows that waited for it are each sent.
        """
        settled: list[tuple[int, Result]] = []
        to_send: list[Indexed] = []
        for entry in results:
            settled.append(entry)
            number, result = entry
            key = self._keys.pop(number, None)
            if key is None:
                continue
            duplicates: Sequence[Indexed] = ()
            if self._sent.get(key, _NONE)[0] == number:
                del self._sent[key]
                duplicates = self._duplicates.pop(number, ())
            if result.error is None:
                settled += [(duplicate, shared_result(result)) for duplicate, _ in duplicates]
                self._remember(key, result)
            else:
                self._keys.update((duplicate, key) for duplicate, _ in duplicates)
                to_send += duplicates
        return settled, to_send

    def _remember(self, key: Key, result: Result) -> None:
        size = _memory_bytes(key, result)
        if size > self._max_bytes or key in self._answers:
            return
        self._answers[key] = result, size
        self._bytes += size
        while self._bytes > self._max_bytes or len(self._answers) > self._max_answers:
            _, (_, size) = self._answers.popitem(last=False)
            self._bytes -= size


def _dedupe_key(item: Item) -> Key | None:
    """Return a key that equal inputs share; None for a value that JSON cannot hold, which the sender reports."""
    if isinstance(item, (str, bytes)):
        return item
    if isinstance(item, Prompt):
        content = _dedupe_key(item.content)
        return None if content is None else (content, item.system, item.output)
    try:
        return write_json(digested(item))
    except (TypeError, ValueError, RecursionError):
        return None


def _memory_bytes(key: Key, result: Result) -> int:
    """Return the bytes of memory that an answer takes: one to four for each character of a text."""
    content = key[0] if isinstance(key, tuple) else key  # instructions and types are shared by many
    size = ENTRY_BYTES + getsizeof(content)
    if result.text is not None:
        size += getsizeof(result.text)
    if result.embedding is not None:
        size += getsizeof(result.embedding)
    if result.rationale is not None:
        size += getsizeof(result.rationale)
    if result.parsed is not None:
        size += PARSED_BYTES * len(result.text or "")
    if isinstance(result.prediction, (list, dict, str, bytes)):
        size += _nested_bytes(result.prediction)
    if result.ranking is not None:
        size += sum(map(_nested_bytes, result.ranking))
    if result.tool_calls is not None:
        size += sum(ENTRY_BYTES + getsizeof(call["arguments"]) for call in result.tool_calls)
    return size if result.choices is None else size + sum(map(getsizeof, result.choices))


def _nested_bytes(value: Any) -> int:  # noqa: ANN401 -- any value of a column
    """Return about as many bytes as a nested value takes: each part of a list counts as its first."""
    parts: Sequence[Any] = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else ()
    return getsizeof(value) + (len(parts) * _nested_bytes(parts[0]) if parts else 0)


def shared_result(result: Result) -> Result:
    """Return the same answer at no cost: 0 where the server counted tokens, so that the rows' sum is the bill."""
    usage = result.usage
    return Result(
        text=result.text,
        choices=result.choices,
        embedding=result.embedding,
        prediction=result.prediction,
        finish_reason=result.finish_reason,
        usage=None if usage is None else usage.unbilled(),
        model=result.model,
        parsed=result.parsed,
        tool_calls=result.tool_calls,
        ranking=result.ranking,
        request_id=result.request_id,
        confidence=result.confidence,
        rationale=result.rationale,
        shared_prompt_tokens=None if usage is None else usage.prompt_tokens,
    )
