"""Conversion between Spark types and answer types. Needs no session."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    ByteType,
    CharType,
    DataType,
    DayTimeIntervalType,
    DecimalType,
    IntegerType,
    LongType,
    MapType,
    NullType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    UserDefinedType,
    VarcharType,
    YearMonthIntervalType,
)

from spark_llm.enrich.column_types import accepts, find_field
from spark_llm.errors import ConfigError
from spark_llm.protocol.structured.schema import Array, Enumeration, Field, Map, Nullable, Number, Scalar, Shape, Struct
from spark_llm.protocol.values import Result
from spark_llm.udf.columns import to_arrow, to_pandas
from spark_llm.udf.spark_types import arrow_type, shape_of, spark_type
from tests.support.shapes import SPARKS, STRUCTS, values


class Point(UserDefinedType):
    """A user-defined type over a double."""

    @classmethod
    def sqlType(cls) -> DataType:  # noqa: N802 -- PySpark's name
        """Return the type that stores it."""
        return BooleanType()


def struct_with(name: str, kind: DataType) -> StructType:
    """Return the struct of one field."""
    return StructType([StructField(name, kind)])


def struct_of_a(kind: DataType) -> StructType:
    """Return the struct of one field `a`."""
    return struct_with("a", kind)


def without_descriptions(shape: Any) -> Any:  # noqa: ANN401 -- any shape
    """Return a shape without its descriptions, which a column's type does not carry."""
    match shape:
        case Struct(fields=fields):
            return Struct(tuple(Field(field.name, without_descriptions(field.shape)) for field in fields))
        case Array(element=inner) | Map(value=inner) | Nullable(shape=inner):
            return type(shape)(without_descriptions(inner))
    return shape


@given(SPARKS)
def test_spark_types_round_trip(shape: Struct) -> None:
    """Names, types and nullability stay the same at every depth."""
    schema = spark_type(shape)

    assert isinstance(schema, StructType)
    assert schema == spark_type(shape_of(schema))
    assert without_descriptions(shape) == shape_of(schema)


@given(STRUCTS)
def test_every_shape_has_a_column_type(shape: Struct) -> None:
    """An enumeration is a column of texts, or of whole numbers of 64 bits."""
    schema = spark_type(shape)

    assert [field.name for field in shape.fields] == schema.fieldNames()  # type: ignore[attr-defined]  # a struct
    assert [isinstance(field.shape, Nullable) for field in shape.fields] == [field.nullable for field in schema]  # type: ignore[attr-defined]
    assert (StringType(), LongType()) == (spark_type(Enumeration(("a",))), spark_type(Nullable(Enumeration((1,)))))


def test_a_schema_becomes_a_shape() -> None:
    """One field of each kind, compared with a shape written by hand."""
    schema = StructType(
        [
            StructField("n", IntegerType(), nullable=False, metadata={"comment": "How many", "other": 1}),
            StructField("price", DecimalType(9, 2), metadata={"comment": 7}),
            StructField("at", ArrayType(TimestampNTZType(), containsNull=False), nullable=False),
            StructField("by", MapType(StringType(), struct_of_a(BooleanType()))),
        ]
    )

    assert shape_of(schema) == Struct(
        (
            Field("n", Scalar("integer"), "How many"),
            Field("price", Nullable(Number(9, 2))),
            Field("at", Array(Scalar("timestamp_ntz"))),
            Field("by", Nullable(Map(Nullable(Struct((Field("a", Nullable(Scalar("boolean"))),)))))),
        )
    )


def as_arrow_value(shape: Shape, value: Any) -> Any:  # noqa: ANN401 -- a value of any shape
    """Return a value as Arrow gives it back: missing fields are null, and a map is its pairs."""
    match shape:
        case Nullable(shape=inner):
            return None if value is None else as_arrow_value(inner, value)
        case Array(element=element):
            return [as_arrow_value(element, each) for each in value]
        case Map(value=inner):
            return [(name, as_arrow_value(inner, each)) for name, each in value.items()]
        case Struct(fields=fields):
            return {field.name: as_arrow_value(field.shape, value.get(field.name)) for field in fields}
    return value


@given(st.data(), STRUCTS)
def test_a_value_is_exact_in_arrow(data: st.DataObject, shape: Struct) -> None:
    """The value is exact; a row without a value and a row without a result are null."""
    value = data.draw(values(shape))
    struct_array = to_arrow(
        [Result(parsed=value), Result(), None], arrow_type(struct_with("parsed", spark_type(shape)))
    )
    struct_array.validate(full=True)

    assert [False, False, True] == struct_array.is_null().to_pylist()
    assert [as_arrow_value(shape, value), None, None] == struct_array.field("parsed").to_pylist()


@pytest.mark.parametrize("value", ["a", {"a": "b", "c": None}, 0.5, ["a"], None])
def test_a_value_needs_no_struct(value: Any) -> None:  # noqa: ANN401 -- a table
    """A text, a map, a number or a list fills the column unchanged, in Arrow and in pandas."""
    shapes: dict[type, Shape] = {
        str: Scalar("string"),
        dict: Map(Nullable(Scalar("string"))),
        float: Scalar("float"),
        list: Array(Scalar("string")),
    }
    shape = shapes.get(type(value), Scalar("string"))
    struct_array = to_arrow([Result(parsed=value), None], arrow_type(struct_with("parsed", spark_type(shape))))

    assert [as_arrow_value(Nullable(shape), value), None] == struct_array.field("parsed").to_pylist()
    assert [value, None] == to_pandas([Result(parsed=value), None], ["parsed"])["parsed"].tolist()


