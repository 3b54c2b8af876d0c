"""The smallest question of a task, whose answer is one token: what a check asks, and what it asks when that is refused.

Knows no clock, no socket, no Spark. A limit is sent under the name that the user gave it; where the user gave none,
under each of the names that models take (the OpenAI API reference: `max_tokens`, and `max_completion_tokens` for models
that think first).
"""

import re
from dataclasses import replace
from typing import Any

from spark_llm.protocol.chat import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.json_codec import read_json, write_json
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import RowError

SAMPLE = "Hello."
_LIMITS = ("max_tokens", "max_completion_tokens")
_RAN_OUT = re.compile(r"output limit was reached", re.IGNORECASE)  # OpenAI's thinking models say so with a 400


def questions(task: Task) -> list[tuple[Task, int]]:
    """Return a task's smallest questions, each with its wire form, in the order in which to ask them."""
    forms = _forms(task)
    if not isinstance(task, (Chat, Complete)):
        return [(task, form) for form in forms]
    written = list(dict.fromkeys(write_json(fields) for fields in _shortened(task, read_json(task.parameters))))
    return [(replace(task, parameters=parameters), form) for parameters in written for form in forms]


def _forms(task: Task) -> list[int]:
    """Return the wire forms in which one input can be asked, best first."""
    forms = [0]
    while (other := task.fallback_format([SAMPLE], forms[-1], None)) is not None:
        forms.append(other)
    return forms


def _shortened(task: Task, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a task's parameters with one token to answer in; last, where the user wrote any, as they are."""
    own = [name for name in _LIMITS if name in fields]
    if own:
        return [fields | dict.fromkeys(own, 1), fields]
    names = _LIMITS if isinstance(task, Chat) else _LIMITS[:1]
    return [fields | {name: 1} for name in names] + ([fields] if fields else [])


def asks_on(task: Task, error: RowError) -> bool:
    """Return whether a refusal may be about the question's form or its limit, so that the next one may pass."""
    return error.kind == "invalid_request" and (len(_forms(task)) > 1 or "tokens" in error.message)


def is_an_answer(error: RowError) -> bool:
    """Return whether an error says no more than that one token was too few, so that the model did answer."""
    return error.kind == "truncated" or bool(_RAN_OUT.search(error.message))
