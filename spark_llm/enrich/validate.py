"""Whether a source, a target and what is asked fit together; each misfit is one error, before anything is asked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StringType, StructField, StructType

from spark_llm.enrich.changes import Asking, Layout, mark_of
from spark_llm.enrich.fingerprint import fingerprint
from spark_llm.enrich.table import Table, field_of, holds, nullable, said, same_of
from spark_llm.errors import ConfigError
from spark_llm.protocol.identifiers import CaseFold, check_distinct
from spark_llm.udf.lazy_udf import Call

_NEW = "{!r} is new in the source, and was added to {}."


def of_source(source: DataFrame, key: Sequence[str], calls: Mapping[str, Call]) -> tuple[Layout, list[Asking]]:
    """Return what goes along from the source and what is asked of it; raises `ConfigError` for what it lacks."""
    schema, same = source.schema, same_of(source.sparkSession)
    check_distinct("The source has the columns", schema.names, same)
    keys = [_key(schema, name, same) for name in key]
    answers = {same(name) for each in calls for name in (each, mark_of(each))}
    carried = tuple(name for name in schema.names if same(name) not in answers | set(map(same, keys)))
    if not answers.isdisjoint(map(same, keys)):
        raise ConfigError("The key cannot be filled with answers too.", "give the answers another name.")
    asking = [_asking(source, name, call, same) for name, call in calls.items()]
    return Layout(tuple(keys), carried, same), asking


def check_names(key: Sequence[str], columns: Iterable[str], same: CaseFold) -> None:
    """Raise `ConfigError` where a name is given twice, for a column or for what stands beside its answers."""
    check_distinct("key= has", key, same)
    check_distinct("columns= fills", [name for each in columns for name in (each, mark_of(each))], same)


def make(
    target: Table, source: StructType, layout: Layout, asking: Sequence[Asking], formats: Iterable[str | None]
) -> bool:
    """Make the target where it is missing, with all that the source has; return whether it was."""
    if target.read() is not None:
        return False
    fields = [source[name] for name in (*layout.key, *layout.carried)] + list(_answers(asking))
    return target.make(StructType([StructField(each.name, nullable(each.dataType)) for each in fields]), formats)


def checked(target: Table, there: StructType, source: StructType, layout: Layout, asking: Sequence[Asking]) -> Layout:
    """Return what goes along into the columns that the target has; raises `ConfigError` where a type is another."""
    same = layout.same
    check_distinct(f"{target} has the columns", there.names, same)
    for name in layout.key:
        if field_of(there, name, same) is None:
            raise ConfigError(
                f"{target} lacks the key {name!r}; it has {listed(there.names)}.",
                "name a key that both have, or a target that is not there yet.",
            )
    for name in (*layout.key, *layout.carried):
        found, kind = field_of(there, name, same), source[name].dataType
        if found is not None and not holds(found.dataType, kind, same):
            raise ConfigError(
                f"{name!r} is {found.dataType.simpleString()} in {target}, and {kind.simpleString()} in the source.",
                "cast it in the source, or leave it out there; where its type has changed for good, change that of the"
                " target.",
            )
    for field in _answers(asking):
        found = field_of(there, field.name, same)
        if found is not None and not holds(found.dataType, field.dataType, same):
            raise ConfigError(
                f"{target} has a column {field.name!r} of another type, {found.dataType.simpleString()}; here it would"
                f" be {field.dataType.simpleString()}.",
                "give the answers another name, or rename or drop that column.",
            )
    carried = tuple(name for name in layout.carried if field_of(there, name, same) is not None)
    return replace(layout, carried=carried)


def widen(
    target: Table, there: StructType, source: StructType, layout: Layout, asking: Sequence[Asking]
) -> tuple[str, ...]:
    """Give the target the columns that it lacks, for answers and of the source; return a note on each of the source's.

    Raises `ConfigError` where answers cannot be merged into it, or it does not take their columns. One of the source's
    that it does not take is left out.
    """
    target.check_merge()
    answers = [field for field in _answers(asking) if field_of(there, field.name, layout.same) is None]
    new = [source[name] for name in layout.carried if field_of(there, name, layout.same) is None]
    try:
        target.add([*answers, *new])
    except ConfigError:
        target.add(answers)
        return tuple(_added(target, field) for field in new)
    return tuple(_NEW.format(field.name, target) for field in new)


def _added(target: Table, field: StructField) -> str:
    """Add a column of the source; return a note on what became of it."""
    try:
        target.add([field])
    except ConfigError as error:
        return f"{field.name!r} of the source was left out: {error.what}"
    return _NEW.format(field.name, target)


def listed(names: Iterable[str]) -> str:
    """Return names in a row."""
    return ", ".join(map(repr, names)) or "nothing"


def _key(schema: StructType, name: str, same: CaseFold) -> str:
    found = field_of(schema, name, same)
    if found is None:
        raise ConfigError(
            f"The key {name!r} is no column of the source, which has {listed(schema.names)}.",
            "name the column, or the columns, that tell its rows apart.",
        )
    return found.name


def _asking(source: DataFrame, name: str, call: Call, same: CaseFold) -> Asking:
    arguments = [F.col(each) if isinstance(each, str) else each for each in call.arguments]
    returns = call.udf.returnType
    if not isinstance(returns, StructType):
        raise ConfigError(f"{name!r} has no tokens and no error.", "use the function that gives the whole struct.")
    own = field_of(source.schema, name, same)
    if own is not None and not holds(own.dataType, returns, same):
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
