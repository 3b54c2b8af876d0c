"""What a row asks, as a short text that a table keeps: the recipe's digest and the input's.

The input is written in a form of its own and hashed by Spark's expressions alone, so that it is the same under every
version and every setting. In the form each value says what it is and how long, and no two inputs are written alike:

    t<bytes>:<text>            a text
    i<digits>:                 a whole number
    l<count>:<texts>           a list of texts
    c<count>:<messages>        a conversation; a message is m<role><content>, both texts
    n                          a null inside a list, a conversation or a message

Several arguments follow each other, and so do the fields of a template, in the order of their names. Text is the bytes
that Spark holds, whether they are UTF-8 or not.
"""

from collections.abc import Callable, Sequence

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, DataType, StringType, StructField, StructType

from spark_llm.ai.arguments import Arguments
from spark_llm.ai.catalog import Parameter
from spark_llm.ai.udf import PAIR, QUERY, FunctionPlan, QueryPlan, SimilarityPlan
from spark_llm.errors import InputTypeError
from spark_llm.protocol.canonical import spec_digest
from spark_llm.protocol.template import PromptBuilder
from spark_llm.udf.columns import arrow_rows
from spark_llm.udf.lazy_udf import Plan
from spark_llm.udf.model_udf import ModelPlan
from spark_llm.udf.spark_types import arrow_type
from spark_llm.udf.template_columns import CONVERSATION, arrow_prompts

Argument = tuple[Column, DataType]

_FORM = 1  # another form of inputs has another number, and asks every row again
_DIGITS = 32
# What Python's str.strip() takes for blank, which says that a text to embed asks nothing; Java's \s is another set.
_SAYS_SOMETHING = (
    r"[^\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"  # in Java's words
)


def fingerprint(plan: Plan, arguments: Sequence[Argument]) -> Column:
    """Return the column of fingerprints of a call: the columns that the UDF was called on, each with its type.

    It is a string, `1-<16 digits of the recipe>-<32 digits of the input>`; null where the row asks nothing: where its
    input is null, one of the fields of its template or one of its arguments is, or a text to embed is blank.

    Raises `InputTypeError`, in the words of the workers, for a type that cannot be asked.
    """
    form = F.concat(*_forms(plan, arguments))
    digits = F.substring(F.sha2(form.cast(BinaryType()), 256), 1, _DIGITS)
    return F.concat(F.lit(f"{_FORM}-{spec_digest(plan.canonical)}-"), digits)


def _forms(plan: Plan, arguments: Sequence[Argument]) -> list[Column]:
    """Return what is written one after the other; a null in one is a row that asks nothing."""
    match plan:
        case ModelPlan(recipe=recipe):
            if recipe.prompt is not None:
                return _fields(recipe.prompt, arguments)
            chat = recipe.task.name == "chat"
            list(arrow_rows(iter([_batch(arguments)]), conversations=chat))  # raises for a type that it cannot read
            [(column, kind)] = arguments
            form = _conversation(column) if isinstance(kind, ArrayType) else _text(column)
            return [_unless_blank(column, form) if recipe.task.name == "embed" else form]
        case FunctionPlan(function=function):
            return _arguments(f"ai_{function.name}", function.parameters, arguments)
        case SimilarityPlan():
            forms = _arguments("ai_similarity", PAIR, arguments)
            return [_unless_blank(column, form) for (column, _), form in zip(arguments, forms, strict=True)]
        case QueryPlan():
            endpoint, request = _arguments("ai_query", QUERY, arguments)
            return [_or_null(endpoint), request]  # no endpoint for a request is an error of the job's, not a null
    raise NotImplementedError(f"The inputs of {type(plan).__name__} have no canonical form yet.")


def _arguments(name: str, parameters: Sequence[Parameter], arguments: Sequence[Argument]) -> list[Column]:
    """Return the arguments' forms; one that was left out is its default."""
    list(Arguments(name, parameters).arrow(iter([_batch(arguments)])))  # raises for what it cannot read
    written = {"text": _text, "texts": _texts, "whole": _whole}
    given = [column for column, _ in arguments]
    given += [F.lit(parameter.default) for parameter in parameters[len(given) :]]
    return [written[parameter.kind](column) for parameter, column in zip(parameters, given, strict=True)]


def _fields(prompt: PromptBuilder, arguments: Sequence[Argument]) -> list[Column]:
    """Return the forms of a template's fields, out of the struct that has them."""
    struct = arguments[0][1] if len(arguments) == 1 else None
    if not isinstance(struct, StructType):
        list(arrow_prompts(iter([_batch(arguments)]), prompt))  # raises for all but a null
        return [F.lit(None).cast(StringType())]
    places = {field.name: place for place, field in enumerate(struct.fields)}
    helper = places.pop(CONVERSATION, None)
    if prompt.conversation_field and helper is not None and isinstance(struct[helper].dataType, ArrayType):
        places[prompt.conversation_field] = helper
    kinds = {name: struct[place].dataType for name, place in places.items()}
    column = arguments[0][0]
    chosen = StructType([StructField(name, kind) for name, kind in kinds.items()])
    list(arrow_prompts(iter([_batch([(column, chosen)])]), prompt))  # raises for a field that it cannot read
    # By their places: Spark finds no field by a name that another one has in other letters.
    by_place = column.cast(StructType([StructField(f"f{n}", field.dataType) for n, field in enumerate(struct.fields)]))
    return [
        (_conversation if isinstance(kinds[name], ArrayType) else _text)(by_place.getField(f"f{places[name]}"))
        for name in sorted(prompt.fields)
    ]


def _batch(arguments: Sequence[Argument]) -> pa.Array | tuple[pa.Array, ...]:
    """Return no rows of these columns, as a worker gets them: what it refuses is then refused here."""
    arrays = tuple(pa.array([], _arrow(kind)) for _, kind in arguments)
    return arrays[0] if len(arrays) == 1 else arrays


def _arrow(kind: DataType) -> pa.DataType:
    try:
        return arrow_type(kind)
    except PySparkException:
        raise InputTypeError(
            f"The UDF was called on {kind.simpleString()}, which no worker can read.", "cast it to a string."
        ) from None


def _text(column: Column) -> Column:
    plain = column.cast(StringType())  # without a collation
    return F.concat(F.lit("t"), F.octet_length(plain).cast(StringType()), F.lit(":"), plain)


def _whole(column: Column) -> Column:
    return F.concat(F.lit("i"), column.cast(StringType()), F.lit(":"))


def _texts(column: Column) -> Column:
    return _listed("l", column, lambda text: _or_null(_text(text)))


def _conversation(column: Column) -> Column:
    def message(each: Column) -> Column:
        parts = (_or_null(_text(each.getField(name))) for name in ("role", "content"))
        return F.when(each.isNotNull(), F.concat(F.lit("m"), *parts)).otherwise(F.lit("n"))

    return _listed("c", column, message)


def _listed(mark: str, column: Column, form: Callable[[Column], Column]) -> Column:
    count = F.array_size(column).cast(StringType())  # null for a null, whatever Spark's settings say of sizes
    return F.concat(F.lit(mark), count, F.lit(":"), F.array_join(F.transform(column, form), ""))


def _or_null(form: Column) -> Column:
    return F.coalesce(form, F.lit("n"))


def _unless_blank(column: Column, form: Column) -> Column:
    return F.when(column.cast(StringType()).rlike(_SAYS_SOMETHING), form)
