"""The columns that fill a template: one struct, made where the UDF is called and read on the workers.

Only Spark knows how it writes a number or a time as text (its settings decide), so columns that are given by name are
cast in the struct, and the workers take strings. A column's type is not known where the UDF is called: what the struct
says of it beside its fields is folded into constants by Spark, and costs a row nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_llm.errors import ConfigError, InputTypeError
from spark_llm.protocol.template import PromptBuilder
from spark_llm.protocol.values import Item
from spark_llm.udf.columns import SLICE_ROWS, askable, from_pandas, python_values
from spark_llm.udf.spark_types import spark_name

# Beside the fields; no field has a name like these.
_REFUSED = "spark_llm: not a text"  # which column cannot be written as text, or null
CONVERSATION = "spark_llm: a conversation"  # the column that is one, as it is, or null


def by_name(prompt: PromptBuilder, columns: Mapping[str, Column | str]) -> Column:
    """Return the struct of these columns; raises `ConfigError` where they are not the template's fields."""
    if set(columns) != set(prompt.fields):
        raise ConfigError(
            f"The template has the fields {_listed(prompt.fields)}; the UDF was called with {_listed(columns)}.",
            f"name every field and nothing else: ({_sample(prompt)}).",
        )
    for name, column in columns.items():
        if not isinstance(column, (Column, str)):
            raise ConfigError(f"{name}={column!r} is no column.", "pass a column or its name; a value is F.lit(value).")
    found = ((name, columns[name]) for name in prompt.fields)
    given = {name: F.col(column) if isinstance(column, str) else column for name, column in found}
    parts = {name: column.cast("string") for name, column in given.items()}
    parts[_REFUSED] = F.coalesce(*(_refused(prompt, *pair) for pair in given.items()))
    if prompt.conversation_field:
        column = given[prompt.conversation_field]
        parts[CONVERSATION] = F.when(F.typeof(column).startswith("array<"), column)
    # Not F.struct with aliases: Spark makes up no name for an answer where one stands over an inline struct, and fails.
    return F.named_struct(*(part for name, value in parts.items() for part in (F.lit(name), value)))


def _refused(prompt: PromptBuilder, name: str, column: Column) -> Column:
    kinds = "map|struct|binary" if name == prompt.conversation_field else "array|map|struct|binary"
    kind = F.typeof(column)
    return F.when(kind.rlike(rf"^({kinds})\b"), F.concat(F.lit(f"{name} is "), kind))


def arrow_prompts(batches: Iterator[pa.Array], prompt: PromptBuilder) -> Iterator[Sequence[Item | None]]:
    """Read Arrow batches of structs as what their rows ask, slice by slice; null where a field is."""
    for batch in batches:
        columns = _arrow_fields(batch, prompt)
        for start in range(0, len(batch), SLICE_ROWS):
            pieces = {name: column.slice(start, SLICE_ROWS) for name, column in columns.items()}
            yield prompt.build({name: python_values(piece) for name, piece in pieces.items()})


def _arrow_fields(batch: pa.Array, prompt: PromptBuilder) -> dict[str, pa.Array]:
    if not isinstance(batch, pa.Array):
        raise _no_struct("several columns", prompt)
    if pa.types.is_null(batch.type):
        return dict.fromkeys(prompt.fields, batch)
    if not pa.types.is_struct(batch.type):
        raise _no_struct(spark_name(batch.type), prompt)
    columns = dict(zip([field.name for field in batch.type], batch.flatten(), strict=True))
    columns = _chosen(columns, lambda column: column.null_count < len(column), prompt)
    for name, column in columns.items():
        if not askable(column.type, conversations=name == prompt.conversation_field):
            raise _no_text(f"{name} is {spark_name(column.type)}", prompt)
    return columns


def pandas_prompts(
    batches: Iterator[pd.Series | pd.DataFrame], prompt: PromptBuilder
) -> Iterator[Sequence[Item | None]]:
    """Read pandas batches of structs, which are frames, as what their rows ask, slice by slice."""
    for batch in batches:
        columns = _pandas_fields(batch, prompt)
        for start in range(0, len(batch), SLICE_ROWS):
            pieces = {name: column.iloc[start : start + SLICE_ROWS] for name, column in columns.items()}
            yield prompt.build({name: _cells(name, piece, prompt) for name, piece in pieces.items()})


def _pandas_fields(batch: Any, prompt: PromptBuilder) -> dict[str, pd.Series]:  # noqa: ANN401 -- whatever Spark makes of columns
    if isinstance(batch, pd.Series) and bool(batch.isna().all()):  # a column of nulls may be of any type
        return dict.fromkeys(prompt.fields, batch)
    if not isinstance(batch, pd.DataFrame):
        raise _no_struct("a column that is none" if isinstance(batch, pd.Series) else "several columns", prompt)
    columns = _chosen(
        {str(name): column for name, column in batch.items()}, lambda column: bool(column.notna().any()), prompt
    )
    for name, column in columns.items():
        if column.dtype != object and not isinstance(column.dtype, pd.StringDtype):
            raise _no_text(f"{name} is {column.dtype}", prompt)
    return columns


def _cells(name: str, column: pd.Series, prompt: PromptBuilder) -> list[Item | None]:
    def wrong_type(found: str) -> InputTypeError:
        return _no_text(f"{name} is {found}", prompt)

    return [from_pandas(cell, wrong_type, conversations=name == prompt.conversation_field) for cell in column]


def _chosen(columns: Mapping[str, Any], has_values: Callable[[Any], bool], prompt: PromptBuilder) -> dict[str, Any]:
    """Return the column of each field, from those of the struct."""
    for name in prompt.fields:
        if name not in columns:
            shown = _listed([name for name in columns if name not in (_REFUSED, CONVERSATION)])
            raise _no_struct(f"a struct of {shown}, without {name}", prompt)
    chosen = {name: columns[name] for name in prompt.fields}
    if _REFUSED in columns and has_values(columns[_REFUSED]):
        raise _no_text(columns[_REFUSED].tolist()[0], prompt)
    if CONVERSATION in columns and prompt.conversation_field and has_values(columns[CONVERSATION]):
        chosen[prompt.conversation_field] = columns[CONVERSATION]
    return chosen


def _no_struct(found: str, prompt: PromptBuilder) -> InputTypeError:
    return InputTypeError(
        f"The template takes a struct with the fields {_listed(prompt.fields)}; the UDF was called on {found}.",
        f"call it with the columns by name, ({_sample(prompt)}), or in SQL on named_struct('{prompt.fields[0]}', …).",
    )


def _no_text(found: str, prompt: PromptBuilder) -> InputTypeError:
    but = (
        f" ({prompt.conversation_field} may be array<struct<role:string,content:string>>)"
        if prompt.conversation_field
        else ""
    )
    return InputTypeError(
        f"The template's fields are strings{but}, and {found}.",
        "give a number or a time by name in the call, which casts it, or cast it in the struct, CAST(… AS STRING) in"
        " SQL; write an array, a map or a struct with to_json().",
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _sample(prompt: PromptBuilder) -> str:
    return ", ".join(f"{name}=…" for name in prompt.fields)
