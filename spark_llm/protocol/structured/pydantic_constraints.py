"""What stands beside a type in a model, as rules: constraints are taken over, and what lives in Python is refused.

Constraints are recognised by the names of their attributes, which annotated-types and pydantic share. Knows no type.

Sources: annotated-types' README; pydantic's documentation of fields and validators.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from spark_llm.errors import ConfigError
from spark_llm.protocol.structured.constraints import RULES, Rules

_HARMLESS = ("PlainSerializer", "WrapSerializer", "SkipValidation")  # they change nothing of what is read
_IN_PYTHON = ("GetPydanticSchema", "Not", "Predicate", "Timezone")  # and all that makes its own schema
ON_TEXTS = ("strip_whitespace", "to_lower", "to_upper", "ascii_only")
_NARROWER = {"ge": max, "gt": max, "le": min, "lt": min, "min_length": max, "max_length": min}


def in_python(path: str, what: str) -> ConfigError:
    """Return the refusal of what no worker could run."""
    return ConfigError(
        f"{path} has {what}, which lives in Python and cannot be held to on the workers.",
        "state it as constraints of Field, such as ge=, max_length= or pattern=, or check the column.",
    )


def rules_of(metadata: Iterable[Any], path: str) -> Rules:
    """Return the constraints that stand beside a type; of two bounds on one side the narrower."""
    found: dict[str, Any] = {}
    for item in metadata:
        _check_metadata(item, path)
        for name in RULES:
            bound = getattr(item, name, None)
            if bound is None or (name == "min_length" and bound == 0):
                continue
            bound = _written(bound, path) if isinstance(bound, re.Pattern) else bound
            if found.setdefault(name, bound) != bound:
                found[name] = _narrower(name, found[name], bound, path)
    return tuple((name, str(bound) if isinstance(bound, Decimal) else bound) for name, bound in sorted(found.items()))


def _narrower(name: str, one: Any, other: Any, path: str) -> Any:  # noqa: ANN401 -- bounds
    try:
        return _NARROWER[name](one, other)
    except (KeyError, TypeError):
        raise ConfigError(f"{path} has {name}={one!r} and {name}={other!r}.", "give one of them.") from None


def _check_metadata(item: Any, path: str) -> None:  # noqa: ANN401 -- what stands in Annotated
    name = item.__name__ if isinstance(item, type) else type(item).__name__
    if name not in _HARMLESS and (hasattr(item, "__get_pydantic_core_schema__") or name in _IN_PYTHON):
        raise in_python(path, name)
    for change in ON_TEXTS:
        if getattr(item, change, None) is True:
            raise in_python(path, change)


def _written(pattern: "re.Pattern[Any]", path: str) -> str:
    if not isinstance(pattern.pattern, str) or pattern.flags & ~re.UNICODE:
        raise ConfigError(
            f"{path} has a pattern with flags, which no JSON schema can say.", "write them inside it, as in '(?i)yes'."
        )
    return pattern.pattern
