"""Types of columns: found by name, compared, and written as SQL."""

from functools import partial

from pyspark.sql import SparkSession
from pyspark.sql.types import (
    ArrayType,
    ByteType,
    DataType,
    IntegerType,
    LongType,
    MapType,
    ShortType,
    StructField,
    StructType,
)

from spark_llm.protocol.identifiers import CaseFold, quoted, struct
from spark_llm.schemas import LABEL, USAGE

_WHOLE_NUMBERS: list[type[DataType]] = [ByteType, ShortType, IntegerType, LongType]  # from narrow to wide


def same_of(spark: SparkSession) -> CaseFold:
    """Return the function that maps names to what the session compares: `spark.sql.caseSensitive` says which."""
    setting = spark.conf.get("spark.sql.caseSensitive") or ""
    return str if setting.strip().lower() == "true" else str.lower  # as Spark reads it: "True" is true


def find_field(schema: StructType, name: str, same: CaseFold) -> StructField | None:
    """Return the column that Spark finds under a name; None where there is none."""
    return next((field for field in schema if same(field.name) == same(name)), None)


def has_column(schema: StructType, field: StructField, same: CaseFold) -> bool:
    """Return whether a table has this column, with a type that holds every value of it."""
    found = find_field(schema, field.name, same)
    return found is not None and accepts(found.dataType, field.dataType, same)


def accepts(column: DataType, value: DataType, same: CaseFold) -> bool:
    """Return whether a column holds every value of a type. Its whole numbers may be wider, as in Iceberg tables.

    Of two versions of `usage` one has the first fields of the other, and an older answer with a label lacks those of
    `schemas.LABEL`; `reshaped` makes one of the other.
    """
    match column, value:
        case StructType(fields=fields), StructType(fields=others):
            same_length = (
                len(fields) == len(others)
                or (_is_usage(column, same) and _is_usage(value, same))
                or _differs_by_label(column, value, same)
            )
            return same_length and all(
                same(field.name) == same(other.name) and accepts(field.dataType, other.dataType, same)
                for field, other in zip(fields, others, strict=False)
            )
        case ArrayType(), ArrayType():
            return accepts(column.elementType, value.elementType, same)
        case MapType(), MapType():
            return accepts(column.keyType, value.keyType, same) and accepts(column.valueType, value.valueType, same)
    if type(column) in _WHOLE_NUMBERS and type(value) in _WHOLE_NUMBERS:
        return _WHOLE_NUMBERS.index(type(column)) >= _WHOLE_NUMBERS.index(type(value))
    return column.simpleString() == value.simpleString()


def _is_usage(kind: StructType, same: CaseFold) -> bool:
    """Return whether a struct is `schemas.USAGE`, or that of an older version: its first fields."""
    return bool(kind.names) and list(map(same, kind.names)) == list(map(same, USAGE.names))[: len(kind)]


def _differs_by_label(column: StructType, value: StructType, same: CaseFold) -> bool:
    """Return whether a struct lacks the last fields of another one, and these are of `schemas.LABEL`."""
    longer, shorter = (column, value) if len(column) > len(value) else (value, column)
    return {same(name) for name in longer.names[len(shorter) :]} <= set(map(same, LABEL.names))


def missing_fields(column: DataType, value: StructType) -> dict[tuple[str, ...], list[StructField]]:
    """Return the fields that a column of answers of an older version lacks: in its `usage`, and its own last ones."""
    if not isinstance(column, StructType):
        return {}
    missing = {("usage",): _missing_usage(column, value), (): value.fields[len(column) :]}
    return {path: fields for path, fields in missing.items() if fields}


def _missing_usage(column: StructType, value: StructType) -> list[StructField]:
    for mine, theirs in zip(column, value, strict=False):
        if theirs.name == "usage" and isinstance(mine.dataType, StructType) and isinstance(theirs.dataType, StructType):
            return theirs.dataType.fields[len(mine.dataType) :]
    return []


