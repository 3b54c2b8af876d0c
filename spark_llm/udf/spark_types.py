"""Conversion between Spark types and answer types (`protocol.structured.schema`).

A Spark type that JSON Schema cannot express raises `ConfigError` with its path: `a.b` is a field of a field, `a[]` an
array's element, and `a{}` a map's value.
"""

import re
from inspect import signature
from typing import Any

from pyspark.errors import PySparkTypeError
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_type, to_arrow_type
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
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
    data_type.typeName(): data_type
    for data_type in (
        *(StringType(), BooleanType(), ByteType(), ShortType(), IntegerType(), LongType(), FloatType(), DoubleType()),
        *(DateType(), TimestampType(), TimestampNTZType(), BinaryType()),
    )
}
_SUPPORTED = "strings, numbers, booleans, dates, timestamps, arrays, structs, and maps with string keys"
_ALTERNATIVES = {
    "binary": "use a string, and decode it with unbase64() or unhex()",
    "char": "leave the length out, as in STRING, and check it on the column",
    "varchar": "leave the length out, as in STRING, and check it on the column",
    "variant": "use a string, and read it with parse_json()",
    "time": "use a string, and cast it",
    "void": "give it a type",
}
_SPARK_ERROR = re.compile(r"\[[A-Z_.]+\] *(?P<message>[^\n]*?)(?: *SQLSTATE[^\n]*| *\n|$)")
_STRUCT_DDL = re.compile(r"(?is)(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*(?:struct\s*<|`value`|value[\s:])")


def shape_of(schema: StructType) -> Struct:
    """Return the answer type for a Spark struct; comments become descriptions, which the model sees.

    Raises `ConfigError`, with the path, for a type that JSON Schema cannot express.
    """
    return _struct(schema, "", SCALARS)


def prediction_shape(data_type: DataType) -> Shape:
    """Return the type of predictions for a Spark type; bytes are allowed, and so is a null.

    Raises `ConfigError`, with the path, for a type that predictions cannot have.
    """
    return Nullable(_shape(data_type, "", SCALARS | {"binary"}))


def spark_type(shape: Shape) -> DataType:  # noqa: PLR0911 -- one for each kind of shape
    """Return the type of the column that holds answers of this shape.

    It has no comments: Spark 3.5 fails a job whose pandas UDF has one in its type.
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


def arrow_type(data_type: DataType) -> Any:  # noqa: ANN401 -- an Arrow type
    """Return the Arrow type that Spark expects of an Arrow UDF; PySpark 4.2 needs UTC as an argument."""
    zone = {"timezone": "UTC"} if "timezone" in signature(to_arrow_type).parameters else {}
    return to_arrow_type(data_type, **zone)  # type: ignore[arg-type]  # another parameter than in older ones


def spark_name(data_type: Any) -> str:  # noqa: ANN401 -- an Arrow type
    """Return an Arrow type's name in SQL, as in "map<string,int>"; Arrow's name for a type that Spark lacks."""
    try:
        return from_arrow_type(data_type).simpleString()
    except PySparkTypeError:
        return str(data_type)


def struct_of(ddl: str, spark: SparkSession, parameter: str = "returns") -> StructType:
    """Return the struct that the session's server reads in a DDL string; client and server versions may differ.

    Raises `ConfigError` with Spark's message for invalid DDL, and for DDL of another type than a struct.
    """
    try:
        schema = spark.createDataFrame([], ddl).schema
    except PySparkTypeError:  # Spark Connect, for an array or a map
        raise _not_a_struct(ddl, parameter) from None
    except Exception as error:  # noqa: BLE001 -- Spark's own, or with classic Spark also its bridge's to Java
        raise ConfigError(
            f"{parameter}={excerpt(ddl)!r} is not valid DDL: {_spark_message(error)}",
            'write a name and a type for each field, as in "mood STRING, stars INT"; put a name that has other'
            " characters than letters, digits and _ in `backticks`.",
        ) from None
    if schema.names == ["value"] and not _STRUCT_DDL.match(ddl):  # Spark wraps any other type in such a struct
        raise _not_a_struct(ddl, parameter)
    return schema


def type_of(ddl: str, spark: SparkSession) -> DataType:
    """Return the type that the session's server reads in a DDL string: of one value, or the fields of a struct.

    Raises `ConfigError` with Spark's message for invalid DDL.
    """
    example = 'write a type, as in "DOUBLE", or fields, as in "label STRING, score DOUBLE".'
    try:
        [field] = spark.createDataFrame([], f"`value` {ddl}").schema
    except Exception:  # noqa: BLE001 -- as below: the fields of a struct are no type, and invalid DDL raises there
        try:
            return struct_of(ddl, spark)
        except ConfigError as error:
            raise ConfigError(error.what, example) from None
    return field.dataType


def _not_a_struct(ddl: str, parameter: str) -> ConfigError:
    return ConfigError(
        f"{parameter}={excerpt(ddl)!r} is not a struct.", f'give the value a name, as in "found {excerpt(ddl)}".'
    )


def _spark_message(error: Exception) -> str:
    """Return the message of Spark's error, without its class, its SQL state and its stack."""
    text = str(error)
    match = _SPARK_ERROR.search(text)
    return excerpt(match["message"] if match else text) or type(error).__name__


