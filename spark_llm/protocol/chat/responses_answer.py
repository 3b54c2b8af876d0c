"""Reads a Responses answer as a choice of chat completions, and recognises the refusals that name its route.

Wire format: the OpenAI Responses object: `status`, `output` items, `incomplete_details`, `error`, `usage`.
"""

import re
from collections.abc import Iterator
from typing import Any

from spark_llm.protocol.choices import ContentOfChoice, read_groups
from spark_llm.protocol.failures import failure_of, invalid_response_failure, is_error, json_of
from spark_llm.protocol.fields import string_of
from spark_llm.protocol.values import Failure, Outcome, Response, RowError

# The codes of a failed response that are about the request; all others are about the server.
_CODES_OF_REQUESTS = re.compile(r"image|invalid_prompt|policy|invalid_request|context_length|invalid_value")
_REQUEST_STATUS, _SERVER_STATUS = 400, 500
_ENDINGS = {"max_output_tokens": "length"}  # as chat completions have it
_CALL = "function_call"

_ROUTE = r"(?:the )?[`'\"]?(?:/?(?:openai/)?(?:v1)?/responses\b|v1/responses\b|responses (?:api|endpoint|route)\b)"
NAMES_ROUTE = re.compile(
    rf"\bonly (?:be )?(?:supported|available|served|accessible|accessed|used|works?)\b.{{0,60}}?\b"
    rf"(?:in|on|at|by|via|with|through|from|over) {_ROUTE}"
    rf"|\b(?:only supports?|supports? only|requires?) {_ROUTE}"
    rf"|(?<!not )(?<!n't )\b(?:use|try|call|switch to) {_ROUTE}",
    re.IGNORECASE,
)
"""Messages that name the Responses route as the one to use: OpenAI's, and those of relays."""

_MAX_READ = 400  # characters of a message: what follows may quote the request


def is_served_at_responses(error: RowError) -> bool:
    """Return whether a refusal of a chat completions request names the Responses route as the one to use."""
    return error.status in (400, 404) and names_responses(error.message)


def names_responses(message: str) -> bool:
    """Return whether a message names the Responses route as the one to use."""
    return bool(NAMES_ROUTE.search(message[:_MAX_READ]))


def read_response(response: Response, content_of_choice: ContentOfChoice) -> Outcome:
    """Read a response of the Responses route as the only choice of a chat completion.

    `failed` comes under 200, with an error that is classified as any other. Reasoning and items of a server's own tools
    are left out.
    """
    document = json_of(response)
    if isinstance(document, Failure):
        return document
    output = document.get("output") if isinstance(document, dict) else None
    if isinstance(document, dict) and (document.get("status") == "failed" or is_error(document)):
        return failure_of(response, _error_of(document))
    if not isinstance(output, list) or not isinstance(document, dict):
        return invalid_response_failure(response, "the answer has no output", document)
    status = document.get("status", "completed")
    if status not in ("completed", "incomplete", None):
        return invalid_response_failure(response, f"the answer is not complete (status {status!r})", document)
    items = [item for item in output if isinstance(item, dict)]
    return read_groups(response, document, [[_choice(document, items)]], 1, content_of_choice)


def _error_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the error of a failed response as an error body, with a status as its code would have it."""
    error = document.get("error")
    if not error and document.get("status") != "failed":
        return document
    code = error.get("code") if isinstance(error, dict) else None
    is_of_request = isinstance(code, str) and _CODES_OF_REQUESTS.search(code)
    status = _REQUEST_STATUS if is_of_request else _SERVER_STATUS
    return {"error": error or "the response failed", "status_code": status, "usage": document.get("usage")}


def _choice(document: dict[str, Any], items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the items as a choice: texts of all messages joined, the first refusal, and the calls of functions."""
    parts = list(_parts(items))
    texts = [part["text"] for part in parts if part.get("type") == "output_text" and isinstance(part.get("text"), str)]
    refusal = next((string_of(part.get("refusal")) for part in parts if part.get("type") == "refusal"), None)
    calls = [
        {"id": item.get("call_id"), "function": {"name": item.get("name"), "arguments": item.get("arguments")}}
        for item in items
        if item.get("type") == _CALL
    ]
    message = {"content": "".join(texts) if texts and not refusal else None, "refusal": refusal, "tool_calls": calls}
    return {"message": message, "finish_reason": _finish_reason(document, calls)}


def _parts(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        if item.get("type") == "message" and isinstance(content := item.get("content"), list):
            yield from (part for part in content if isinstance(part, dict))


def _finish_reason(document: dict[str, Any], calls: list[dict[str, Any]]) -> str:
    """Return how the answer ended, in the words of chat completions."""
    if document.get("status") == "incomplete":
        details = document.get("incomplete_details")
        reason = string_of(details.get("reason")) if isinstance(details, dict) else None
        return _ENDINGS.get(reason or "", reason or "incomplete")
    return "tool_calls" if calls else "stop"
