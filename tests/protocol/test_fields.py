"""Fields of responses, read whatever their type is."""

from typing import Any

import pytest
from hypothesis import given

from spark_llm.protocol.fields import count_of, header_of, string_of, text_of, usage_of
from spark_llm.protocol.values import MAX_COUNT, Response, Usage
from tests.support.strategies import JSON, TEXTS


@given(JSON)
def test_any_value_is_read(value: Any) -> None:  # noqa: ANN401 -- a JSON document has any type
    """No value raises, and each function returns its type or None."""
    assert isinstance(text_of(value), str | None)
    assert isinstance(string_of(value), str | None)
    assert isinstance(usage_of({"usage": value}), Usage | None)
    assert isinstance(usage_of(value), Usage | None)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (7, 7),
        (7.0, 7),
        (2**31 - 1, 2**31 - 1),
        (2**31, None),
        (-1, None),
        (1.5, None),
        (True, None),
        ("7", None),
    ],
)
def test_a_count_fits_32_bits(value: object, count: int | None) -> None:
    """A float may be a whole number; a boolean and a text are no counts."""
    assert count == count_of(value)


def test_usage_of_several_documents_is_their_sum() -> None:
    """A missing total is the sum of prompt and completion."""
    document = {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}

    assert Usage(3, 2, 5) == usage_of(document)
    assert Usage(6, 4, 10) == usage_of([document, {}, None, document])
    assert None is usage_of([]) is usage_of({"usage": {"prompt_tokens": "3"}})


CACHED = {"cached_tokens": 900}
ANTHROPIC = {"cache_read_input_tokens": 900, "cache_creation_input_tokens": 50}
INSIDE = {"prompt_tokens": 1000, "completion_tokens": 4, "total_tokens": 1004}


@pytest.mark.parametrize(
    ("usage", "cached", "written"),
    [
        ({**INSIDE, "prompt_tokens_details": CACHED}, 900, None),  # OpenAI
        ({**INSIDE, "prompt_tokens_details": {**CACHED, "cache_write_tokens": 50}}, 900, 50),  # OpenAI, OpenRouter
        ({**INSIDE, **ANTHROPIC}, 900, 50),  # Databricks
        ({**INSIDE, **ANTHROPIC, "prompt_tokens_details": {**CACHED, "cache_creation_tokens": 50}}, 900, 50),  # LiteLLM
        ({**INSIDE, "prompt_tokens_details": {**CACHED, "cache_creation_input_tokens": 50}}, 900, 50),  # Alibaba
        ({**INSIDE, "prompt_cache_hit_tokens": 900, "prompt_cache_miss_tokens": 100}, 900, None),  # DeepSeek
        ({**INSIDE, "cached_tokens": 900}, 900, None),  # Moonshot
        ({**INSIDE, "prompt_tokens_details": None, "cache_read_input_tokens": None}, None, None),
        ({"input_tokens": 50, "output_tokens": 4, **ANTHROPIC}, 900, 50),  # Anthropic
        ({"input_tokens": 1000, "output_tokens": 4, "input_tokens_details": CACHED}, 900, None),  # OpenAI, responses
        ({"prompt_tokens": 50, "completion_tokens": 4, "total_tokens": 54, **ANTHROPIC}, 900, 50),
        ({"prompt_tokens": 50, "completion_tokens": 4, "total_tokens": 1004, **ANTHROPIC}, 900, 50),
    ],
)
def test_the_tokens_of_a_prompt_contain_those_of_the_cache(
    usage: dict[str, Any], cached: int | None, written: int | None
) -> None:
    """The prompt has 1,000 tokens with every provider, also where it counts the cache's beside the others."""
    assert Usage(1000, 4, 1004, cached, None, written) == usage_of({"usage": usage})


def test_a_total_shows_that_cached_tokens_are_counted_beside_the_prompt() -> None:
    """Without the total nothing would: the prompt is longer than its cached part."""
    usage = {"prompt_tokens": 2000, "completion_tokens": 4, "cache_read_input_tokens": 900}

    assert Usage(2900, 4, 2904, 900) == usage_of({"usage": {**usage, "total_tokens": 2904}})
    assert Usage(2000, 4, 2004, 900) == usage_of({"usage": {**usage, "total_tokens": 2004}})


@pytest.mark.parametrize(
    ("prompt", "answer", "images", "audio"),
    [
        ({"image_tokens": 765}, {}, 765, None),
        ({"audio_tokens": 30, "image_tokens": 0}, {"audio_tokens": 12}, 0, 42),
        ({}, {"audio_tokens": 12}, None, 12),
        ({"audio_tokens": MAX_COUNT}, {"audio_tokens": 1}, None, MAX_COUNT),
        ({"audio_tokens": None, "text_tokens": 9}, None, None, None),
    ],
)
def test_tokens_of_images_and_audio_are_read(
    prompt: dict[str, Any], answer: dict[str, Any] | None, images: int | None, audio: int | None
) -> None:
    """OpenAI and xAI tell them in the details; those of a spoken answer are audio too."""
    usage = {**INSIDE, "prompt_tokens_details": prompt, "completion_tokens_details": answer}
    responses = {"input_tokens": 1000, "output_tokens": 4, "input_tokens_details": prompt}
    responses["output_tokens_details"] = answer

    expected = Usage(1000, 4, 1004, image_tokens=images, audio_tokens=audio)
    assert expected == usage_of({"usage": usage}) == usage_of({"usage": responses})


@given(JSON)
def test_cached_tokens_are_never_more_than_the_prompts(value: Any) -> None:  # noqa: ANN401 -- as above
    """Whatever a server reports, the parts of a prompt fit in it."""
    usage = usage_of({"usage": value})

    if usage is not None and usage.prompt_tokens is not None:
        assert usage.prompt_tokens >= min(MAX_COUNT, (usage.cached_tokens or 0) + (usage.cache_write_tokens or 0))


@pytest.mark.parametrize(
    ("document", "tier"),
    [
        ({"service_tier": "flex"}, "flex"),
        ({"service_tier": None, "usage": {"service_tier": "standard"}}, "standard"),
        ({"service_tier": "x" * 65}, None),
        ({"service_tier": 1}, None),
    ],
)
def test_the_service_tier_is_that_of_the_answer(document: dict[str, Any], tier: str | None) -> None:
    """OpenAI names it beside the usage, Anthropic in it."""
    usage = {"prompt_tokens": 1, **document.get("usage", {})}

    assert Usage(1, None, 1, service_tier=tier) == usage_of({**document, "usage": usage})
    assert None is usage_of({**document, "usage": {}})


def test_text_parts_are_joined() -> None:
    """Parts of other types are left out; without any text part there is no text."""
    parts = [{"type": "reasoning", "text": "Hm"}, {"type": "text", "text": "a"}, None, {"type": "text", "text": "b"}]

    assert ("ab", None, None) == (text_of(parts), text_of(parts[:1]), text_of({}))


@given(TEXTS)
def test_a_header_can_be_encoded(value: str) -> None:
    """Lone surrogates are replaced, and an empty header counts as missing."""
    found = header_of(Response(200, headers={"x-request-id": value}), "x-request-id")

    assert (found is None) == (value == "")
    assert None is header_of(Response(200), "x-request-id")
    assert found is None or found == found.encode("utf-8").decode("utf-8")
