"""Constraints of a pydantic field, read from its metadata; metadata that runs Python code is refused.

Constraints are recognised by the names of their attributes, which annotated-types and pydantic share. Knows no type.

Sources: annotated-types' README; pydantic's documentation of fields and validators.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from spark_llm.errors import ConfigError
from spark_llm.protocol.structured.constraints import CONSTRAINTS, Constraints

_HARMLESS = ("PlainSerializer", "WrapSerializer", "SkipValidation")  # they do not change the value that is read
_PYTHON_METADATA = ("GetPydanticSchema", "Not", "Predicate", "Timezone")  # and all with a schema of its own
TEXT_CHANGES = ("strip_whitespace", "to_lower", "to_upper", "ascii_only")
_NARROWER = {"ge": max, "gt": max, "le": min, "lt": min, "min_length": max, "max_length": min}


def python_code_error(path: str, what: str) -> ConfigError:
    """Return the error for Python code in a model, which the workers cannot run."""
    return ConfigError(
        f"{path} has {what}, which is Python code and cannot be checked on the workers.",
        "write it as constraints of Field, such as ge=, max_length= or pattern=, or check the column afterwards.",
    )


def constraints_of(metadata: Iterable[Any], path: str) -> Constraints:
    """Return the constraints in a field's metadata; of two bounds on one side the narrower."""
    found: dict[str, Any] = {}
    for item in metadata:
        _check_metadata(item, path)
        for name in CONSTRAINTS:
            bound = getattr(item, name, None)
            if bound is None or (name == "min_length" and bound == 0):
                continue
            bound = _pattern_text(bound, path) if isinstance(bound, re.Pattern) else bound
            if found.setdefault(name, bound) != bound:
                found[name] = _narrower(name, found[name], bound, path)
    return tuple((name, str(bound) if isinstance(bound, Decimal) else bound) for name, bound in sorted(found.items()))


def _narrower(name: str, one: Any, other: Any, path: str) -> Any:  # noqa: ANN401 -- bounds
    try:
        return _NARROWER[name](one, other)
    except (KeyError, TypeError):
        raise ConfigError(f"{path} has {name}={one!r} and {name}={other!r}.", "give one of them.") from None


def _check_metadata(item: Any, path: str) -> None:  # noqa: ANN401 -- anything in Annotated
    name = item.__name__ if isinstance(item, type) else type(item).__name__
    if name not in _HARMLESS and (hasattr(item, "__get_pydantic_core_schema__") or name in _PYTHON_METADATA):
        raise python_code_error(path, name)
    for change in TEXT_CHANGES:
        if getattr(item, change, None) is True:
            raise python_code_error(path, change)


def _pattern_text(pattern: "re.Pattern[Any]", path: str) -> str:
    if not isinstance(pattern.pattern, str) or pattern.flags & ~re.UNICODE:
        raise ConfigError(
            f"{path} has a pattern with flags, which JSON Schema does not have.",
            "write them in the pattern, as in '(?i)yes'.",
        )
    return pattern.pattern
