"""Fields of responses, read whatever their type is: texts, token counts, usage, headers.

Sources: the OpenAI API reference (chat, completions, embeddings), and Databricks' foundation model REST reference.
"""

from collections.abc import Mapping
from functools import reduce
from typing import Any

from spark_llm.protocol.json_codec import replace_surrogates
from spark_llm.protocol.values import MAX_COUNT, Response, Usage

_MAX_TIER = 64  # characters of a service tier's name
# The names that servers have for each count: OpenAI, Anthropic and Databricks, DeepSeek, Moonshot, LiteLLM, OpenRouter.
_ANTHROPIC = {"cache_read_input_tokens", "cache_creation_input_tokens"}
_CACHE = {
    **dict.fromkeys(("cached_tokens", "cache_read_input_tokens", "prompt_cache_hit_tokens"), "cached_tokens"),
    **dict.fromkeys(
        ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens"), "cache_write_tokens"
    ),
}
_COUNTS = {
    **dict.fromkeys(("prompt_tokens", "input_tokens"), "prompt_tokens"),
    **dict.fromkeys(("completion_tokens", "output_tokens"), "completion_tokens"),
    "total_tokens": "total_tokens",
    **_CACHE,
}
_OF_PROMPTS = {**_CACHE, "image_tokens": "image_tokens", "audio_tokens": "audio_tokens"}
_SPOKEN = "audio_tokens of the answer"
_OF_ANSWERS = {"reasoning_tokens": "reasoning_tokens", "audio_tokens": _SPOKEN}
_DETAILS = {
    **dict.fromkeys(("prompt_tokens_details", "input_tokens_details"), _OF_PROMPTS),
    **dict.fromkeys(("completion_tokens_details", "output_tokens_details"), _OF_ANSWERS),
}


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
    if not isinstance(document, dict) or not isinstance(usage, dict):
        return None
    found: dict[str, int] = {}
    _read_counts(usage, _COUNTS, found)
    for name, names in _DETAILS.items():
        if isinstance(details := usage.get(name), dict):
            _read_counts(details, names, found)
    if (spoken := found.pop(_SPOKEN, None)) is not None:
        found["audio_tokens"] = min(MAX_COUNT, spoken + found.get("audio_tokens", 0))
    if not found:
        return None
    if "prompt_tokens" in found:
        if cache := found.get("cached_tokens", 0) + found.get("cache_write_tokens", 0):
            _add_beside(found, cache, usage)
        if "total_tokens" not in found:
            found["total_tokens"] = min(MAX_COUNT, found["prompt_tokens"] + found.get("completion_tokens", 0))
    tier = string_of(document.get("service_tier")) or string_of(usage.get("service_tier"))
    return Usage(**found, service_tier=tier if tier and len(tier) <= _MAX_TIER else None)


def _read_counts(group: dict[str, Any], names: Mapping[str, str], found: dict[str, int]) -> None:
    """Add the counts of a group to `found`, by our names for them; of two names for one the greater number counts."""
    for name, value in group.items():
        if (ours := names.get(name)) is not None and (count := count_of(value)) is not None:
            found[ours] = count if ours not in found else max(count, found[ours])


def _add_beside(found: dict[str, int], cache: int, usage: dict[str, Any]) -> None:
    """Add tokens of the cache to the prompt's where the server counts them beside it, as Anthropic does.

    They are beside it where the total says so, where they are more than the prompt, and in Anthropic's own format.
    """
    prompt, completion = found["prompt_tokens"], found.get("completion_tokens", 0)
    native = "input_tokens" in usage and "prompt_tokens" not in usage and not _ANTHROPIC.isdisjoint(usage)
    if native or cache > prompt or found.get("total_tokens") == prompt + completion + cache:
        found["prompt_tokens"] = min(MAX_COUNT, prompt + cache)
        if "total_tokens" in found:
            found["total_tokens"] = min(MAX_COUNT, max(found["total_tokens"], prompt + completion + cache))


def count_of(value: object) -> int | None:
    """Return a count that fits a column of 32 bits; None for any other value."""
    if type(value) is not int:  # one look for most counts: this runs several times a row
        if not isinstance(value, float) or not value.is_integer():
            return None
        value = int(value)
    return value if 0 <= value <= MAX_COUNT else None


def string_of(value: object) -> str | None:
    """Return a string that is not empty; None for any other value."""
    return value if isinstance(value, str) and value else None


def header_of(response: Response, name: str) -> str | None:
    """Return a header without lone surrogates; None where it is missing or empty."""
    return replace_surrogates(response.headers.get(name)) or None
