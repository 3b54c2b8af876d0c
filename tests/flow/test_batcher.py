"""Which inputs travel together in one request."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.batcher import Batcher, Indexed
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.values import Item
from tests.support.strategies import TEXTS

CONVERSATIONS: st.SearchStrategy[Item] = st.lists(st.fixed_dictionaries({"role": TEXTS, "content": TEXTS}), max_size=3)
INPUTS: st.SearchStrategy[list[Indexed]] = st.lists(TEXTS | CONVERSATIONS, max_size=40).map(
    lambda items: list(enumerate(items))
)


COUNTS = st.integers(1, 9)
BYTES = st.integers(1, 400)
TOKENS = st.integers(1, 150)


def packs(packer: Batcher, inputs: list[Indexed]) -> list[list[Indexed]]:
    """Put inputs in and take everything out."""
    return packer.add(inputs) + packer.flush()


def list_bytes(pack: list[Indexed]) -> int:
    """Count the bytes that the inputs take in a request, with a comma for each."""
    return len(write_json([item for _, item in pack])) - 1


def fits(pack: list[Indexed], body_bytes: int, tokens: int) -> bool:
    """Whether the inputs may travel together by their bytes, and by tokens of three bytes."""
    return list_bytes(pack) <= body_bytes and list_bytes(pack) / 3 <= tokens


@given(INPUTS, COUNTS, BYTES, TOKENS)
def test_inputs_keep_their_order_and_none_is_lost(
    inputs: list[Indexed], count: int, body_bytes: int, tokens: int
) -> None:
    """The packs laid end to end are the inputs, and no pack is empty."""
    made = packs(Batcher(count, body_bytes, tokens), inputs)

    assert inputs == [entry for pack in made for entry in pack]
    assert [] not in made


@given(INPUTS, COUNTS, BYTES, TOKENS)
def test_no_pack_is_too_large(inputs: list[Indexed], count: int, body_bytes: int, tokens: int) -> None:
    """A pack keeps within the inputs, the bytes and the tokens that are allowed, unless one input alone is larger."""
    for pack in packs(Batcher(count, body_bytes, tokens), inputs):
        assert len(pack) <= count
        assert len(pack) == 1 or fits(pack, body_bytes, tokens)


@given(INPUTS, st.integers(2, 9), BYTES, TOKENS)
def test_no_pack_is_sent_half_full(inputs: list[Indexed], count: int, body_bytes: int, tokens: int) -> None:
    """A pack is closed only where the next input would not have fitted."""
    made = packs(Batcher(count, body_bytes, tokens), inputs)
    for pack, following in pairwise(made):
        assert len(pack) == count or not fits([*pack, following[0]], body_bytes, tokens)


@given(INPUTS, COUNTS, BYTES, st.lists(st.integers(0, 40), max_size=4))
def test_packs_run_across_batches(inputs: list[Indexed], count: int, body_bytes: int, cuts: list[int]) -> None:
    """Inputs that come in several batches are packed as if they had come in one."""
    packer = Batcher(count, body_bytes)
    edges = [0, *sorted(min(cut, len(inputs)) for cut in cuts), len(inputs)]
    made = [pack for start, end in pairwise(edges) for pack in packer.add(inputs[start:end])]

    assert packs(Batcher(count, body_bytes), inputs) == made + packer.flush()


def test_what_waits_is_counted_and_flushed_once() -> None:
    """Inputs that do not fill a pack wait in it, until `flush` hands them over."""
    packer = Batcher(3)
    full = packer.add([(0, "a"), (1, "b"), (2, "c"), (3, "d")])

    assert [[(0, "a"), (1, "b"), (2, "c")]] == full
    assert 1 == len(packer)
    assert [[(3, "d")]] == packer.flush()
    assert [] == packer.flush()
    assert 0 == len(packer)


def test_an_input_larger_than_a_body_goes_alone() -> None:
    """It is the server's to refuse; its neighbours do not share its fate."""
    big = "x" * 50

    assert [[(0, "a"), (1, "b")], [(2, big)], [(3, "c")]] == packs(
        Batcher(9, body_bytes=20), [(0, "a"), (1, "b"), (2, big), (3, "c")]
    )


def test_bytes_are_counted_as_they_are_written() -> None:
    """A letter that takes three bytes, and an escape that takes six, count as such."""
    assert [1, 1, 1] == [len(pack) for pack in packs(Batcher(9, body_bytes=33), list(enumerate(["€" * 10] * 3)))]
    assert [1, 1] == [len(pack) for pack in packs(Batcher(9, body_bytes=33), list(enumerate(["\0" * 5] * 2)))]
    assert [2] == [len(pack) for pack in packs(Batcher(9, body_bytes=33), list(enumerate(["a" * 10] * 2)))]


def test_a_request_keeps_within_the_limits_that_are_known() -> None:
    """A pack is under Databricks' 4 MB and, at three bytes for a token, well under OpenAI's 300,000 tokens."""
    made = packs(Batcher(2_048), list(enumerate(["word " * 1_000] * 2_048)))

    assert 149 == len(made[0])  # of 5,003 bytes each
    assert max(list_bytes(pack) for pack in made) <= 4_000_000
    assert max(list_bytes(pack) for pack in made) / 3 <= 250_000
