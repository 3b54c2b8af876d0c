"""What a refusal means, beyond the documented bodies in `tests/samples`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS, Kind
from spark_llm.protocol.failures import failure_of
from spark_llm.protocol.values import Failure, Response
from tests.support.strategies import JSON, REPLIES

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
        and (error.retryable or not failure.throttled)
        and not (failure.throttled and failure.stops_all)
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
def test_without_a_body_the_status_names_the_kind(status: int, kind: str, waits: bool) -> None:  # noqa: FBT001 -- a table
    """An empty answer is what its status says; only 429, 503 and 529 are told to wait."""
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
def test_some_statuses_mean_what_they_say(status: int, kind: str, words: str) -> None:
    """Whatever words stand beside them, 401, 403 and 404 are themselves."""
    assert kind == refusal(status, {"message": words}).error.kind


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_an_exhausted_quota_is_not_waited_for(status: int) -> None:
    """Money does not come back by waiting: whatever the status, the task stops at once."""
    failure = refusal(status, {"error": {"type": "insufficient_quota", "message": "You exceeded your current quota"}})

    assert ("quota", False, True) == (failure.error.kind, failure.throttled, failure.stops_all)


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
    """Depth without end is no JSON and costs no stack, and no half of a page or a sentence is looked through twice."""
    endless = (b"[", b'{"error":', b'{"a":"{', b"<", b"<script", b"<!--", b"<title", b"exceeded ", b"endpoint ")
    for body in (beginning + beginning[-8:] * 100_000 for beginning in endless):
        assert "unavailable" == failure_of(Response(500, body)).error.kind


@pytest.mark.parametrize("status", [301, 302, 307, 308, 405])
def test_a_wrong_address_is_not_the_inputs_fault(status: int) -> None:
    """A redirect and a method that is not allowed are about the URL: no batch is halved for them, and all stops."""
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
    """Nobody waits for what only a person can start; once it is started, its rows can be asked again."""
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
def test_an_endpoint_that_is_being_deployed_is_waited_for(document: object) -> None:
    """A 4xx that says "not yet" is told to wait, as a 503 is, and is no fault of the input."""
    failure = refusal(400, document)

    assert ("unavailable", True) == (failure.error.kind, failure.error.retryable)
    assert (False, True, False) == (failure.stops_all, failure.throttled, failure.about_input)


@pytest.mark.parametrize(("status", "kind"), [(401, "unauthorized"), (404, "not_found"), (429, "rate_limited")])
def test_a_status_that_is_plain_is_believed_before_the_state(status: int, kind: str) -> None:
    """Who has no token, the wrong name or too many requests is told that, whatever state the endpoint is in."""
    assert kind == refusal(status, {"message": STOPPED[0]}).error.kind


def test_a_text_about_a_stopped_endpoint_stops_nothing() -> None:
    """A refusal that quotes its input far on is about the input."""
    failure = refusal(400, {"message": f"invalid character in: {'blah ' * 60}. The endpoint is stopped. So what?"})

    assert ("invalid_request", False) == (failure.error.kind, failure.stops_all)


def test_a_fault_that_stays_stops_the_task() -> None:
    """A certificate that nobody trusts is not trusted for the next row either; a cut connection says nothing of it."""
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
def test_a_redirect_says_where_it_leads(location: str, expected: str) -> None:
    """As far as it may be printed: no user, no password, no query."""
    assert expected == refusal(302, location=location).error.message


def test_only_a_redirect_leads_anywhere() -> None:
    """A Location beside another status is not about the request."""
    assert "no message" == refusal(500, location="https://host/").error.message


def test_a_provider_behind_the_endpoint_is_named() -> None:
    """Words that are a provider's say so, and come first."""
    inner = {"external_model_provider": "openai", "external_model_error": {"message": "Incorrect API key", "code": 401}}

    assert "Incorrect API key (from the provider behind the endpoint: openai)" == (
        refusal(500, {"error_code": "INTERNAL_ERROR", "message": json.dumps(inner)}).error.message
    )


