"""What a refusal means: the error bodies of model servers, gateways and proxies, mapped to one `Failure`.

The status alone is not enough. Gateways answer 400 for a rate limit or for an endpoint that was stopped, 500 for a
provider's 403, and put pages of HTML in front. So the body is opened first (`protocol.error_body`), and then status,
codes and words are read together.
"""

import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from spark_llm.errors import Kind
from spark_llm.protocol.error_body import Level, levels_in, levels_of, seconds
from spark_llm.protocol.masking import without_secrets
from spark_llm.protocol.values import Failure, Response, RowError
from spark_llm.protocol.wire import NotJSONError, mended, not_an_answer, plain, read_json
from spark_llm.text.excerpt import excerpt

_WORDS_MOST = 500
_READ_MOST = 20_000  # of a body that is no JSON, or a page inside one
_SUBJECT_MOST = 200  # who is stopped is said at once; further on may stand what the request said
_RETRYABLE = frozenset[Kind](("rate_limited", "unavailable", "timeout", "connection", "invalid_response"))
_WAITS = frozenset((503, 529))
_BY_STATUS: dict[int, Kind] = {
    401: "unauthorized",
    402: "quota",
    403: "unauthorized",
    404: "not_found",
    405: "not_found",
    407: "unauthorized",
    408: "timeout",
    409: "unavailable",  # a conflict with another change: it passes
    410: "not_found",
    421: "not_found",  # asked by another server's name
    424: "unavailable",  # text-generation-inference: the model failed while it generated
    425: "unavailable",
    429: "rate_limited",
    499: "unavailable",  # gRPC's "cancelled", as gateways write it
    501: "invalid_request",  # llama.cpp: this server was not started for that
}
_PLAIN_STATUSES = frozenset((401, 403, 404, 407))

# An endpoint that takes no requests, in the words of Databricks, Hugging Face, KServe and proxied clusters.
STOPPED = re.compile(
    r"\b(endpoint|deployment|cluster)\b.{0,100}?\b(is( currently)?|has been) (stopped|paused|suspended|terminated)\b"
    r"|\bin (the )?(stopped|terminated|terminating|DEPLOYMENT_STOPPED) state\b",
    re.IGNORECASE,
)
NOT_READY = re.compile(
    r"\bINVALID_STATE\b|\bInvalid state\b|\bNOT_READY\b"
    r"|\b(endpoint|deployment|cluster|model)\b.{0,100}?\bnot (yet )?(ready|running)\b",
    re.IGNORECASE,
)


def _any(*patterns: str, flags: int = re.IGNORECASE) -> re.Pattern[str]:
    return re.compile("|".join(patterns), flags)


