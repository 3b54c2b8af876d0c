"""Pydantic models as the types of typed answers: read from what a model's class says of itself.

Pydantic is not imported, here or on a worker: what a model holds in Python alone, such as a validator, cannot be held
to there, and is refused. Knows no Spark.

Sources: pydantic's documentation of models, fields and types; annotated-types' README for the names of constraints.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, ForwardRef, Literal, NewType, TypeVar, Union, get_args, get_origin

from spark_llm.errors import ConfigError
from spark_llm.protocol.identifiers import check_apart
from spark_llm.protocol.structured.constraints import OF_NUMBERS, Rules
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.pydantic_constraints import ON_TEXTS, in_python, rules_of
from spark_llm.protocol.structured.schema import (
    Array,
    Enumeration,
    Field,
    Map,
    Nullable,
    Number,
    Scalar,
    Shape,
    Struct,
)

_KINDS: dict[object, str] = {
    str: "string",
    bool: "boolean",
    int: "long",
    float: "double",
    date: "date",
    datetime: "timestamp",
}
_TIMES = {"AwareDatetime": "timestamp", "NaiveDatetime": "timestamp_ntz"}  # pydantic's own
_ARRAYS = (list, set, frozenset, Sequence, MutableSequence, AbstractSet)
_MAPS = (dict, Mapping, MutableMapping)
_UNIONS = (Union, UnionType)
_VALIDATORS = ("validators", "field_validators", "root_validators", "model_validators")
_OF_THE_CONFIG = (*(f"str_{name}" for name in ON_TEXTS), "str_min_length", "str_max_length")
_LEVELS_MOST = 100
_TAKEN = (
    "take str, int, float, bool, date, datetime, Decimal, an Enum, Literal[…], list[…], dict[str, …], a model, or one"
    " of these or None."
)

Ruled = TypeVar("Ruled", Scalar, Array, Map, Number)


def is_model(value: object) -> bool:
    """Return whether a value is the class of a pydantic model, of pydantic 2 or later."""
    return (
        isinstance(value, type)
        and isinstance(getattr(value, "model_fields", None), Mapping)
        and hasattr(value, "__pydantic_decorators__")
    )


def shape_of_model(model: type) -> Struct:
    """Return the type of answers for a pydantic model.

    The names are those of the fields: aliases are not asked for. A field with a default is asked for like any other.
    Descriptions and the constraints of `Field` travel; validators cannot.

    Raises `ConfigError`, with the path, for what a model says that a JSON schema and the types of Spark cannot.
    """
    if not is_model(model):
        raise ConfigError(
            f"returns={model!r} is not the class of a pydantic model.",
            f"pass the class, {type(model).__name__}."
            if is_model(type(model))
            else "pass a class that inherits from BaseModel; what is to be a list is a field of one.",
        )
    return _struct(model, model.__name__, ())


def _struct(model: Any, path: str, within: tuple[type, ...]) -> Struct:  # noqa: ANN401 -- a model's class
    """Read a model; `within` are those that it is a part of."""
    if model in within:
        raise ConfigError(
            f"{path} is a {model.__name__} inside a {model.__name__}, and a column has an end.",
            "write out as many levels as there may be, each as a model.",
        )
    if getattr(model, "__pydantic_root_model__", False):
        raise ConfigError(f"{path} is a RootModel, which has no fields.", "take a BaseModel with a named field.")
    if not model.model_fields:
        raise ConfigError(f"{path} is a model without fields.", "give it one, or leave it out.")
    _check_model(model, path)
    check_apart(f"{path} has two fields", model.model_fields)
    fields = []
    for name, info in model.model_fields.items():
        where = f"{path}.{name}"
        shape = _shape(info.annotation, info.metadata, where, (*within, model))
        words = list(dict.fromkeys(filter(None, [info.description, *_told(info.annotation)])))
        fields.append(Field(name, shape, "; ".join(words) or None))
    return Struct(tuple(fields))


def _check_model(model: Any, path: str) -> None:  # noqa: ANN401 -- a model's class
    decorators = model.__pydantic_decorators__
    names = [name for group in _VALIDATORS for name in getattr(decorators, group, ())]
    if names:
        raise in_python(path, f"the validator {names[0]}()")
    for name in _OF_THE_CONFIG:
        if getattr(model, "model_config", {}).get(name):
            raise in_python(path, f"the setting {name}")


def _shape(annotation: Any, beside: Iterable[Any], path: str, within: tuple[type, ...]) -> Shape:  # noqa: ANN401, PLR0911 -- any annotation; one for each kind of it
    if len(re.findall(r"[.\[{]", path)) > _LEVELS_MOST:
        raise ConfigError(
            f"{path[:60]}… has no end, and a column has one.", "write out as many levels as there may be."
        )
    annotation, metadata = _bare(annotation, beside, path)
    rules = rules_of(metadata, path)
    origin, args = get_origin(annotation) or annotation, get_args(annotation)
    if origin in _UNIONS:
        return _optional(args, metadata, path, within)
    if origin is Literal:
        return _choice([value.value if isinstance(value, Enum) else value for value in args], rules, path)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _choice([member.value for member in annotation], rules, path)
    if annotation is Decimal:
        return _number(metadata, rules, path)
    if is_model(annotation):
        _no_rules(rules, path)
        return _struct(annotation, path, within)
    inner = _inner(origin, args)
    if inner is not None and origin in _MAPS:
        if _bare(args[0], (), path)[0] is not str or rules_of(_bare(args[0], (), path)[1], path):
            raise ConfigError(
                f"{path} is a dict whose keys are not plain strings, as the keys of JSON objects are.",
                "take dict[str, …], or a list of models with a field for the key.",
            )
        return _held(Map(_shape(inner, (), f"{path}{{}}", within), rules), path)
    if inner is not None:
        return _held(Array(_shape(inner, (), f"{path}[]", within), rules), path)
    return _held(Scalar(_kind(annotation, path), rules), path)


def _bare(annotation: Any, metadata: Iterable[Any], path: str) -> tuple[Any, list[Any]]:  # noqa: ANN401 -- any annotation
    """Take an annotation out of `Annotated`, `NewType` and aliases, with all that is said beside it."""
    said = list(metadata)
    while True:
        if get_origin(annotation) is Annotated:
            annotation, said = annotation.__origin__, [*annotation.__metadata__, *said]
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            break
    if isinstance(annotation, (str, ForwardRef)):
        name = annotation if isinstance(annotation, str) else annotation.__forward_arg__
        raise ConfigError(f"{path} is {name}, which is not defined yet.", "define it, then call model_rebuild().")
    return annotation, [part for item in said for part in (item, *_nested(item))]


def _nested(item: object) -> list[Any]:
    """Return what a `Field` inside `Annotated` says, beside itself."""
    inner = getattr(item, "metadata", None)
    return inner if isinstance(inner, list) else []


def _told(annotation: Any) -> Iterator[str]:  # noqa: ANN401 -- any annotation
    """Yield the descriptions that stand inside an annotation."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _told(annotation.__origin__)
        words = [getattr(item, "description", None) for item in annotation.__metadata__]
        yield from (word for word in words if isinstance(word, str))
    elif origin in _UNIONS:
        for arg in args:
            yield from _told(arg)
    elif (inner := _inner(origin, args)) is not None:
        yield from (f"each: {words}" for words in _told(inner))


