"""The fingerprint of an answer: a digest of the recipe and one of the input, which the target keeps beside it.

The input is written in a canonical form and hashed by Spark's expressions alone, so the fingerprint is the same under
every version and every setting. Each value has its type and its length in front, so no two inputs have one form:

    t<bytes>:<text>            a text
    i<digits>:                 a whole number
    l<count>:<texts>           a list of texts
    c<count>:<messages>        a conversation; a message is m<role><content>, both texts, and then perhaps
    p<count>:<parts>           its parts; each has its type, text, bytes and URL, in this order
    k<count>:<calls>           its calls of tools: id, name and arguments of each, all texts
    r<bytes>:<id>              the id of the call that it answers
    b<bytes>:<SHA-256>         the bytes of an image, a PDF or audio
    u<bytes>:<URL>             an image by its URL, in a field of a template
    n                          a null inside a list, a conversation, a message, a part or a call

The columns of a custom model may have any type; `input_form` has their forms. Arguments follow each other, and so do
the fields of a template, in the order of their names. Text is the bytes that Spark holds, whether they are UTF-8 or
not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, DataType, DoubleType, NullType, StringType, StructField, StructType

from spark_llm.ai.plans import ArgumentsPlan, QueryPlan, SimilarityPlan
from spark_llm.enrich.fingerprints.input_form import (
    bytes_form,
    list_form,
    or_null,
    prompt_form,
    row_form,
    text_form,
    whole_form,
)
from spark_llm.errors import InputTypeError
from spark_llm.protocol.canonical import spec_digest
from spark_llm.protocol.template import PromptBuilder
from spark_llm.udf.arguments import Arguments
from spark_llm.udf.columns import arrow_rows
from spark_llm.udf.input_rows import arrow_input_rows, column_names
from spark_llm.udf.model_udf import ModelPlan
from spark_llm.udf.plan import Plan
from spark_llm.udf.predict_udf import PredictPlan
from spark_llm.udf.rerank_udf import RerankPlan
from spark_llm.udf.spark_types import arrow_type
from spark_llm.udf.template_columns import CONVERSATION, MEDIA, URL, arrow_prompts
from spark_llm.validation.parameter import Parameter

Argument = tuple[Column, DataType]

_FORM = 1  # of the canonical form; another one asks every row again
_DIGITS = 32
# A text that is blank for Python's str.strip() asks nothing; Java's \s is another set.
_NOT_BLANK = (
    r"[^\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"  # as Java writes it
)


def fingerprint(plan: Plan, arguments: Sequence[Argument]) -> Column:
    """Return the column of fingerprints of a call: the columns that the UDF was called on, each with its type.

    It is a string, `1-<16 digits of the recipe>-<32 digits of the input>`. It is null where the row asks nothing: where
    its input is null, a field of its template or one of its arguments is, or a text to embed, a text to extract from or
    a query is blank.

    Raises `InputTypeError`, in the words of the workers, for a type that they cannot read.
    """
    check_arrow_types(plan, arguments)
    canonical = F.concat(*_canonical_inputs(plan, arguments))
    digits = F.substring(F.sha2(canonical.cast(BinaryType()), 256), 1, _DIGITS)
    return F.concat(F.lit(f"{_FORM}-{spec_digest(plan.canonical)}-"), digits)


def check_arrow_types(plan: Plan, arguments: Sequence[Argument]) -> None:
    """Raise the `InputTypeError` of the workers for a type that they cannot read: their readers get an empty batch."""
    rows: Iterator[object]
    match plan:
        case PredictPlan(task=task):
            batch = _empty_batch(arguments)
            rows = arrow_input_rows(iter([batch]), replace(task, columns=column_names(batch)))
        case ModelPlan(spec=spec) if spec.prompt is not None:
            rows = arrow_prompts(iter([_empty_batch(_template_fields(spec.prompt, arguments))]), spec.prompt)
        case ModelPlan(takes_conversations=conversations):
            rows = arrow_rows(iter([_empty_batch(arguments)]), conversations=conversations)
        case _:
            rows = Arguments(*_signature(plan)).arrow(iter([_empty_batch(arguments)]))
    for _ in rows:
        pass


def _canonical_inputs(plan: Plan, arguments: Sequence[Argument]) -> list[Column]:
    """Return the canonical form of each argument; where one is null the row asks nothing."""
    match plan:
        case PredictPlan():
            return [row_form(column, kind) for column, kind in arguments]
        case ModelPlan(spec=spec) if spec.prompt is not None:
            return _template_inputs(spec.prompt, arguments)
        case ModelPlan(skips_blanks=skips_blanks):
            [(column, kind)] = arguments
            form = prompt_form(column, kind)
            return [_unless_blank(column, form) if skips_blanks else form]
    parameters = _signature(plan)[1]
    if isinstance(plan, QueryPlan):
        parameters = parameters[: len(arguments)]  # without files it has the form that it had before there were any
    forms = _function_inputs(parameters, arguments)
    match plan:
        case SimilarityPlan() | RerankPlan():
            return [
                _unless_blank(column, form) if parameter.kind == "text" else form
                for parameter, (column, _), form in zip(parameters, arguments, forms, strict=True)
            ]
        case QueryPlan():
            endpoint, *request = forms
            return [or_null(endpoint), *request]  # no endpoint for a request is an error of the job's, not a null
        case _:
            return forms


def _signature(plan: Plan) -> tuple[str, Sequence[Parameter]]:
    """Return the name of a function of several columns, and its parameters."""
    if not isinstance(plan, (ArgumentsPlan, RerankPlan)):
        raise NotImplementedError(f"The inputs of {type(plan).__name__} have no canonical form yet.")
    return plan.signature


def _function_inputs(parameters: Sequence[Parameter], arguments: Sequence[Argument]) -> list[Column]:
    """Return the canonical form of each argument; one that was left out is its default."""
    left_out = [(F.lit(each.default), NullType()) for each in parameters[len(arguments) :]]
    return [
        _argument_form(parameter, column, kind)
        for parameter, (column, kind) in zip(parameters, [*arguments, *left_out], strict=True)
    ]


def _argument_form(parameter: Parameter, column: Column, kind: DataType) -> Column:
    forms = {"text": text_form, "texts": _texts, "whole": whole_form, "file": bytes_form}
    if parameter.kind == "labels" and isinstance(kind, ArrayType):
        return _texts(column)
    if parameter.kind == "number":
        return row_form(column.cast(DoubleType()), DoubleType())
    return forms[parameter.kind](column) if parameter.kind in forms else row_form(column, kind)


def _template_inputs(prompt: PromptBuilder, arguments: Sequence[Argument]) -> list[Column]:
    """Return the canonical form of each field of a template, out of the struct that has them."""
    column, struct = arguments[0]
    if len(arguments) != 1 or not isinstance(struct, StructType):
        return [F.lit(None).cast(StringType())]  # `check_arrow_types` lets only a null pass
    # By their places: Spark finds no field by a name that another one has in another case.
    by_place = column.cast(StructType([StructField(f"f{n}", field.dataType) for n, field in enumerate(struct.fields)]))
    found = {field.name: (by_place.getField(f"f{n}"), field.dataType) for n, field in enumerate(struct.fields)}
    return [_field(prompt, name, found) for name in sorted(prompt.fields)]


def _field(prompt: PromptBuilder, name: str, found: Mapping[str, Argument]) -> Column:
    """Return the canonical form of a template's field: that of the first of its columns which is not null."""
    if f"{URL}{name}" in found:
        return text_form(found[f"{URL}{name}"][0], "u")
    names = [*([CONVERSATION] if _is_conversation(prompt, name, found) else []), f"{MEDIA}{name}", name]
    return F.coalesce(*(prompt_form(*found[each]) for each in names if each in found))