# Codes and words that say more than the status; the first that is found names the kind. 401, 403 and 404 are what they
# say, whatever words they come in.
_TELLTALES: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    # DashScope writes `insufficient_quota` for a limit of tokens by the minute
    ("rate_limited", _any(r"Allocated quota exceeded, please increase")),
    (
        "quota",
        _any(
            r"insufficient_quota|billing_hard_limit",  # OpenAI
            r"credit balance",  # Anthropic
            r"budget_exceeded",  # LiteLLM
            r"exceeded_current_quota_error|\bArrearage\b",  # Moonshot; DashScope
        ),
    ),
    (
        "unauthorized",
        _any(
            r"\b(invalid_client|invalid_grant|unauthorized_client|invalid_api_key|API_KEY_INVALID)\b|io\.jsonwebtoken\.",
            flags=0,
        ),
    ),
    (
        "content_filter",
        _any(
            r"content_filter|content management policy|ResponsibleAIPolicyViolation",  # OpenAI, Azure, Moonshot
            r"\binvalid_prompt\b|violating our usage policy|content_policy_violation",  # OpenAI
            r"guardrail",  # Databricks, Bedrock
            r"content filtering policy",  # Anthropic
            r"Content Exists Risk",  # DeepSeek
            r"data_?inspection_?failed|may contain inappropriate content",  # DashScope
            r"violates usage guidelines|SAFETY_CHECK_TYPE",  # xAI, under 400 too
            r"PROHIBITED_CONTENT",  # Gemini
            r"\b1301\b.{0,200}(sensitive|敏感)",  # Zhipu
            r"new_sensitive",  # MiniMax
            r"ContentPolicyViolationError",  # LiteLLM, of any of them
        ),
    ),
    (
        "context_length",
        _any(
            r"context_length_exceeded|context (length|window|size|limit)",  # OpenAI, Anthropic, and many others
            r"maximum (context|model) length",  # OpenAI, vLLM, Mistral
            r"(prompt|input) is too long|(prompt|input) token count",  # Anthropic, Bedrock; Gemini, Copilot, Titan
            r"reduce the length of (the|your) (messages|prompt|input)",  # OpenAI, vLLM, Cerebras
            r"string_above_max_length(?!.*\bInvalid '(?!messages|input|prompt))",  # OpenAI, but for a parameter's text
            r"Invalid '(messages|input|prompt)[^']*': string too long",
            r"max_tokens_per_request|request too large for",  # OpenAI; OpenAI and Groq, without the numbers
            r"maximum prompt length is",  # xAI
            r"too many tokens: (?!max tokens must)",  # Cohere, but for the parameter. Bedrock's throttle has no colon
            r"too many tokens overall|max allowed tokens per submitted batch",  # Mistral's embeddings, Voyage's
            r"max_tokens must be at least 1, got -",  # vLLM: the prompt leaves no room
            r"input length .{0,80}exceeds|range of input length should be",  # SGLang, NIM, Ollama; DashScope
            r"exceeded model token limit",  # Moonshot
            r"prompt exceeds max(imum)? length",  # Zhipu
            r"tokens_limit_reached",  # GitHub Models
            r"expected maxLength: \d+, actual: \d+",  # Bedrock's Titan
            r"input tokens \d+ cannot exceed",  # watsonx
            r"can only afford [1-9]|prompt tokens limit exceeded",  # OpenRouter's 402 for one request
            r"exceed_context_size|too large to process",  # llama.cpp
            r"must have less than \d+ tokens|inputs` tokens \+ `max_new_tokens`",  # text-generation-inference, TEI
            r"ContextWindowExceededError",  # LiteLLM, of any of them
        ),
    ),
    (
        "rate_limited",
        _any(
            r"REQUEST_LIMIT_EXCEEDED|RESOURCE_EXHAUSTED|rate_limit_exceeded|rate limit(\(s\))? exceeded"
            r"|too many requests|exceeded .{0,60}rate limit|exceeding rate limit",
        ),
    ),
    (
        "not_found",  # the URL's scheme is wrong: nginx and Go say so with a 400
        _any(r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS server"),
    ),
)
# A 403 that is about one input, and no sign-in: OpenRouter's moderation names the input, xAI the check that it failed.
_REFUSED_INPUT = _any(r"flagged_input|violates usage guidelines|SAFETY_CHECK_TYPE")
# OpenAI and Groq, as a 429 or a 413: a limit by the minute, what of it is used, and what this request alone would take.
_LIMIT_AND_REQUEST = _any(r"\blimit:? (\d[\d,]{0,20})\b.{0,80}?\brequested:? (\d[\d,]{0,20})")


def document_of(response: Response, holds: str, *, about_form: bool = False) -> dict[str, Any] | Failure:
    """Return the document of a 2xx that has a list of objects under `holds`; else the failure that the response is.

    `about_form` says whether a document without one shows that the request's form was not understood.
    """
    if not response.succeeded:
        return failure_of(response)
    try:
        document = read_json(response.body)
    except NotJSONError:
        return not_an_answer(response, "the answer is no JSON")
    if isinstance(document, dict):
        found = document.get(holds)
        if isinstance(found, list) and found and all(isinstance(part, dict) for part in found):
            return document
        if document.get("error") or document.get("error_code") or document.get("object") == "error":
            return failure_of(response)
    return not_an_answer(response, f"the answer has no {holds}", document, about_form=about_form)


