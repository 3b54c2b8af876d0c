"""Which inputs travel together in one request."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.batcher import PACKED_BYTES, Batcher, Indexed
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.values import Item
from tests.support.strategies import TEXTS

CONVERSATIONS: st.SearchStrategy[Item] = st.lists(st.fixed_dictionaries({"role": TEXTS, "content": TEXTS}), max_size=3)
INPUTS: st.SearchStrategy[list[Indexed]] = st.lists(TEXTS | CONVERSATIONS, max_size=40).map(
    lambda items: list(enumerate(items))
)


EMBED = Embed()
COUNTS = st.integers(1, 9)
BYTES = st.integers(1, 400)
TOKENS = st.integers(1, 150)


def packs(batcher: Batcher, inputs: list[Indexed]) -> list[list[Indexed]]:
    """Put inputs in and take everything out."""
    return batcher.add(inputs) + batcher.flush()


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
    """The batches laid end to end are the inputs, and no batch is empty."""
    made = packs(Batcher(count, body_bytes, tokens), inputs)

    assert inputs == [entry for pack in made for entry in pack]
    assert [] not in made


@given(INPUTS, COUNTS, BYTES, TOKENS)
def test_no_batch_is_too_large(inputs: list[Indexed], count: int, body_bytes: int, tokens: int) -> None:
    """A batch keeps within the allowed inputs, bytes and tokens, unless one input alone is larger."""
    for pack in packs(Batcher(count, body_bytes, tokens), inputs):
        assert len(pack) <= count
        assert len(pack) == 1 or fits(pack, body_bytes, tokens)


@given(INPUTS, st.integers(2, 9), BYTES, TOKENS)
def test_no_batch_is_sent_half_full(inputs: list[Indexed], count: int, body_bytes: int, tokens: int) -> None:
    """A batch is closed only where the next input would not fit."""
    made = packs(Batcher(count, body_bytes, tokens), inputs)
    for pack, following in pairwise(made):
        assert len(pack) == count or not fits([*pack, following[0]], body_bytes, tokens)


@given(INPUTS, COUNTS, BYTES, st.lists(st.integers(0, 40), max_size=4))
def test_requests_span_arrow_batches(inputs: list[Indexed], count: int, body_bytes: int, cuts: list[int]) -> None:
    """Inputs from several Arrow batches fill requests as if they came in one."""
    batcher = Batcher(count, body_bytes)
    edges = [0, *sorted(min(cut, len(inputs)) for cut in cuts), len(inputs)]
    made = [pack for start, end in pairwise(edges) for pack in batcher.add(inputs[start:end])]

    assert packs(Batcher(count, body_bytes), inputs) == made + batcher.flush()


def test_what_waits_is_counted_and_flushed_once() -> None:
    """Inputs that do not fill a batch wait in it until `flush` returns them."""
    batcher = Batcher(3)
    full = batcher.add([(0, "a"), (1, "b"), (2, "c"), (3, "d")])

    assert [[(0, "a"), (1, "b"), (2, "c")]] == full
    assert 1 == len(batcher)
    assert [[(3, "d")]] == batcher.flush()
    assert [] == batcher.flush()
    assert 0 == len(batcher)


def test_an_input_larger_than_a_body_goes_alone() -> None:
    """An input above the limits has a batch of its own, and the server may refuse it."""
    big = "x" * 50

    assert [[(0, "a"), (1, "b")], [(2, big)], [(3, "c")]] == packs(
        Batcher(9, max_bytes=20), [(0, "a"), (1, "b"), (2, big), (3, "c")]
    )


def test_bytes_are_counted_as_they_are_written() -> None:
    """A character of three bytes, and an escape of six, count as such."""
    assert [1, 1, 1] == [len(pack) for pack in packs(Batcher(9, max_bytes=33), list(enumerate(["€" * 10] * 3)))]
    assert [1, 1] == [len(pack) for pack in packs(Batcher(9, max_bytes=33), list(enumerate(["\0" * 5] * 2)))]
    assert [2] == [len(pack) for pack in packs(Batcher(9, max_bytes=33), list(enumerate(["a" * 10] * 2)))]


def test_a_request_keeps_within_the_documented_limits() -> None:
    """A batch is under Databricks' 4 MB and, at three bytes for a token, well under OpenAI's 300,000 tokens."""
    made = packs(Batcher(2_048, max_tokens=EMBED.max_request_tokens), list(enumerate(["word " * 1_000] * 2_048)))

    assert 149 == len(made[0])  # of 5,003 bytes each
    assert max(list_bytes(pack) for pack in made) <= PACKED_BYTES
    assert max(list_bytes(pack) for pack in made) / 3 <= 250_000
