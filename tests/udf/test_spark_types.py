"""Spark's types and the types of typed answers, there and back. No session is needed."""

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
    """A type of a user's own, over a double."""

    @classmethod
    def sqlType(cls) -> DataType:  # noqa: N802 -- PySpark's name
        """Return what it is stored as."""
        return BooleanType()


def one_of(name: str, kind: DataType) -> StructType:
    """Return the struct of one field."""
    return StructType([StructField(name, kind)])


def one(kind: DataType) -> StructType:
    """Return the struct of one field `a` of a type."""
    return one_of("a", kind)


def undescribed(shape: Any) -> Any:  # noqa: ANN401 -- any shape
    """Return a shape without its descriptions, which a column's type does not carry."""
    match shape:
        case Struct(fields=fields):
            return Struct(tuple(Field(field.name, undescribed(field.shape)) for field in fields))
        case Array(element=inner) | Map(value=inner) | Nullable(shape=inner):
            return type(shape)(undescribed(inner))
    return shape


@given(SPARKS)
def test_spark_types_come_back(shape: Struct) -> None:
    """Names, types, and what may be null, at every depth: what was read is what is written."""
    schema = spark_type(shape)

    assert isinstance(schema, StructType)
    assert schema == spark_type(shape_of(schema))
    assert undescribed(shape) == shape_of(schema)


@given(STRUCTS)
def test_every_shape_has_a_column(shape: Struct) -> None:
    """A choice is a column of texts, or of whole numbers of 64 bits."""
    schema = spark_type(shape)

    assert [field.name for field in shape.fields] == schema.fieldNames()  # type: ignore[attr-defined]  # a struct
    assert [isinstance(field.shape, Nullable) for field in shape.fields] == [field.nullable for field in schema]  # type: ignore[attr-defined]
    assert (StringType(), LongType()) == (spark_type(Enumeration(("a",))), spark_type(Nullable(Enumeration((1,)))))


def test_a_schema_is_read_as_it_is_written() -> None:
    """One of each, by hand."""
    schema = StructType(
        [
            StructField("n", IntegerType(), nullable=False, metadata={"comment": "How many", "other": 1}),
            StructField("price", DecimalType(9, 2), metadata={"comment": 7}),
            StructField("at", ArrayType(TimestampNTZType(), containsNull=False), nullable=False),
            StructField("by", MapType(StringType(), one(BooleanType()))),
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


def in_arrow(shape: Shape, value: Any) -> Any:  # noqa: ANN401 -- a value of any shape
    """Return a value as Arrow tells it: what was left out is null, and a map is its pairs."""
    match shape:
        case Nullable(shape=inner):
            return None if value is None else in_arrow(inner, value)
        case Array(element=element):
            return [in_arrow(element, each) for each in value]
        case Map(value=inner):
            return [(name, in_arrow(inner, each)) for name, each in value.items()]
        case Struct(fields=fields):
            return {field.name: in_arrow(field.shape, value.get(field.name)) for field in fields}
    return value


@given(st.data(), STRUCTS)
def test_a_value_is_exact_in_arrow(data: st.DataObject, shape: Struct) -> None:
    """And beside it a row without a value, and one without a result, are null."""
    value = data.draw(values(shape))
    made = to_arrow([Result(parsed=value), Result(), None], arrow_type(one_of("parsed", spark_type(shape))))
    made.validate(full=True)

    assert [False, False, True] == made.is_null().to_pylist()
    assert [in_arrow(shape, value), None, None] == made.field("parsed").to_pylist()


@pytest.mark.parametrize("value", ["a", {"a": "b", "c": None}, 0.5, ["a"], None])
def test_a_value_may_be_no_struct(value: Any) -> None:  # noqa: ANN401 -- a table
    """A text, a map, a number or a list on its own stands in the column as it is, in Arrow and in pandas."""
    shapes: dict[type, Shape] = {
        str: Scalar("string"),
        dict: Map(Nullable(Scalar("string"))),
        float: Scalar("float"),
        list: Array(Scalar("string")),
    }
    shape = shapes.get(type(value), Scalar("string"))
    made = to_arrow([Result(parsed=value), None], arrow_type(one_of("parsed", spark_type(shape))))

    assert [in_arrow(Nullable(shape), value), None] == made.field("parsed").to_pylist()
    assert [value, None] == to_pandas([Result(parsed=value), None], ["parsed"])["parsed"].tolist()


def refused() -> "list[tuple[StructType, str]]":
    """Return what is refused, and how the message begins; an older PySpark lacks some of the types."""
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
    rows = [(one(kind), f"a is {name}") for name, kind in kinds.items()]
    rows += [
        (one(Point()), "a is "),
        (one(ArrayType(BinaryType())), "a[] is binary"),
        (one(one(ArrayType(BinaryType()))), "a.a[] is binary"),
        (one(MapType(StringType(), ArrayType(one(NullType())))), "a{}[].a is void"),
        (one(StructType([])), "a is a struct without fields"),
        (StructType([]), "The answer's type is a struct without fields"),
        (StructType([StructField("", IntegerType())]), "The answer's type has a field without a name"),
        (one(ArrayType(StructType([StructField("", IntegerType())]))), "a[] has a field without a name"),
        (StructType([*one(IntegerType()), *one(StringType())]), "The answer's type has two fields 'a'"),
        (one(StructType([*one(IntegerType()), *one(IntegerType())])), "a has two fields 'a'"),
        (StructType([*one(IntegerType()), *one_of("A", StringType())]), "The answer's type has two fields 'a' and 'A'"),
        (one(ArrayType(StructType([*one_of("Ö", LongType()), *one_of("ö", LongType())]))), "a[] has two fields 'Ö'"),
        (StructType([StructField("\ud800", IntegerType())]), "The answer's type has a field '\\ud800'"),
    ]
    if hasattr(StringType(), "collation"):
        rows += [
            (one(StringType("UNICODE")), "a is string collate UNICODE"),
            (one(MapType(StringType("UTF8_LCASE"), IntegerType())), "a is map<string collate UTF8_LCASE,int>"),
        ]
    return rows


@pytest.mark.parametrize(("schema", "beginning"), refused(), ids=lambda value: value if isinstance(value, str) else "")
def test_what_json_schema_cannot_say_is_refused(schema: StructType, beginning: str) -> None:
    """By its path, in a sentence that ends in a next step."""
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
        (one_of("A", ArrayType(LongType())), one_of("a", ArrayType(IntegerType())), True),
        (one_of("a", LongType()), one_of("b", LongType()), False),
        (one_of("a", LongType()), StructType([*one(LongType()), *one_of("b", LongType())]), False),
        (MapType(StringType(), LongType()), MapType(StringType(), ByteType()), True),
        (MapType(StringType(), LongType()), StringType(), False),
    ],
    ids=str,
)
def test_a_column_holds_narrower_whole_numbers(column: DataType, value: DataType, fits: bool) -> None:  # noqa: FBT001 -- a table
    """At any depth, as Iceberg makes an INT of a TINYINT; else the types are the same but for names that are one."""
    assert fits == accepts(column, value, str.lower)
    assert not accepts(one_of("A", LongType()), one_of("a", LongType()), str)


def test_a_column_is_found_as_the_session_compares_names() -> None:
    """By a name in other letters, unless case counts."""
    schema = StructType([*one_of("Mood", StringType()), *one_of("id", LongType())])

    assert ["Mood", None] == [
        found and found.name for found in (find_field(schema, n, str.lower) for n in ("MOOD", "x"))
    ]
    assert [None, "Mood"] == [found and found.name for found in (find_field(schema, n, str) for n in ("mood", "Mood"))]
