"""The calls that `Echo` makes: those it is told to make."""

import hashlib
import re

import msgspec

from spark_llm.serving.protocol.requests import ChatRequest
from spark_llm.serving.protocol.tools import ChosenTool, ToolCall

_CALL = re.compile(r"^call (?P<name>[a-zA-Z0-9_-]+)(?: (?P<arguments>.*))?$", re.MULTILINE)


def told_calls(request: ChatRequest) -> list[ToolCall]:
    """Return the calls that a request's last message and its `tool_choice` tell.

    A line `call NAME ARGUMENTS` of a user's message tells one, if NAME is a tool; the arguments are taken as they
    stand, JSON or not. A choice that forces a call, and finds none, gets one with the message as its arguments if that
    is a JSON object, or else with `{}`.
    """
    names, choice = [tool.function.name for tool in request.tools or ()], request.tool_choice
    if not names or choice == "none":
        return []
    last = request.messages[-1]
    lines = _CALL.finditer(last.text) if last.role == "user" else ()
    told = [(line["name"], line["arguments"] or "{}") for line in lines if line["name"] in names]
    if isinstance(choice, ChosenTool):
        told = [(name, arguments) for name, arguments in told if name == choice.function.name]
    forced = choice.function.name if isinstance(choice, ChosenTool) else names[0] if choice == "required" else None
    if forced is not None and not told:
        told = [(forced, last.text if _is_object(last.text) else "{}")]
    kept = told[:1] if request.parallel_tool_calls is False else told
    return [ToolCall(_id(number, name, arguments), name, arguments) for number, (name, arguments) in enumerate(kept)]


def _id(number: int, name: str, arguments: str) -> str:
    """Return the id of a call; equal calls in equal places have equal ones."""
    digest = hashlib.sha256(f"{number} {name} {arguments}".encode("utf-8", "surrogatepass"))
    return f"call_{digest.hexdigest()[:24]}"


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return False
