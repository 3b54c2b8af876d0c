"""Maps the error responses of model servers, gateways and proxies to a `Failure`.

The status alone is not enough. Gateways answer 400 for a rate limit or a stopped endpoint, 500 for a provider's 403,
and HTML pages for any of them. So `protocol.error_body` reads the body first, and then status, codes and message
decide together.
"""

import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from spark_llm.errors import Kind
from spark_llm.protocol.error_body import Level, levels_in, levels_of, parse_seconds
from spark_llm.protocol.fields import usage_of
from spark_llm.protocol.json_codec import FloatHook, NotJSONError, read_json, replace_surrogates
from spark_llm.protocol.masking import masked_beginning, readable_excerpt, without_secrets
from spark_llm.protocol.values import Failure, Response, RowError
from spark_llm.text.excerpt import READ_FACTOR, excerpt

_MAX_MESSAGE = 500  # characters
_MAX_ASIDE = 200
_MAX_BODY = 20_000  # bytes of a body that is not JSON
_MAX_EVIDENCE = 50_000  # characters of all levels: each pattern below is searched for in them
_MAX_SUBJECT = 200  # characters in which the message names a stopped endpoint; later ones may quote the request
_RETRYABLE = frozenset[Kind](("rate_limited", "unavailable", "timeout", "connection", "invalid_response"))
_THROTTLING_STATUSES = frozenset((503, 529))
_STATUSES: dict[Kind, tuple[int, ...]] = {
    "unauthorized": (401, 403, 407),
    "quota": (402,),
    "not_found": (404, 405, 410, 421),  # 421: the host name belongs to another server
    "timeout": (408,),
    # 409: a conflict with another change, which ends by itself. 424: text-generation-inference, where the model failed
    # while it generated. 499: gRPC's "cancelled", as gateways write it.
    "unavailable": (409, 424, 425, 499),
    "rate_limited": (429, 498),  # 498: Groq, where its flex tier has no room left
    "invalid_request": (501,),  # llama.cpp: the server was started for another task
}
_BY_STATUS = {status: kind for kind, statuses in _STATUSES.items() for status in statuses}
_UNAMBIGUOUS_STATUSES = frozenset((401, 403, 404, 407))
_WAITING_STATUSES = _THROTTLING_STATUSES | frozenset(_STATUSES["rate_limited"])
_PASSING_KINDS = ("timeout", "unavailable", "rate_limited")

# Messages of an endpoint that takes no requests: Databricks, Hugging Face, KServe and proxied clusters.
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


def _evidence(kind: Kind, *patterns: str, flags: int = re.IGNORECASE) -> tuple[Kind, re.Pattern[str]]:
    return kind, re.compile("|".join(patterns), flags)


