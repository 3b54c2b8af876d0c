"""Pydantic models as types of structured output, read from the attributes of the model's class.

Pydantic is not imported, here or on a worker. So Python code in a model, such as a validator, cannot run there and is
refused. Knows no Spark.

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
from spark_llm.protocol.identifiers import check_distinct
from spark_llm.protocol.structured.constraints import NUMBER_CONSTRAINTS, Constraints
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.pydantic_constraints import TEXT_CHANGES, constraints_of, python_code_error
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
_PYDANTIC_TIMES = {"AwareDatetime": "timestamp", "NaiveDatetime": "timestamp_ntz"}  # pydantic's own
_ARRAYS = (list, set, frozenset, Sequence, MutableSequence, AbstractSet)
_MAPS = (dict, Mapping, MutableMapping)
_UNIONS = (Union, UnionType)
_VALIDATORS = ("validators", "field_validators", "root_validators", "model_validators")
_REFUSED_SETTINGS = (*(f"str_{name}" for name in TEXT_CHANGES), "str_min_length", "str_max_length")
_MAX_LEVELS = 100
_SUPPORTED = (
    "use str, int, float, bool, date, datetime, Decimal, an Enum, Literal[…], list[…], dict[str, …], a model, or one"
    " of these or None."
)

Constrained = TypeVar("Constrained", Scalar, Array, Map, Number)


def is_model(value: object) -> bool:
    """Return whether a value is the class of a pydantic model, of pydantic 2 or later."""
    return (
        isinstance(value, type)
        and isinstance(getattr(value, "model_fields", None), Mapping)
        and hasattr(value, "__pydantic_decorators__")
    )


def shape_of_model(model: type) -> Struct:
    """Return the output type of a pydantic model.

    Its names are those of the fields; aliases are ignored. A field with a default is requested like any other.
    Descriptions and the constraints of `Field` are kept; validators are refused.

    Raises `ConfigError`, with the path, for a field that JSON Schema or the types of Spark cannot express.
    """
    if not is_model(model):
        raise ConfigError(
            f"returns={model!r} is not the class of a pydantic model.",
            f"pass the class, {type(model).__name__}."
            if is_model(type(model))
            else "pass a class that inherits from BaseModel; put a list into a field of one.",
        )
    return _struct(model, model.__name__, ())


def _struct(model: Any, path: str, within: tuple[type, ...]) -> Struct:  # noqa: ANN401 -- a model's class
    """Return the struct of a model; `within` has the models around it."""
    if model in within:
        raise ConfigError(
            f"{path} is a {model.__name__} inside a {model.__name__}, and a column has a finite depth.",
            "write one model for each level.",
        )
    if getattr(model, "__pydantic_root_model__", False):
        raise ConfigError(f"{path} is a RootModel, which has no fields.", "use a BaseModel with a named field.")
    if not model.model_fields:
        raise ConfigError(f"{path} is a model without fields.", "give it a field, or leave it out.")
    _check_model(model, path)
    check_distinct(f"{path} has two fields", model.model_fields)
    fields = []
    for name, info in model.model_fields.items():
        where = f"{path}.{name}"
        shape = _shape(info.annotation, info.metadata, where, (*within, model))
        descriptions = dict.fromkeys(filter(None, [info.description, *_descriptions(info.annotation)]))
        fields.append(Field(name, shape, "; ".join(descriptions) or None))
    return Struct(tuple(fields))


def _check_model(model: Any, path: str) -> None:  # noqa: ANN401 -- a model's class
    decorators = model.__pydantic_decorators__
    names = [name for group in _VALIDATORS for name in getattr(decorators, group, ())]
    if names:
        raise python_code_error(path, f"the validator {names[0]}()")
    for name in _REFUSED_SETTINGS:
        if getattr(model, "model_config", {}).get(name):
            raise python_code_error(path, f"the setting {name}")


def _shape(annotation: Any, beside: Iterable[Any], path: str, within: tuple[type, ...]) -> Shape:  # noqa: ANN401, PLR0911 -- any annotation; one for each kind of it
    if len(re.findall(r"[.\[{]", path)) > _MAX_LEVELS:
        raise ConfigError(
            f"{path[:60]}… is nested without end, and a column has a finite depth.", "write one type for each level."
        )
    annotation, metadata = _unwrapped(annotation, beside, path)
    constraints = constraints_of(metadata, path)
    origin, args = get_origin(annotation) or annotation, get_args(annotation)
    if origin in _UNIONS:
        return _nullable(args, metadata, path, within)
    if origin is Literal:
        return _enumeration([value.value if isinstance(value, Enum) else value for value in args], constraints, path)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _enumeration([member.value for member in annotation], constraints, path)
    if annotation is Decimal:
        return _number(metadata, constraints, path)
    if is_model(annotation):
        _refuse_constraints(constraints, path)
        return _struct(annotation, path, within)
    inner = _element_type(origin, args)
    if inner is not None and origin in _MAPS:
        if _unwrapped(args[0], (), path)[0] is not str or constraints_of(_unwrapped(args[0], (), path)[1], path):
            raise ConfigError(
                f"{path} is a dict with other keys than plain strings, which JSON objects do not have.",
                "use dict[str, …], or a list of models with a field for the key.",
            )
        return _checked(Map(_shape(inner, (), f"{path}{{}}", within), constraints), path)
    if inner is not None:
        return _checked(Array(_shape(inner, (), f"{path}[]", within), constraints), path)
    return _checked(Scalar(_kind(annotation, path), constraints), path)


def _unwrapped(annotation: Any, metadata: Iterable[Any], path: str) -> tuple[Any, list[Any]]:  # noqa: ANN401 -- any annotation
    """Return an annotation without `Annotated`, `NewType` and aliases, and all metadata beside it."""
    metadata = list(metadata)
    while True:
        if get_origin(annotation) is Annotated:
            annotation, metadata = annotation.__origin__, [*annotation.__metadata__, *metadata]
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            break
    if isinstance(annotation, (str, ForwardRef)):
        name = annotation if isinstance(annotation, str) else annotation.__forward_arg__
        raise ConfigError(f"{path} is {name}, which is not defined yet.", "define it, then call model_rebuild().")
    return annotation, [part for item in metadata for part in (item, *_nested(item))]


def _nested(item: object) -> list[Any]:
    """Return the metadata inside a `Field` of `Annotated`."""
    inner = getattr(item, "metadata", None)
    return inner if isinstance(inner, list) else []


def _descriptions(annotation: Any) -> Iterator[str]:  # noqa: ANN401 -- any annotation
    """Yield the descriptions inside an annotation."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _descriptions(annotation.__origin__)
        found = (getattr(item, "description", None) for item in annotation.__metadata__)
        yield from (description for description in found if isinstance(description, str))
    elif origin in _UNIONS:
        for arg in args:
            yield from _descriptions(arg)
    elif (inner := _element_type(origin, args)) is not None:
        yield from (f"each: {description}" for description in _descriptions(inner))