def unsupported_schemas() -> "list[tuple[StructType, str]]":
    """Return unsupported schemas with the beginning of their messages; an older PySpark lacks some of the types."""
    import pyspark.sql.types as newest

    kinds: dict[str, DataType] = {
        "binary": BinaryType(),
        "char": CharType(3),
        "varchar": VarcharType(3),
        "interval day": DayTimeIntervalType(),
        "interval year": YearMonthIntervalType(),
        "void": NullType(),
        "map<int,int>": MapType(IntegerType(), IntegerType()),
        "map<varchar": MapType(VarcharType(3), IntegerType()),
        "decimal(5,-2)": DecimalType(5, -2),
        "decimal(2,5)": DecimalType(2, 5),
        "decimal(39,0)": DecimalType(39, 0),
    }
    for name in ("VariantType", "TimeType", "CalendarIntervalType"):
        if hasattr(newest, name):
            kinds[name.removesuffix("Type").removeprefix("Calendar").lower()] = getattr(newest, name)()
    rows = [(struct_of_a(kind), f"a is {name}") for name, kind in kinds.items()]
    rows += [
        (struct_of_a(Point()), "a is "),
        (struct_of_a(ArrayType(BinaryType())), "a[] is binary"),
        (struct_of_a(struct_of_a(ArrayType(BinaryType()))), "a.a[] is binary"),
        (struct_of_a(MapType(StringType(), ArrayType(struct_of_a(NullType())))), "a{}[].a is void"),
        (struct_of_a(StructType([])), "a is a struct without fields"),
        (StructType([]), "The answer's type is a struct without fields"),
        (StructType([StructField("", IntegerType())]), "The answer's type has a field without a name"),
        (struct_of_a(ArrayType(StructType([StructField("", IntegerType())]))), "a[] has a field without a name"),
        (StructType([*struct_of_a(IntegerType()), *struct_of_a(StringType())]), "The answer's type has two fields 'a'"),
        (struct_of_a(StructType([*struct_of_a(IntegerType()), *struct_of_a(IntegerType())])), "a has two fields 'a'"),
        (
            StructType([*struct_of_a(IntegerType()), *struct_with("A", StringType())]),
            "The answer's type has two fields 'a' and 'A'",
        ),
        (
            struct_of_a(ArrayType(StructType([*struct_with("Ö", LongType()), *struct_with("ö", LongType())]))),
            "a[] has two fields 'Ö'",
        ),
        (StructType([StructField("\ud800", IntegerType())]), "The answer's type has a field '\\ud800'"),
    ]
    if hasattr(StringType(), "collation"):
        rows += [
            (struct_of_a(StringType("UNICODE")), "a is string collate UNICODE"),
            (struct_of_a(MapType(StringType("UTF8_LCASE"), IntegerType())), "a is map<string collate UTF8_LCASE,int>"),
        ]
    return rows


@pytest.mark.parametrize(
    ("schema", "beginning"), unsupported_schemas(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_unsupported_type_raises(schema: StructType, beginning: str) -> None:
    """The message begins with the type's path and ends in a hint."""
    with pytest.raises(ConfigError, match=r"Hint: .+\.$") as caught:
        shape_of(schema)

    assert beginning == str(caught.value)[: len(beginning)]


@pytest.mark.parametrize(
    ("column", "value", "fits"),
    [
        (LongType(), IntegerType(), True),
        (IntegerType(), ByteType(), True),
        (IntegerType(), LongType(), False),
        (StringType(), IntegerType(), False),
        (struct_with("A", ArrayType(LongType())), struct_with("a", ArrayType(IntegerType())), True),
        (struct_with("a", LongType()), struct_with("b", LongType()), False),
        (struct_with("a", LongType()), StructType([*struct_of_a(LongType()), *struct_with("b", LongType())]), False),
        (MapType(StringType(), LongType()), MapType(StringType(), ByteType()), True),
        (MapType(StringType(), LongType()), StringType(), False),
    ],
    ids=str,
)
def test_a_column_holds_narrower_whole_numbers(column: DataType, value: DataType, fits: bool) -> None:  # noqa: FBT001 -- a table
    """Whole numbers may be narrower at any depth, as Iceberg stores a TINYINT as INT; all other types must match."""
    assert fits == accepts(column, value, str.lower)
    assert not accepts(struct_with("A", LongType()), struct_with("a", LongType()), str)


def test_a_column_is_found_as_the_session_compares_names() -> None:
    """Names match regardless of case, unless the session is case-sensitive."""
    schema = StructType([*struct_with("Mood", StringType()), *struct_with("id", LongType())])

    assert ["Mood", None] == [
        found and found.name for found in (find_field(schema, n, str.lower) for n in ("MOOD", "x"))
    ]
    assert [None, "Mood"] == [found and found.name for found in (find_field(schema, n, str) for n in ("mood", "Mood"))]