# Codes and messages that say more than the status; the first match gives the kind. They do not apply to 401, 403 and
# 404, which are unambiguous.
_KIND_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    # DashScope writes `insufficient_quota` for a limit of tokens per minute
    _evidence("rate_limited", r"Allocated quota exceeded, please increase"),
    _evidence(
        "quota",
        r"insufficient_quota|billing_hard_limit",  # OpenAI
        r"exceeded your current quota(?!(?s:.{0,2000}?)please retry in)",  # OpenAI; Gemini, for the quota of a day
        r"credit balance",  # Anthropic
        r"budget_exceeded",  # LiteLLM
        r"exceeded_current_quota_error|\bArrearage\b",  # Moonshot; DashScope
    ),
    _evidence(
        "unauthorized",
        r"\b(invalid_client|invalid_grant|unauthorized_client|invalid_api_key|API_KEY_INVALID)\b|io\.jsonwebtoken\.",
        flags=0,
    ),
    _evidence(
        "content_filter",
        r"content_filter|content management policy|ResponsibleAIPolicyViolation",  # OpenAI, Azure, Moonshot
        r"\binvalid_prompt\b|violating our usage policy|content_policy_violation",  # OpenAI
        r"\b(in|out)put_guardrail",  # Databricks
        r"guardrail.{0,80}?\b(intervened|triggered|blocked|flagged|refused|rejected|violat)",  # Bedrock, and gateways
        r"\b(intervened|triggered|blocked|flagged|refused|rejected|violat\w*)\b.{0,80}?guardrail",
        r"content filtering policy",  # Anthropic
        r"Content Exists Risk",  # DeepSeek
        r"data_?inspection_?failed|may contain inappropriate content",  # DashScope
        r"violates usage guidelines|SAFETY_CHECK_TYPE",  # xAI, under 400 too
        r"PROHIBITED_CONTENT",  # Gemini
        r"\b1301\b.{0,200}(sensitive|敏感)",  # Zhipu
        r"new_sensitive",  # MiniMax
        r"ContentPolicyViolationError",  # LiteLLM, of any of them
    ),
    _evidence(
        "context_length",
        r"context_length_exceeded|context (length|window|size|limit)",  # OpenAI, Anthropic, and many others
        r"maximum (context|model) length",  # OpenAI, vLLM, Mistral
        r"(prompt|input) is too long|(prompt|input) token count",  # Anthropic, Bedrock; Gemini, Copilot, Titan
        r"reduce the length of (the|your) (messages|prompt|input)",  # OpenAI, vLLM, Cerebras
        r"string_above_max_length(?!.{0,500}?\bInvalid '(?!messages|input|prompt))",  # OpenAI, not of a parameter
        r"Invalid '(messages|input|prompt)[^']*': string too long",
        r"max_tokens_per_request|request too large for",  # OpenAI; OpenAI and Groq, without the numbers
        r"maximum prompt length is",  # xAI
        r"too many tokens: (?!max tokens must)",  # Cohere, not its parameter; no colon: Bedrock's rate limit
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
    _evidence(
        "rate_limited",
        r"REQUEST_LIMIT_EXCEEDED|RESOURCE_EXHAUSTED|rate_limit_exceeded|rate limit(\(s\))? exceeded"
        r"|too many requests|exceeded .{0,60}rate limit|exceeding rate limit",
    ),
    # the URL's scheme is wrong: nginx and Go answer 400
    _evidence("not_found", r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS server"),
)
# What would be about the input in the codes; in a message under a status that passes it is about the server's work.
_ABOUT_INPUT: tuple[Kind, ...] = ("content_filter", "context_length")
_GUARDRAIL = re.compile(r"guardrail", re.IGNORECASE)
_TOO_LARGE = re.compile(r"request too large for", re.IGNORECASE)  # alone, also for a rate limit: OpenAI, Groq
_LIMITED = re.compile(r"\b(REQUEST_LIMIT_EXCEEDED|RESOURCE_EXHAUSTED|rate_limit_exceeded)\b", re.IGNORECASE)
_STACK_TRACE = re.compile(
    r'"stack_trace"\s*:\s*"(?:[^"\\]|\\.)*(?:"|\Z)', re.DOTALL
)  # of MLflow, and not for a message
# A 403 about one input and not about the login: OpenRouter's moderation names the input, xAI the failed check.
_INPUT_REFUSED = re.compile(r"flagged_input|violates usage guidelines|SAFETY_CHECK_TYPE", re.IGNORECASE)
# No room left at a service tier, whoever asks: OpenAI's and Azure's flex tier (429), Groq's (498).
_SHORT = re.compile(r"resource[_ ]?unavailable|capacity_exceeded", re.IGNORECASE)
# OpenAI and Groq, in a 429 or a 413: the limit per minute, and the tokens that this request alone needs.
_LIMIT_AND_REQUEST = re.compile(r"\blimit:? (\d[\d,]{0,20})\b.{0,80}?\brequested:? (\d[\d,]{0,20})", re.IGNORECASE)


def json_of(response: Response, float_hook: FloatHook | None = None) -> Any:  # noqa: ANN401 -- JSON, or a failure
    """Return the document of a 2xx, or else the response's failure; `float_hook` reads its numbers."""
    if not response.succeeded:
        return failure_of(response)
    try:
        return read_json(response.body, float_hook)
    except NotJSONError:
        return invalid_response_failure(response, "the answer is not JSON")


def document_of(response: Response, field: str, *, format_unsupported: bool = False) -> dict[str, Any] | Failure:
    """Return the document of a 2xx that has a list of objects in this field, or else the response's failure.

    `format_unsupported` goes into the failure of a document without that list.
    """
    document = json_of(response)
    if isinstance(document, Failure):
        return document
    if isinstance(document, dict):
        found = document.get(field)
        if isinstance(found, list) and found and all(isinstance(part, dict) for part in found):
            return document
        if is_error(document):
            return failure_of(response)
    return invalid_response_failure(
        response, f"the answer has no {field}", document, format_unsupported=format_unsupported
    )


def is_error(document: Mapping[str, Any]) -> bool:
    """Return whether a document under 200 is an error."""
    return bool(document.get("error") or document.get("error_code")) or document.get("object") == "error"


def failure_of(response: Response, document: object = None) -> Failure:
    """Return the failure of a response that holds no answer: its kind, status, message and wait.

    `document` is the error where it is only a part of the response's body.
    """
    if response.fault is not None:
        message = without_secrets(replace_surrogates(response.detail), response.secrets)
        error = RowError(response.fault, response.status or None, message, retryable=not response.oversized)
        return Failure(error, throttled=response.no_socket, final=response.final)
    levels = levels_of(response.body) if document is None else levels_in(document)
    innermost_first = levels[::-1]
    message = next((level.message for level in innermost_first if level.message), "") or _text(response)
    status = next((level.status for level in innermost_first if level.status), response.status)
    codes = " ".join(level.codes for level in levels)[-_MAX_EVIDENCE:]  # the innermost are the last
    evidence = " ".join(level.evidence for level in levels)[-_MAX_EVIDENCE:] or message[:_MAX_EVIDENCE]
    state = _endpoint_state(status, codes, message)
    in_body = next((level.retry_after_s for level in levels if level.retry_after_s is not None), None)
    retry_after_s = _retry_after_s(response.headers, in_body)
    kind = "unavailable" if state else _kind(status, codes, evidence)
    if kind == "quota" and status == 429 and retry_after_s:  # the quota of a minute, which comes back
        kind = "rate_limited"
    waits = kind == "rate_limited" or (kind == "unavailable" and status in _THROTTLING_STATUSES)
    return Failure(
        RowError(kind, response.status, _full_message(response, message, levels), retryable=kind in _RETRYABLE),
        throttled=state == "not ready" or (waits and not state),
        retry_after_s=retry_after_s,
        usage=next((level.usage for level in levels if level.usage), None),
        final=state == "stopped",
        short=kind == "rate_limited" and _SHORT.search(evidence) is not None,
    )


def invalid_response_failure(
    response: Response, reason: str, document: object = None, *, format_unsupported: bool = False, served: bool = False
) -> Failure:
    """Return the failure of a 2xx without an answer: the reason, and the beginning of the body; its tokens count.

    `served`: the model answered all the same, as it did where there are tokens to pay for.
    """
    message = f"{reason}: {readable_excerpt(_text(response), secrets=response.secrets)}"
    error = RowError("invalid_response", response.status, message, retryable=True)
    usage = usage_of(document)
    return Failure(error, usage=usage, format_unsupported=format_unsupported, served=served or usage is not None)


def _text(response: Response) -> str:
    return _STACK_TRACE.sub('"stack_trace": "…"', response.body[:_MAX_BODY].decode("utf-8", "replace"))


def _endpoint_state(status: int, codes: str, message: str) -> Literal["stopped", "not ready"] | None:
    """Return the state of an endpoint that takes no requests; None for any other."""
    if status in _UNAMBIGUOUS_STATUSES or status < 400 or status == 429:
        return None
    subject = message[:_MAX_SUBJECT]
    if STOPPED.search(subject):
        return "stopped"
    return "not ready" if NOT_READY.search(f"{codes} {subject}") else None


def _kind(status: int, codes: str, evidence: str) -> Kind:
    kind = _kind_of_message(status, codes, evidence)
    return _kind_of_status(status) if kind is None else kind


def _kind_of_status(status: int) -> Kind:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return "unavailable"
    if 300 <= status < 400:  # the URL is wrong, for every input
        return "not_found"
    return "invalid_response" if status < 300 else "invalid_request"


def _kind_of_message(status: int, codes: str, evidence: str) -> Kind | None:
    """Return the kind that the codes and the message name; None where the status decides.

    Where a server has no room, only its codes make the input too long or refused: its message may name a guardrail or
    the context that it has no room for.
    """
    if status in _UNAMBIGUOUS_STATUSES:
        return "content_filter" if status == 403 and _INPUT_REFUSED.search(evidence) else None
    waits = status in _WAITING_STATUSES or _LIMITED.search(codes) is not None
    if _exceeds_rate_limit(evidence) or (waits and _TOO_LARGE.search(evidence)):
        return "context_length"
    for kind, pattern in _KIND_PATTERNS:
        if pattern.search(codes if waits and kind in _ABOUT_INPUT else evidence):
            return kind
        if kind == "content_filter" and _kind_of_status(status) not in _PASSING_KINDS and _GUARDRAIL.search(evidence):
            return kind
    return None


def _exceeds_rate_limit(evidence: str) -> bool:
    """Return whether one request alone is larger than the limit per minute, so that waiting cannot help."""
    return any(
        int(limit.replace(",", "")) < int(requested.replace(",", ""))
        for limit, requested in _LIMIT_AND_REQUEST.findall(evidence)
    )


def _full_message(response: Response, message: str, levels: Sequence[Level]) -> str:
    """Return the message for a row, with the provider behind the endpoint or the target of a redirect."""
    provider = next((level.provider for level in levels if level.provider), "")
    aside = f"(from the provider behind the endpoint: {provider})" if provider else _redirect_target(response)
    line = readable_excerpt(message, _MAX_MESSAGE, response.secrets) or "no message"
    aside = excerpt(masked_beginning(aside, READ_FACTOR * _MAX_ASIDE, response.secrets), _MAX_ASIDE)
    return f"{excerpt(line, _MAX_MESSAGE - _MAX_ASIDE - 1)} {aside}" if aside else line


def _redirect_target(response: Response) -> str:
    """Return the address that a redirect leads to, without its query; empty for any other response."""
    try:
        target = urlsplit(response.headers.get("location", "") if 300 <= response.status < 400 else "")
    except ValueError:
        return ""
    address = target._replace(netloc=target.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return f"(redirects to {replace_surrogates(address)})" if address else ""


def _retry_after_s(headers: Mapping[str, str], in_body: float | None) -> float | None:
    """Return the wait from `retry-after-ms`, from `retry-after` in seconds or as a date, or else from the body."""
    milliseconds = parse_seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    header = headers.get("retry-after")
    if header is None:
        return in_body
    wait_s = parse_seconds(header)
    if wait_s is not None:
        return wait_s
    try:  # relative to the server's own date, since no clock is read here
        wait = parsedate_to_datetime(header) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, OverflowError, IndexError):
        return in_body
    return max(0.0, wait.total_seconds())
