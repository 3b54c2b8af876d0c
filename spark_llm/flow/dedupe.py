"""Which rows of a task ask the same: one of them is asked, and its answer is every one's.

Knows no socket, no clock, no Spark.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from sys import getsizeof
from typing import Any

from spark_llm.flow.batcher import Indexed
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.values import Item, Prompt, Result, Usage

ANSWERS_MOST = 10_000
BYTES_MOST = 16_000_000
ENTRY_BYTES = 700  # what an answer takes beside its key and its texts: objects, numbers, its places in the tables
PARSED_BYTES = 16  # what a value takes for each character of its JSON: as many as a list of small numbers

Said = str | bytes  # a text as it is, or a conversation as JSON: the two are never equal
Key = Said | tuple[Any, str | None, Hashable]  # … and of a question its instructions and type as well


class Dedupe:
    """Lets one of several equal inputs through, holds the others back, and remembers the last answers.

    One instance serves one task. Spark's thread admits rows as it takes them in, the event loop's settles them as
    answers come. There is no lock in here: who shares an instance between the two holds one around each call. Every
    row that was returned to be asked has to be settled once; with that, nothing is kept but what is being asked or
    held back, and the answers remembered.

    >>> dedupe = Dedupe()
    >>> dedupe.admit([(0, "Why?"), (1, "Why?"), (2, "How?")])
    ([(0, 'Why?'), (2, 'How?')], [])
    >>> settled, to_ask = dedupe.settle([(0, Result("So."))])
    >>> [(number, result.text) for number, result in settled], to_ask
    ([(0, 'So.'), (1, 'So.')], [])
    """

    def __init__(self, answers: int = ANSWERS_MOST, answer_bytes: int = BYTES_MOST) -> None:
        """Remember at most `answers` answers in `answer_bytes` bytes, inputs included; the longest unused go first."""
        self._most = answers
        self._most_bytes = answer_bytes
        self._asking: dict[Key, int] = {}  # what is being asked, and the row that equal ones wait for
        self._keys: dict[int, Key] = {}  # the rows that are being asked, and what
        self._twins: dict[int, list[Indexed]] = {}  # a row, and those that wait for it
        self._answers: OrderedDict[Key, tuple[Result, int]] = OrderedDict()  # with their weights, last used last
        self._bytes = 0

    def admit(self, inputs: Iterable[Indexed]) -> tuple[list[Indexed], list[tuple[int, Result]]]:
        """Return the inputs to ask, and the results of those that were answered before; the others wait for a twin."""
        to_ask: list[Indexed] = []
        known: list[tuple[int, Result]] = []
        for entry in inputs:
            number, item = entry
            key = _key(item)
            if key is None:
                to_ask.append(entry)
            elif key in self._answers:
                self._answers.move_to_end(key)
                known.append((number, shared_result(self._answers[key][0])))
            elif (asking := self._asking.setdefault(key, number)) == number:
                self._keys[number] = key
                to_ask.append(entry)
            else:
                self._twins.setdefault(asking, []).append(entry)
        return to_ask, known

    def settle(self, results: Iterable[tuple[int, Result]]) -> tuple[list[tuple[int, Result]], list[Indexed]]:
        """Return the results with copies for the rows that waited for them, and the inputs to ask after all.

        A failure is nobody's but its row's: those that waited for it are asked, and nobody waits for them.
        """
        settled: list[tuple[int, Result]] = []
        to_ask: list[Indexed] = []
        for entry in results:
            settled.append(entry)
            number, result = entry
            key = self._keys.pop(number, None)
            if key is None:
                continue
            twins: Sequence[Indexed] = ()
            if self._asking.get(key) == number:
                del self._asking[key]
                twins = self._twins.pop(number, ())
            if result.error is None:
                settled += [(twin, shared_result(result)) for twin, _ in twins]
                self._remember(key, result)
            else:
                self._keys.update((twin, key) for twin, _ in twins)
                to_ask += twins
        return settled, to_ask

    def _remember(self, key: Key, result: Result) -> None:
        weight = _weight(key, result)
        if weight > self._most_bytes or key in self._answers:
            return
        self._answers[key] = result, weight
        self._bytes += weight
        while self._bytes > self._most_bytes or len(self._answers) > self._most:
            _, (_, weight) = self._answers.popitem(last=False)
            self._bytes -= weight


def _key(item: Item) -> Key | None:
    """Return what equal inputs have in common; None for what JSON cannot hold, which is then the sender's to tell."""
    if isinstance(item, str):
        return item
    if isinstance(item, Prompt):
        said = _key(item.content)
        return None if said is None else (said, item.system, item.output)
    try:
        return write_json(item)
    except (TypeError, ValueError, RecursionError):
        return None


def _weight(key: Key, result: Result) -> int:
    """Return the bytes of memory that an answer takes; a text's are one to four for each of its characters."""
    own = key[0] if isinstance(key, tuple) else key  # instructions and types are shared by many
    weight = ENTRY_BYTES + getsizeof(own) + getsizeof(result.text) + getsizeof(result.embedding)
    if result.parsed is not None:
        weight += PARSED_BYTES * len(result.text or "")
    return weight if result.choices is None else weight + sum(map(getsizeof, result.choices))


def shared_result(result: Result) -> Result:
    """Return the same answer at no cost: zero where the server counted tokens, so that the rows' sum is the bill."""
    usage = result.usage
    return Result(
        text=result.text,
        choices=result.choices,
        embedding=result.embedding,
        finish_reason=result.finish_reason,
        usage=None if usage is None else Usage(*[None if count is None else 0 for count in usage]),
        model=result.model,
        parsed=result.parsed,
        request_id=result.request_id,
    )