def failure_of(response: Response, document: object = None) -> Failure:
    """Map a response that carries no answer to its failure: kind, status, words, and how long to wait.

    Where the error is only a part of the response's body, `document` is that part.
    """
    if response.fault is not None:
        words = without_secrets(mended(response.detail), response.secrets)
        error = RowError(response.fault, response.status or None, words, retryable=True)
        return Failure(error, told_to_wait=response.no_socket, final=response.final)
    levels = levels_of(response.body) if document is None else levels_in(document)
    inward = levels[::-1]
    words = next((level.words for level in inward if level.words), "") or response.body[:_READ_MOST].decode(
        "utf-8", "replace"
    )
    status = next((level.status for level in inward if level.status), response.status)
    evidence = " ".join(level.evidence for level in levels) or words
    state = _state(status, levels, words)
    kind = "unavailable" if state else _kind(status, evidence)
    waits = kind == "rate_limited" or (kind == "unavailable" and status in _WAITS)
    in_body = next((level.retry_after_s for level in levels if level.retry_after_s is not None), None)
    return Failure(
        RowError(kind, response.status, _message(response, words, levels), retryable=kind in _RETRYABLE),
        told_to_wait=state == "not ready" or (waits and not state),
        retry_after_s=_retry_after_s(response.headers, in_body),
        usage=next((level.usage for level in levels if level.usage), None),
        final=state == "stopped",
    )


def _state(status: int, levels: Sequence[Level], words: str) -> Literal["stopped", "not ready"] | None:
    """Return the state of an endpoint that takes no requests; None for one that does."""
    if status in _PLAIN_STATUSES or status < 400 or status == 429:
        return None
    subject = words[:_SUBJECT_MOST]
    if STOPPED.search(subject):
        return "stopped"
    codes = " ".join(level.codes for level in levels)
    return "not ready" if NOT_READY.search(f"{codes} {subject}") else None


def _kind(status: int, evidence: str) -> Kind:
    kind = _telltale(status, evidence)
    if kind is not None:
        return kind
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return "unavailable"
    if 300 <= status < 400:  # the URL is another's: no input is to blame, and none would fare better
        return "not_found"
    return "invalid_response" if status < 300 else "invalid_request"


def _telltale(status: int, evidence: str) -> Kind | None:
    """Return the kind that codes and words name; None where the status has to."""
    if status in _PLAIN_STATUSES:
        return "content_filter" if status == 403 and _REFUSED_INPUT.search(evidence) else None
    if _exceeds_its_limit(evidence):
        return "context_length"
    return next((kind for kind, pattern in _TELLTALES if pattern.search(evidence)), None)


def _exceeds_its_limit(evidence: str) -> bool:
    """Return whether a request alone is larger than the limit by the minute: it never passes, however long it waits."""
    return any(
        int(limit.replace(",", "")) < int(requested.replace(",", ""))
        for limit, requested in _LIMIT_AND_REQUEST.findall(evidence)
    )


def _message(response: Response, words: str, levels: Sequence[Level]) -> str:
    """Return the words for a column, and besides who said them, if not the endpoint, or where a redirect leads."""
    provider = next((level.provider for level in levels if level.provider), "")
    aside = f"(said by the provider behind the endpoint: {provider})" if provider else _whither(response)
    line = plain(words, _WORDS_MOST, response.secrets) or "no message"
    aside = excerpt(without_secrets(aside, response.secrets))
    return f"{excerpt(line, _WORDS_MOST - 201)} {aside}" if aside else line


def _whither(response: Response) -> str:
    """Return where a redirect leads, without what a query may hold."""
    try:
        target = urlsplit(response.headers.get("location", "") if 300 <= response.status < 400 else "")
    except ValueError:
        return ""
    address = target._replace(netloc=target.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return f"(redirects to {mended(address)})" if address else ""


def _retry_after_s(headers: Mapping[str, str], in_body: float | None) -> float | None:
    """Return how long to wait: `retry-after-ms`, `retry-after` in seconds or as a date, or what the body said."""
    milliseconds = seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    header = headers.get("retry-after")
    if header is None:
        return in_body
    wait_s = seconds(header)
    if wait_s is not None:
        return wait_s
    try:  # the server's own clock says how far off its date is: no clock is read here
        wait = parsedate_to_datetime(header) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, OverflowError, IndexError):
        return in_body
    return max(0.0, wait.total_seconds())
