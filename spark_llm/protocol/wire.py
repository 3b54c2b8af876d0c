"""Reading what servers send: JSON from any bytes, text from any shape of content, usage, failures for non-answers.

Sources: the OpenAI API reference (chat, completions, embeddings), and Databricks' foundation model REST reference.
"""

import html
import json
import re
from collections.abc import Sequence
from functools import reduce
from typing import Any

import msgspec

from spark_llm.protocol.masking import without_secrets
from spark_llm.protocol.values import Failure, Response, RowError, Usage
from spark_llm.text.excerpt import excerpt
from spark_llm.validation.numbers import is_whole

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_PAGE_MOST = 20_000  # of a page that is read
_EVENT_DATA = re.compile(r"^data:[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)
_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")


class NotJSONError(ValueError):
    """Bytes that are no JSON document."""


def read_json(body: bytes) -> Any:  # noqa: ANN401 -- a JSON document has any type
    """Read a JSON document; bytes that are no UTF-8 and surrogates without a partner are replaced.

    A byte order mark, UTF-16 and UTF-32, and the frame of an event stream around one document are taken off. Raises
    `NotJSONError` for everything else that is no JSON.
    """
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return mended(json.loads(_unframed(body.decode(json.detect_encoding(body), "replace"))))
    except (ValueError, RecursionError) as error:
        raise NotJSONError(str(error)) from None


def _unframed(text: str) -> str:
    """Return the one document of an event stream, as a server sends that streams unasked; any other text as it is."""
    if not text.lstrip().startswith(("data:", "event:", "id:", ":")):
        return text
    documents = [found for found in _EVENT_DATA.findall(text) if found != "[DONE]"]
    return documents[0] if len(documents) == 1 else text


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; an empty one stands for anything else."""
    try:
        document = read_json(body)
    except NotJSONError:
        return {}
    return document if isinstance(document, dict) else {}


def mended(value: Any) -> Any:  # noqa: ANN401 -- a JSON document has any type
    """Replace lone surrogates, which JSON escapes and headers may bring, and no UTF-8 can hold."""
    if isinstance(value, str):
        return value.translate(_SURROGATES)
    if isinstance(value, list):
        return [mended(part) for part in value]
    if isinstance(value, dict):
        return {mended(key): mended(part) for key, part in value.items()}
    return value


def write_json(value: object) -> bytes:
    """Write a JSON document in UTF-8; surrogates without a partner are replaced.

    Raises `TypeError` or `ValueError` for an object that JSON cannot hold; a number that it cannot becomes null.
    """
    try:
        document = _encode(value)
    except UnicodeEncodeError:
        document = _encode(mended(value))
    return document


def body(model: str | None, parameters: bytes, fields: bytes) -> bytes:
    """Write a request's body: the model, the parameters (a JSON object) and the task's own `fields`, already JSON."""
    parts = [] if model is None else [b'"model":' + write_json(model)]
    if len(parameters) > len(b"{}"):
        parts.append(parameters[1:-1])
    return b"{" + b",".join([*parts, fields]) + b"}"


def text_of(content: object) -> str | None:
    """Return the text of a message's content: a string, or a list of parts of which those of type "text" count."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [
            part["text"]
            for part in content
            if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        ]
        return "".join(texts) if texts else None
    return None


def usage_of(document: object) -> Usage | None:
    """Return the tokens that a response reports, as far as they are whole numbers; None where it reports none.

    A list of documents, as some servers answer a list of prompts, reports the sum of them.
    """
    if isinstance(document, list):
        reports = [report for part in document if isinstance(part, dict) and (report := usage_of(part))]
        return reduce(Usage.plus, reports) if reports else None
    usage = document.get("usage") if isinstance(document, dict) else None
    if not isinstance(usage, dict):
        return None
    prompt, completion, total = (
        count_of(usage.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    if total is None and prompt is not None:
        total = prompt + (completion or 0)
    found = Usage(
        prompt,
        completion,
        total,
        _detail(usage, "prompt_tokens_details", "cached_tokens"),
        _detail(usage, "completion_tokens_details", "reasoning_tokens"),
    )
    return found if any(count is not None for count in found) else None


def _detail(usage: dict[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    return count_of(details.get(name)) if isinstance(details, dict) else None


def count_of(value: object) -> int | None:
    """Return a token count that a 32-bit column can hold; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if is_whole(value) and 0 <= value < 2**31 else None


def string_of(value: object) -> str | None:
    """Return a string as it is, and None for anything else or an empty one."""
    return value if isinstance(value, str) and value else None


def header_of(response: Response, name: str) -> str | None:
    """Return a header as UTF-8 can hold it, and None for none or an empty one."""
    return mended(response.headers.get(name)) or None


def not_an_answer(response: Response, why: str, document: object = None, *, about_form: bool = False) -> Failure:
    """Return the failure for a 200 that does not hold its answer, with the beginning of what it holds; tokens count."""
    found = plain(response.body[:_PAGE_MOST].decode("utf-8", "replace"), secrets=response.secrets)
    error = RowError("invalid_response", response.status, f"{why}: {found}", retryable=True)
    return Failure(error, usage=usage_of(document), about_form=about_form)


def plain(words: str, most: int = 200, secrets: Sequence[str] = ()) -> str:
    """Return the beginning of a text for a message, without secrets; an HTML page's title, or the text of its tags."""
    if re.search(r"<[\w!]", words[:_PAGE_MOST]):
        page = words[:_PAGE_MOST]
        title = re.search(r"(?i)<title[^<>]*>([^<]*)</title", page)
        hidden = r"(?is)<(script|style)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)|<[^<>]*>"
        words = title[1] if title and title[1].strip() else re.sub(hidden, " ", page)
        words = html.unescape(words)
    return excerpt(without_secrets(words, secrets), most)