def test_words_are_kept_short_whatever_is_said_beside_them() -> None:
    """A long provider's name or address does not push the words out."""
    long = "word " * 400
    nested = {"external_model_provider": long, "external_model_error": long}
    messages = [refusal(500, nested).error.message, refusal(302, {"message": long}, location="/x" * 900).error.message]

    assert [True, True] == [message.startswith("word word") and len(message) <= 500 for message in messages]


@pytest.mark.parametrize("code", ["invalid_client", "invalid_grant", "unauthorized_client"])
def test_a_sign_in_that_fails_is_unauthorized(code: str) -> None:
    """OAuth says it with 400 as well as with 401; the description comes with its code."""
    failure = refusal(400, {"error": code, "error_description": "No."})

    assert ("unauthorized", f"{code}: No.") == (failure.error.kind, failure.error.message)


def test_a_moderated_input_is_no_matter_of_signing_in() -> None:
    """A 403 that holds the flagged input refuses one row; a 403 that does not is what it says."""
    flagged = {"error": {"code": 403, "message": "flagged", "metadata": {"flagged_input": "?"}}}

    assert ("content_filter", False) == (refusal(403, flagged).error.kind, refusal(403, flagged).stops_all)
    assert "unauthorized" == refusal(403, {"error": {"code": 403, "message": "flagged"}}).error.kind


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_check_that_an_input_failed_is_about_that_input(status: int) -> None:
    """XAI writes it as a missing permission; no other row is stopped for it."""
    said = "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"
    failure = refusal(status, {"code": "The caller does not have permission", "error": said})

    assert ("content_filter", False, True) == (failure.error.kind, failure.stops_all, failure.about_input)


@given(
    st.integers(1, 10**9),
    st.none() | st.integers(0, 10**9),
    st.integers(0, 2 * 10**9),
    st.sampled_from(["{}", "{:,}"]),
    st.sampled_from([400, 413, 429, 503]),
)
def test_a_request_that_is_larger_than_the_limit_of_a_minute_is_not_waited_for(
    limit: int, used: int | None, requested: int, form: str, status: int
) -> None:
    """It never passes, and is too long; one that only comes too early is told to wait. The numbers decide."""
    numbers = {"Limit": limit, "Used": used, "Requested": requested}
    said = ", ".join(f"{name} {form.format(number)}" for name, number in numbers.items() if number is not None)
    words = f"Rate limit reached for m on tokens per min (TPM): {said}. Please try again in 20s."
    failure = refusal(status, {"error": {"message": words, "type": "tokens", "code": "rate_limit_exceeded"}})

    expected = ("context_length", False, False) if requested > limit else ("rate_limited", True, True)
    assert expected == (failure.error.kind, failure.error.retryable, failure.throttled)


def test_credit_for_a_smaller_request_stops_no_other() -> None:
    """OpenRouter names what it can afford; where that is nothing the money is gone."""
    said = (
        "This request requires more credits, or fewer max_tokens. You requested up to 9000 tokens, but can only afford "
    )
    failures = [refusal(402, {"error": {"code": 402, "message": f"{said}{tokens}."}}) for tokens in (3324, 0)]

    assert [("context_length", False), ("quota", True)] == [(each.error.kind, each.stops_all) for each in failures]


def test_of_several_complaints_the_first_is_told() -> None:
    """A validator that lists them has the most telling one in front, and names its field."""
    problems = [{"loc": ["body", name], "msg": "Field required"} for name in ("messages", "model")]

    assert "messages: Field required" == refusal(422, {"detail": problems}).error.message


def test_a_request_that_is_quoted_in_words_is_no_evidence() -> None:
    """A validator may write the request into its message: from there on it is the user's words."""
    words = "[{'type': 'missing', 'msg': 'Field required', 'input': {'prompt': 'Rate limit exceeded'}}]"

    assert "invalid_request" == refusal(400, {"message": words}).error.kind
