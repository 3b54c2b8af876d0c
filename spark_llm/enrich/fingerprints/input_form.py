"""The canonical form of a value of any type, as a column of text: what a custom model is asked about.

Each value has its type and its length, or its end, in front or behind it, so no two values have one form, and no
setting of Spark and no version of Java changes one:

    t<bytes>:<text>                 a text
    i<digits>:                      a whole number
    b<bytes>:<SHA-256>              bytes
    o<hash>:                        a boolean; f a FLOAT, d a DOUBLE, D a date, T a TIMESTAMP, N a TIMESTAMP_NTZ
    x<digits>:                      a decimal, as "1,234.50"
    a<count>:<values>               an array
    s<count>:<names and values>     a struct; names are texts
    k<count>:<keys and values>      a map, in the order of the forms of its entries
    v<bytes>:<text>                 a value of any other type, such as an interval, as text: in keys only
    n                               a null inside another value

A hash is Spark's xxhash64 of a number of at most 64 bits, which is another one for each other number.
"""

from collections.abc import Callable, Collection, Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F
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

_HASHED: dict[type[DataType], str] = {
    BooleanType: "o",
    FloatType: "f",
    DoubleType: "d",
    DateType: "D",
    TimestampType: "T",
    TimestampNTZType: "N",
}


def text_form(column: Column, prefix: str = "t") -> Column:
    """Return the form of a text."""
    plain = column.cast(StringType())  # without a collation
    return F.concat(F.lit(prefix), F.octet_length(plain).cast(StringType()), F.lit(":"), plain)


def whole_form(column: Column) -> Column:
    """Return the form of a whole number."""
    return F.concat(F.lit("i"), column.cast(StringType()), F.lit(":"))


def bytes_form(column: Column) -> Column:
    """Return the form of bytes."""
    plain = column.cast(BinaryType())  # also a null without a type
    return F.concat(F.lit("b"), F.octet_length(plain).cast(StringType()), F.lit(":"), F.sha2(plain, 256))


def list_form(prefix: str, column: Column, form: Callable[[Column], Column]) -> Column:
    """Return the form of an array whose elements have this form."""
    count = F.array_size(column).cast(StringType())  # null for a null, whatever Spark's settings say of sizes
    return F.concat(F.lit(prefix), count, F.lit(":"), F.array_join(F.transform(column, form), ""))


def or_null(form: Column) -> Column:
    """Return a form, or that of a null."""
    return F.coalesce(form, F.lit("n"))


def prompt_form(column: Column, kind: DataType) -> Column:
    """Return the form of a text, a conversation, or the bytes of media."""
    if isinstance(kind, ArrayType):
        return _conversation(column, kind)
    return bytes_form(column) if isinstance(kind, BinaryType) else text_form(column)


def row_form(column: Column, kind: DataType) -> Column:
    """Return the form of a model's input; null for a row that asks nothing: null, or a struct of nothing but nulls."""
    placed = column.cast(_placed(kind))
    form = _form(placed, kind)
    if not isinstance(kind, StructType):
        return form
    fields = [placed.getField(f"f{place}").isNotNull() for place, _ in enumerate(kind)]
    asks = fields[0]
    for field in fields[1:]:
        asks |= field
    return F.when(placed.isNotNull() & asks, form)


def _form(column: Column, kind: DataType) -> Column:  # noqa: PLR0911 -- one for each kind of type
    """Return the form of a value of a type whose structs have numbers for names; null for a null."""
    match kind:
        case StringType():
            return text_form(column)
        case ByteType() | ShortType() | IntegerType() | LongType():
            return whole_form(column)
        case BinaryType():
            return bytes_form(column)
        case DecimalType():
            return F.concat(F.lit("x"), F.format_number(column, kind.scale), F.lit(":"))
        case ArrayType():
            return list_form("a", column, lambda each: or_null(_form(each, kind.elementType)))
        case MapType():
            return _map_form(column, kind)
        case StructType():
            parts = [F.lit(f"s{len(kind)}:")]
            for place, field in enumerate(kind):
                parts += [text_form(F.lit(field.name)), or_null(_form(column.getField(f"f{place}"), field.dataType))]
            return F.when(column.isNotNull(), F.concat(*parts))
        case _ if type(kind) in _HASHED:
            return _hash_form(_HASHED[type(kind)], column)
    return text_form(column, "v")  # in a key; of a model's input the workers' check lets no other type pass


def _hash_form(prefix: str, column: Column) -> Column:
    return F.when(column.isNotNull(), F.concat(F.lit(prefix), F.xxhash64(column).cast(StringType()), F.lit(":")))


def _map_form(column: Column, kind: MapType) -> Column:
    def entry(pair: Column) -> Column:
        return F.concat(text_form(pair.getField("key")), or_null(_form(pair.getField("value"), kind.valueType)))

    entries = F.map_entries(column)
    count = F.array_size(entries).cast(StringType())
    return F.concat(F.lit("k"), count, F.lit(":"), F.array_join(F.array_sort(F.transform(entries, entry)), ""))


def _placed(kind: DataType) -> DataType:
    """Return the type with numbers for the names of fields: Spark finds none by a name that another has in capitals."""
    match kind:
        case StructType(fields=fields):
            return StructType([StructField(f"f{n}", _placed(field.dataType)) for n, field in enumerate(fields)])
        case ArrayType(elementType=element):
            return ArrayType(_placed(element))
        case MapType(keyType=key, valueType=value):
            return MapType(key, _placed(value))
    return kind


def _conversation(column: Column, kind: ArrayType) -> Column:
    fields = _fields_of(kind)
    parts = fields.get("parts")

    def message(each: Column) -> Column:  # without parts and calls it has the same form as without these fields
        forms = [or_null(text_form(each.getField(name))) for name in ("role", "content")]
        if isinstance(parts, ArrayType):
            names = _fields_of(parts)
            form = list_form("p", each.getField("parts"), lambda part: _part(part, names))
            forms.append(F.coalesce(F.nullif(form, F.lit("p0:")), F.lit("")))
        if "tool_calls" in fields:
            calls = each.getField("tool_calls")
            forms.append(F.when(F.array_size(calls) > 0, list_form("k", calls, _call)).otherwise(F.lit("")))
        if "tool_call_id" in fields:
            answered = each.getField("tool_call_id")
            forms.append(F.when(answered != "", text_form(answered, "r")).otherwise(F.lit("")))
        return F.when(each.isNotNull(), F.concat(F.lit("m"), *forms)).otherwise(F.lit("n"))

    return list_form("c", column, message)


def _call(each: Column) -> Column:
    return F.concat(*(or_null(text_form(each.getField(name))) for name in ("id", "name", "arguments")))


def _part(each: Column, names: Collection[str]) -> Column:
    """Return the canonical form of a part of a message; a field that the struct lacks is null."""
    forms = {"type": text_form, "text": text_form, "data": bytes_form, "url": text_form}
    return F.concat(
        *(or_null(form(each.getField(name))) if name in names else F.lit("n") for name, form in forms.items())
    )


def _fields_of(kind: ArrayType) -> Mapping[str, DataType]:
    """Return the types of the fields of an array of structs."""
    element = kind.elementType
    return {field.name: field.dataType for field in element} if isinstance(element, StructType) else {}