def _element_type(origin: object, args: tuple[Any, ...]) -> Any:  # noqa: ANN401 -- any annotation
    """Return the annotation of an array's elements or a map's values; None for any other."""
    if origin in _MAPS and len(args) == 2:
        return args[1]
    if (origin in _ARRAYS and len(args) == 1) or (origin is tuple and len(args) == 2 and args[1] is Ellipsis):
        return args[0]
    return None


def _nullable(args: tuple[Any, ...], metadata: list[Any], path: str, within: tuple[type, ...]) -> Shape:
    kept = [arg for arg in args if arg is not NoneType]
    if len(kept) != 1:
        raise ConfigError(
            f"{path} is a union, and a column has one type.",
            "use one type, or one type or None; for several types use a model with an optional field for each.",
        )
    inner = _shape(kept[0], metadata, path, within)
    return inner if isinstance(inner, Nullable) else Nullable(inner)


def _enumeration(values: list[Any], constraints: Constraints, path: str) -> Shape:
    _refuse_constraints(constraints, path)
    kept = tuple(dict.fromkeys(value for value in values if value is not None))
    whole = all(type(value) is int and -(2**63) <= value < 2**63 for value in values if value is not None)
    if not kept or not (whole or all(type(value) is str for value in kept)):
        raise ConfigError(
            f"{path} is one of {', '.join(map(repr, values)) or 'nothing'}, and a column has one type.",
            "use values that are all texts, or all whole numbers of 64 bits.",
        )
    choice = Enumeration(kept)
    return Nullable(choice) if None in values else choice


def _number(metadata: list[Any], constraints: Constraints, path: str) -> Number:
    digits, places = (
        next((found for item in reversed(metadata) if (found := getattr(item, name, None)) is not None), None)
        for name in ("max_digits", "decimal_places")
    )
    if digits is not None and places is None:
        raise ConfigError(
            f"{path} has max_digits without decimal_places.",
            "give decimal_places= too.",
        )
    precision, scale = (38, 18) if places is None else (digits or 38, places)
    if not 0 <= scale <= precision <= 38:
        raise ConfigError(
            f"{path} has {precision} digits, {scale} of them after the point, and a decimal column has 38 at most.",
            "use fewer digits, and decimal_places up to max_digits.",
        )
    _refuse_constraints([constraint for constraint in constraints if constraint[0] not in NUMBER_CONSTRAINTS], path)
    return _checked(Number(precision, scale, constraints), path)


def _kind(annotation: Any, path: str) -> str:  # noqa: ANN401 -- any annotation
    if isinstance(annotation, type) and annotation.__module__.partition(".")[0] == "pydantic":
        kind = _PYDANTIC_TIMES.get(annotation.__name__)
    else:
        kind = _KINDS.get(annotation) if isinstance(annotation, type) else None
    if kind is None:
        name = getattr(annotation, "__name__", None) if isinstance(annotation, type) else None
        raise ConfigError(f"{path} is {name or repr(annotation)}, which no column can hold.", _SUPPORTED)
    return kind


def _refuse_constraints(constraints: Sequence[tuple[str, object]], path: str) -> None:
    if constraints:
        raise ConfigError(f"{path} has {constraints[0][0]}, which its type does not take.", "leave it out.")


def _checked(shape: Constrained, path: str) -> Constrained:
    """Return the shape; raise `ConfigError` where its constraints cannot be checked."""
    if not shape.constraints:
        return shape
    try:
        StructuredOutput(path, shape).check_constraints()
    except (TypeError, ValueError, ArithmeticError, re.error) as error:
        given = ", ".join(f"{name}={bound!r}" for name, bound in shape.constraints)
        raise ConfigError(
            f"{path} has {given}, which cannot be checked: {error}.", "give a bound of the field's own type."
        ) from None
    return shape
