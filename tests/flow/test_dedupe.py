"""Equal inputs of a task: which of them is asked, and what the others get."""

import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.batcher import Indexed
from spark_llm.flow.dedupe import Dedupe
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.media import Media
from spark_llm.protocol.values import Item, Result, RowError, Usage

ERROR = RowError("timeout", None, "nothing came", retryable=True)
ITEMS: st.SearchStrategy[list[Item]] = st.lists(
    st.sampled_from("abcd") | st.sampled_from("abcd").map(lambda text: [{"role": "user", "content": text}]), max_size=30
)
MOVES = st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=60)
LONG = ["x" * 1_000 + str(number) for number in range(40)]


def photo(data: bytes) -> list[dict[str, object]]:
    """Return a conversation about an image."""
    return [{"role": "user", "content": ["What is this?", Media("image", "image/png", data)]}]


def test_equal_images_are_sent_once() -> None:
    """Rows that wait share the first one's bytes, so that their own can be freed; a failure sends each."""
    dedupe = Dedupe()
    first, second, third = photo(bytes(1_000)), photo(bytes(1_000)), photo(bytes(1_001))

    assert [(0, first), (2, third)] == dedupe.admit([(0, first), (1, second), (2, third)])[0]
    settled, to_send = dedupe.settle([(0, Result(error=ERROR))])
    assert [(1, first)] == to_send
    assert to_send[0][1] is first
    assert [0] == [number for number, _ in settled]
    assert [1, 3] == [number for number, _ in dedupe.settle([(1, Result("a cat"))])[0] + dedupe.admit([(3, second)])[1]]


def test_known_images_take_no_memory() -> None:
    """The answers are remembered by digests."""
    dedupe = Dedupe()
    tracemalloc.start()
    for number in range(20):
        dedupe.admit([(number, photo(bytes([number]) * 1_000_000))])
        dedupe.settle([(number, Result("a cat"))])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < 100_000


def answer_to(item: Item) -> str:
    """Return the answer to an item, different for different ones."""
    return write_json(item).decode()


