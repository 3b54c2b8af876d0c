"""Whether a source, a target and what is asked fit together; each misfit is one error, before anything is asked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StringType, StructField, StructType

from spark_llm._fingerprint import fingerprint
from spark_llm._table import Table, field_of, nullable, said
from spark_llm._vectorised import Call
from spark_llm._work import Asking, Layout, mark_of
from spark_llm.errors import ConfigError


def of_source(source: DataFrame, key: Sequence[str], calls: Mapping[str, Call]) -> tuple[Layout, list[Asking]]:
    """Return what goes along from the source and what is asked of it; raises `ConfigError` for what it lacks."""
    schema = source.schema
    keys = [_key(schema, name) for name in key]
    ours = {name.casefold() for each in calls for name in (each, mark_of(each))} | {name.casefold() for name in keys}
    carried = tuple(name for name in schema.names if name.casefold() not in ours)
    if any(name.casefold() in {each.casefold() for each in calls} for name in keys):
        raise ConfigError("The key cannot be filled with answers too.", "give the answers another name.")
    return Layout(tuple(keys), carried), [_asking(source, name, call) for name, call in calls.items()]


def make(target: Table, source: StructType, layout: Layout, asking: Sequence[Asking]) -> bool:
    """Make the target where it is missing, with all that the source has; return whether it was."""
    if target.read() is not None:
        return False
    fields = [source[name] for name in (*layout.key, *layout.carried)] + list(_answers(asking))
    try:
        target.create(StructType([StructField(each.name, nullable(each.dataType)) for each in fields]))
    except ConfigError:
        if target.read() is None:
            raise
        return False  # another run was first
    return True


def checked(target: Table, there: StructType, source: StructType, layout: Layout, asking: Sequence[Asking]) -> Layout:
    """Return what goes along into the columns that the target has; raises `ConfigError` where a type is another."""
    for name in layout.key:
        if field_of(there, name) is None:
            raise ConfigError(
                f"{target} lacks the key {name!r}; it has {listed(there.names)}.",
                "name a key that both have, or a target that is not there yet.",
            )
    for name in (*layout.key, *layout.carried):
        found, kind = field_of(there, name), source[name].dataType
        if found is not None and _is_other(found.dataType, kind):
            raise ConfigError(
                f"{name!r} is {found.dataType.simpleString()} in {target}, and {kind.simpleString()} in the source.",
                "cast it in the source, or leave it out there.",
            )
    for field in _answers(asking):
        found = field_of(there, field.name)
        if found is not None and _is_other(found.dataType, field.dataType):
            raise ConfigError(
                f"{target} has a column {field.name!r} of another type, {found.dataType.simpleString()}; here it would"
                f" be {field.dataType.simpleString()}.",
                "give the answers another name, or rename or drop that column.",
            )
    return replace(layout, carried=tuple(name for name in layout.carried if field_of(there, name) is not None))


def widen(target: Table, there: StructType, asking: Sequence[Asking]) -> None:
    """Give the target the columns for answers that it lacks; raises `ConfigError` where none can be merged into it."""
    target.check_merge()
    target.add([field for field in _answers(asking) if field_of(there, field.name) is None])


def listed(names: Iterable[str]) -> str:
    """Return names in a row."""
    return ", ".join(map(repr, names)) or "nothing"


def _key(schema: StructType, name: str) -> str:
    found = field_of(schema, name)
    if found is None:
        raise ConfigError(
            f"The key {name!r} is no column of the source, which has {listed(schema.names)}.",
            "name the column, or the columns, that tell its rows apart.",
        )
    return found.name


def _asking(source: DataFrame, name: str, call: Call) -> Asking:
    arguments = [F.col(each) if isinstance(each, str) else each for each in call.arguments]
    returns = call.udf.returnType
    if not isinstance(returns, StructType):
        raise ConfigError(f"{name!r} has no tokens and no error.", "use the function that gives the whole struct.")
    own = field_of(source.schema, name)
    if own is not None and _is_other(own.dataType, returns):
        raise ConfigError(
            f"The source has a column {own.name!r} of its own, of type {own.dataType.simpleString()}.",
            "give the answers another name, or drop that column.",
        )
    kinds = _types(source, name, arguments)
    marks = fingerprint(call.udf.plan(), list(zip(arguments, kinds, strict=True)))
    return Asking(name, returns, call, tuple(arguments), kinds, marks)


def _types(source: DataFrame, name: str, arguments: Sequence[Column]) -> tuple[DataType, ...]:
    try:
        return tuple(field.dataType for field in source.select(*arguments).schema)
    except AnalysisException as error:
        raise ConfigError(
            f"What {name!r} is asked of cannot be read from the source: {said(error)}.",
            f"the source has {listed(source.columns)}.",
        ) from error


def _answers(asking: Iterable[Asking]) -> Iterable[StructField]:
    for each in asking:
        yield StructField(each.name, each.returns)
        yield StructField(each.mark, StringType())


def _is_other(one: DataType, other: DataType) -> bool:
    """Return whether two types differ in more than what may be null, and how names are spelt."""
    return one.simpleString().casefold() != other.simpleString().casefold()
