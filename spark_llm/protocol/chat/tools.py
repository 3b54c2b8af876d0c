"""The tools of a request: functions that the model may call, each with a JSON Schema for its arguments.

Wire format: `tools` and `tool_choice` of the OpenAI chat completions request. A pydantic model is a tool too: its name,
its docstring and its schema. Sources: the OpenAI guide to function calling; JSON Schema 2020-12.
"""

import re
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from typing import Any

from spark_llm.errors import ConfigError
from spark_llm.protocol.json_codec import read_json
from spark_llm.protocol.parameters import jsonable
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.pydantic_models import is_model, shape_of_model
from spark_llm.text.excerpt import excerpt
from spark_llm.text.names import column_list
from spark_llm.validation.suggestion import did_you_mean

MODES = ("none", "auto", "required")
"""The values of `tool_choice` that are no tool's name."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FORM = (
    'write each as {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",'
    ' "properties": {"city": {"type": "string"}}}}}, or pass a pydantic model.'
)
_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_SHOWN = 60  # characters of a wrong value


def tool_parameters(tools: object, choice: object) -> dict[str, Any]:
    """Return the fields `tools` and `tool_choice` of a request; neither where there are no tools.

    Raises `ConfigError` for a tool without a valid name or schema, for two of one name, and for a choice that names
    none of them.
    """
    if tools is None:
        if choice is not None:
            raise ConfigError(f"tool_choice={choice!r} is given without tools=.", "pass tools=, or leave it out.")
        return {}
    if not isinstance(tools, Sequence) or isinstance(tools, (str, bytes)) or not tools:
        raise ConfigError(f"tools={_shown(tools)} is not a list of tools.", _FORM)
    fields = [_tool(each, f"tools[{place}]") for place, each in enumerate(tools)]
    names = [field["function"]["name"] for field in fields]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ConfigError(f"tools= has two tools named {name!r}.", "give each a name of its own.")
    if choice is None:
        return {"tools": fields}
    return {"tools": fields, "tool_choice": _choice(choice, names)}


def _tool(tool: Any, path: str) -> dict[str, Any]:  # noqa: ANN401 -- whatever the user gave
    if is_model(tool):
        return {"type": "function", "function": _of_model(tool, path)}
    function = tool.get("function") if isinstance(tool, Mapping) and tool.get("type") == "function" else None
    if not isinstance(function, Mapping):
        raise ConfigError(
            f"{path} is {_shown(tool)}, which is no function.",
            f"{_FORM} Tools that the server runs itself go into extra_body.",
        )
    _check_name(function.get("name"), path)
    whole = jsonable(path, {**tool, "function": dict(function)})
    if not isinstance(function.get("description", ""), str):
        raise ConfigError(f"{path} has a description that is not a text.", "write it as a string, or leave it out.")
    if not isinstance(function.get("strict", False), bool):
        raise ConfigError(f"{path} has strict={function['strict']!r}.", "set it to True or False, or leave it out.")
    if "parameters" in function:
        _check_schema(function["parameters"], f"{path}'s parameters", root=True)
    return whole


def _of_model(model: Any, path: str) -> dict[str, Any]:  # noqa: ANN401 -- a model's class
    """Return the function of a pydantic model: its name, its own docstring, and its fields as arguments."""
    _check_name(model.__name__, path)
    about = cleandoc(vars(model).get("__doc__") or "")
    schema = _arguments_of_model(model) if model.model_fields else _NO_ARGUMENTS
    return {"name": model.__name__, **({"description": about} if about else {}), "parameters": schema}


def _arguments_of_model(model: Any) -> dict[str, Any]:  # noqa: ANN401 -- as above
    """Return the schema of a model's fields; one with a default may be left out."""
    schema: dict[str, Any] = read_json(StructuredOutput(model.__name__, shape_of_model(model)).schema)
    fields = zip(schema["properties"], model.model_fields.values(), strict=True)
    return {**schema, "required": [name for name, field in fields if field.is_required()]}


def _check_name(name: object, path: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in MODES:
        raise ConfigError(
            f"{path} has the name {_shown(name)}.",
            f"name it with 1 to 64 letters, digits, '_' and '-', and not {', '.join(MODES)}.",
        )


def _check_schema(schema: object, path: str, *, root: bool = False) -> None:
    """Raise `ConfigError` for a value that is no JSON Schema, or at the root no schema of an object."""
    if isinstance(schema, bool) and not root:
        return
    if not isinstance(schema, Mapping):
        raise ConfigError(f"{path} is {_shown(schema)}, which is no JSON Schema.", _FORM)
    kinds = schema.get("type")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if (root and kind != "object") or (kind is not None and kind not in _TYPES):
            given = "has no type" if kind is None else f"has the type {_shown(kind)}"
            needed = 'write "type": "object"' if root else f"use one of {', '.join(_TYPES)}"
            raise ConfigError(f"{path}: the JSON Schema {given}.", f"{needed}.")
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, Mapping) or not all(isinstance(name, str) for name in properties):
        raise ConfigError(f"{path}: properties is {_shown(properties)}, no mapping of names to schemas.", _FORM)
    if not isinstance(required, (list, tuple)) or not all(isinstance(name, str) for name in required):
        raise ConfigError(f"{path}: required is {_shown(required)}, no list of names.", "write it as a list.")
    for name, inner in properties.items():
        _check_schema(inner, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            _check_schema(schema[name], f"{path}.{name}")


def _choice(choice: object, names: Sequence[str]) -> object:
    if not isinstance(choice, str) or choice not in (*MODES, *names):
        near = did_you_mean(choice, names, otherwise="")
        known = f"it is one of {', '.join(MODES)}, or the name of a tool: {column_list(names)}."
        raise ConfigError(f"tool_choice={_shown(choice)} names no tool.", f"{near} {known}".lstrip())
    return choice if choice in MODES else {"type": "function", "function": {"name": choice}}


def _shown(value: object) -> str:
    return excerpt(repr(value), _SHOWN)
