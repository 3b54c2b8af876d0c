"""The request fields that a user sets: checked where the UDF is built, written down once as JSON.

A parameter that is not given is not sent. Ranges are those of the OpenAI API reference; what only a server can
know (how many tokens a model takes) is left to the server.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from spark_llm.errors import ConfigError
from spark_llm.protocol.wire import read_json, write_json
from spark_llm.validation.numbers import check_number, check_whole

_OURS = {
    "messages": "the column is the message",
    "prompt": "the column is the prompt",
    "input": "the column is the input",
    "model": "name it in Endpoint(…, model=…)",
    "stream": "a column has no use for a stream",
    "stream_options": "a column has no use for a stream",
}
_RANGE_HINT = "set it within that range, or leave it out for the model's default."


def written(given: Mapping[str, object], extra_body: Mapping[str, object] | None) -> bytes:
    """Check the parameters that are not None and return them, with `extra_body` merged in, as one JSON object.

    Raises `ConfigError` for a value out of range, a field that is this library's to set, and one that is named twice.
    """
    fields = {name: _checked(name, value) for name, value in given.items() if value is not None}
    if extra_body is None:
        return write_json(fields)
    if not isinstance(extra_body, Mapping) or not all(isinstance(name, str) for name in extra_body):
        raise ConfigError(
            f"extra_body={extra_body!r} is not a mapping of field names to values.",
            'write it as extra_body={"top_k": 40}.',
        )
    for name in extra_body:
        if name in _OURS:
            raise ConfigError(f"extra_body may not set {name!r}: {_OURS[name]}.", f"leave {name!r} out of extra_body.")
        if name in fields:
            raise ConfigError(f"{name!r} is given as a parameter and in extra_body.", "give it once.")
    return write_json({**fields, **_jsonable("extra_body", dict(extra_body))})


def repeatable(parameters: bytes) -> bool:
    """Whether equal requests with these parameters may be answered alike: no `temperature`, 0, or a `seed` to it."""
    fields = read_json(parameters)
    return fields.get("temperature") in (None, 0) or fields.get("seed") is not None


def _checked(name: str, value: Any) -> object:  # noqa: ANN401 -- whatever the user gave
    if name in ("max_tokens", "max_completion_tokens", "n", "dimensions"):
        return check_whole(name, value, 1, 2**31 - 1, hint=_RANGE_HINT)
    if name == "seed":
        return check_whole(name, value, -(2**63), 2**63 - 1, hint=_RANGE_HINT)
    if name == "temperature":
        return check_number(name, value, 0.0, 2.0, hint=_RANGE_HINT)
    if name == "top_p":
        return check_number(name, value, 0.0, 1.0, exclusive_minimum=True, hint=_RANGE_HINT)
    return {"stop": _stop, "response_format": _response_format}.get(name, partial(text, name))(value)


def text(name: str, value: object) -> str:
    """Return `value` when it is a string that says something; raise `ConfigError` otherwise."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{name}={value!r} is not a text.", f"write {name} as a string, or leave it out.")
    return value


def _stop(value: object) -> object:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, Sequence) or not stops or not all(isinstance(stop, str) and stop for stop in stops):
        raise ConfigError(f"stop={value!r} is not a string or a list of strings.", 'write it as stop=["\\n"].')
    return value if isinstance(value, str) else list(stops)


def _response_format(value: object) -> object:
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        raise ConfigError(
            f"response_format={value!r} is not a mapping with a 'type'.",
            'write it as response_format={"type": "json_object"}.',
        )
    return _jsonable("response_format", dict(value))


def _jsonable(name: str, value: dict[str, object]) -> dict[str, object]:
    try:
        json.dumps(value, allow_nan=False)  # stricter than msgspec, which makes null of NaN and text of bytes
        write_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{name} cannot be written as JSON: {error}.", "use strings, numbers, booleans, lists and mappings."
        ) from None
    return value
