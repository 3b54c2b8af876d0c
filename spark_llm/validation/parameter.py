"""A parameter of a function of several columns, as a value: its name, its kind and its default."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from spark_llm.validation.numbers import is_number, is_whole

ParameterKind = Literal[
    "text", "content", "texts", "labels", "descriptions", "examples", "whole", "number", "flag", "file"
]
PARAMETER_KINDS: dict[ParameterKind, str] = {
    "text": "a string",
    "content": "a string or a struct",
    "texts": "a list of strings",
    "labels": "a list of strings",
    "descriptions": "a map of strings to strings",
    "examples": "a list of structs of content and label",
    "whole": "a whole number",
    "number": "a number",
    "flag": "a boolean",
    "file": "a BINARY column",
}


class Parameter(NamedTuple):
    """A function's parameter, and its default if it has one; the kinds are those of `PARAMETER_KINDS`.

    A call without an `extra` parameter is the same as one of a function that has no such parameter.
    """

    name: str
    kind: ParameterKind = "text"
    default: float | str | bytes | tuple[()] | None = None
    extra: bool = False

    def accepts(self, value: object) -> bool:
        """Return whether a value has the parameter's kind; a tuple of strings is a list of them."""
        return _ACCEPTS.get(self.kind, _is_text)(value)

    def is_default(self, value: object) -> bool:
        """Return whether a value is the default; an empty list or map is one of the others too."""
        return value == self.default or (self.default == () and isinstance(value, (list, tuple, dict)) and not value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_text, value))


def _is_map(value: object) -> bool:
    texts = (str, type(None))  # a null has an error of its own
    return isinstance(value, Mapping) and all(_is_text(key) and isinstance(value[key], texts) for key in value)


def _is_examples(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(
        set(each) == {"content", "label"} and all(map(_is_text, each.values()))
        if isinstance(each, Mapping)
        else _is_texts(each) and len(each) == 2
        for each in value
    )


_ACCEPTS: dict[ParameterKind, Callable[[object], bool]] = {
    "texts": _is_texts,
    "labels": lambda value: _is_texts(value) or _is_map(value),
    "descriptions": _is_map,
    "examples": _is_examples,
    "whole": is_whole,
    "number": is_number,
    "flag": lambda value: isinstance(value, bool),
}
