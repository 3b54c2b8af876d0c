"""The hints of errors: the server's message, the URL and the next step."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS, Kind
from spark_llm.protocol.hints import HINT_RULES, MAX_MESSAGE_CHARACTERS, rule_for, with_hint
from spark_llm.protocol.values import Failure, RowError
from tests.protocol.test_samples import SAMPLES, read
from tests.support.strategies import TEXTS

WORKSPACE = "https://adb-1.azuredatabricks.net/serving-endpoints/mood/invocations"
ELSEWHERE = "https://gateway.example/v1/chat/completions"
GATEWAY = "https://adb-1.azuredatabricks.net/ai-gateway/mlflow/v1/chat/completions"
RESPONSES = "https://gateway.example/v1/responses"
ONLY_RESPONSES = "This model is only supported in v1/responses and not in v1/chat/completions."
TOKEN = "DATABRICKS_TOKEN"


class Case(NamedTuple):
    """An error, its URL, the token's origin, whether it stopped the task, and a part of the expected hint."""

    kind: Kind
    status: int | None
    words: str
    where: str
    sign_in: str
    stops_all: bool
    part: str

    @property
    def error(self) -> RowError:
        """The error with the server's message."""
        return RowError(self.kind, self.status, self.words, retryable=False)


CASES = [
    Case("unauthorized", 403, "disabled due to a rate limit set to 0.", WORKSPACE, TOKEN, True, "rate limit of 0"),
    Case("unauthorized", 403, "Source IP address: 203.0.113.7 is blocked", WORKSPACE, TOKEN, True, "addresses added"),
    Case("unauthorized", 403, "denied because of serverless network policy", WORKSPACE, TOKEN, True, "administrator"),
    Case("unauthorized", 403, "No (the provider behind the endpoint: x)", WORKSPACE, TOKEN, True, "its provider"),
    Case("unauthorized", 500, "Incorrect API key provided", WORKSPACE, TOKEN, True, "service behind it"),
    Case("unauthorized", 407, "ERROR: Cache Access Denied", ELSEWHERE, TOKEN, True, "proxy's user and password"),
    Case("unauthorized", 401, "Credential was not sent", WORKSPACE, "", True, "no token was sent"),
    Case(
        "unauthorized", 403, "Invalid scope, required scopes: model-serving", WORKSPACE, TOKEN, True, "lacks the scope"
    ),
    Case("unauthorized", 401, "invalid_client: authentication failed", WORKSPACE, "client 4f1c", True, "4f1c"),
    Case("unauthorized", 401, "requesting a token at https://w/token: no message", WORKSPACE, "a", True, "secret (a)"),
    Case("unauthorized", 403, "The access token has expired", WORKSPACE, TOKEN, True, "ClientCredentials"),
    Case("unauthorized", 401, "Unauthorized", ELSEWHERE, "OPENAI_API_KEY", True, "(OPENAI_API_KEY) was refused"),
    Case("unauthorized", 403, "Invalid Token", WORKSPACE, TOKEN, True, "(DATABRICKS_TOKEN) was refused"),
    Case(
        "unauthorized",
        400,
        "Error 400 io.jsonwebtoken.IncorrectClaimException",
        WORKSPACE,
        TOKEN,
        True,
        "was refused",
    ),
    Case(
        "unauthorized",
        403,
        "not allowed to generate embeddings from this model",
        ELSEWHERE,
        TOKEN,
        True,
        "another task",
    ),
    Case("unauthorized", 403, "User does not have permission", WORKSPACE, TOKEN, True, "CAN QUERY"),
    Case("unauthorized", 403, "Forbidden", ELSEWHERE, "token=", True, "behind token= lacks"),
    Case("not_found", 301, "301 Moved (redirects to https://x/)", ELSEWHERE, "", True, "redirect leads to"),
    Case("not_found", 400, "The plain HTTP request was sent to HTTPS port", ELSEWHERE, "", True, "https:// in the URL"),
    Case(
        "not_found", 400, "Client sent an HTTP request to an HTTPS server", ELSEWHERE, "", True, "https:// in the URL"
    ),
    Case("not_found", 405, "Method Not Allowed", WORKSPACE, TOKEN, True, "accepts no POST"),
    Case("not_found", 421, "Misdirected Request", ELSEWHERE, "", True, "the host in the URL"),
    Case("not_found", 404, "This is a chat model and not supported", ELSEWHERE, "", True, "`preflight(endpoint)`"),
    Case("not_found", 404, "The given endpoint does not exist", WORKSPACE, TOKEN, True, "`spark-llm endpoints`"),
    Case("not_found", 404, "The model `llama` does not exist.", ELSEWHERE, "", True, "/v1/models"),
    Case("not_found", 404, "Not Found", ELSEWHERE, "", True, "a base URL, like https://host/v1"),
    Case("not_found", 404, "Not Found", GATEWAY, TOKEN, True, "AI Gateway lists"),
    Case("not_found", 404, "Not Found", RESPONSES, "", True, "no Responses route"),
    Case("invalid_request", 404, ONLY_RESPONSES, ELSEWHERE, "", False, "served at the Responses route: set"),
    Case(
        "invalid_request",
        400,
        "The chatCompletion operation does not work with the specified model, gpt-5-codex.",
        ELSEWHERE,
        "",
        False,
        "try Endpoint(",
    ),
    Case("quota", 429, "You exceeded your current quota", ELSEWHERE, TOKEN, True, "billing"),
    Case("unavailable", 400, "The given endpoint is stopped", WORKSPACE, TOKEN, True, "`spark-llm check mood`"),
    Case("unavailable", 400, "The endpoint is paused", ELSEWHERE, TOKEN, True, "where it is hosted"),
    Case("unavailable", 400, "The given endpoint is not ready", WORKSPACE, TOKEN, True, "give_up_after_s"),
    Case("unavailable", 400, "Model iris is not ready yet", ELSEWHERE, TOKEN, False, "until it is deployed"),
    Case("unavailable", 502, "502 Bad Gateway", WORKSPACE, TOKEN, True, "`spark-llm check mood` shows"),
    Case("unavailable", 502, "502 Bad Gateway", ELSEWHERE, TOKEN, True, "the server's log"),
    Case(
        "rate_limited",
        429,
        "gave up after 600 s of rate limiting (9 responses)",
        WORKSPACE,
        TOKEN,
        False,
        "fewer requests",
    ),
    Case("connection", None, "the name x cannot be resolved: Name unknown", ELSEWHERE, "", True, "spelling"),
    Case("connection", None, "certificate verify failed: self-signed", ELSEWHERE, "", True, "ca_bundle"),
    Case("connection", None, "no TLS with x:80: wrong version number", ELSEWHERE, "", True, "http://"),
    Case("connection", None, "what came back is not HTTP: no status line", ELSEWHERE, "", True, "try https://"),
    Case("connection", None, "the proxy lets no connection through: 403", ELSEWHERE, "", True, "NO_PROXY"),
    Case("connection", None, "no connection to the proxy p:3128: connection refused", ELSEWHERE, "", True, "NO_PROXY"),
    Case("connection", None, "no connection to x:80: connection refused", ELSEWHERE, "", True, "localhost"),
    Case("connection", None, "no connection to x:80 within 15 s", ELSEWHERE, "", False, "firewall"),
    Case("connection", None, "no connection to x:80: too many open files", ELSEWHERE, "", False, "ulimit -n"),
    Case("connection", None, "the server closed the connection", ELSEWHERE, "", True, "check the URL"),
    Case("timeout", None, "no complete answer within 120 s", WORKSPACE, TOKEN, False, "timeout_s"),
    Case("context_length", 400, "prompt is too long", WORKSPACE, TOKEN, False, "a longer context"),
    Case("context_length", 429, "(TPM): Limit 30000, Requested 31000", ELSEWHERE, TOKEN, False, "limit raised"),
    Case("context_length", 402, "but can only afford 3324", ELSEWHERE, TOKEN, False, "add credit"),
    Case(
        "invalid_request", 400, "Missing required Chat parameter: 'messages'", WORKSPACE, TOKEN, False, "another task"
    ),
    Case("invalid_request", 422, "messages: Field required", ELSEWHERE, TOKEN, False, "another task"),
    Case("invalid_request", 400, "Unsupported parameter: 'max_tokens'", ELSEWHERE, TOKEN, False, "extra_body"),
    Case("invalid_request", 413, "413 Request Entity Too Large", ELSEWHERE, TOKEN, False, "max_request_mb"),
    Case(
        "invalid_request", 400, "an unexpected error while evaluating the model.", WORKSPACE, TOKEN, False, "own code"
    ),
    Case("invalid_request", 400, "Model is missing inputs ['age'].", ELSEWHERE, "", True, "upper and lower case"),
    Case("invalid_request", 400, 'unknown field "dataframe_split"', WORKSPACE, TOKEN, True, "chat_udf"),
    Case("invalid_request", 422, "dataframe_split: Extra inputs are not permitted", ELSEWHERE, "", True, "chat_udf"),
    Case(
        "invalid_response", 200, "the answer has more than 128 MB", ELSEWHERE, TOKEN, False, "lower Policy(batch_size"
    ),
    Case("invalid_response", 200, "1 predictions for 3 rows", ELSEWHERE, TOKEN, True, "one prediction for each row"),
    Case("invalid_request", 400, "no", ELSEWHERE, TOKEN, True, "which task the endpoint serves"),
    Case("invalid_response", 200, "the answer is not JSON: Sign In", ELSEWHERE, TOKEN, True, "not be a model server"),
    Case("invalid_response", 200, "dimensions=2 was requested, and", ELSEWHERE, TOKEN, True, "leave dimensions out"),
    Case("invalid_response", 200, "1 vectors for 64 inputs", ELSEWHERE, TOKEN, False, "batch_size=1"),
]

