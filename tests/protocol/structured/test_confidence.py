"""The confidence of a label: from the first token that tells the labels apart, whatever a tokenizer makes of it."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.protocol.structured.confidence import label_confidence

TEXTS = st.text(min_size=1, max_size=8).filter(str.strip)
LABELS = st.lists(TEXTS, min_size=2, max_size=5, unique=True)
MOODS = ("angry", "happy")


def token(text: str | bytes, *alternatives: tuple[str | bytes, float], logprob: float = -0.1) -> dict[str, Any]:
    """Return a token as a server sends it; the alternatives have probabilities."""
    raw = text if isinstance(text, bytes) else text.encode()
    top = [token(other, logprob=math.log(probability)) for other, probability in alternatives]
    named = {"token": raw.decode("utf-8", "replace"), "bytes": list(raw), "logprob": logprob}
    return named | ({"top_logprobs": top} if top else {})


def confidence(*tokens: dict[str, Any], label: str = "angry", labels: Sequence[str] = MOODS) -> float | None:
    """Return the confidence of an answer of these tokens."""
    return label_confidence({"content": list(tokens)}, "answer", label, labels)


@pytest.mark.parametrize(
    ("before", "chosen", "alternatives", "after"),
    [
        (['{"', "answer", '":', ' "'], "ang", [("ang", 0.6), ("hap", 0.2), ("h", 0.1), ("sad", 0.1)], ['ry"', "}"]),
        (['{"answer":'], '"ang', [('"ang', 0.6), ('"happy"', 0.2), (' "h', 0.1), ("[", 0.1)], ['ry"}']),
        (['{"answer"'], ': "angry"}', [(': "angry"}', 0.6), (':"h', 0.3), (": ", 0.1)], []),
        (["{"], '"answer":"an', [('"answer":"an', 0.6), ('"answer":"h', 0.3), ('"reason', 0.1)], ['gry"}']),
        (["<think>", '"answer":"happy"?', "</think>", '{"answer":"'], "a", [("a", 0.6), ("h", 0.3)], ['ngry"}']),
        (['{"answer":"'], "\\u0061", [("a", 0.3), ("\\u0061", 0.3), ("\\u0068", 0.3), ("\\n", 0.1)], ['ngry"}']),
    ],
)
def test_it_is_the_part_of_the_alternatives_that_begin_a_label(
    before: list[str], chosen: str, alternatives: list[tuple[str | bytes, float]], after: list[str]
) -> None:
    """Spaces, quotes, escapes and the field's name may be part of a token; what begins no label does not count."""
    tokens = [*map(token, before), token(chosen, *alternatives), *map(token, after)]

    assert 2 / 3 == pytest.approx(confidence(*tokens))


def test_a_label_that_begins_another_one_ends_with_its_quote() -> None:
    """The closing quote tells them apart."""
    labels = ("refund", "refund request")
    tokens = [token('{"answer":"'), token("refund", ("refund", 1.0)), token('"}', ('"}', 0.3), (" request", 0.1))]

    assert 0.75 == pytest.approx(confidence(*tokens, label="refund", labels=labels))


def test_a_character_of_several_tokens_tells_labels_apart_at_its_last_byte() -> None:
    """The first byte of two bytes may be the same."""
    tokens = [
        token('{"answer":"'),
        token(b"\xc3", (b"\xc3", 0.9), ("e", 0.1)),
        token(b"\xa9", (b"\xa9", 0.5), (b"\xa8", 0.3)),
        token('"}'),
    ]

    assert 0.625 == pytest.approx(confidence(*tokens, label="é", labels=("é", "è")))


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [token('{"answer":"'), token("comp"), token('laint"}')],
        [token('{"answer":"'), token("comp", ("comp", 0.9), ("q", 0.1)), token('laint"}')],
        [token('{"answer":"'), token("complaint", ("I", 0.9), ("The", 0.1)), token('"}')],
        [token('{"answer":"question"}')],
        [{"token": 'x{"answer":"complaint"}', "logprob": None}],
    ],
    ids=["nothing", "no alternatives", "begins two labels", "below all alternatives", "another label", "no numbers"],
)
def test_it_is_unknown(tokens: list[dict[str, Any]]) -> None:
    """Where the logprobs do not tell the label from the others there is no number."""
    labels = ("complaint", "compliment", "question")

    assert confidence(*tokens, label="complaint", labels=labels) is None


@given(
    st.recursive(
        st.none() | st.text() | st.floats(),
        lambda part: (
            st.lists(part)
            | st.dictionaries(st.sampled_from(["content", "token", "logprob", "bytes", "top_logprobs"]), part)
        ),
    )
)
def test_whatever_a_server_sends_it_is_no_error(logprobs: object) -> None:
    """It is unknown then."""
    assert label_confidence(logprobs, "answer", "angry", MOODS) is None


@pytest.mark.parametrize("logprob", [10**400, -(10**400), float("nan"), None, "-0.1"])
def test_a_logprob_that_no_float_can_hold_is_unknown(logprob: Any) -> None:  # noqa: ANN401 -- whatever a server sends
    """JSON's numbers have any size; the answer is kept."""
    start, alternative = token('{"answer":"'), token("hap", logprob=logprob)

    assert confidence(start, token("angry", logprob=logprob)) is None
    assert confidence(start, token("angry", ("angry", 0.9)) | {"top_logprobs": [token("angry"), alternative]}) == 1.0


@given(LABELS, st.data(), st.booleans())
def test_with_whole_labels_as_alternatives_it_is_the_models_own(
    labels: list[str],
    data: st.DataObject,
    ascii_only: bool,  # noqa: FBT001 -- of hypothesis
) -> None:
    """A token for each label gives the probability that the model has for it."""
    weights = data.draw(st.lists(st.integers(1, 100), min_size=len(labels), max_size=len(labels)))
    chosen = data.draw(st.sampled_from(labels))
    written = [json.dumps(label, ensure_ascii=ascii_only) for label in labels]
    alternatives = [(text, weight / sum(weights)) for text, weight in zip(written, weights, strict=True)]
    tokens = [token('{"answer": '), token(json.dumps(chosen, ensure_ascii=ascii_only), *alternatives), token("}")]

    found = confidence(*tokens, label=chosen, labels=labels)
    assert weights[labels.index(chosen)] / sum(weights) == pytest.approx(found)


@given(LABELS, st.data())
def test_any_way_to_cut_an_answer_gives_a_probability_or_nothing(labels: list[str], data: st.DataObject) -> None:
    """Tokens may end inside a character or an escape."""
    chosen = data.draw(st.sampled_from(labels))
    ascii_only = data.draw(st.booleans())
    raw = json.dumps({"rationale": '"answer":"x"', "answer": chosen}, ensure_ascii=ascii_only).encode()
    cuts = sorted({0, len(raw), *data.draw(st.lists(st.integers(1, len(raw) - 1), max_size=12))})
    others = [json.dumps(label)[1:] for label in labels]
    tokens = [
        token(raw[begin:end], (raw[begin:end], 0.5), *((text, 0.5 / len(others)) for text in others))
        for begin, end in pairwise(cuts)
    ]

    found = confidence(*tokens, label=chosen, labels=labels)
    assert found is None or 0 < found <= 1
