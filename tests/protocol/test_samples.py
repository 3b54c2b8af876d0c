"""Every file of `tests/samples`, a body as its service documents or sends it, is read correctly."""

import json
from array import array
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.predictions.task import Predict
from spark_llm.protocol.rerank import Rerank
from spark_llm.protocol.structured.schema import Field, Nullable, Scalar, Shape, Struct
from spark_llm.protocol.task import RESPONSES
from spark_llm.protocol.values import Answer, Failure, Outcome, Response, Result
from tests.support.strategies import JSON, REPLIES, STATUSES

SAMPLES = {
    file.stem: json.loads(file.read_text(encoding="utf-8"))
    for file in sorted((Path(__file__).parents[1] / "samples").glob("*.json"))
}
KINDS_OF_SERVERS = {
    "content_filter",
    "context_length",
    "invalid_request",
    "invalid_response",
    "not_found",
    "quota",
    "rate_limited",
    "schema_mismatch",
    "timeout",
    "truncated",
    "unauthorized",
    "unavailable",
}


RETURNS: dict[str, Shape] = {
    "double": Nullable(Scalar("double")),
    "string": Nullable(Scalar("string")),
    "label_and_score": Struct((Field("label", Scalar("string")), Field("score", Nullable(Scalar("double"))))),
}
SETTLES = {"kind", "status", "retryable", "throttled", "retry_after_s", "about_input", "stops_all"}
HEADERS = st.dictionaries(
    st.sampled_from(("retry-after", "retry-after-ms", "date", "location", "x-request-id", "served-model-name")),
    st.text(st.characters(), max_size=30) | st.text(st.characters(categories=["Cs"]), max_size=3),
)


def body_of(sample: dict[str, Any]) -> bytes:
    """Return the body's bytes."""
    text: str = sample["body_text"] if "body_text" in sample else json.dumps(sample["body"])
    return text.encode()


def read(sample: dict[str, Any]) -> Outcome:
    """Read a sample with the codec of its task."""
    return decoded(sample, Response(sample["status"], body_of(sample), sample["headers"]), sample["count"])


def decoded(sample: dict[str, Any], response: Response, count: int) -> Outcome:
    """Read any response with the codec of a sample's task."""
    n = sample.get("n", 1)
    embed = Embed(encode_parameters({"dimensions": sample.get("dimensions")}, None))
    predict = Predict(RETURNS[sample.get("returns", "double")])
    chat = Chat(n=n, tools=sample.get("tools", False))
    tasks: dict[str, Callable[[Response, int], Outcome]] = {
        "chat": chat.decode,
        "responses": partial(chat.decode, wire_format=RESPONSES),
        "complete": Complete(n=n).decode,
        "embed": embed.decode,
        "predict": predict.decode,
        "rerank": Rerank().decode,
    }
    return tasks[sample["task"]](response, count)


def facts(outcome: Outcome) -> dict[str, Any]:
    """Return the values that a sample may have an expectation of."""
    if isinstance(outcome, Answer):
        first = outcome.results[0]
        of_first = ("text", "choices", "finish_reason", "model", "request_id", "tool_calls")
        found = {name: getattr(first, name) for name in of_first}
        found["embeddings"] = [result.embedding for result in outcome.results]
        found["predictions"] = [_plain(result.prediction) for result in outcome.results]
        found["ranking"] = [[each["index"], each["score"]] for each in first.ranking or ()]
        found["each"] = [
            {"text": result.text, "choices": result.choices, "kind": result.error and result.error.kind}
            for result in outcome.results
        ]
        error = first.error
    else:
        names = ("throttled", "short", "retry_after_s", "about_input", "format_unsupported", "stops_all")
        found = {name: getattr(outcome, name) for name in names}
        error = outcome.error
    found["usage"] = None if outcome.usage is None else outcome.usage._asdict()
    return found | ({"kind": None} if error is None else error._asdict())


def _plain(prediction: Any) -> Any:  # noqa: ANN401 -- any value of a column
    """Return a prediction as a sample writes it: NaN and infinity by their names."""
    return str(prediction) if isinstance(prediction, float) and not isfinite(prediction) else prediction


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_is_read_as_expected(name: str) -> None:
    """It expects text, vectors and tokens of an answer; kind, message, waits and reach of a failure."""
    expected: dict[str, Any] = {"kind": None, **SAMPLES[name]["expect"]}
    if "embeddings" in expected:
        expected["embeddings"] = [array("f", vector).tobytes() for vector in expected["embeddings"]]
    part_of_message = expected.pop("message", "")
    found = facts(read(SAMPLES[name]))

    assert expected == {field: found.get(field) for field in expected}
    assert part_of_message in found.get("message", "")


