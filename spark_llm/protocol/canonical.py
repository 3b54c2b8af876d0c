"""What a column asks, in a form of its own that outlives versions: the recipe, field by field, and its digest.

A table keeps the digest beside each answer, and a row whose digest is another one is asked again. So it is written from
what the user declared, and from nothing of how this library words it: no wire format, no JSON schema, no prompt of an
AI function. Who is asking and how hard is no part of the question either.

A change of what is written here asks every row of every table again: the golden values in the tests are there for it.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from spark_llm.protocol.chat import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.structured.schema import Array, Enumeration, Field, Map, Nullable, Number, Scalar, Shape, Struct
from spark_llm.protocol.task import Task
from spark_llm.protocol.template import PromptBuilder

FORMAT = 1
"""The number of this form; another form has another number, and asks every row again."""

JSON = Any  # None, a boolean, a number, a string, or lists and mappings of these
_DIGITS = 16


def recipe_digest(words: JSON) -> str:
    """Return what stands for a recipe: 16 hexadecimal digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(canonical_json([FORMAT, words])).hexdigest()[:_DIGITS]


def canonical_json(value: JSON) -> bytes:
    """Write a value as JSON in the one way that all values that equal it are written: ASCII, sorted, no spaces."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def model_words(url: str, model: str | None, task: Task, prompt: PromptBuilder | None) -> dict[str, JSON]:
    """Return what a model is asked: where, which one, with which instructions and parameters, for what answers.

    What was not given is left out, so that a field that comes to be later changes no recipe without it.
    """
    words = {"task": task.name, "endpoint": url, "model": model, **_declared(task)}
    if prompt is not None:
        words["template"] = prompt.template.written
        words["instructions"] = prompt.system and prompt.system.written  # with its fields, if it has any
    return {name: value for name, value in words.items() if value is not None}


def _declared(task: Task) -> dict[str, JSON]:
    match task:
        case Chat(system=system, parameters=parameters, reply=reply):
            returns = None if reply is None else shape_words(reply.shape)
            return {"instructions": system, "parameters": _given(parameters), "returns": returns}
        case Complete(parameters=parameters) | Embed(parameters=parameters):
            return {"parameters": _given(parameters)}
    raise NotImplementedError(f"The task {task.name} has no canonical form yet.")


def _given(parameters: bytes) -> JSON:
    """Return what stands beside the input in a request; how many answers are wanted is one of them."""
    return json.loads(parameters) or None


def function_words(name: str, arguments: Sequence[str], models: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return what an AI function asks: its name in SQL, the names of its arguments, and what of which models."""
    return {"function": name, "arguments": list(arguments), **models}


def shape_words(shape: Shape) -> JSON:  # noqa: PLR0911 -- one for each kind of shape
    """Return the type of an answer: kinds, names in their order, descriptions, what may be null, bounds."""
    match shape:
        case Nullable(shape=inner):
            return {"or_null": shape_words(inner)}
        case Scalar(kind=kind, rules=rules):
            return _ruled({"is": kind}, rules)
        case Number(precision=precision, scale=scale, rules=rules):
            return _ruled({"is": "decimal", "precision": precision, "scale": scale}, rules)
        case Enumeration(values=values):
            return {"one_of": list(values)}
        case Array(element=element, rules=rules):
            return _ruled({"each": shape_words(element)}, rules)
        case Map(value=value, rules=rules):
            return _ruled({"by_name": shape_words(value)}, rules)
        case Struct(fields=fields):
            return {"fields": [_field(field) for field in fields]}


def _field(field: Field) -> dict[str, JSON]:
    words: dict[str, JSON] = {"name": field.name, "type": shape_words(field.shape)}
    return words if field.description is None else {**words, "about": field.description}


def _ruled(words: dict[str, JSON], rules: Sequence[tuple[str, float | int | str]]) -> dict[str, JSON]:
    return {**words, "rules": dict(rules)} if rules else words


def _plain(value: JSON) -> JSON:
    """Return a value whose numbers are written alike where they are equal: 1.0 as 1, and infinity as a word."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case float() if not math.isfinite(value):
            return str(value)
        case Mapping():
            return {name: _plain(part) for name, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
    return value
