"""The plan of a run: the key, the columns to carry and to fill, and the columns that the target lacks.

The errors of source, target, key and columns against each other are found here. Reads no table and runs no query.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StringType, StructField, StructType

from spark_llm.enrich.column_types import accepts, find_field, is_comparable, missing_fields, nullable
from spark_llm.enrich.fingerprints.fingerprint import fingerprint
from spark_llm.errors import ConfigError, InputTypeError
from spark_llm.protocol.identifiers import CaseFold, check_distinct
from spark_llm.text.names import column_list
from spark_llm.udf.lazy_udf import Call

InputTypes = Mapping[str, Sequence[DataType]]
"""For each column to fill, the types of the arguments of its call."""


@dataclass(frozen=True)
class FilledColumn:
    """A column to fill: its name and type, the call that fills it, the call's arguments, and their fingerprint."""

    name: str
    type: StructType
    call: Call
    arguments: tuple[Column, ...]
    argument_types: tuple[DataType, ...]
    fingerprint: Column

    @property
    def fingerprint_name(self) -> str:
        """The name of the column that keeps the fingerprint of each answer."""
        return fingerprint_name(self.name)

    @property
    def fields(self) -> tuple[StructField, StructField]:
        """The two columns of the target: the answers and their fingerprints."""
        return StructField(self.name, self.type), StructField(self.fingerprint_name, StringType())


@dataclass(frozen=True)
class RunPlan:
    """What a run does with which columns.

    Attributes:
        key: The source's names of the key columns.
        carried: Columns of the source that are kept in the target as they are.
        filled: Columns that are filled with answers.
        same: Maps names to what the session compares.
        created: All columns of the target, where it is missing; None where it exists.
        added_answers: Columns for answers and fingerprints that the target lacks.
        added_carried: Columns of the source that the target lacks.
        added_inside: For columns that an older version filled, the fields that they lack, by the path of their struct.
    """

    key: tuple[str, ...]
    carried: tuple[str, ...]
    filled: tuple[FilledColumn, ...]
    same: CaseFold
    created: StructType | None = None
    added_answers: tuple[StructField, ...] = ()
    added_carried: tuple[StructField, ...] = ()
    added_inside: Mapping[tuple[str, ...], Sequence[StructField]] = field(default_factory=dict)  # by the struct's path

    def without(self, names: Iterable[str]) -> "RunPlan":
        """Return the plan without these columns of the source."""
        left_out = set(names)
        return replace(self, carried=tuple(name for name in self.carried if name not in left_out))


def plan_run(  # noqa: PLR0917 -- a plan depends on all of them
    source: StructType,
    target: StructType | None,
    target_name: str,
    key: Sequence[str],
    calls: Mapping[str, Call],
    input_types: InputTypes,
    same: CaseFold,
) -> RunPlan:
    """Return the plan for a source and a target of these schemas; `target` is None where the table is missing.

    Raises `ConfigError` where source, target, key and columns do not fit together.
    """
    key_names = tuple(_key_name(source, name, same) for name in key)
    key_set = set(map(same, key_names))
    answers = {same(name) for each in calls for name in (each, fingerprint_name(each))}
    if not answers.isdisjoint(key_set):
        raise ConfigError("A key column cannot be filled with answers.", "give the answers another name.")
    carried = tuple(name for name in source.names if same(name) not in answers | key_set)
    filled = tuple(_filled_column(source, name, call, input_types[name], same) for name, call in calls.items())
    plan = RunPlan(key_names, carried, filled, same)
    kept = [source[name] for name in (*key_names, *carried)]
    if target is None:
        fields = [*kept, *_answer_fields(filled)]
        return replace(plan, created=StructType([StructField(each.name, nullable(each.dataType)) for each in fields]))
    _check_target(target, target_name, plan, kept)
    return replace(
        plan,
        added_answers=tuple(each for each in _answer_fields(filled) if find_field(target, each.name, same) is None),
        added_carried=tuple(source[name] for name in carried if find_field(target, name, same) is None),
        added_inside={
            (found.name, *path): fields
            for each in filled
            if (found := find_field(target, each.name, same))
            for path, fields in missing_fields(found.dataType, each.type).items()
        },
    )


