"""The request fields that a user sets: checked when the UDF is built, and encoded once as JSON.

A parameter that is not given is not sent. Ranges are those of the OpenAI API reference. Limits of a model, such as its
number of tokens, are left to the server.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from spark_llm.errors import ConfigError
from spark_llm.protocol.json_codec import read_json, write_json
from spark_llm.validation.numbers import check_number, check_whole
from spark_llm.validation.texts import check_text

RESERVED = {
    "messages": "the column is the message",
    "prompt": "the column is the prompt",
    "input": "the column is the input",
    "model": "name it in Endpoint(…, model=…)",
    "stream": "a column cannot receive a stream",
    "stream_options": "a column cannot receive a stream",
}
_LEVELS = {
    "reasoning_effort": ("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "verbosity": ("low", "medium", "high"),
    "service_tier": ("auto", "default", "flex", "priority"),  # of OpenAI and Azure; others have further ones
}
_LEVEL = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_RANGE_HINT = "set it within that range, or leave it out for the model's default."


def encode_parameters(
    given: Mapping[str, object], extra_body: Mapping[str, object] | None, reserved: Mapping[str, str] = RESERVED
) -> bytes:
    """Return the parameters that are not None, and the fields of `extra_body`, as one JSON object.

    `reserved` has the fields that this library sets, each with the reason why `extra_body` may not.

    Raises `ConfigError` for a value out of range, a field that this library sets, and a field given twice.
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
        if name in reserved:
            raise ConfigError(
                f"extra_body may not set {name!r}: {reserved[name]}.", f"leave {name!r} out of extra_body."
            )
        if name in fields:
            raise ConfigError(f"{name!r} is given as a parameter and in extra_body.", "give it once.")
    return write_json({**fields, **jsonable("extra_body", dict(extra_body))})


def is_repeatable(parameters: bytes) -> bool:
    """Return whether equal requests may share one answer: they have no `temperature`, 0, or a `seed`."""
    fields = read_json(parameters)
    return fields.get("temperature") in (None, 0) or fields.get("seed") is not None


def service_tier_of(parameters: bytes) -> object:
    """Return the service tier that requests ask for; None where they ask for none."""
    return read_json(parameters).get("service_tier")


def _checked(name: str, value: Any) -> object:  # noqa: ANN401 -- any value that a user may give
    if name in ("max_tokens", "max_completion_tokens", "n", "dimensions"):
        return check_whole(name, value, 1, 2**31 - 1, hint=_RANGE_HINT)
    if name == "seed":
        return check_whole(name, value, -(2**63), 2**63 - 1, hint=_RANGE_HINT)
    if name == "temperature":
        return check_number(name, value, 0.0, 2.0, hint=_RANGE_HINT)
    if name == "top_p":
        return check_number(name, value, 0.0, 1.0, exclusive_minimum=True, hint=_RANGE_HINT)
    return _CHECKS.get(name, partial(check_text, name))(value)


def _level(name: str, value: object) -> str:
    """Return a level's name; servers have more of them than those that are known here."""
    if not isinstance(value, str) or not _LEVEL.fullmatch(value):
        raise ConfigError(
            f"{name}={value!r} is no level.", f"servers know {', '.join(_LEVELS[name])}; leave it out for the model's."
        )
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
    return jsonable("response_format", dict(value))


_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "stop": _stop,
    "response_format": _response_format,
    **{name: partial(_level, name) for name in _LEVELS},
    **dict.fromkeys(("tools", "tool_choice"), lambda value: value),  # which `chat.tools` has checked
}


def jsonable(name: str, value: dict[str, object]) -> dict[str, object]:
    """Return a value that JSON can hold; raise `ConfigError` for any other."""
    try:
        json.dumps(value, allow_nan=False)  # stricter than msgspec, which makes null of NaN and text of bytes
        write_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{name} cannot be written as JSON: {error}.", "use strings, numbers, booleans, lists and mappings."
        ) from None
    return value