def test_a_failed_row_of_a_200_has_no_text() -> None:
    """A result with an error has neither text nor choices."""
    failed = [read(sample) for sample in SAMPLES.values() if sample["status"] == 200 and "kind" in sample["expect"]]
    answers = [outcome for outcome in failed if isinstance(outcome, Answer)]
    results = [result for answer in answers for result in answer.results if result.error is not None]

    assert len(answers) <= len(results)
    assert [(None, None)] * len(results) == [(result.text, result.choices) for result in results]


def test_every_kind_that_a_server_can_cause_has_a_sample() -> None:
    """Each kind of error has a real body that leads to it."""
    assert set() == KINDS_OF_SERVERS - {sample["expect"].get("kind") for sample in SAMPLES.values()}


def test_each_failure_sample_expects_all_consequences() -> None:
    """It says whether the sender waits, splits the batch or stops the task."""
    refusals = {name: sample for name, sample in SAMPLES.items() if isinstance(read(sample), Failure)}

    assert {} == {
        name: SETTLES - set(sample["expect"]) for name, sample in refusals.items() if SETTLES - set(sample["expect"])
    }


def test_only_a_tier_without_room_is_short() -> None:
    """No other rate limit is: it says that too much was sent."""
    failures = {name: outcome for name, sample in SAMPLES.items() if isinstance(outcome := read(sample), Failure)}

    assert {"groq-498-flex-capacity", "openai-429-flex-unavailable"} == {
        name for name, failure in failures.items() if failure.short
    }
    assert all(failure.throttled for failure in failures.values() if failure.short)


def places_of(document: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 -- a JSON document has any type
    """Yield every place in a document: its container, and its key or index."""
    if isinstance(document, (dict, list)):
        for key in document if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from places_of(document[key])


STRANGE = st.sampled_from([
    float("nan"), float("-inf"), 1e39, 10**400, -(2**63), 2**31, "\ud83d", "", "[" * 2_000, '{"error":' * 20,
    json.loads("[" * 200 + "]" * 200), json.loads('{"error":' * 200 + "1" + "}" * 200),
    [None], [[]], {"": {}}, {"index": 0}, "NaN", "AAAA", "AADAfw==", True,
])  # fmt: skip


@st.composite
def mutated_bodies(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """Draw a sample, and its body with parts replaced, removed, doubled or cut off."""
    sample = draw(st.sampled_from([sample for sample in SAMPLES.values() if "body" in sample]))
    document = {"": deepcopy(sample["body"])}  # so that there is a place for the whole
    for _ in range(draw(st.integers(1, 4))):
        holder, key = draw(st.sampled_from(list(places_of(document))))
        how = draw(st.sampled_from(("replace", "replace", "remove", "double")))
        if how == "replace" or holder is document:
            holder[key] = deepcopy(draw(STRANGE | REPLIES | JSON))
        elif how == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(deepcopy(holder[key]))
        else:
            holder[draw(st.sampled_from(("error", "data", "choices", "detail")))] = deepcopy(holder[key])
    body = json.dumps(document[""]).encode()
    return sample, draw(st.sampled_from([body, body[: draw(st.integers(0, len(body)))]]))


def fits_its_columns(result: Result, task: str) -> bool:
    """Return whether a row can hold a result: text in UTF-8, whole float32, and no answer beside an error."""
    words = [result.text, result.model, result.request_id, result.finish_reason, *(result.choices or [])]
    answered = result.text is not None or result.embedding is not None
    answered = answered or result.ranking is not None
    if task == "predict":  # whose predictions may be null
        answered = result.prediction is not None or result.error is None
    return (
        all(word.encode("utf-8") is not None for word in words if word is not None)
        and answered == (result.error is None)
        and len(result.embedding or b"") % 4 == 0
        and (result.error is None or result.error.kind in KINDS)
    )


@given(mutated_bodies(), st.none() | STATUSES, HEADERS, st.none() | st.integers(1, 4))
def test_mutated_bodies_raise_nothing(
    bent: tuple[dict[str, Any], bytes], status: int | None, headers: dict[str, str], drawn: int | None
) -> None:
    """A body with wrong parts gives a result for each input, or a failure, and never an exception."""
    sample, body = bent
    count: int = sample["count"] if drawn is None or sample["task"] == "chat" else drawn
    outcome = decoded(sample, Response(sample["status"] if status is None else status, body, headers), count)
    counts = outcome.usage.counts if outcome.usage else ()

    assert all(count is None or 0 <= count < 2**31 for count in counts)
    if isinstance(outcome, Answer):
        assert count == len(outcome.results)
        assert [] == [result for result in outcome.results if not fits_its_columns(result, sample["task"])]
    else:
        assert outcome.error.kind in KINDS
        assert outcome.error.message.encode("utf-8")
