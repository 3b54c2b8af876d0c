"""Every file of `tests/samples`, a real body as its service documents it, is read for what it is."""

import json
from array import array
from pathlib import Path
from typing import Any

import pytest

from spark_llm._tasks.chat import Chat
from spark_llm._tasks.complete import Complete
from spark_llm._tasks.embed import Embed
from spark_llm._values import Answer, Outcome, Response

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
    "timeout",
    "truncated",
    "unauthorized",
    "unavailable",
}


def read(sample: dict[str, Any]) -> Outcome:
    """Read a sample with the codec of its task."""
    body = sample["body_text"] if "body_text" in sample else json.dumps(sample["body"])
    n = sample.get("n", 1)
    tasks = {"chat": Chat(n=n).decode, "complete": Complete(n=n).decode, "embed": Embed().decode}
    return tasks[sample["task"]](Response(sample["status"], body.encode(), sample["headers"]), sample["count"])


def facts(outcome: Outcome) -> dict[str, Any]:
    """Lay out what a sample may expect something of."""
    if isinstance(outcome, Answer):
        first = outcome.results[0]
        found = {name: getattr(first, name) for name in ("text", "choices", "finish_reason", "model", "request_id")}
        found["embeddings"] = [result.embedding for result in outcome.results]
        found["each"] = [
            {"text": result.text, "choices": result.choices, "kind": result.error and result.error.kind}
            for result in outcome.results
        ]
        error = first.error
    else:
        names = ("told_to_wait", "retry_after_s", "about_input", "about_form", "stops_all")
        found = {name: getattr(outcome, name) for name in names}
        error = outcome.error
    found["usage"] = None if outcome.usage is None else outcome.usage._asdict()
    return found | ({"kind": None} if error is None else error._asdict())


@pytest.mark.parametrize("name", SAMPLES)
def test_a_documented_body_is_read_for_what_it_is(name: str) -> None:
    """Text, vectors and tokens of an answer; kind, words, waits and reach of a refusal: as the sample expects them."""
    expected: dict[str, Any] = {"kind": None, **SAMPLES[name]["expect"]}
    if "embeddings" in expected:
        expected["embeddings"] = [array("f", vector).tobytes() for vector in expected["embeddings"]]
    part_of_message = expected.pop("message", "")
    found = facts(read(SAMPLES[name]))

    assert expected == {field: found.get(field) for field in expected}
    assert part_of_message in found.get("message", "")


def test_a_failed_row_of_a_200_has_no_text() -> None:
    """Where a 200 is the error of its row, nothing stands in place of the answer."""
    failed = [read(sample) for sample in SAMPLES.values() if sample["status"] == 200 and "kind" in sample["expect"]]
    answers = [outcome for outcome in failed if isinstance(outcome, Answer)]
    results = [result for answer in answers for result in answer.results if result.error is not None]

    assert len(answers) <= len(results)
    assert [(None, None)] * len(results) == [(result.text, result.choices) for result in results]


def test_every_kind_that_a_server_can_cause_has_a_sample() -> None:
    """No kind of error is without a real body that leads to it."""
    assert set() == KINDS_OF_SERVERS - {sample["expect"].get("kind") for sample in SAMPLES.values()}
