"""Fields of responses, read whatever their type is: texts, token counts, usage, headers.

Sources: the OpenAI API reference (chat, completions, embeddings), and Databricks' foundation model REST reference.
"""

from functools import reduce
from typing import Any

from spark_llm.protocol.json_codec import replace_surrogates
from spark_llm.protocol.values import Response, Usage

_NO_USAGE = Usage()


def text_of(content: object) -> str | None:
    """Return the text of a message's content: a string, or the joined parts of type "text" in a list."""
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

    Some servers answer a list of prompts with a list of documents: its usage is their sum.
    """
    if isinstance(document, list):
        reports = [report for part in document if isinstance(part, dict) and (report := usage_of(part))]
        return reduce(Usage.plus, reports) if reports else None
    usage = document.get("usage") if isinstance(document, dict) else None
    if not isinstance(usage, dict):
        return None
    prompt = count_of(usage.get("prompt_tokens"))
    completion = count_of(usage.get("completion_tokens"))
    total = count_of(usage.get("total_tokens"))
    if total is None and prompt is not None:
        total = prompt + (completion or 0)
    found = Usage(
        prompt,
        completion,
        total,
        _detail(usage, "prompt_tokens_details", "cached_tokens"),
        _detail(usage, "completion_tokens_details", "reasoning_tokens"),
    )
    return None if found == _NO_USAGE else found


def _detail(usage: dict[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    return count_of(details.get(name)) if isinstance(details, dict) else None


def count_of(value: object) -> int | None:
    """Return a count that fits a column of 32 bits; None for any other value."""
    if type(value) is not int:  # one look for most counts: this runs several times a row
        if not isinstance(value, float) or not value.is_integer():
            return None
        value = int(value)
    return value if 0 <= value < 2**31 else None


def string_of(value: object) -> str | None:
    """Return a string that is not empty; None for any other value."""
    return value if isinstance(value, str) and value else None


def header_of(response: Response, name: str) -> str | None:
    """Return a header without lone surrogates; None where it is missing or empty."""
    return replace_surrogates(response.headers.get(name)) or None
