"""The struct of columns that fills a template: built where the UDF is called, read on the workers.

Spark's settings decide how a number or a time becomes text. So the struct casts columns that are passed by name, and
workers take strings. A column's type is unknown where the UDF is called, so two extra fields describe it. Spark folds
them into constants, and they cost a row nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_llm.errors import ConfigError, InputTypeError
from spark_llm.protocol.template import PromptBuilder
from spark_llm.protocol.values import Row
from spark_llm.udf.columns import SLICE_ROWS, is_prompt_type, prompt_from_cell, prompts_of
from spark_llm.udf.spark_types import spark_name

# The extra fields of the struct; no field of a template has a name like these.
_UNSUPPORTED = "spark_llm: not a text"  # the column that cannot be cast to text, with its type, or null
CONVERSATION = "spark_llm: a conversation"  # the column that is a conversation, unchanged, or null


def template_struct(prompt: PromptBuilder, columns: Mapping[str, Column | str]) -> Column:
    """Return the struct of columns passed by name; raises `ConfigError` if they are not the template's fields."""
    if set(columns) != set(prompt.fields):
        raise ConfigError(
            f"The template has the fields {_join(prompt.fields)}; the UDF was called with {_join(columns)}.",
            f"name every field and nothing else: ({_example_arguments(prompt)}).",
        )
    for name, column in columns.items():
        if not isinstance(column, (Column, str)):
            raise ConfigError(
                f"{name}={column!r} is not a column.", "pass a column or its name; write a value as F.lit(value)."
            )
    in_order = ((name, columns[name]) for name in prompt.fields)
    by_field = {name: F.col(column) if isinstance(column, str) else column for name, column in in_order}
    parts = {name: column.cast("string") for name, column in by_field.items()}
    parts[_UNSUPPORTED] = F.coalesce(*(_unsupported(prompt, name, column) for name, column in by_field.items()))
    if prompt.conversation_field:
        column = by_field[prompt.conversation_field]
        parts[CONVERSATION] = F.when(F.typeof(column).startswith("array<"), column)
    # Not F.struct with aliases: over an inline struct Spark then fails to name the result column.
    return F.named_struct(*(part for name, value in parts.items() for part in (F.lit(name), value)))


def _unsupported(prompt: PromptBuilder, name: str, column: Column) -> Column:
    """Return the field's name with its type if it cannot be cast to text, else null."""
    unsupported = "map|struct|binary" if name == prompt.conversation_field else "array|map|struct|binary"
    type_name = F.typeof(column)
    return F.when(type_name.rlike(rf"^({unsupported})\b"), F.concat(F.lit(f"{name} is "), type_name))


def arrow_prompts(batches: Iterator[pa.Array], prompt: PromptBuilder) -> Iterator[Sequence[Row]]:
    """Read Arrow batches of structs as the prompts of their rows, slice by slice; None for a row with a null field."""
    for batch in batches:
        columns = _arrow_fields(batch, prompt)
        for start in range(0, len(batch), SLICE_ROWS):
            slices = {name: column.slice(start, SLICE_ROWS) for name, column in columns.items()}
            yield prompt.build({name: prompts_of(array) for name, array in slices.items()})


def _arrow_fields(batch: pa.Array, prompt: PromptBuilder) -> dict[str, pa.Array]:
    if not isinstance(batch, pa.Array):
        raise _struct_error("several columns", prompt)
    if pa.types.is_null(batch.type):
        return dict.fromkeys(prompt.fields, batch)
    if not pa.types.is_struct(batch.type):
        raise _struct_error(spark_name(batch.type), prompt)
    columns = dict(zip([field.name for field in batch.type], batch.flatten(), strict=True))
    columns = _template_fields(columns, lambda column: column.null_count < len(column), prompt)
    for name, column in columns.items():
        if not is_prompt_type(column.type, conversations=name == prompt.conversation_field):
            raise _field_error(f"{name} is {spark_name(column.type)}", prompt)
    return columns


def pandas_prompts(batches: Iterator[pd.Series | pd.DataFrame], prompt: PromptBuilder) -> Iterator[Sequence[Row]]:
    """Read pandas batches of structs (frames) as the prompts of their rows, slice by slice."""
    for batch in batches:
        columns = _pandas_fields(batch, prompt)
        for start in range(0, len(batch), SLICE_ROWS):
            slices = {name: column.iloc[start : start + SLICE_ROWS] for name, column in columns.items()}
            yield prompt.build({name: _prompts_from(name, series, prompt) for name, series in slices.items()})


def _pandas_fields(batch: Any, prompt: PromptBuilder) -> dict[str, pd.Series]:  # noqa: ANN401 -- whatever Spark makes of columns
    if isinstance(batch, pd.Series) and bool(batch.isna().all()):  # any type may hold only nulls
        return dict.fromkeys(prompt.fields, batch)
    if not isinstance(batch, pd.DataFrame):
        raise _struct_error("a column of another type" if isinstance(batch, pd.Series) else "several columns", prompt)
    columns = _template_fields(
        {str(name): column for name, column in batch.items()}, lambda column: bool(column.notna().any()), prompt
    )
    for name, column in columns.items():
        if column.dtype != object and not isinstance(column.dtype, pd.StringDtype):
            raise _field_error(f"{name} is {column.dtype}", prompt)
    return columns


def _prompts_from(name: str, column: pd.Series, prompt: PromptBuilder) -> list[Row]:
    def type_error(found: str) -> InputTypeError:
        return _field_error(f"{name} is {found}", prompt)

    return [prompt_from_cell(cell, type_error, conversations=name == prompt.conversation_field) for cell in column]


def _template_fields(
    columns: Mapping[str, Any], has_values: Callable[[Any], bool], prompt: PromptBuilder
) -> dict[str, Any]:
    """Return the column of each template field; raises `InputTypeError` for a field that is absent or not a text."""
    for name in prompt.fields:
        if name not in columns:
            found = _join([name for name in columns if name not in (_UNSUPPORTED, CONVERSATION)])
            raise _struct_error(f"a struct of {found}, without {name}", prompt)
    fields = {name: columns[name] for name in prompt.fields}
    if _UNSUPPORTED in columns and has_values(columns[_UNSUPPORTED]):
        raise _field_error(columns[_UNSUPPORTED].tolist()[0], prompt)
    if CONVERSATION in columns and prompt.conversation_field and has_values(columns[CONVERSATION]):
        fields[prompt.conversation_field] = columns[CONVERSATION]
    return fields


def _struct_error(found: str, prompt: PromptBuilder) -> InputTypeError:
    return InputTypeError(
        f"The template takes a struct with the fields {_join(prompt.fields)}; the UDF was called on {found}.",
        f"call it with the columns by name, ({_example_arguments(prompt)}), or in SQL on"
        f" named_struct('{prompt.fields[0]}', …).",
    )


def _field_error(found: str, prompt: PromptBuilder) -> InputTypeError:
    note = (
        f" ({prompt.conversation_field} may be array<struct<role:string,content:string>>)"
        if prompt.conversation_field
        else ""
    )
    return InputTypeError(
        f"The template's fields are strings{note}, and {found}.",
        "pass a number or a time by name in the call, which casts it, or cast it in the struct, in SQL with"
        " CAST(… AS STRING); write an array, a map or a struct with to_json().",
    )


def _join(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _example_arguments(prompt: PromptBuilder) -> str:
    return ", ".join(f"{name}=…" for name in prompt.fields)
