"""What a refusal means, beyond the documented bodies in `tests/samples`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm._tasks._failure import failure_of
from spark_llm._values import Failure, Response
from spark_llm.errors import KINDS, Kind
from tests.strategies import JSON, REPLIES

ERROR_STATUSES = st.integers(300, 599)
HEADERS = st.dictionaries(st.sampled_from(("retry-after", "retry-after-ms", "date")), st.text(max_size=30))
DATE = "Fri, 20 Nov 2026 10:00:00 GMT"
RETRYABLE = {"rate_limited", "unavailable", "timeout", "connection", "invalid_response"}


def refusal(status: int, document: object = None, **headers: str) -> Failure:
    """Read an error body."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return failure_of(Response(status, b"" if document is None else json.dumps(document).encode(), names))


def holds(failure: Failure) -> bool:
    """Whether a failure is one that rules and columns can deal with."""
    error = failure.error
    return (
        error.kind in KINDS
        and bool(error.message)
        and bool(error.message.encode("utf-8"))
        and len(error.message) <= 600
        and error.retryable == (error.kind in RETRYABLE)
        and (failure.retry_after_s is None or 0 <= failure.retry_after_s < float("inf"))
        and (error.retryable or not failure.told_to_wait)
    )


@given(st.binary(max_size=300), ERROR_STATUSES, HEADERS)
def test_any_bytes_are_a_failure(body: bytes, status: int, headers: dict[str, str]) -> None:
    """Whatever a server or a proxy sends, it has a kind, words and a wait that can be waited."""
    assert holds(failure_of(Response(status, body, headers)))


@given(JSON | REPLIES, ERROR_STATUSES, HEADERS)
def test_any_json_is_a_failure(document: object, status: int, headers: dict[str, str]) -> None:
    """So has any JSON, made of an error body's words or not."""
    failure = failure_of(Response(status, json.dumps(document).encode(), headers))

    assert holds(failure)
    assert status == failure.error.status


@given(REPLIES, ERROR_STATUSES, st.integers(0, 6))
def test_json_inside_messages_is_a_failure(document: object, status: int, depth: int) -> None:
    """And JSON that was written into a message, and that into another."""
    for _ in range(depth):
        document = {"error_code": "INTERNAL_ERROR", "message": json.dumps(document)}

    assert holds(refusal(status, document))


@pytest.mark.parametrize("fault", ["timeout", "connection", "invalid_response"])
def test_a_fault_on_the_way_is_a_failure(fault: Kind) -> None:
    """Where no whole answer came, the kind is the fault's, in its words, and it may be tried again."""
    failure = failure_of(Response(0, fault=fault, detail="no answer within 120 s \udcff"))

    assert holds(failure)
    assert (fault, None) == (failure.error.kind, failure.error.status)
    assert "no answer within 120 s" in failure.error.message
    assert not failure.told_to_wait


@pytest.mark.parametrize(
    ("status", "kind", "waits"),
    [
        (400, "invalid_request", False),
        (401, "unauthorized", False),
        (402, "quota", False),
        (403, "unauthorized", False),
        (404, "not_found", False),
        (408, "timeout", False),
        (413, "invalid_request", False),
        (422, "invalid_request", False),
        (429, "rate_limited", True),
        (500, "unavailable", False),
        (502, "unavailable", False),
        (503, "unavailable", True),
        (504, "unavailable", False),
        (529, "unavailable", True),
    ],
)
def test_without_a_body_the_status_names_the_kind(status: int, kind: str, waits: bool) -> None:  # noqa: FBT001 -- a table
    """An empty answer is what its status says; only 429, 503 and 529 are told to wait."""
    failure = refusal(status)

    assert (kind, waits) == (failure.error.kind, failure.told_to_wait)