def reshaped(value: str, kind: DataType, wanted: DataType) -> str:
    """Return the SQL of a value as another type that accepts it: a struct gets nulls for the fields that it lacks."""
    if not isinstance(kind, StructType) or not isinstance(wanted, StructType):
        return value
    mine = [f"{value}.{quoted(field.name)}" for field in kind]
    both = zip(mine, kind, wanted, strict=False)
    parts = [reshaped(part, field.dataType, other.dataType) for part, field, other in both]
    if parts == mine and len(kind) == len(wanted):
        return value
    parts += [f"CAST(NULL AS {ddl(field.dataType)})" for field in wanted.fields[len(kind) :]]
    fields = ", ".join(f"'{field.name}', {part}" for field, part in zip(wanted, parts, strict=False))
    return f"IF({value} IS NULL, NULL, NAMED_STRUCT({fields}))"


def ddl(kind: DataType) -> str:
    """Return a type as SQL, with every name in back-quotes."""
    if isinstance(kind, StructType):
        return f"STRUCT<{', '.join(f'{quoted(field.name)}: {ddl(field.dataType)}' for field in kind)}>"
    if isinstance(kind, ArrayType):
        return f"ARRAY<{ddl(kind.elementType)}>"
    if isinstance(kind, MapType):
        return f"MAP<{ddl(kind.keyType)}, {ddl(kind.valueType)}>"
    return kind.simpleString()


def column_ddl(schema: StructType) -> str:
    """Return columns as `CREATE TABLE` and `ADD COLUMNS` list them."""
    return ", ".join(f"{quoted(field.name)} {ddl(field.dataType)}" for field in schema)


def nullable(kind: DataType, *, numbered: bool = False) -> DataType:
    """Return the type with every part nullable.

    Where it is `numbered`, struct fields have numbers for names, which every table format can hold. A cast gives the
    names back: Spark casts structs field by field, in order.
    """
    part = partial(nullable, numbered=numbered)
    if isinstance(kind, StructType):
        names = [f"f{place}" for place, _ in enumerate(kind)] if numbered else kind.names
        return StructType([StructField(name, part(field.dataType)) for name, field in zip(names, kind, strict=True)])
    if isinstance(kind, ArrayType):
        return ArrayType(part(kind.elementType))
    if isinstance(kind, MapType):
        return MapType(part(kind.keyType), part(kind.valueType))
    return kind


def is_comparable(kind: DataType) -> bool:
    """Return whether Spark compares values of a type: it compares no maps, no variants and no calendar intervals."""
    if isinstance(kind, StructType):
        return all(is_comparable(field.dataType) for field in kind)
    if isinstance(kind, ArrayType):
        return is_comparable(kind.elementType)
    return not isinstance(kind, MapType) and kind.typeName() not in {"variant", "interval"}


def differ(one: str, other: str, kind: DataType) -> str:
    """Return the SQL condition that two values differ; `kind` is the type of one that accepts the other's."""
    if is_comparable(kind):
        return f"NOT {one} <=> {other}"
    wanted = ddl(nullable(kind, numbered=True))
    one, other = (_comparable(f"CAST({each} AS {wanted})", kind) for each in (one, other))
    return f"NOT {one} <=> {other}"


def _comparable(value: str, kind: DataType, depth: int = 0) -> str:
    """Return the SQL of a value as one that Spark compares: a map has its entries in order, a variant is JSON.

    Fields of structs have numbers for names.
    """
    if is_comparable(kind):
        return value
    part, each = partial(_comparable, depth=depth + 1), f"each_{depth}"
    match kind:
        case StructType(fields=fields):
            parts = {f"f{n}": part(f"{value}.f{n}", field.dataType) for n, field in enumerate(fields)}
            return f"CASE WHEN {value} IS NOT NULL THEN {struct(parts)} END"
        case ArrayType(elementType=element):
            return f"transform({value}, {each} -> {part(each, element)})"
        case MapType(keyType=key, valueType=content):
            entry = struct({"key": part(f"{each}.key", key), "value": part(f"{each}.value", content)})
            return f"array_sort(transform(map_entries({value}), {each} -> {entry}))"
    return f"to_json({struct({'value': value})})"


def fields_of(schema: StructType, struct: str) -> list[StructField]:
    """Return the fields of a struct column; none where the column is missing or has another type."""
    kind = next((field.dataType for field in schema if field.name == struct), None)
    return kind.fields if isinstance(kind, StructType) else []
