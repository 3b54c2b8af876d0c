"""What Hypothesis draws from, for more than one file of tests."""

from hypothesis import strategies as st

from spark_llm.protocol.values import Usage

_AWKWARD = '"\\{}[],:\0\x7f\N{LINE SEPARATOR}\N{REPLACEMENT CHARACTER}\N{SLIGHTLY SMILING FACE}'

TEXTS = st.text(st.one_of(st.characters(), st.characters(categories=["Cs"]), st.sampled_from(_AWKWARD)), max_size=20)
"""Any string that Python can hold: halves of surrogate pairs, NUL, emoji and pieces of JSON too."""


def usages(counts: st.SearchStrategy[int | None]) -> st.SearchStrategy[Usage]:
    """Draw reports of tokens with these counts, at any tier or none."""
    tiers = st.sampled_from([None, "flex", "batch"])
    return st.builds(Usage, *[counts] * 6, service_tier=tiers, image_tokens=counts, audio_tokens=counts)


_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
)
JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=6,
)
"""Any value that a JSON document can hold."""

_NAMES = [
    "choices",
    "data",
    "message",
    "content",
    "text",
    "type",
    "index",
    "embedding",
    "usage",
    "model",
    "id",
    "object",
    "finish_reason",
    "native_finish_reason",
    "provider_specific_fields",
    "refusal",
    "tool_calls",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_tokens_details",
    "cached_tokens",
    "image_tokens",
    "audio_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "service_tier",
    "completion_tokens_details",
    "error",
    "error_code",
    "detail",
    "code",
    "status",
    "status_code",
    "retry_after",
    "external_model_error",
    "external_model_provider",
    "finishReason",
    "input_guardrail",
    "msg",
]
_WORDS = [
    "text",
    "reasoning",
    "stop",
    "length",
    "content_filter",
    "MAX_TOKENS",
    "content_filter: SAFETY",
    "error",
    "Limit 3, Used 1, Requested 4",
    "rate_limit_exceeded",
    "insufficient_quota",
    "REQUEST_LIMIT_EXCEEDED",
    "429",
    "503",
    "AAAAAA==",
    '{"message":"nested"}',
    "<html><title>502</title></html>",
]
REPLIES = st.recursive(
    _SCALARS | st.sampled_from(_WORDS) | st.sampled_from([0, 1, 2, 200, 403, 429, 500, 2**31, -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=6),
    max_leaves=15,
)
"""JSON values made of the words that servers use, in every wrong place."""

STATUSES = st.sampled_from((0, 200, 201, 204, 302, 400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 529))
"""The statuses that servers answer with; 0 stands for none."""


def plain(text: str) -> str:
    """Return the text as UTF-8 can hold it: halves of surrogate pairs replaced."""
    return "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
