"""What a refusal means: the error bodies of model servers, gateways and proxies, mapped to one `Failure`.

The status alone is not enough. Gateways nest a provider's error as JSON inside a message, answer 400 for a rate limit
or 500 for a provider's 403, and put pages of HTML in front. So the body is opened first, from the outside in, and then
status, codes and words are read together. Sources: the Databricks REST reference (`error_code`, `message`), the OpenAI
error guide (`error.type`, `error.code`), FastAPI's `detail`, and RFC 9110 for Retry-After.
"""

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from spark_llm._tasks._wire import NotJSONError, excerpt, mended, not_an_answer, read_json, usage_of
from spark_llm._values import Failure, Response, RowError
from spark_llm.errors import Kind

_WORDS_MOST = 500
_DEPTH_MOST = 6
_RETRYABLE = frozenset[Kind](("rate_limited", "unavailable", "timeout", "connection", "invalid_response"))
_WAITS = frozenset((503, 529))
_BY_STATUS: dict[int, Kind] = {
    401: "unauthorized",
    402: "quota",
    403: "unauthorized",
    404: "not_found",
    405: "not_found",
    408: "timeout",
    429: "rate_limited",
}

# Codes and words that say more than the status; the first that is found names the kind. 401, 403 and 404 are what they
# say, whatever words they come in.
_TELLTALES: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (
        "quota",
        re.compile(r"insufficient_quota|billing_hard_limit|credit balance", re.IGNORECASE),
    ),
    (
        "content_filter",
        re.compile(r"content_filter|content management policy|ResponsibleAIPolicyViolation|guardrail", re.IGNORECASE),
    ),
    (
        "context_length",
        re.compile(
            r"context_length_exceeded|exceed_context_size|(prompt|input) is too long|maximum context length"
            r"|context (length|window|size)|prompt token count",
            re.IGNORECASE,
        ),
    ),
    (
        "rate_limited",
        re.compile(
            r"REQUEST_LIMIT_EXCEEDED|RESOURCE_EXHAUSTED|rate_limit_exceeded|rate limit(\(s\))? exceeded"
            r"|too many requests|exceeded .{0,60}rate limit",
            re.IGNORECASE,
        ),
    ),
)
_PLAIN_STATUSES = frozenset((401, 403, 404))


def document_of(response: Response, holds: str, *, about_form: bool = False) -> dict[str, Any] | Failure:
    """Return the document of a 200 that has a list of objects under `holds`; else the failure that the response is.

    `about_form` says whether a document without one shows that the request's form was not understood.
    """
    if response.status != 200 or response.fault is not None:
        return failure_of(response)
    try:
        document = read_json(response.body)
    except NotJSONError:
        return not_an_answer(response, "the answer is no JSON")
    if isinstance(document, dict):
        found = document.get(holds)
        if isinstance(found, list) and found and all(isinstance(part, dict) for part in found):
            return document
        if document.get("error") or document.get("error_code"):
            return failure_of(response)
    return not_an_answer(response, f"the answer has no {holds}", document, about_form=about_form)


def failure_of(response: Response) -> Failure:
    """Map a response that carries no answer to its failure: kind, status, words, and how long to wait."""
    if response.fault is not None:
        return Failure(RowError(response.fault, response.status or None, mended(response.detail), retryable=True))
    try:
        layers = list(_layers(read_json(response.body)))
    except NotJSONError:
        layers = []
    inward = layers[::-1]
    words = next((layer.words for layer in inward if layer.words), "") or response.body[:20_000].decode(
        "utf-8", "replace"
    )
    status = next((layer.status for layer in inward if layer.status), response.status)
    evidence = " ".join(f"{layer.codes} {layer.words}" for layer in layers) or words
    kind = _kind(status, evidence)
    waits = next((layer.retry_after_s for layer in layers if layer.retry_after_s is not None), None)
    return Failure(
        RowError(kind, response.status, _plain(words)[:_WORDS_MOST] or "no message", retryable=kind in _RETRYABLE),
        told_to_wait=kind == "rate_limited" or (kind == "unavailable" and status in _WAITS),
        retry_after_s=_retry_after_s(response.headers, waits),
        usage=next((layer.usage for layer in layers if layer.usage), None),
    )


def _kind(status: int, evidence: str) -> Kind:
    if status not in _PLAIN_STATUSES:
        for kind, pattern in _TELLTALES:
            if pattern.search(evidence):
                return kind
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return "unavailable"
    if 300 <= status < 400:  # the URL is another's: no input is to blame, and none would fare better
        return "not_found"
    return "invalid_response" if status < 300 else "invalid_request"


@dataclass(slots=True, frozen=True)
class _Layer:
    """One level of an error body: its codes, its words, the status it names, its usage and how long it says to wait."""

    codes: str
    words: str
    status: int | None
    retry_after_s: float | None
    usage: Any

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "_Layer":
        """Read one level."""
        codes = [document.get(name) for name in ("error_code", "code", "type", "finishReason")]
        codes += [name for name in document if "guardrail" in name]
        texts = (document.get(name) for name in ("message", "external_model_error", "detail", "error", "msg"))
        statuses = (_http_status(document.get(name)) for name in ("status_code", "status", "code"))
        return cls(
            codes=" ".join(str(code) for code in codes if isinstance(code, (str, int))),
            words=next((text for text in texts if isinstance(text, str) and text), ""),
            status=next((status for status in statuses if status), None),
            retry_after_s=_seconds(document.get("retry_after")),
            usage=usage_of(document),
        )


def _http_status(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value):
        return int(value)
    return value if isinstance(value, int) and 400 <= value < 600 else None


def _layers(document: object, depth: int = 0) -> Iterator[_Layer]:
    """Open an error body from the outside in: `error`, `detail`, lists, and JSON that hides inside a message."""
    if depth > _DEPTH_MOST:
        return
    if isinstance(document, list):
        for part in document[:3]:
            yield from _layers(part, depth + 1)
    elif isinstance(document, dict):
        layer = _Layer.of(document)
        yield layer
        for name in ("error", "detail", "external_model_error"):
            yield from _layers(document.get(name), depth + 1)
        yield from _layers(_hidden_json(layer.words), depth + 1)


def _hidden_json(words: str) -> object:
    start, end = words.find("{"), words.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        return read_json(words[start : end + 1].encode("utf-8", "replace"))
    except NotJSONError:
        return None


def _plain(words: str) -> str:
    """Return words on one line; of an HTML page its title, or else its text."""
    if re.search(r"<\w", words):
        title = re.search(r"<title[^>]*>([^<]*\S[^<]*)</title", words, re.IGNORECASE)
        words = title[1] if title else re.sub(r"(?is)<(script|style)\b.*?</\1\s*>|<[^>]*>", " ", words)
        words = html.unescape(words)
    return excerpt(words, _WORDS_MOST)


def _retry_after_s(headers: Mapping[str, str], in_body: float | None) -> float | None:
    """Return how long to wait: `retry-after-ms`, `retry-after` in seconds or as a date, or what the body said."""
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    header = headers.get("retry-after")
    if header is None:
        return in_body
    seconds = _seconds(header)
    if seconds is not None:
        return seconds
    try:  # the server's own clock says how far off its date is: no clock is read here
        wait = parsedate_to_datetime(header) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return in_body
    return max(0.0, wait.total_seconds())


def _seconds(value: object) -> float | None:
    """Return a number of seconds, written as a number or as text, with "s", "ms" or no unit; None for anything else."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s)?\s*", value)
        return None if match is None else float(match[1]) / (1000 if match[2] == "ms" else 1)
    return (
        float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9 else None
    )