def _is_conversation(prompt: PromptBuilder, name: str, found: Mapping[str, Argument]) -> bool:
    """Return whether a field is a conversation, in a column of its own."""
    is_list = CONVERSATION in found and isinstance(found[CONVERSATION][1], ArrayType)
    return name == prompt.conversation_field and is_list


def _template_fields(prompt: PromptBuilder, arguments: Sequence[Argument]) -> Sequence[Argument]:
    """Return the struct of a template's fields as a worker reads it: a conversation under its own name."""
    column, struct = arguments[0]
    if len(arguments) != 1 or not isinstance(struct, StructType):
        return arguments
    found = {field.name: (column, field.dataType) for field in struct}
    for name in prompt.fields:
        if _is_conversation(prompt, name, found):
            found[name] = found[CONVERSATION]
    return [(column, StructType([StructField(name, kind) for name, (_, kind) in found.items()]))]


def _empty_batch(arguments: Sequence[Argument]) -> pa.Array | tuple[pa.Array, ...]:
    """Return a batch of these columns without rows, as a worker gets it."""
    arrays = tuple(pa.array([], _arrow(kind)) for _, kind in arguments)
    return arrays[0] if len(arrays) == 1 else arrays


def _arrow(kind: DataType) -> pa.DataType:
    try:
        return arrow_type(kind)
    except PySparkException:
        raise InputTypeError(
            f"The UDF was called on {kind.simpleString()}, which no worker can read.", "cast it to a string."
        ) from None


def _texts(column: Column) -> Column:
    return list_form("l", column, lambda text: or_null(text_form(text)))


def _unless_blank(column: Column, form: Column) -> Column:
    return F.when(column.cast(StringType()).rlike(_NOT_BLANK), form)
