"""The canonical form of a request spec, and its digest; both stay the same over versions of this library.

A table stores the digest with each answer, and a row with another digest is sent again. So the canonical form holds
only what the user declares. The wire format, the JSON schema and the prompts of AI functions are left out, and so are
credentials and the policy.

A change here sends every row of every table again. Golden values in the tests guard against it.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.predictions.task import FORMATS, Predict
from spark_llm.protocol.rerank import Rerank
from spark_llm.protocol.structured.constraints import Constraints
from spark_llm.protocol.structured.schema import Array, Enumeration, Field, Map, Nullable, Number, Scalar, Shape, Struct
from spark_llm.protocol.task import Task
from spark_llm.protocol.template import PromptBuilder
from spark_llm.protocol.urls import chat_url

FORMAT = 1
"""The version of the canonical form; another version sends every row again."""

JSON = Any  # None, a boolean, a number, a string, or lists and mappings of these
_DIGITS = 16


def spec_digest(spec: JSON) -> str:
    """Return the digest of a canonical spec: 16 hexadecimal digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(canonical_json([FORMAT, spec])).hexdigest()[:_DIGITS]


def canonical_json(value: JSON) -> bytes:
    """Return a value as JSON that is the same for all equal values: ASCII, sorted keys, no spaces."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def canonical_model(url: str, model: str | None, task: Task, prompt: PromptBuilder | None) -> dict[str, JSON]:
    """Return the canonical form of a request to a model: URL, model, instructions, parameters and output type.

    A chat has the URL of its chat completions route, also where it is asked at the Responses route.

    Missing fields are left out, so that a field of a later version changes no digest of a spec without it.
    """
    spec = {"task": task.name, "endpoint": chat_url(url), "model": model, **_declared(task)}
    if prompt is not None:
        spec["template"] = prompt.template.source
        spec["instructions"] = prompt.system and prompt.system.source  # with its fields, if it has any
    return {name: value for name, value in spec.items() if value is not None}


def _declared(task: Task) -> dict[str, JSON]:
    match task:
        case Chat(system=system, parameters=parameters, output=output):
            returns = None if output is None else canonical_shape(output.shape)
            return {"instructions": system, "parameters": _given(parameters), "returns": returns}
        case Complete(parameters=parameters) | Embed(parameters=parameters):
            return {"parameters": _given(parameters)}
        case Rerank(parameters=parameters, top_n=top_n):
            return {"parameters": _given(parameters), "top_n": top_n}
        case Predict(returns=returns, format=written):
            return {"returns": canonical_shape(returns), "format": None if written == FORMATS[0] else written}
    raise NotImplementedError(f"The task {task.name} has no canonical form yet.")


def _given(parameters: bytes) -> JSON:
    """Return the parameters of a request, `n` among them; None where there are none."""
    return json.loads(parameters) or None


def canonical_function(name: str, arguments: Sequence[str], models: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the canonical form of an AI function: its name in SQL, the names of its arguments, and its models."""
    return {"function": name, "arguments": list(arguments), **models}


def canonical_shape(shape: Shape) -> JSON:  # noqa: PLR0911 -- one for each kind of shape
    """Return the canonical form of an output type: kinds, names in order, descriptions, nullability, constraints."""
    match shape:
        case Nullable(shape=inner):
            return {"or_null": canonical_shape(inner)}
        case Scalar(kind=kind, constraints=constraints):
            return _with_constraints({"is": kind}, constraints)
        case Number(precision=precision, scale=scale, constraints=constraints):
            return _with_constraints({"is": "decimal", "precision": precision, "scale": scale}, constraints)
        case Enumeration(values=values):
            return {"one_of": list(values)}
        case Array(element=element, constraints=constraints):
            return _with_constraints({"each": canonical_shape(element)}, constraints)
        case Map(value=value, constraints=constraints):
            return _with_constraints({"by_name": canonical_shape(value)}, constraints)
        case Struct(fields=fields):
            return {"fields": [_field(field) for field in fields]}


def _field(field: Field) -> dict[str, JSON]:
    spec: dict[str, JSON] = {"name": field.name, "type": canonical_shape(field.shape)}
    return spec if field.description is None else {**spec, "about": field.description}


def _with_constraints(spec: dict[str, JSON], constraints: Constraints) -> dict[str, JSON]:
    return {**spec, "rules": dict(constraints)} if constraints else spec


def _plain(value: JSON) -> JSON:
    """Return a value in which equal numbers are written alike: 1.0 as 1; NaN and infinity are strings."""
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
