"""A parameter of a function of several columns, as a value: its name, its kind and its default."""

from typing import Literal, NamedTuple

from spark_llm.validation.numbers import is_number, is_whole

ParameterKind = Literal["text", "content", "texts", "whole", "number", "file"]
PARAMETER_KINDS: dict[ParameterKind, str] = {
    "text": "a string",
    "content": "a string or a struct",
    "texts": "a list of strings",
    "whole": "a whole number",
    "number": "a number",
    "file": "a BINARY column",
}


class Parameter(NamedTuple):
    """A function's parameter, and its default if it has one; the kinds are those of `PARAMETER_KINDS`."""

    name: str
    kind: ParameterKind = "text"
    default: float | bytes | None = None

    def accepts(self, value: object) -> bool:
        """Return whether a value has the parameter's kind; a tuple of strings is a list of them."""
        if self.kind == "texts":
            return isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value)
        if self.kind in {"whole", "number"}:
            return is_whole(value) if self.kind == "whole" else is_number(value)
        return isinstance(value, str)