@pytest.mark.parametrize(
    "words",
    [
        "Rate limit exceeded",
        "prompt is too long",
        "insufficient_quota",
        "blocked by a guardrail",
        "REQUEST_LIMIT_EXCEEDED",
    ],
)
@pytest.mark.parametrize(("status", "kind"), [(401, "unauthorized"), (403, "unauthorized"), (404, "not_found")])
def test_some_statuses_mean_what_they_say(status: int, kind: str, words: str) -> None:
    """Whatever words stand beside them, 401, 403 and 404 are themselves."""
    assert kind == refusal(status, {"message": words}).error.kind


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_an_exhausted_quota_is_not_waited_for(status: int) -> None:
    """Money does not come back by waiting: whatever the status, the task stops at once."""
    failure = refusal(status, {"error": {"type": "insufficient_quota", "message": "You exceeded your current quota"}})

    assert ("quota", False, True) == (failure.error.kind, failure.told_to_wait, failure.stops_all)


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({}, None, None),
        ({"retry_after": "7"}, None, 7.0),
        ({"retry_after": " 0.5 "}, None, 0.5),
        ({"retry_after": "1500ms"}, None, 1.5),
        ({"retry_after": "20s"}, None, 20.0),
        ({"retry_after": "0"}, None, 0.0),
        ({"retry_after": "-3"}, None, None),
        ({"retry_after": "soon"}, None, None),
        ({"retry_after": "1e400"}, None, None),
        ({"retry_after_ms": "250"}, None, 0.25),
        ({"retry_after_ms": "250", "retry_after": "1"}, None, 0.25),
        ({"retry_after_ms": "?", "retry_after": "1"}, None, 1.0),
        ({"retry_after": "Fri, 20 Nov 2026 10:01:30 GMT", "date": DATE}, None, 90.0),
        ({"retry_after": "Fri, 20 Nov 2026 09:59:00 GMT", "date": DATE}, None, 0.0),
        ({"retry_after": "Fri, 20 Nov 2026 10:01:30 GMT"}, None, None),
        ({}, {"error": {"code": 429, "retry_after": 15}}, 15.0),
        ({}, {"error": {"retry_after": "15s"}}, 15.0),
        ({}, {"retry_after": 2.5}, 2.5),
        ({}, {"retry_after": True}, None),
        ({}, {"retry_after": -1}, None),
        ({}, {"retry_after": [1]}, None),
        ({}, {"message": json.dumps({"error": {"retry_after": 4}})}, 4.0),
        ({"retry_after": "3"}, {"retry_after": 15}, 3.0),
        ({"retry_after": "soon"}, {"retry_after": 15}, 15.0),
    ],
)
def test_how_long_to_wait_is_found_where_servers_put_it(
    headers: dict[str, str],
    body: object,
    expected: float | None,
) -> None:
    """Seconds, milliseconds, an HTTP date against the server's own, or the body's `retry_after`; nonsense is none."""
    assert expected == refusal(429, body, **headers).retry_after_s


def test_a_prompt_that_a_server_repeats_is_no_evidence() -> None:
    """A validator that quotes what it was sent does not turn the prompt's words into the error's kind."""
    quoted = {"detail": [{"msg": "Field required", "input": {"prompt": "Rate limit exceeded; prompt is too long"}}]}

    assert "invalid_request" == refusal(422, quoted).error.kind


def test_the_innermost_truth_counts() -> None:
    """A gateway's 500 around a provider's 401 is a provider's 401, and the status shown is the one that was sent."""
    inner = {"error": {"message": "Incorrect API key", "code": 401}}
    failure = refusal(500, {"error_code": "INTERNAL_ERROR", "message": json.dumps({"external_model_error": inner})})

    assert ("unauthorized", 500, "Incorrect API key") == (
        failure.error.kind,
        failure.error.status,
        failure.error.message,
    )


def test_a_long_page_is_cut_to_a_sentence() -> None:
    """The message is for a column: one line, and not a whole page."""
    page = b"<html><head><style>a { color: red }</style></head><body>" + b"<p>Sorry,\n the service is down.</p>" * 500
    message = failure_of(Response(500, page)).error.message

    assert message.startswith("Sorry, the service is down.")
    assert "\n" not in message
    assert len(message) <= 501


def test_a_body_that_was_never_meant_to_end_is_read_quickly() -> None:
    """Depth without end is no JSON, and costs no stack."""
    for body in (b"[" * 100_000, b'{"error":' * 100_000, b'{"a":"' + b"{" * 100_000):
        assert "unavailable" == failure_of(Response(500, body)).error.kind


@pytest.mark.parametrize("status", [301, 302, 307, 308, 405])
def test_a_wrong_address_is_not_the_inputs_fault(status: int) -> None:
    """A redirect and a method that is not allowed are about the URL: no batch is halved for them, and all stops."""
    assert (False, True) == (refusal(status).about_input, refusal(status).stops_all)
