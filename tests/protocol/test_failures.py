"""Failures of responses beyond the documented bodies in `tests/samples`."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS, Kind
from spark_llm.protocol.failures import failure_of
from spark_llm.protocol.values import Failure, Response
from tests.support.growth import grows_linearly
from tests.support.strategies import JSON, REPLIES

ERROR_STATUSES = st.integers(300, 599)
HEADERS = st.dictionaries(st.sampled_from(("retry-after", "retry-after-ms", "date")), st.text(max_size=30))
DATE = "Fri, 20 Nov 2026 10:00:00 GMT"
RETRYABLE = {"rate_limited", "unavailable", "timeout", "connection", "invalid_response"}


def refusal(status: int, document: object = None, **headers: str) -> Failure:
    """Return the failure of an error body."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return failure_of(Response(status, b"" if document is None else json.dumps(document).encode(), names))


def holds(failure: Failure) -> bool:
    """Return whether a failure can be handled and fits its columns."""
    error = failure.error
    return (
        error.kind in KINDS
        and bool(error.message)
        and bool(error.message.encode("utf-8"))
        and len(error.message) <= 600
        and error.retryable == (error.kind in RETRYABLE)
        and (failure.retry_after_s is None or 0 <= failure.retry_after_s < float("inf"))
        and (error.retryable or not failure.throttled)
        and not (failure.throttled and failure.stops_all)
    )


@given(st.binary(max_size=300), ERROR_STATUSES, HEADERS)
def test_any_bytes_are_a_failure(body: bytes, status: int, headers: dict[str, str]) -> None:
    """It has a kind, a message and a finite wait."""
    assert holds(failure_of(Response(status, body, headers)))


@given(JSON | REPLIES, ERROR_STATUSES, HEADERS)
def test_any_json_is_a_failure(document: object, status: int, headers: dict[str, str]) -> None:
    """The JSON may have the fields of an error body or not."""
    failure = failure_of(Response(status, json.dumps(document).encode(), headers))

    assert holds(failure)
    assert status == failure.error.status


@given(REPLIES, ERROR_STATUSES, st.integers(0, 6))
def test_json_inside_messages_is_a_failure(document: object, status: int, depth: int) -> None:
    """A message may hold JSON, whose message may hold JSON again."""
    for _ in range(depth):
        document = {"error_code": "INTERNAL_ERROR", "message": json.dumps(document)}

    assert holds(refusal(status, document))


@pytest.mark.parametrize("fault", ["timeout", "connection", "invalid_response"])
def test_a_fault_is_a_retryable_failure(fault: Kind) -> None:
    """It keeps its kind and its description."""
    failure = failure_of(Response(0, fault=fault, detail="no answer within 120 s \udcff"))

    assert holds(failure)
    assert (fault, None) == (failure.error.kind, failure.error.status)
    assert "no answer within 120 s" in failure.error.message
    assert not failure.throttled


@pytest.mark.parametrize(
    ("status", "kind", "waits"),
    [
        (400, "invalid_request", False),
        (401, "unauthorized", False),
        (402, "quota", False),
        (403, "unauthorized", False),
        (404, "not_found", False),
        (405, "not_found", False),
        (407, "unauthorized", False),
        (408, "timeout", False),
        (409, "unavailable", False),
        (410, "not_found", False),
        (413, "invalid_request", False),
        (421, "not_found", False),
        (422, "invalid_request", False),
        (424, "unavailable", False),
        (425, "unavailable", False),
        (429, "rate_limited", True),
        (499, "unavailable", False),
        (500, "unavailable", False),
        (501, "invalid_request", False),
        (502, "unavailable", False),
        (503, "unavailable", True),
        (504, "unavailable", False),
        (529, "unavailable", True),
    ],
)
def test_without_a_body_the_status_gives_the_kind(status: int, kind: str, waits: bool) -> None:  # noqa: FBT001 -- a table
    """Only 429, 503 and 529 are throttled."""
    failure = refusal(status)

    assert (kind, waits) == (failure.error.kind, failure.throttled)


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
def test_some_statuses_are_unambiguous(status: int, kind: str, words: str) -> None:
    """401, 403 and 404 give the kind, whatever the message is."""
    assert kind == refusal(status, {"message": words}).error.kind


