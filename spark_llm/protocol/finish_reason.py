"""The values of `finish_reason` that providers send, and their meaning for the answer's text.

Sources: the API references of the services in the table, and the source of the servers. Gateways pass these values on
unchanged, whatever the protocol around them.
"""

import re
from typing import Literal

Ending = Literal["stop", "length", "content_filter", "tool_calls", "error"]

_REASONS: dict[Ending, tuple[str, ...]] = {
    "stop": (  # the text is whole
        "stop",  # OpenAI, Gemini, llama.cpp, vLLM
        *("end_turn", "stop_sequence"),  # Anthropic, Bedrock
        *("eos", "eos_token"),  # Together, text-generation-inference, watsonx
        "complete",  # Cohere
        "finish",  # Bedrock's Titan
        "endoftext",  # AI21
    ),
    "length": (  # the text is cut; an empty one is no answer
        "length",  # OpenAI
        *("max_tokens", "model_context_window_exceeded"),  # Anthropic, Gemini, Cohere, watsonx; Anthropic, Zhipu
        "model_length",  # Mistral: the context is full
        "max_output_tokens",  # OpenAI's responses
        *("token_limit", "time_limit"),  # watsonx
        "error_limit",  # Cohere: the context is full
    ),
    "content_filter": (  # the text is no answer, and another attempt would meet the same filter
        "content_filter",  # OpenAI, Azure, DeepSeek
        *("safety", "recitation", "language", "blocklist", "prohibited_content", "spii"),  # Gemini
        *("guardrail_intervened", "content_filtered"),  # Bedrock
        "refusal",  # Anthropic
        "error_toxic",  # Cohere
        "sensitive",  # Zhipu
    ),
    "tool_calls": (
        *("tool_calls", "function_call"),  # OpenAI
        *("tool_use", "tool_call"),  # Anthropic, Bedrock; Cohere
    ),
    "error": (  # the server aborted: half a text is no answer, and another attempt may bring a whole one
        "error",  # OpenRouter, Mistral, Cohere, vLLM
        *("abort", "aborted"),  # vLLM, SGLang; DeepSeek
        "insufficient_system_resource",  # DeepSeek
        "network_error",  # Zhipu
        *("cancelled", "not_finished"),  # watsonx
        *("user_cancel", "timeout"),  # Cohere
        *("malformed_response", "malformed_function_call", "unexpected_tool_call"),  # Gemini
    ),
}
_ENDINGS = {reason: ending for ending, reasons in _REASONS.items() for reason in reasons}
_PREFIX = re.compile(r"(finishreason\.|finish_reason_)")  # Gemini's enum, as Python and protobuf print it


def ending_of(finish_reason: object) -> Ending | None:
    """Return the meaning of a `finish_reason`, whatever its case; None for a missing or unknown one.

    Gemini's OpenAI routes add a detail after a colon: `content_filter: PROHIBITED_CONTENT`.
    """
    if not isinstance(finish_reason, str):
        return None
    if finish_reason in _ENDINGS:
        return _ENDINGS[finish_reason]
    reason = finish_reason.partition(":")[0].strip().lower().replace("-", "_")
    return _ENDINGS.get(_PREFIX.sub("", reason, count=1))
