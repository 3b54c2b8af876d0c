"""Error bodies of servers, as a list of levels from the outside in.

Gateways put a provider's error into a field, into a list, or as JSON into a message, several levels deep. Sources:
the Databricks REST reference (`error_code`, `message`, `details`), the OpenAI error guide (`error.type`, `error.code`),
FastAPI's `detail`, the `error` and `error_description` of RFC 6749, Google's `retryDelay`, OpenRouter's `metadata`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from spark_llm.protocol.fields import usage_of
from spark_llm.protocol.json_codec import NotJSONError, read_json
from spark_llm.protocol.values import Usage
from spark_llm.validation.numbers import is_number

_MAX_DEPTH = 6
_MAX_PARTS = 5  # of a list that are read
_MAX_LEVELS = 100
_MAX_EVIDENCE = 4_000  # characters
_INNER = ("error", "errors", "detail", "details", "metadata", "external_model_error")
_CODES = ("error_code", "code", "type", "error_type", "status", "reason", "finishReason")
_CODE_NAMES = ("guardrail", "flagged_input")  # the name of such a field counts as a code
_MESSAGES = ("message", "external_model_error", "detail", "error_description", "raw", "error", "msg")
# MLflow's scoring server repeats the rows and its schema in front of the reason, and the request behind it.
_BEFORE_REASON = (("Failed to predict data '", "'. \nError: "), ("Failed to enforce schema of data '", "'. Error: "))
_AFTER_REASON = "\nInput: \n"
_QUOTE = re.compile(r"['\"]input['\"]: ")  # from here on a validator repeats the input
_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(?:(ms|s)\s*)?")


@dataclass(frozen=True)
class Level:
    """One level of an error body: its codes, message, HTTP status, wait, usage and provider."""

    codes: str
    message: str
    status: int | None
    retry_after_s: float | None
    usage: Usage | None
    provider: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Level":
        """Read one level."""
        codes = [document.get(name) for name in _CODES]
        codes += [name for name in document if any(code in name for code in _CODE_NAMES)]
        statuses = (_http_status(document.get(name)) for name in ("status_code", "status", "code", "error_code"))
        waits = (parse_seconds(document.get(name)) for name in ("retry_after", "retryDelay", "retry_delay"))
        provider = document.get("external_model_provider")
        return cls(
            codes=" ".join(str(code) for code in codes if isinstance(code, (str, int)))[:_MAX_EVIDENCE],
            message=_message(document),
            status=next((status for status in statuses if status), None),
            retry_after_s=next((wait for wait in waits if wait is not None), None),
            usage=usage_of(document),
            provider=provider if isinstance(provider, str) else "",
        )

    @property
    def evidence(self) -> str:
        """The codes and the message, without the part of the message that repeats the request."""
        return f"{self.codes} {_QUOTE.split(self.message[:_MAX_EVIDENCE], maxsplit=1)[0]}"


def levels_of(body: bytes) -> list[Level]:
    """Return the levels of an error body, the outermost first; empty for a body that is not JSON."""
    try:
        return levels_in(read_json(body))
    except NotJSONError:
        return []


def levels_in(document: object) -> list[Level]:
    """Return the levels of a parsed error document, the outermost first."""
    return list(islice(_levels(document), _MAX_LEVELS))


def _levels(document: object, depth: int = 0) -> Iterator[Level]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(document, list):
        for part in reversed(document[:_MAX_PARTS]):  # the first part counts as the innermost
            yield from _levels(part, depth + 1)
    elif isinstance(document, dict):
        level = Level.of(document)
        yield level
        for name in _INNER:
            yield from _levels(document.get(name), depth + 1)
        yield from _levels(_embedded_json(level.message), depth + 1)


def _message(document: Mapping[str, Any]) -> str:
    """Return a level's message, after the field that it is about or the code that it explains."""
    found = next((name for name in _MESSAGES if isinstance(document.get(name), str) and document[name]), None)
    if found is None:
        return ""
    message = _without_rows(document[found])
    code, place = document.get("error"), document.get("loc")
    if found == "error_description" and isinstance(code, str) and code:
        return f"{code}: {message}"
    if found == "msg" and isinstance(place, list):
        path = ".".join(str(part) for part in place[1:] if isinstance(part, (str, int)))
        return f"{path}: {message}" if path else message
    return message


def _without_rows(message: str) -> str:
    for beginning, end in _BEFORE_REASON:
        if message.startswith(beginning):
            message = message.rpartition(end)[2] or message
    return message.partition(_AFTER_REASON)[0]


def _embedded_json(message: str) -> object:
    start, end = message.find("{"), message.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        return read_json(message[start : end + 1].encode("utf-8", "replace"))
    except NotJSONError:
        return None


def _http_status(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value):
        return int(value)
    return value if isinstance(value, int) and 400 <= value < 600 else None


def parse_seconds(value: object) -> float | None:
    """Return seconds from a number, or from a text with "s", "ms" or no unit; None for any other value."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        return None if match is None else float(match[1]) / (1000 if match[2] == "ms" else 1)
    return float(value) if is_number(value) and 0 <= value < 1e9 else None