NO_ROOM = [
    (429, None, "Rate limit exceeded for the guardrail model, retry later"),
    (429, "rate_limit_exceeded", "Rate limit reached for input tokens. Reduce the length of the prompt or retry."),
    (400, "REQUEST_LIMIT_EXCEEDED", "Too many input tokens: reduce the length of the prompt, or wait."),
    (498, None, "No capacity for this context length."),
    (503, None, "The guardrail service is temporarily unavailable"),
    (503, "unavailable", "Model overloaded: queue for context window 128k is full"),
    (503, None, "A guardrail was triggered too often by others; retry."),
    (529, "overloaded_error", "Overloaded: the content filtering policy service has no room"),
    (500, None, "Internal error while calling guardrail"),
    (504, "timeout", "The guardrail did not answer in time"),
]


@pytest.mark.parametrize(("status", "code", "words"), NO_ROOM)
def test_a_message_about_no_room_is_not_about_the_input(status: int, code: str | None, words: str) -> None:
    """Whatever the words name, the same row may pass later."""
    failure = refusal(status, {"error": {"code": code, "message": words}}, retry_after="2")

    assert ("rate_limited" if status < 500 else "unavailable", True) == (failure.error.kind, failure.error.retryable)
    assert (status not in (500, 504), False) == (failure.throttled, failure.about_input)


@pytest.mark.parametrize(
    ("status", "document", "kind"),
    [
        (429, {"error": {"code": "content_filter", "message": "?"}}, "content_filter"),
        (503, {"error": {"type": "context_length_exceeded", "message": "?"}}, "context_length"),
        (429, {"error": {"code": "rate_limit_exceeded", "message": "Request too large for m"}}, "context_length"),
        (503, {"message": json.dumps({"input_guardrail": [{"flagged": True}]})}, "content_filter"),
        (500, {"message": "Guardrail intervened"}, "content_filter"),
        (500, {"message": "Your request was blocked by the guardrail 'pii'."}, "content_filter"),
        (400, {"message": "Guardrail: pii"}, "content_filter"),
    ],
)
def test_a_code_about_the_input_counts_under_any_status(status: int, document: object, kind: str) -> None:
    """Gateways pass on a provider's code with a status of their own; below 429 and 500 the words are enough."""
    failure = refusal(status, document)

    assert (kind, False, False) == (failure.error.kind, failure.error.retryable, failure.throttled)


EXHAUSTED = "You exceeded your current quota, please check your plan and billing details."


@pytest.mark.parametrize("status", [400, 429, 500, 503])
@pytest.mark.parametrize("code", ["insufficient_quota", "RESOURCE_EXHAUSTED", None])
def test_an_exhausted_quota_stops_the_task(status: int, code: str | None) -> None:
    """Waiting does not help, whatever the status and the code are: a gateway may pass on the message alone."""
    failure = refusal(status, {"error": {"type": code, "message": EXHAUSTED}})

    assert ("quota", False, True) == (failure.error.kind, failure.throttled, failure.stops_all)


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"retry_after": "20"}, {"type": "insufficient_quota", "message": EXHAUSTED}),
        ({}, {"message": EXHAUSTED, "details": [{"retryDelay": "20s"}]}),
        ({}, {"message": f"{EXHAUSTED}\n* Quota exceeded for metric: requests\nPlease retry in 20.04466179s."}),
    ],
)
def test_a_quota_that_comes_back_is_waited_for(headers: dict[str, str], error: dict[str, Any]) -> None:
    """Gemini has one text for the quota of a minute and that of a day; only the first says when to come back."""
    failure = refusal(429, {"error": error}, **headers)

    assert ("rate_limited", True, False) == (failure.error.kind, failure.throttled, failure.stops_all)