def check_names(key: Sequence[str], columns: Iterable[str], same: CaseFold) -> None:
    """Raise `ConfigError` where the key, or the filled columns with their fingerprints, have a name twice."""
    check_distinct("key= has", key, same)
    check_distinct("columns= fills", [name for each in columns for name in (each, fingerprint_name(each))], same)


def fingerprint_name(column: str) -> str:
    """Return the name of the column that keeps the fingerprints of a column's answers."""
    return f"{column}_fingerprint"


def _key_name(source: StructType, name: str, same: CaseFold) -> str:
    field = find_field(source, name, same)
    if field is None:
        raise ConfigError(
            f"The source lacks the key {name!r}; it has {column_list(source.names)}.",
            "name the column, or the columns, that identify a row.",
        )
    if not is_comparable(field.dataType):
        raise ConfigError(
            f"The key {field.name!r} is {field.dataType.simpleString()}, whose values Spark does not compare.",
            "name a column of texts, numbers, dates or the like, without maps, variants and intervals.",
        )
    return field.name


def _filled_column(
    source: StructType, name: str, call: Call, types: Sequence[DataType], same: CaseFold
) -> FilledColumn:
    kind = call.udf.returnType
    if not isinstance(kind, StructType):
        raise ConfigError(f"{name!r} has no tokens and no error.", "use the function that returns the whole struct.")
    field = find_field(source, name, same)
    if field is not None and not accepts(field.dataType, kind, same):
        raise ConfigError(
            f"The source has a column {field.name!r} of another type, {field.dataType.simpleString()}.",
            "give the answers another name, or drop that column.",
        )
    arguments = tuple(F.col(each) if isinstance(each, str) else each for each in call.arguments)
    try:
        digest = fingerprint(call.udf.plan(), list(zip(arguments, types, strict=True)))
    except InputTypeError as error:
        inputs = [each for each in call.arguments if isinstance(each, str)]
        place = f"columns[{name!r}]{f' on {column_list(inputs)}' if inputs else ''}"
        raise InputTypeError(f"{place}: {error.what}", error.hint) from None
    return FilledColumn(name, kind, call, arguments, tuple(types), digest)


def _check_target(target: StructType, target_name: str, plan: RunPlan, kept: Sequence[StructField]) -> None:
    """Raise `ConfigError` where an existing target lacks the key, or has a column of another type."""
    check_distinct(f"{target_name} has the columns", target.names, plan.same)
    for name in plan.key:
        if find_field(target, name, plan.same) is None:
            raise ConfigError(
                f"{target_name} lacks the key {name!r}; it has {column_list(target.names)}.",
                "name a key that source and target have, or a target that does not exist yet.",
            )
    for name, expected, found in _other_types(target, kept, plan.same):
        raise ConfigError(
            f"{name!r} is {found} in {target_name}, and {expected} in the source.",
            "cast the column in the source or drop it there; or change its type in the target.",
        )
    for name, expected, found in _other_types(target, _answer_fields(plan.filled), plan.same):
        raise ConfigError(
            f"{target_name} has a column {name!r} of another type, {found}, and not {expected}.",
            "give the answers another name, or rename or drop that column.",
        )


def _other_types(target: StructType, fields: Iterable[StructField], same: CaseFold) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the type and the target's type of each field that the target's column does not accept."""
    for each in fields:
        found = find_field(target, each.name, same)
        if found is not None and not accepts(found.dataType, each.dataType, same):
            yield each.name, each.dataType.simpleString(), found.dataType.simpleString()


def _answer_fields(filled: Iterable[FilledColumn]) -> Iterator[StructField]:
    for each in filled:
        yield from each.fields
