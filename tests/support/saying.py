"""A chat model that says what a function makes of each conversation, for tests of what comes of its answers."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import ChatRequest, Choice, Texts, Usage

PROMPT_TOKENS, COMPLETION_TOKENS = 7, 3  # of each request


@dataclass(frozen=True)
class Says:
    """Answers `say(request)`; a `(text, finish_reason)` is both. With `formats` off it knows no `response_format`."""

    say: Callable[[ChatRequest], str | tuple[str, str]]
    formats: bool = True
    name: str = "says"

    async def chat(self, request: ChatRequest) -> Texts:
        """Answer, or refuse the field that it does not know."""
        if not self.formats and request.response_format is not None:
            raise Refused.bad_request("response_format is not supported by this model", param="response_format")
        said = self.say(request)
        text, finish_reason = (said, "stop") if isinstance(said, str) else said
        return Texts([Choice(text, finish_reason)] * (request.n or 1), Usage(PROMPT_TOKENS, COMPLETION_TOKENS))


def last_words(request: ChatRequest) -> str:
    """Return what was said last."""
    return request.messages[-1].text


def fitting(request: ChatRequest) -> str:
    """Return what was said last, or, where a type is asked for, the plainest JSON that fits its schema."""
    if request.response_format is None:
        return last_words(request)
    return json.dumps(_value(request.response_format["json_schema"]["schema"]))


def _value(schema: Mapping[str, Any]) -> object:
    if "enum" in schema:
        return schema["enum"][0]
    [kind] = [kind for kind in _listed(schema["type"]) if kind != "null"]
    properties: Mapping[str, Any] = schema.get("properties", {})
    plain = {"string": "text", "integer": 3, "number": 1.5, "boolean": True, "array": []}
    return {name: _value(part) for name, part in properties.items()} if kind == "object" else plain[kind]


def _listed(kinds: str | list[str]) -> list[str]:
    return [kinds] if isinstance(kinds, str) else kinds