def test_no_payment_is_no_rate_limit() -> None:
    """A 402 is not waited for, whatever the Retry-After."""
    assert "quota" == refusal(402, {"error": {"message": "Insufficient Balance"}}, retry_after="20").error.kind


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
        ({}, {"error": {"details": [{"reason": "x"}, {"retryDelay": "57.238747106s"}]}}, 57.238747106),
        ({}, {"details": [{"retry_delay": "12s"}]}, 12.0),
        ({"retry_after": "3"}, {"retry_after": 15}, 3.0),
        ({"retry_after": "soon"}, {"retry_after": 15}, 15.0),
    ],
)
def test_the_wait_is_read_from_headers_and_body(
    headers: dict[str, str],
    body: object,
    expected: float | None,
) -> None:
    """It is in seconds, milliseconds, an HTTP date relative to the server's, or the body's `retry_after`."""
    assert expected == refusal(429, body, **headers).retry_after_s


def test_a_long_wait_is_read_in_linear_time() -> None:
    """A field may hold any text."""
    assert grows_linearly(
        lambda wait: refusal(429, {"error": {"retry_after": wait}}), lambda size: f"1{' ' * size}x", 2_000
    )


def test_a_body_of_many_levels_is_read_in_linear_time() -> None:
    """Each level has a message, and each message is searched for words."""
    fields = ("error", "errors", "detail", "details", "metadata")

    def tree(words: str, names: Sequence[str]) -> dict[str, object]:
        document: dict[str, object] = {"message": words}
        for _ in range(3):
            document = {"message": words} | dict.fromkeys(names, document)
        return document  # 15 levels for two names, 156 for five

    def body_of(size: int) -> Response:
        names = fields[: 2 if size == 1 else 5]
        quota, wait = tree("exceeded your current quota " * 140, names), {"message": "please retry in a minute"}
        return Response(
            400, json.dumps({"error": quota, "errors": wait, "metadata": tree("x" * 4_000, names)}).encode()
        )

    assert grows_linearly(failure_of, body_of, 1)


def test_a_quoted_prompt_does_not_change_the_kind() -> None:
    """Validators repeat their input."""
    quoted = {"detail": [{"msg": "Field required", "input": {"prompt": "Rate limit exceeded; prompt is too long"}}]}

    assert "invalid_request" == refusal(422, quoted).error.kind


def test_the_innermost_error_gives_the_kind() -> None:
    """A gateway's 500 around a provider's 401 is `unauthorized`, with the status that was sent."""
    inner = {"error": {"message": "Incorrect API key", "code": 401}}
    failure = refusal(500, {"error_code": "INTERNAL_ERROR", "message": json.dumps({"external_model_error": inner})})

    assert ("unauthorized", 500, "Incorrect API key") == (
        failure.error.kind,
        failure.error.status,
        failure.error.message,
    )


def test_a_long_page_becomes_a_short_message() -> None:
    """The message is one line for a column."""
    page = b"<html><head><style>a { color: red }</style></head><body>" + b"<p>Sorry,\n the service is down.</p>" * 500
    message = failure_of(Response(500, page)).error.message

    assert message.startswith("Sorry, the service is down.")
    assert "\n" not in message
    assert len(message) <= 501


def test_hostile_bodies_are_read_quickly() -> None:
    """Endless nesting costs no stack, and no text is searched twice."""
    endless = (b"[", b'{"error":', b'{"a":"{', b"<", b"<script", b"<!--", b"<title", b"exceeded ", b"endpoint ")
    for body in (beginning + beginning[-8:] * 100_000 for beginning in endless):
        assert "unavailable" == failure_of(Response(500, body)).error.kind


