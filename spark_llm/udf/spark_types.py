"""Spark's types as the types of typed answers, and the way back.

What Spark holds and a JSON schema cannot say is refused here, by its path: `a.b` is a field of a field, `a[]` an
array's element and `a{}` a map's value.
"""

import re
from inspect import signature
from typing import Any

from pyspark.errors import PySparkTypeError
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_type, to_arrow_type
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    ByteType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    ShortType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from spark_llm.errors import ConfigError
from spark_llm.protocol.identifiers import check_distinct
from spark_llm.protocol.structured.schema import (
    SCALARS,
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
from spark_llm.text.excerpt import excerpt

_SCALARS: dict[str, DataType] = {
    "string": StringType(),
    "boolean": BooleanType(),
    "byte": ByteType(),
    "short": ShortType(),
    "integer": IntegerType(),
    "long": LongType(),
    "float": FloatType(),
    "double": DoubleType(),
    "date": DateType(),
    "timestamp": TimestampType(),
    "timestamp_ntz": TimestampNTZType(),
}
_PLAIN = "strings, numbers, booleans, dates, timestamps, arrays, structs, and maps with string keys"
_INSTEAD = {
    "binary": "take a string, and decode it with unbase64() or unhex()",
    "char": "leave the length out, as in STRING, and check it on the column",
    "varchar": "leave the length out, as in STRING, and check it on the column",
    "variant": "take a string, and read it with parse_json()",
    "time": "take a string, and cast it",
    "void": "give it a type",
}
_SPARKS_WORDS = re.compile(r"\[[A-Z_.]+\] *(?P<words>[^\n]*?)(?: *SQLSTATE[^\n]*| *\n|$)")
_A_STRUCT = re.compile(r"(?is)(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:struct\s*<|`value`|value[\s:])")


def shape_of(schema: StructType) -> Struct:
    """Return the type of answers for a struct of Spark's; a field's comment is told to the model.

    Raises `ConfigError`, with the path, for a type that a JSON schema cannot say.
    """
    return _struct(schema, "")


def spark_type(shape: Shape) -> DataType:  # noqa: PLR0911 -- one for each kind of shape
    """Return the type of the column that holds answers of a shape.

    Descriptions are no comments there: Spark 3.5 fails a job whose pandas UDF has one in its type.
    """
    match shape:
        case Scalar(kind=kind):
            return _SCALARS[kind]
        case Enumeration(values=values):
            return StringType() if isinstance(values[0], str) else LongType()
        case Number(precision=precision, scale=scale):
            return DecimalType(precision, scale)
        case Array(element=element):
            return ArrayType(spark_type(element), isinstance(element, Nullable))
        case Map(value=value):
            return MapType(StringType(), spark_type(value), isinstance(value, Nullable))
        case Struct(fields=fields):
            return StructType(
                [StructField(name, spark_type(part), isinstance(part, Nullable)) for name, part, _ in fields]
            )
        case Nullable(shape=inner):
            return spark_type(inner)


def arrow_type(kind: DataType) -> Any:  # noqa: ANN401 -- an Arrow type
    """Return the Arrow type that Spark expects of an Arrow UDF: timestamps in UTC, as PySpark 4.2 has to be told."""
    zone = {"timezone": "UTC"} if "timezone" in signature(to_arrow_type).parameters else {}
    return to_arrow_type(kind, **zone)  # type: ignore[arg-type]  # another parameter than in older ones


def spark_name(kind: Any) -> str:  # noqa: ANN401 -- an Arrow type
    """Return an Arrow type's name in SQL, as in "map<string,int>"; its own where Spark has none."""
    try:
        return from_arrow_type(kind).simpleString()
    except PySparkTypeError:
        return str(kind)


def struct_of(ddl: str, spark: SparkSession) -> StructType:
    """Return the struct that a DDL string means to the session's server, which may be another version than the client.

    Raises `ConfigError` with Spark's words for DDL that it does not take, and for DDL of a type that is no struct.
    """
    try:
        schema = spark.createDataFrame([], ddl).schema
    except PySparkTypeError:  # Spark Connect, for an array or a map
        raise _no_struct(ddl) from None
    except Exception as error:  # noqa: BLE001 -- Spark's own, or with classic Spark also its bridge's to Java
        raise ConfigError(
            f"returns={excerpt(ddl)!r} is no DDL that Spark takes: {_words(error)}",
            'write a name and a type for each field, as in "mood STRING, stars INT"; a name with other signs than'
            " letters, digits and _ stands in `backticks`.",
        ) from None
    if schema.names == ["value"] and not _A_STRUCT.match(ddl):  # what Spark makes of any other type
        raise _no_struct(ddl)
    return schema


def _no_struct(ddl: str) -> ConfigError:
    return ConfigError(
        f"returns={excerpt(ddl)!r} is no struct.", f'give its value a name, as in "found {excerpt(ddl)}".'
    )


def _words(error: Exception) -> str:
    """Return the sentence of Spark's error, without its class, its state and its stack."""
    told = str(error)
    found = _SPARKS_WORDS.search(told)
    return excerpt(found["words"] if found else told) or type(error).__name__


def _struct(schema: StructType, path: str) -> Struct:
    if not schema.fields:
        raise ConfigError(f"{_named(path)} is a struct without fields.", "give it one, or leave it out.")
    check_distinct(f"{_named(path)} has two fields", schema.names)
    fields = []
    for field in schema.fields:
        _check_name(field.name, path)
        where = f"{path}.{field.name}" if path else field.name
        comment = (field.metadata or {}).get("comment")
        shape = _or_null(_shape(field.dataType, where), nullable=field.nullable)
        fields.append(Field(field.name, shape, comment if isinstance(comment, str) else None))
    return Struct(tuple(fields))


def _check_name(name: str, path: str) -> None:
    if not name:
        raise ConfigError(f"{_named(path)} has a field without a name.", "name it.")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{_named(path)} has a field {name!r}, which is no text.", "rename it.") from None


def _shape(kind: DataType, path: str) -> Shape:
    name = kind.typeName()
    match kind:
        case StructType():
            return _struct(kind, path)
        case ArrayType():
            return Array(_or_null(_shape(kind.elementType, f"{path}[]"), nullable=kind.containsNull))
        case MapType() if not _is_plain_string(kind.keyType):
            raise ConfigError(
                f"{path} is {_told(kind)}, and the keys of JSON objects are strings.",
                "take a map with string keys, or an array of structs with a field for the key.",
            )
        case MapType():
            return Map(_or_null(_shape(kind.valueType, f"{path}{{}}"), nullable=kind.valueContainsNull))
        case DecimalType() if 0 <= kind.scale <= kind.precision <= 38 and kind.precision > 0:
            return Number(kind.precision, kind.scale)
        case StringType() if not _is_plain_string(kind):
            raise ConfigError(
                f"{path} is {_told(kind)}, and an answer has no collation.", "take STRING, and collate() the column."
            )
        case _ if name in SCALARS and type(kind) is type(_SCALARS[name]):
            return Scalar(name)
    instead = _INSTEAD.get(name.partition("(")[0], "take a string, and cast it")
    raise ConfigError(f"{path} is {_told(kind)}, which no JSON schema can say.", f"{instead}; there are {_PLAIN}.")


def _or_null(shape: Shape, *, nullable: bool) -> Shape:
    return Nullable(shape) if nullable else shape


def _is_plain_string(kind: DataType) -> bool:
    return type(kind) is StringType and kind.simpleString() == "string"  # not char, varchar, nor one with a collation


def _named(path: str) -> str:
    return path or "The answer's type"


def _told(kind: DataType) -> str:
    return excerpt(kind.simpleString(), 60)
