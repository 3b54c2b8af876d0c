"""A server with chat completions and the Responses route, for tests of the second; it counts what it bills."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from tests.support.stub_server import Answer, StubServer, stub_server

NAMES_ROUTE = "This model is only supported in v1/responses and not in v1/chat/completions."
CHAT, RESPONSES = "POST /v1/chat/completions", "POST /v1/responses"
TOKENS = 10  # of each answer


class ResponsesModel:
    """A model that is served at the Responses route, and that other requests are told so.

    It says the last text of its input. A text may ask for something else: "503" and "failed" for a fault, once; "call"
    for the call of a tool; "json" for JSON; "once" and "never" for what is broken in either, once or always.

    Attributes:
        tokens: What it billed.
        refused: By field, or "system" for instructions, the message that a request with it is refused with.
    """

    def __init__(self, refused: dict[str, str] | None = None) -> None:
        """Count from zero."""
        self.tokens = 0
        self.requests = {CHAT: 0, RESPONSES: 0}
        self.refused = refused or {}
        self._ids = count()
        self._seen: set[str] = set()

    def chat(self, _: object) -> Answer:
        """Refuse a chat completions request."""
        self.requests[CHAT] += 1
        error = {"message": NAMES_ROUTE, "type": "invalid_request_error", "param": "model", "code": None}
        return 404, {"error": error}

    def responses(self, body: Any) -> Answer:  # noqa: ANN401 -- JSON
        """Answer a Responses request."""
        self.requests[RESPONSES] += 1
        for name, message in self.refused.items():
            if name in body or (name == "format" and "format" in body.get("text", {})):
                return 400, {"error": {"message": message}}
        text = _first_text(body["input"])
        first = text not in self._seen
        self._seen.add(text)
        if first and "503" in text:
            return 503, {"error": {"message": "busy"}}
        self.tokens += TOKENS
        usage = {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 1},
            "total_tokens": TOKENS,
        }
        head = {"id": "resp_1", "object": "response", "model": "m", "status": "completed", "usage": usage}
        if first and "failed" in text:
            return 200, {**head, "status": "failed", "error": {"code": "server_error", "message": "no"}, "output": []}
        broken = "never" in text or ("once" in text and first)
        said = '{"stars": "many"}' if broken else json.dumps({"stars": 3, "text": text})
        if "call" in text:
            arguments = said[:9] if broken else said
            call = {"type": "function_call", "call_id": f"call_{next(self._ids)}", "name": "f", "arguments": arguments}
            return 200, {**head, "output": [{"type": "reasoning", "summary": []}, call]}
        part = {"type": "output_text", "text": said if "json" in text else text}
        return 200, {**head, "output": [{"type": "message", "role": "assistant", "content": [part]}]}


def _first_text(given: Any) -> str:  # noqa: ANN401 -- JSON
    text: str = given if isinstance(given, str) else next(each["content"] for each in given if "content" in each)
    return text


@contextmanager
def responses_server(model: ResponsesModel) -> Iterator[StubServer]:
    """Serve a model at both routes, and at one of invocations."""
    routes = {CHAT: model.chat, RESPONSES: model.responses, "POST /invocations": model.responses}
    with stub_server(routes) as running:
        yield running