@pytest.mark.parametrize("status", [301, 302, 307, 308, 405])
def test_a_wrong_url_stops_the_task(status: int) -> None:
    """A redirect and a refused method are about the URL, so no batch is split for them."""
    assert (False, True) == (refusal(status).about_input, refusal(status).stops_all)


STOPPED = [
    "The given endpoint is stopped, please retry after starting the endpoint.",
    "Bad Request: The endpoint is paused, ask a maintainer to restart it",
    "INVALID_STATE: Cluster 0830-101010-abcdefgh is in Terminated state",
    "The deployment 'mood' has been suspended",
]


@pytest.mark.parametrize("words", STOPPED)
@pytest.mark.parametrize("status", [400, 409, 500, 503])
def test_a_stopped_endpoint_stops_the_task(status: int, words: str) -> None:
    """Only a person can start it; then its rows can be sent again."""
    failure = refusal(status, {"error_code": "BAD_REQUEST", "message": words})

    assert ("unavailable", True) == (failure.error.kind, failure.error.retryable)
    assert (True, False, False) == (failure.stops_all, failure.throttled, failure.about_input)


@pytest.mark.parametrize(
    "document",
    [
        {"error_code": "INVALID_STATE", "message": "Endpoint mood is being updated."},
        {"error_code": "BAD_REQUEST", "message": "The given endpoint is not ready to serve."},
        {"error": "Model iris is not ready yet."},
        {"error": "Bad Request: Invalid state"},
        {"message": "Endpoint mood is in state NOT_READY"},
    ],
)
def test_an_endpoint_that_is_not_ready_is_throttled(document: object) -> None:
    """A 4xx that says "not yet" is treated like a 503, and is not about the input."""
    failure = refusal(400, document)

    assert ("unavailable", True) == (failure.error.kind, failure.error.retryable)
    assert (False, True, False) == (failure.stops_all, failure.throttled, failure.about_input)


@pytest.mark.parametrize(("status", "kind"), [(401, "unauthorized"), (404, "not_found"), (429, "rate_limited")])
def test_an_unambiguous_status_counts_before_the_state(status: int, kind: str) -> None:
    """A missing token, a wrong name and too many requests are reported as such."""
    assert kind == refusal(status, {"message": STOPPED[0]}).error.kind


def test_a_quoted_text_about_a_stopped_endpoint_stops_nothing() -> None:
    """A message may quote its input at the end."""
    failure = refusal(400, {"message": f"invalid character in: {'blah ' * 60}. The endpoint is stopped. So what?"})

    assert ("invalid_request", False) == (failure.error.kind, failure.stops_all)


def test_a_permanent_fault_stops_the_task() -> None:
    """An untrusted certificate fails for all rows; a lost connection does not."""
    faults = [
        failure_of(Response(0, fault="connection", detail="certificate verify failed", final=final))
        for final in (True, False)
    ]

    assert [True, False] == [failure.stops_all for failure in faults]
    assert [True, True] == [failure.error.retryable for failure in faults]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://gateway.example/v1/", "no message (redirects to https://gateway.example/v1/)"),
        ("https://user:secret@host/a?ticket=secret#secret", "no message (redirects to https://host/a)"),
        ("/login?next=secret", "no message (redirects to /login)"),
        ("http://[::1", "no message"),
        ("", "no message"),
    ],
)
def test_a_redirect_names_its_target(location: str, expected: str) -> None:
    """User, password and query are left out."""
    assert expected == refusal(302, location=location).error.message


def test_only_a_redirect_has_a_target() -> None:
    """`Location` beside another status is ignored."""
    assert "no message" == refusal(500, location="https://host/").error.message


def test_a_provider_behind_the_endpoint_is_named() -> None:
    """The provider's message comes first."""
    inner = {"external_model_provider": "openai", "external_model_error": {"message": "Incorrect API key", "code": 401}}

    assert "Incorrect API key (from the provider behind the endpoint: openai)" == (
        refusal(500, {"error_code": "INTERNAL_ERROR", "message": json.dumps(inner)}).error.message
    )


