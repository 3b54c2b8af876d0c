"""Response bodies as the services document them: a model's values in, JSON out."""

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from spark_llm.serving.protocol.values import Choice, Texts, Usage, Vectors


def chat_body(model: str, texts: Texts, *, request_id: str, created: int) -> bytes:
    """Return the body of a chat response."""
    choices = [
        {"index": i, "message": _message(choice), **_logprobs(choice), "finish_reason": choice.finish_reason}
        for i, choice in enumerate(texts.choices)
    ]
    head = {"id": f"chatcmpl-{request_id}", "object": "chat.completion", "created": created, "model": model}
    if texts.service_tier is not None:
        head["service_tier"] = texts.service_tier
    return msgspec.json.encode({**head, "choices": choices, "usage": usage_body(texts.usage)})


def completion_body(model: str, texts: Texts, *, request_id: str, created: int) -> bytes:
    """Return the body of a completions response; the index of a choice is prompt * n + copy."""
    choices = [
        {"text": choice.text, "index": i, "logprobs": None, "finish_reason": choice.finish_reason}
        for i, choice in enumerate(texts.choices)
    ]
    head = {"id": f"cmpl-{request_id}", "object": "text_completion", "created": created, "model": model}
    return msgspec.json.encode({**head, "choices": choices, "usage": usage_body(texts.usage)})


def embedding_body(model: str, embeddings: Vectors, *, as_base64: bool) -> bytes:
    """Return the body of an embeddings response, with vectors as base64 or as lists of numbers."""
    encode = _base64 if as_base64 and not embeddings.float_only else _floats
    data = [
        {"object": "embedding", "index": i, "embedding": encode(vector)} for i, vector in enumerate(embeddings.vectors)
    ]
    usage = {"prompt_tokens": embeddings.usage.prompt_tokens, "total_tokens": embeddings.usage.total_tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


def usage_body(usage: Usage) -> dict[str, Any]:
    """Return the `usage` object of chat and of completions."""
    tokens: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    names = ("cached_tokens", "cache_write_tokens", "image_tokens", "audio_tokens")
    if known := {name: count for name in names if (count := getattr(usage, name)) is not None}:
        tokens["prompt_tokens_details"] = known
    if usage.reasoning_tokens is not None:
        tokens["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return tokens


def _message(choice: Choice) -> dict[str, Any]:
    if not choice.tool_calls:
        return {"role": "assistant", "content": choice.text}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in choice.tool_calls
    ]
    return {"role": "assistant", "content": choice.text or None, "tool_calls": calls}


def _logprobs(choice: Choice) -> dict[str, Any]:
    return {} if choice.logprobs is None else {"logprobs": logprobs_body(choice.logprobs)}


def logprobs_body(logprobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the `logprobs` object of a choice of chat."""
    return {"content": logprobs, "refusal": None}


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode("ascii")


def _floats(vector: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(vector) // 4}f", vector)