ERRORS = st.builds(
    RowError,
    st.sampled_from(KINDS),
    st.none() | st.integers(0, 599),
    st.one_of(TEXTS, st.text(max_size=1_500), st.sampled_from([case.words for case in CASES])),
    retryable=st.booleans(),
)
PLACES = st.sampled_from([WORKSPACE, ELSEWHERE, "https://x/" + "a" * 900]) | TEXTS
SIGN_INS = st.sampled_from(["", TOKEN, "client {x}", "y" * 300]) | TEXTS


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.part}")
def test_each_case_has_its_hint(case: Case) -> None:
    """The message comes first, then the URL, then the hint for this case."""
    message = with_hint(case.error, case.where, case.sign_in, stops_all=case.stops_all).message
    message_part, _, hint = message.partition(" Hint: ")

    assert f"{case.words.rstrip('.')} (at {case.where})." == message_part
    assert case.part in hint
    assert hint.endswith(".")


def test_every_rule_has_a_case() -> None:
    """No rule is hidden by an earlier one."""
    taken = [rule_for(case.error, case.where, case.sign_in, stops_all=case.stops_all) for case in CASES]

    assert [] == [line for lines in HINT_RULES.values() for line in lines if line not in taken]


@given(ERRORS, PLACES, SIGN_INS, st.booleans())
def test_a_hint_changes_only_the_message(error: RowError, where: str, sign_in: str, stops_all: bool) -> None:  # noqa: FBT001 -- drawn
    """Kind, status and retryable stay, and the server's message comes first."""
    advised = with_hint(error, where, sign_in, stops_all=stops_all)

    assert error._replace(message="") == advised._replace(message="")
    assert advised.message == error.message or advised.message[:40].startswith(error.message.rstrip(". ")[:40])