def test_the_message_keeps_its_place_beside_a_long_provider() -> None:
    """A long name or address does not displace it."""
    long = "word " * 400
    nested = {"external_model_provider": long, "external_model_error": long}
    messages = [refusal(500, nested).error.message, refusal(302, {"message": long}, location="/x" * 900).error.message]

    assert [True, True] == [message.startswith("word word") and len(message) <= 500 for message in messages]


@pytest.mark.parametrize("code", ["invalid_client", "invalid_grant", "unauthorized_client"])
def test_a_sign_in_that_fails_is_unauthorized(code: str) -> None:
    """OAuth answers 400 or 401; the message has the code and the description."""
    failure = refusal(400, {"error": code, "error_description": "No."})

    assert ("unauthorized", f"{code}: No.") == (failure.error.kind, failure.error.message)


def test_a_moderated_input_is_not_unauthorized() -> None:
    """A 403 with the flagged input is about one row; any other 403 is `unauthorized`."""
    flagged = {"error": {"code": 403, "message": "flagged", "metadata": {"flagged_input": "?"}}}

    assert ("content_filter", False) == (refusal(403, flagged).error.kind, refusal(403, flagged).stops_all)
    assert "unauthorized" == refusal(403, {"error": {"code": 403, "message": "flagged"}}).error.kind


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_failed_safety_check_is_about_its_input(status: int) -> None:
    """XAI writes it as a missing permission; it stops no other row."""
    message = "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"
    failure = refusal(status, {"code": "The caller does not have permission", "error": message})

    assert ("content_filter", False, True) == (failure.error.kind, failure.stops_all, failure.about_input)


@given(
    st.integers(1, 10**9),
    st.none() | st.integers(0, 10**9),
    st.integers(0, 2 * 10**9),
    st.sampled_from(["{}", "{:,}"]),
    st.sampled_from([400, 413, 429, 503]),
)
def test_a_request_above_the_limit_per_minute_is_too_long(
    limit: int, used: int | None, requested: int, template: str, status: int
) -> None:
    """Waiting does not help it; a request below the limit is throttled. The numbers decide."""
    numbers = {"Limit": limit, "Used": used, "Requested": requested}
    message = ", ".join(f"{name} {template.format(number)}" for name, number in numbers.items() if number is not None)
    words = f"Rate limit reached for m on tokens per min (TPM): {message}. Please try again in 20s."
    failure = refusal(status, {"error": {"message": words, "type": "tokens", "code": "rate_limit_exceeded"}})

    expected = ("context_length", False, False) if requested > limit else ("rate_limited", True, True)
    assert expected == (failure.error.kind, failure.error.retryable, failure.throttled)


def test_credit_for_a_smaller_request_stops_no_other() -> None:
    """OpenRouter names the tokens that it can afford; 0 means that the credit is exhausted."""
    message = (
        "This request requires more credits, or fewer max_tokens. You requested up to 9000 tokens, but can only afford "
    )
    failures = [refusal(402, {"error": {"code": 402, "message": f"{message}{tokens}."}}) for tokens in (3324, 0)]

    assert [("context_length", False), ("quota", True)] == [(each.error.kind, each.stops_all) for each in failures]


def test_the_first_of_several_errors_gives_the_message() -> None:
    """It has the name of its field."""
    problems = [{"loc": ["body", name], "msg": "Field required"} for name in ("messages", "model")]

    assert "messages: Field required" == refusal(422, {"detail": problems}).error.message


def test_a_request_quoted_in_the_message_does_not_change_the_kind() -> None:
    """The user's text begins where the validator quotes the request."""
    words = "[{'type': 'missing', 'msg': 'Field required', 'input': {'prompt': 'Rate limit exceeded'}}]"

    assert "invalid_request" == refusal(400, {"message": words}).error.kind
