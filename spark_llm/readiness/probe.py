"""Probe requests: the smallest request of a task, for an answer of one token, and its variants after a refusal.

At the Responses route the least is 16 tokens. That of a custom model has no rows: a model that refuses it has been
reached.

Knows no clock, no socket, no Spark. A limit is sent under the name that the user chose, else under each name that
models take. Source: the OpenAI API reference (`max_tokens`, and `max_completion_tokens` for reasoning models).
"""

import re
from dataclasses import replace
from typing import Any

from spark_llm.protocol.chat.responses_request import MIN_TOKENS
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.json_codec import read_json, write_json
from spark_llm.protocol.predictions.task import Predict
from spark_llm.protocol.rerank import Rerank
from spark_llm.protocol.task import RESPONSES, Task
from spark_llm.protocol.values import Item, RowError

SAMPLE = "Hello."
_LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
_LIMIT_REACHED = re.compile(r"output limit was reached", re.IGNORECASE)  # a 400 of OpenAI's reasoning models
_COUNTED = re.compile(r"\d predictions for 0 rows")
_OTHER_TASK = re.compile(
    r"\b(messages|prompt|input)\b.*\b(required|missing)|\b(required|missing)\b.*\b(messages|prompt|input)\b",
    re.IGNORECASE,
)


def probes(task: Task, first_format: int = 0) -> list[tuple[Task, int]]:
    """Return a task's smallest requests, each with its wire format, in the order to send them."""
    if isinstance(task, Predict):
        return [(task, 0)]
    formats = _wire_formats(task, first_format)
    if not isinstance(task, (Chat, Complete)):
        return [(task, wire_format) for wire_format in formats]
    few = MIN_TOKENS if first_format & RESPONSES else 1
    variants = dict.fromkeys(
        write_json(fields) for fields in _few_token_variants(task, read_json(task.parameters), few)
    )
    return [(replace(task, parameters=parameters), wire_format) for parameters in variants for wire_format in formats]


def sample_inputs(task: Task) -> list[Item]:
    """Return the inputs of a probe: one text, for a ranking its own document; no row for a model of columns."""
    if isinstance(task, Rerank):
        return [write_json([SAMPLE, [SAMPLE]])]
    return [] if isinstance(task, Predict) else [SAMPLE]


def _wire_formats(task: Task, first: int = 0) -> list[int]:
    """Return the wire formats that can carry one input, best first."""
    formats = [first]
    while (other := task.fallback_format([SAMPLE], formats[-1], None)) is not None:
        formats.append(other)
    return formats


def _few_token_variants(task: Task, fields: dict[str, Any], few: int) -> list[dict[str, Any]]:
    """Return the parameters with a limit of so few tokens, under each name; last the user's own, if there are any."""
    own = [name for name in _LIMIT_FIELDS if name in fields]
    if own:
        return [fields | dict.fromkeys(own, few), fields]
    names = _LIMIT_FIELDS if isinstance(task, Chat) and few == 1 else _LIMIT_FIELDS[:1]
    return [fields | {name: few} for name in names] + ([fields] if fields else [])


def is_about_format(task: Task, error: RowError) -> bool:
    """Return whether a refusal may be about the wire format or the token limit, so that the next probe may pass."""
    return error.kind == "invalid_request" and (len(_wire_formats(task)) > 1 or "tokens" in error.message)


def is_answered(task: Task, error: RowError) -> bool:
    """Return whether an error proves that the model answered: one token, or a request without rows, was too little."""
    if isinstance(task, Predict):
        counted = error.kind == "invalid_response" and _COUNTED.search(error.message)
        return bool(counted) or (error.kind == "invalid_request" and not _OTHER_TASK.search(error.message))
    return error.kind == "truncated" or bool(_LIMIT_REACHED.search(error.message))