def _struct(schema: StructType, path: str, scalars: frozenset[str]) -> Struct:
    if not schema.fields:
        raise ConfigError(f"{_subject(path)} is a struct without fields.", "add a field, or leave the struct out.")
    check_distinct(f"{_subject(path)} has two fields", schema.names)
    fields = []
    for field in schema.fields:
        _check_name(field.name, path)
        field_path = f"{path}.{field.name}" if path else field.name
        comment = (field.metadata or {}).get("comment")
        shape = _nullable_if(_shape(field.dataType, field_path, scalars), nullable=field.nullable)
        fields.append(Field(field.name, shape, comment if isinstance(comment, str) else None))
    return Struct(tuple(fields))


def _check_name(name: str, path: str) -> None:
    if not name:
        raise ConfigError(f"{_subject(path)} has a field without a name.", "name the field.")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{_subject(path)} has a field {name!r}, which is not valid Unicode.", "rename the field."
        ) from None


def _shape(data_type: DataType, path: str, scalars: frozenset[str]) -> Shape:
    name = data_type.typeName()
    match data_type:
        case StructType():
            return _struct(data_type, path, scalars)
        case ArrayType():
            element = _shape(data_type.elementType, f"{path}[]", scalars)
            return Array(_nullable_if(element, nullable=data_type.containsNull))
        case MapType() if not _is_plain_string(data_type.keyType):
            raise ConfigError(
                f"{_subject(path)} is {_type_name(data_type)}, but the keys of JSON objects are strings.",
                "use a map with string keys, or an array of structs with a field for the key.",
            )
        case MapType():
            value = _shape(data_type.valueType, f"{path}{{}}", scalars)
            return Map(_nullable_if(value, nullable=data_type.valueContainsNull))
        case DecimalType() if 0 <= data_type.scale <= data_type.precision <= 38 and data_type.precision > 0:
            return Number(data_type.precision, data_type.scale)
        case StringType() if not _is_plain_string(data_type):
            raise ConfigError(
                f"{_subject(path)} is {_type_name(data_type)}, but answers have no collation.",
                "use STRING, and apply collate() to the column.",
            )
        case _ if name in scalars and type(data_type) is type(_SCALARS[name]):
            return Scalar(name)
    alternative = _ALTERNATIVES.get(name.partition("(")[0], "use a string, and cast it")
    raise ConfigError(
        f"{_subject(path)} is {_type_name(data_type)}, which JSON Schema cannot express.",
        f"{alternative}; supported types are {_SUPPORTED}.",
    )


def _nullable_if(shape: Shape, *, nullable: bool) -> Shape:
    return Nullable(shape) if nullable else shape


def _is_plain_string(data_type: DataType) -> bool:
    """Return whether a type is STRING without a collation, and neither CHAR nor VARCHAR."""
    return type(data_type) is StringType and data_type.simpleString() == "string"


def _subject(path: str) -> str:
    return path or "The answer's type"


def _type_name(data_type: DataType) -> str:
    return excerpt(data_type.simpleString(), 60)