@dataclass
class Task:
    """A task that is played through: what it asked, what its rows got, and what the server counted."""

    dedupe: Dedupe = field(default_factory=Dedupe)
    asked: list[Indexed] = field(default_factory=list)
    settled: list[tuple[int, Result]] = field(default_factory=list)
    in_flight: list[Indexed] = field(default_factory=list)
    billed: Usage = field(default_factory=Usage)
    failed: set[str] = field(default_factory=set)

    def admit(self, inputs: Sequence[Indexed]) -> None:
        """Take rows in, and ask those that are to be asked."""
        to_send, known = self.dedupe.admit(inputs)
        self._ask(to_send)
        self.settled += known

    def answer(self, which: int, *, fails: bool = False) -> None:
        """Let the server answer one of the requests in flight."""
        number, item = self.in_flight.pop(which % len(self.in_flight))
        usage = Usage(number + 1, None, number + 1)
        self.billed = self.billed.plus(usage)
        if fails:
            self.failed.add(answer_to(item))
        result = Result(error=ERROR, usage=usage) if fails else Result(answer_to(item), usage=usage, attempts=1)
        settled, to_send = self.dedupe.settle([(number, result)])
        self.settled += settled
        self._ask(to_send)

    def _ask(self, to_send: list[Indexed]) -> None:
        self.asked += to_send
        self.in_flight += to_send

    def play(self, items: Sequence[Item], moves: Sequence[tuple[int, bool]]) -> "Task":
        """Take rows in and answer requests in the order that `moves` says, then finish what is left."""
        rows = list(enumerate(items))
        for which, fails in moves:
            if self.in_flight and which % 2:
                self.answer(which, fails=fails)
            else:
                self.admit(rows[: which // 8])
                del rows[: which // 8]
        self.admit(rows)
        while self.in_flight:
            self.answer(0)
        return self


@given(ITEMS, MOVES)
def test_every_row_is_settled_once_with_its_own_answer(items: list[Item], moves: list[tuple[int, bool]]) -> None:
    """Whatever is in flight and whatever fails, no row is lost, doubled or given another's answer."""
    task = Task().play(items, moves)

    assert list(range(len(items))) == sorted(number for number, _ in task.settled)
    assert [None if result.error else answer_to(items[number]) for number, result in task.settled] == [
        result.text for _, result in task.settled
    ]


@given(ITEMS, MOVES)
def test_equal_inputs_are_sent_once(items: list[Item], moves: list[tuple[int, bool]]) -> None:
    """Only an input that failed is sent again, and no row twice."""
    task = Task().play(items, moves)
    times = Counter(answer_to(item) for _, item in task.asked)

    assert {answer_to(item) for item in items} == set(times)
    assert set() == {text for text, count in times.items() if count > 1} - task.failed
    assert len(task.asked) == len({number for number, _ in task.asked})


@given(ITEMS, MOVES)
def test_the_rows_tokens_are_those_that_the_server_counted(items: list[Item], moves: list[tuple[int, bool]]) -> None:
    """An answer that several rows share is counted once, and so is each failure."""
    task = Task().play(items, moves)
    total = Usage()
    for _, result in task.settled:
        total = total.plus(result.usage)

    assert task.billed == total


@given(ITEMS, MOVES, st.integers(0, 5))
def test_only_so_many_answers_are_remembered(items: list[Item], moves: list[tuple[int, bool]], answers: int) -> None:
    """However the rows came, no more answers than allowed are known afterwards."""
    task = Task(Dedupe(answers)).play(items, moves)
    known = sum(bool(task.dedupe.admit([(-1, item)])[1]) for item in "abcd")

    assert known <= answers


@given(st.lists(st.sampled_from("abcdefgh"), max_size=40), st.integers(0, 5))
def test_the_answers_used_last_are_remembered(items: list[str], answers: int) -> None:
    """Of rows asked one after the other, just the last different ones are known: an answer used anew stays longer."""
    task = Task(Dedupe(answers))
    for number, item in enumerate(items):
        task.admit([(number, item)])
        while task.in_flight:
            task.answer(0)
    last = list(dict.fromkeys(reversed(items)))[:answers]
    to_send, known = task.dedupe.admit(enumerate("abcdefgh"))

    assert set(last) == {result.text and result.text.strip('"') for _, result in known}
    assert 8 == len(to_send) + len(known)


@given(st.lists(st.sampled_from(LONG), max_size=60), st.integers(0, 20_000))
def test_answers_are_remembered_in_so_many_bytes(items: list[str], answer_bytes: int) -> None:
    """Inputs and answers together take no more than allowed, whatever their number."""
    task = Task(Dedupe(max_bytes=answer_bytes)).play(items, [])
    _, known = task.dedupe.admit(enumerate(LONG))

    assert sum(len(LONG[number]) + len(result.text or "") for number, result in known) <= answer_bytes


def embed_twice(dedupe: Dedupe, texts: int) -> None:
    """Ask so many different texts of 1 KB, each for two rows, and answer each with a vector of 4 KB."""
    for number in range(0, 2 * texts, 2):
        text = f"{number:01000}"
        to_send, _ = dedupe.admit([(number, text), (number + 1, text)])
        settled, _ = dedupe.settle([(number, Result(embedding=bytes(4_000), usage=Usage(number)))])
        assert [1, 2] == [len(to_send), len(settled)]


@pytest.mark.waits
@pytest.mark.parametrize(("answers", "answer_bytes"), [(10_000, 1_000_000), (100, 10**9), (0, 10**9), (10_000, 0)])
def test_the_bound_holds_in_real_memory(answers: int, answer_bytes: int) -> None:
    """What the process holds afterwards is what was allowed, and nothing of rows long gone."""
    dedupe = Dedupe(answers, answer_bytes)
    tracemalloc.start()
    try:
        embed_twice(dedupe, 2_000)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held <= min(answer_bytes, answers * 6_000) + 50_000


def test_an_answer_too_large_to_remember_drives_out_no_other() -> None:
    """One giant does not empty the memory."""
    task = Task(Dedupe(max_bytes=5_000))
    for number, item in enumerate(["a", "x" * 5_000]):
        task.admit([(number, item)])
        task.answer(0)
    to_send, known = task.dedupe.admit([(2, "a"), (3, "x" * 5_000)])

    assert [2] == [number for number, _ in known]
    assert [3] == [number for number, _ in to_send]


@pytest.mark.parametrize("in_flight", [True, False])
def test_a_copy_says_whose_answer_it_is_and_costs_nothing(in_flight: bool) -> None:  # noqa: FBT001 -- a table
    """Text, vector, model and request are the answer's; tokens are zero where it counted any; nothing was sent.

    The tokens that its prompt had are known all the same.
    """
    answer = Result(
        "text", ["text", "other"], b"\0\0\0\0", "stop", Usage(3, 4, 7, None, 0), "model", "request", 2, latency_ms=12.0
    )
    dedupe = Dedupe()
    twins = [(1, "?")]
    dedupe.admit([(0, "?"), *(twins if in_flight else [])])
    settled, to_send = dedupe.settle([(0, answer)])
    _, known = dedupe.admit([] if in_flight else twins)
    (_, first), (number, copy) = [*settled, *known]

    assert answer is first
    assert 1 == number
    assert [] == to_send
    assert copy.embedding is answer.embedding
    free = Usage(0, 0, 0, None, 0)
    shared = Result("text", ["text", "other"], b"\0\0\0\0", "stop", free, "model", "request", shared_prompt_tokens=3)
    assert shared == copy


def test_an_answer_without_tokens_is_copied_without() -> None:
    """Where the server counted no tokens, a copy has none: a zero would be invented."""
    dedupe = Dedupe()
    dedupe.admit([(0, "?"), (1, "?")])

    assert [None, None] == [result.usage for _, result in dedupe.settle([(0, Result("!"))])[0]]


def test_a_failure_is_not_shared() -> None:
    """Rows that waited for one that failed are all sent, and none of them waits for another; a later one may."""
    dedupe = Dedupe()
    dedupe.admit([(0, "?"), (1, "?"), (2, "?")])
    first = dedupe.settle([(0, Result(error=ERROR))])
    later = dedupe.admit([(3, "?"), (4, "?")])

    assert ([(0, Result(error=ERROR))], [(1, "?"), (2, "?")]) == first
    assert ([(3, "?")], []) == later
    assert ([(1, Result(error=ERROR))], []) == dedupe.settle([(1, Result(error=ERROR))])
    assert ([(2, Result("!"))], []) == dedupe.settle([(2, Result("!"))])
    assert ([(3, Result("!")), (4, Result("!"))], []) == dedupe.settle([(3, Result("!"))])


def test_the_answer_of_a_duplicate_is_remembered() -> None:
    """The answer of a row that was sent after all serves later rows."""
    dedupe = Dedupe()
    dedupe.admit([(0, "?"), (1, "?")])
    dedupe.settle([(0, Result(error=ERROR))])
    dedupe.settle([(1, Result("!"))])

    assert ([], [(2, Result("!"))]) == dedupe.admit([(2, "?")])


def test_an_answer_that_came_several_times_is_remembered_once() -> None:
    """It takes the place of one, so that there is room for others."""
    task = Task(Dedupe(max_bytes=3_000))
    task.admit([(0, "a"), *[(number, "b") for number in range(1, 20)]])
    task.answer(1, fails=True)
    while task.in_flight:
        task.answer(0)

    assert ["a", "b"] == [result.text and result.text.strip('"') for _, result in task.dedupe.admit(enumerate("ab"))[1]]


def test_a_text_and_a_conversation_are_never_equal() -> None:
    """Not even where the text is the conversation's JSON."""
    conversation = [{"role": "user", "content": "?"}]
    inputs: list[Indexed] = [(0, conversation), (1, '[{"role":"user","content":"?"}]'), (2, [*conversation])]

    assert (inputs[:2], []) == Dedupe().admit(inputs)


def test_an_input_that_is_not_json_is_sent_by_itself() -> None:
    """A conversation that JSON cannot hold is its row's error, and breaks nothing here."""
    odd: Item = [{"role": "user", "content": object()}]
    dedupe = Dedupe()

    assert ([(0, odd), (1, odd)], []) == dedupe.admit([(0, odd), (1, odd)])
    assert ([(0, Result("!"))], []) == dedupe.settle([(0, Result("!"))])
