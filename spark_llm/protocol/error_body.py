"""An error body, opened from the outside in: what each of its levels says.

Gateways put a provider's error into a field, into a list, or as JSON into the text of a message, several deep. Sources:
the Databricks REST reference (`error_code`, `message`, `details`), the OpenAI error guide (`error.type`, `error.code`),
FastAPI's `detail`, the `error` and `error_description` of RFC 6749, Google's `retryDelay`, OpenRouter's `metadata`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spark_llm.protocol.values import Usage
from spark_llm.protocol.wire import NotJSONError, read_json, usage_of
from spark_llm.validation.numbers import is_number

_DEPTH_MOST = 6
_PARTS_MOST = 5  # of a list that are looked at
_EVIDENCE_MOST = 4_000
_INNER = ("error", "errors", "detail", "details", "metadata", "external_model_error")
_CODES = ("error_code", "code", "type", "error_type", "status", "reason", "finishReason")
_TELLING_NAMES = ("guardrail", "flagged_input")  # a field of such a name says enough by being there
_WORDS = ("message", "external_model_error", "detail", "error_description", "raw", "error", "msg")
_QUOTE = re.compile(r"['\"]input['\"]: ")  # from here on a validator repeats what it was sent
_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s)?\s*")


@dataclass(frozen=True)
class Level:
    """One level of an error body: its codes, its words, the status it names, its usage and how long it says to wait."""

    codes: str
    words: str
    status: int | None
    retry_after_s: float | None
    usage: Usage | None
    provider: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Level":
        """Read one level."""
        codes = [document.get(name) for name in _CODES]
        codes += [name for name in document if any(telling in name for telling in _TELLING_NAMES)]
        statuses = (_http_status(document.get(name)) for name in ("status_code", "status", "code", "error_code"))
        waits = (seconds(document.get(name)) for name in ("retry_after", "retryDelay", "retry_delay"))
        provider = document.get("external_model_provider")
        return cls(
            codes=" ".join(str(code) for code in codes if isinstance(code, (str, int)))[:_EVIDENCE_MOST],
            words=_words(document),
            status=next((status for status in statuses if status), None),
            retry_after_s=next((wait for wait in waits if wait is not None), None),
            usage=usage_of(document),
            provider=provider if isinstance(provider, str) else "",
        )

    @property
    def evidence(self) -> str:
        """The codes and the words, without what the words repeat of the request."""
        return f"{self.codes} {_QUOTE.split(self.words, maxsplit=1)[0][:_EVIDENCE_MOST]}"


def levels_of(body: bytes) -> list[Level]:
    """Return the levels of an error body, the outermost first; none where it is no JSON."""
    try:
        return levels_in(read_json(body))
    except NotJSONError:
        return []


def levels_in(document: object) -> list[Level]:
    """Return the levels of an error document that was read already."""
    return list(_levels(document))


def _levels(document: object, depth: int = 0) -> Iterator[Level]:
    if depth > _DEPTH_MOST:
        return
    if isinstance(document, list):
        for part in reversed(document[:_PARTS_MOST]):  # the last that is read counts as the innermost
            yield from _levels(part, depth + 1)
    elif isinstance(document, dict):
        level = Level.of(document)
        yield level
        for name in _INNER:
            yield from _levels(document.get(name), depth + 1)
        yield from _levels(_hidden_json(level.words), depth + 1)


def _words(document: Mapping[str, Any]) -> str:
    """Return what a level says; where it says it of a field, or under a code alone, that goes before."""
    found = next((name for name in _WORDS if isinstance(document.get(name), str) and document[name]), None)
    if found is None:
        return ""
    words: str = document[found]
    code, place = document.get("error"), document.get("loc")
    if found == "error_description" and isinstance(code, str) and code:
        return f"{code}: {words}"
    if found == "msg" and isinstance(place, list):
        path = ".".join(str(part) for part in place[1:] if isinstance(part, (str, int)))
        return f"{path}: {words}" if path else words
    return words


def _hidden_json(words: str) -> object:
    start, end = words.find("{"), words.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        return read_json(words[start : end + 1].encode("utf-8", "replace"))
    except NotJSONError:
        return None


def _http_status(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value):
        return int(value)
    return value if isinstance(value, int) and 400 <= value < 600 else None


def seconds(value: object) -> float | None:
    """Return a number of seconds, written as a number or as text, with "s", "ms" or no unit; None for anything else."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        return None if match is None else float(match[1]) / (1000 if match[2] == "ms" else 1)
    return float(value) if is_number(value) and 0 <= value < 1e9 else None