@given(ERRORS, PLACES, SIGN_INS, st.booleans())
def test_a_hint_is_added_once(error: RowError, where: str, sign_in: str, stops_all: bool) -> None:  # noqa: FBT001 -- drawn
    """A second call changes nothing, whatever its arguments."""
    advised = with_hint(error, where, sign_in, stops_all=stops_all)

    if advised != error:
        assert advised == with_hint(advised, ELSEWHERE, "token=", stops_all=True)


@given(ERRORS, PLACES, SIGN_INS, st.booleans())
def test_a_message_with_a_hint_has_a_maximum_length(error: RowError, where: str, sign_in: str, stops_all: bool) -> None:  # noqa: FBT001 -- drawn
    """Long messages, URLs and origins are cut, and a good part of the message is kept."""
    advised = with_hint(error, where, sign_in, stops_all=stops_all)

    if advised != error:
        assert len(advised.message) <= MAX_MESSAGE_CHARACTERS
        assert error.message.rstrip(". ")[:150] in advised.message


@pytest.mark.parametrize("kind", ["content_filter", "truncated", "schema_mismatch", "cancelled"])
@pytest.mark.parametrize("stops_all", [True, False])
def test_some_kinds_have_no_hint(kind: Kind, stops_all: bool) -> None:  # noqa: FBT001 -- a table
    """Their message is enough."""
    error = RowError(kind, 200, "the answer was withheld", retryable=False)

    assert error == with_hint(error, WORKSPACE, TOKEN, stops_all=stops_all)


def test_a_message_with_a_hint_keeps_it() -> None:
    """A token function that raised has its own hint."""
    error = RowError("unauthorized", None, "The token function raised. Hint: call it alone.", retryable=False)

    assert error == with_hint(error, WORKSPACE, TOKEN, stops_all=True)


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample["expect"].get("stops_all")])
@pytest.mark.parametrize(("where", "sign_in"), [(WORKSPACE, TOKEN), (ELSEWHERE, "token="), (ELSEWHERE, "")])
def test_every_failure_that_stops_a_task_has_a_hint(name: str, where: str, sign_in: str) -> None:
    """This holds for all services."""
    failure = read(SAMPLES[name])

    assert isinstance(failure, Failure)
    assert f" (at {where}). Hint: " in with_hint(failure.error, where, sign_in, stops_all=True).message


def test_the_hint_names_the_endpoint_of_a_served_model() -> None:
    """The command takes the endpoint's name; a route is not mistaken for one."""
    stopped = RowError("unavailable", 400, "The given endpoint is stopped", retryable=True)
    host = "https://host/serving-endpoints"
    hints = [
        with_hint(stopped, where, TOKEN).message
        for where in (f"{host}/mood/served-models/mood-2/invocations", f"{host}/chat/completions")
    ]

    assert ["`spark-llm check mood`", "`spark-llm check NAME`"] == [
        hint[hint.index("`") : hint.rindex("`") + 1] for hint in hints
    ]