def _inner(origin: object, args: tuple[Any, ...]) -> Any:  # noqa: ANN401 -- any annotation
    """Return the annotation of an array's elements or a map's values; None for anything else."""
    if origin in _MAPS and len(args) == 2:
        return args[1]
    if (origin in _ARRAYS and len(args) == 1) or (origin is tuple and len(args) == 2 and args[1] is Ellipsis):
        return args[0]
    return None


def _optional(args: tuple[Any, ...], metadata: list[Any], path: str, within: tuple[type, ...]) -> Shape:
    kept = [arg for arg in args if arg is not NoneType]
    if len(kept) != 1:
        raise ConfigError(
            f"{path} is a union, and a column has one type.",
            "take one type, or one or None; what may be several things is a model with an optional field for each.",
        )
    inner = _shape(kept[0], metadata, path, within)
    return inner if isinstance(inner, Nullable) else Nullable(inner)


def _choice(values: list[Any], rules: Rules, path: str) -> Shape:
    _no_rules(rules, path)
    kept = tuple(dict.fromkeys(value for value in values if value is not None))
    whole = all(type(value) is int and -(2**63) <= value < 2**63 for value in values if value is not None)
    if not kept or not (whole or all(type(value) is str for value in kept)):
        raise ConfigError(
            f"{path} is one of {', '.join(map(repr, values)) or 'nothing'}, and a column has one type.",
            "take values that are all texts, or all whole numbers of 64 bits.",
        )
    choice = Enumeration(kept)
    return Nullable(choice) if None in values else choice


def _number(metadata: list[Any], rules: Rules, path: str) -> Number:
    digits, places = (
        next((found for item in reversed(metadata) if (found := getattr(item, name, None)) is not None), None)
        for name in ("max_digits", "decimal_places")
    )
    if digits is not None and places is None:
        raise ConfigError(
            f"{path} has max_digits alone, which does not say how many stand after the point.",
            "give decimal_places= too.",
        )
    precision, scale = (38, 18) if places is None else (digits or 38, places)
    if not 0 <= scale <= precision <= 38:
        raise ConfigError(
            f"{path} has {precision} digits, {scale} of them after the point, and a decimal column has 38 at most.",
            "take fewer, with decimal_places no more than max_digits.",
        )
    _no_rules([rule for rule in rules if rule[0] not in OF_NUMBERS], path)
    return _held(Number(precision, scale, rules), path)


def _kind(annotation: Any, path: str) -> str:  # noqa: ANN401 -- any annotation
    if isinstance(annotation, type) and annotation.__module__.partition(".")[0] == "pydantic":
        kind = _TIMES.get(annotation.__name__)
    else:
        kind = _KINDS.get(annotation) if isinstance(annotation, type) else None
    if kind is None:
        name = getattr(annotation, "__name__", None) if isinstance(annotation, type) else None
        raise ConfigError(f"{path} is {name or repr(annotation)}, which no column of an answer holds.", _TAKEN)
    return kind


def _no_rules(rules: Sequence[tuple[str, object]], path: str) -> None:
    if rules:
        raise ConfigError(f"{path} has {rules[0][0]}, which its type does not take.", "leave it out.")


def _held(shape: Ruled, path: str) -> Ruled:
    """Return the shape, if its constraints can be held to where an answer is read."""
    if not shape.rules:
        return shape
    try:
        StructuredOutput(path, shape).check()
    except (TypeError, ValueError, ArithmeticError, re.error) as error:
        told = ", ".join(f"{name}={bound!r}" for name, bound in shape.rules)
        raise ConfigError(
            f"{path} has {told}, which cannot be held to: {error}.", "give a bound of the field's own type."
        ) from None
    return shape
