"""The object that the Responses API answers with: the model's reply as output items."""

from collections.abc import Sequence
from typing import Any

from spark_llm.serving.protocol.errors import ErrorResponse
from spark_llm.serving.protocol.responses_request import ResponsesRequest
from spark_llm.serving.protocol.tools import ToolCall
from spark_llm.serving.protocol.values import Choice, Usage

Item = dict[str, Any]

_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseObject:
    """Writes the object of one response, at its beginning, at its end, or when it failed."""

    def __init__(self, request: ResponsesRequest, model: str, *, request_id: str, created: int) -> None:
        self._request = request
        self._model = model
        self._id = request_id
        self._created = created

    def begun(self) -> Item:
        """Return the object before the model's answer."""
        return self._object("in_progress", [], None)

    def ended(self, choice: Choice, usage: Usage, service_tier: str | None = None) -> Item:
        """Return the object of a whole answer; one that was cut is incomplete."""
        reason = _REASONS.get(choice.finish_reason)
        response = self._object("completed" if reason is None else "incomplete", self.items(choice), usage)
        if service_tier is not None:
            response["service_tier"] = service_tier
        return response if reason is None else {**response, "incomplete_details": {"reason": reason}}

    def failed(self, error: ErrorResponse) -> Item:
        """Return the object of a response that failed, which is sent with status 200."""
        return {**self._object("failed", [], None), "error": {"code": "server_error", "message": error.message}}

    def items(self, choice: Choice) -> list[Item]:
        """Return the output items of a reply: thoughts, a message, calls."""
        is_cut = choice.finish_reason in _REASONS
        items = []
        if choice.text or not (choice.tool_calls or is_cut):
            items.append(self.message("completed", [text_part(choice.text)]))
        items += [self.call(number, call, "completed") for number, call in enumerate(choice.tool_calls)]
        if is_cut and items:
            items[-1]["status"] = "incomplete"
        return [*self.thoughts(), *items]

    def thoughts(self) -> list[Item]:
        """Return the item of the model's thoughts, which are not told; none without an effort."""
        effort = self._request.reasoning.effort if self._request.reasoning else None
        if effort in (None, "none"):
            return []
        return [{"id": f"rs_{self._id}", "type": "reasoning", "summary": []}]

    def message(self, status: str, content: Sequence[Item]) -> Item:
        """Return the item of the assistant's message."""
        head = {"id": f"msg_{self._id}", "type": "message", "status": status, "role": "assistant"}
        return {**head, "content": list(content)}

    def call(self, number: int, call: ToolCall, status: str) -> Item:
        """Return the item of a call."""
        return {
            "id": f"fc_{self._id}_{number}",
            "type": "function_call",
            "status": status,
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }

    def _object(self, status: str, output: Sequence[Item], usage: Usage | None) -> Item:
        request, body = self._request, self._request.body
        text, reasoning = body.get("text") or {}, body.get("reasoning") or {}
        return {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": request.max_tool_calls,
            "model": self._model,
            "output": list(output),
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
            "service_tier": "default" if request.service_tier in (None, "auto") else request.service_tier,
            "store": request.store is not False,
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "text": {"format": text.get("format") or {"type": "text"}, "verbosity": text.get("verbosity") or "medium"},
            "tool_choice": body.get("tool_choice") or "auto",
            "tools": body.get("tools") or [],
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "truncation": request.truncation or "disabled",
            "usage": None if usage is None else usage_body(usage),
            "user": request.user,
            "metadata": request.metadata or {},
        }


def usage_body(usage: Usage) -> Item:
    """Return the `usage` object, which tells no tokens of media."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens or 0,
            "cache_write_tokens": usage.cache_write_tokens or 0,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.total_tokens,
    }


def text_part(text: str) -> Item:
    """Return the part of a message with its text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
