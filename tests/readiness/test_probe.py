"""Probe requests of each task: their content and their order."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS, Kind
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.json_codec import read_json, write_json
from spark_llm.protocol.predictions.task import Predict
from spark_llm.protocol.rerank import Rerank
from spark_llm.protocol.structured.schema import Scalar
from spark_llm.protocol.task import RESPONSES, Task
from spark_llm.protocol.values import RowError
from spark_llm.readiness.probe import SAMPLE, is_about_format, is_answered, probes, sample_inputs

PREDICT = Predict(Scalar("double"))
LIMITS = ("max_tokens", "max_completion_tokens")
FIELDS = st.dictionaries(
    st.sampled_from([*LIMITS, "temperature", "top_k", "thinking"]), st.integers(1, 4_096), max_size=4
)


def bodies(task: Task) -> list[dict[str, object]]:
    """Return the requests of a task's probes, without the input."""
    requests = [
        json.loads(bytes(probe.encode(sample_inputs(probe), None, wire_format))) for probe, wire_format in probes(task)
    ]
    return [{name: value for name, value in body.items() if name not in ("messages", "prompt")} for body in requests]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (Chat(), [{"max_tokens": 1}, {"max_completion_tokens": 1}]),
        (Chat(parameters=b'{"max_tokens":9}'), [{"max_tokens": 1}, {"max_tokens": 9}]),
        (Chat(parameters=b'{"max_tokens":1}'), [{"max_tokens": 1}]),
        (
            Chat(parameters=b'{"max_completion_tokens":9,"seed":1}'),
            [{"max_completion_tokens": 1, "seed": 1}, {"max_completion_tokens": 9, "seed": 1}],
        ),
        (
            Chat(parameters=b'{"seed":1}'),
            [{"seed": 1, "max_tokens": 1}, {"seed": 1, "max_completion_tokens": 1}, {"seed": 1}],
        ),
        (Complete(), [{"max_tokens": 1}]),
        (Complete(b'{"max_tokens":9}'), [{"max_tokens": 1}, {"max_tokens": 9}]),
        (Embed(), [{"input": [SAMPLE], "encoding_format": "base64"}, {"input": [SAMPLE]}]),
        (Rerank(), [{"query": SAMPLE, "documents": [SAMPLE]}, {"query": SAMPLE, "texts": [SAMPLE]}]),
        (Rerank(route="/score"), [{"text_1": SAMPLE, "text_2": [SAMPLE]}]),
        (PREDICT, [{"dataframe_split": {"data": []}}]),
    ],
)
def test_the_probes_and_their_order(task: Task, expected: list[dict[str, object]]) -> None:
    """The limit is one token under the user's name or under each name; then come the user's own parameters."""
    assert expected == bodies(task)


@pytest.mark.parametrize(
    ("parameters", "limits"),
    [(b"{}", [16]), (b'{"max_tokens":99}', [16, 99]), (b'{"temperature":0.5}', [16, None])],
)
def test_probes_of_the_responses_route_have_its_least_limit(parameters: bytes, limits: list[int | None]) -> None:
    """It takes no fewer tokens than 16, and has one name for the limit."""
    requests = [
        json.loads(bytes(probe.encode([SAMPLE], None, wire_format)))
        for probe, wire_format in probes(Chat(parameters=parameters), RESPONSES)
    ]

    assert limits == [body.get("max_output_tokens") for body in requests]
    assert {SAMPLE} == {body["input"] for body in requests}


@given(st.sampled_from([Chat, Complete]), FIELDS)
def test_the_first_probe_is_the_udfs_request_with_one_token(
    kind: type[Chat | Complete], fields: dict[str, int]
) -> None:
    """All other parameters stay, and no probe is sent twice."""
    task = kind(parameters=write_json(fields))
    requests = [read_json(probe.parameters) for probe, _ in probes(task) if isinstance(probe, kind)]
    own = {name: value for name, value in fields.items() if name not in LIMITS}

    assert own == {name: value for name, value in requests[0].items() if name not in LIMITS}
    assert {1} == {value for name, value in requests[0].items() if name in LIMITS}
    assert len(requests) == len({write_json(each) for each in requests})
    assert all(each == fields or 1 in (each.get(name) for name in LIMITS) for each in requests)


@pytest.mark.parametrize(
    ("task", "message", "expected"),
    [
        (Chat(), "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", True),
        (Chat(), "`max_tokens` must be greater than `thinking.budget_tokens`", True),
        (Chat(), "Field required: messages", False),
        (Complete(), "Unknown field 'prompt'", False),
        (Embed(), "Unknown field 'encoding_format'", True),
    ],
)
def test_a_refusal_of_the_wire_format_leads_to_the_next_probe(task: Task, message: str, expected: bool) -> None:  # noqa: FBT001 -- a table
    """A refusal about tokens may be about the limit; any refusal of an embedding may be about its format."""
    assert expected == is_about_format(task, RowError("invalid_request", 400, message, retryable=False))


@given(st.sampled_from([kind for kind in KINDS if kind != "invalid_request"]), st.text())
def test_other_errors_end_the_probes(kind: Kind, message: str) -> None:
    """Another wire format helps only against an invalid request."""
    assert not is_about_format(Embed(), RowError(kind, 400, message, retryable=False))


@pytest.mark.parametrize(
    ("task", "error", "expected"),
    [
        (Chat(), RowError("truncated", 200, "every token was spent", retryable=False), True),
        (
            Chat(),
            RowError("invalid_request", 400, "max_tokens or model output limit was reached.", retryable=False),
            True,
        ),
        (Chat(), RowError("invalid_request", 400, "max_tokens is not known", retryable=False), False),
        (Chat(), RowError("unauthorized", 401, "no", retryable=False), False),
        (PREDICT, RowError("invalid_request", 400, "Model is missing inputs ['x'].", retryable=False), True),
        (PREDICT, RowError("invalid_response", 200, "1 predictions for 0 rows: …", retryable=True), True),
        (
            PREDICT,
            RowError("invalid_request", 400, "Missing required Chat parameter: 'messages'", retryable=False),
            False,
        ),
        (PREDICT, RowError("invalid_response", 200, "the answer has no predictions: …", retryable=True), False),
        (PREDICT, RowError("not_found", 404, "no", retryable=False), False),
    ],
)
def test_too_little_is_an_answer(task: Task, error: RowError, expected: bool) -> None:  # noqa: FBT001 -- a table
    """The error proves that the model was reached: by a request of one token, or by one without rows."""
    assert expected == is_answered(task, error)
