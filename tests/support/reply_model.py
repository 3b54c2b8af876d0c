"""A chat model whose replies come from a function, for tests of how the library reads them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import ChatRequest
from spark_llm.serving.protocol.values import Choice, Texts, Usage

PROMPT_TOKENS, COMPLETION_TOKENS = 7, 3  # of each request


@dataclass(frozen=True)
class ReplyModel:
    """A model that replies `reply(request)`: a text, or a text and its finish_reason.

    With `formats` off it refuses `response_format`.
    """

    reply: Callable[[ChatRequest], str | tuple[str, str]]
    formats: bool = True
    name: str = "reply"

    async def chat(self, request: ChatRequest) -> Texts:
        """Return the reply `n` times, or refuse the field `response_format`."""
        if not self.formats and request.response_format is not None:
            raise Refused.bad_request("response_format is not supported by this model", param="response_format")
        reply = self.reply(request)
        text, finish_reason = (reply, "stop") if isinstance(reply, str) else reply
        return Texts([Choice(text, finish_reason)] * (request.n or 1), Usage(PROMPT_TOKENS, COMPLETION_TOKENS))


def last_message(request: ChatRequest) -> str:
    """Return the text of the last message."""
    return request.messages[-1].text


def schema_example(request: ChatRequest) -> str:
    """Return the simplest JSON that fits the request's schema, or the last message without a schema."""
    if request.response_format is None:
        return last_message(request)
    return json.dumps(_example(request.response_format["json_schema"]["schema"]))


def _example(schema: Mapping[str, Any]) -> object:
    if "enum" in schema:
        return schema["enum"][0]
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    [kind] = [kind for kind in kinds if kind != "null"]
    properties: Mapping[str, Any] = schema.get("properties", {})
    examples = {"string": "text", "integer": 3, "number": 1.5, "boolean": True, "array": []}
    return {name: _example(part) for name, part in properties.items()} if kind == "object" else examples[kind]
