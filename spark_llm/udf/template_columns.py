"""The struct of columns that fills a template: built where the UDF is called, read on the workers.

Spark's settings decide how a number or a time becomes text. So the struct casts columns that are passed by name, and
workers take strings. A column's type is unknown where the UDF is called, so extra fields describe it, and hold what is
no text. Spark folds those that do not apply into constants, and they cost a row next to nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_llm.errors import ConfigError, InputTypeError
from spark_llm.protocol.media import Media, MediaError, media_at, media_of
from spark_llm.protocol.template import PromptBuilder
from spark_llm.protocol.values import Row, RowError
from spark_llm.udf.by_url import by_url
from spark_llm.udf.columns import hint_for, is_prompt_type, prompt_from_cell, prompts_of
from spark_llm.udf.conversations import CONVERSATION_TYPE, invalid_row
from spark_llm.udf.slices import arrow_slices, is_binary, pandas_slices, python_values
from spark_llm.udf.spark_types import spark_name

# The extra fields of the struct; no field of a template has a name like these.
_EXTRA = "spark_llm: "
_UNSUPPORTED = f"{_EXTRA}not a text"  # the column of an unsupported type, with this type, or null
CONVERSATION = f"{_EXTRA}a conversation"  # the column that is a conversation, unchanged, or null
MEDIA = f"{_EXTRA}the bytes of "  # before the name of a field: its column where that is binary, or null
URL = f"{_EXTRA}the URL of "  # before the name of a field: its column, which was passed `by_url`

_Makers = Mapping[str, Callable[[Any], Media]]  # by field, what makes media of its values


def template_struct(prompt: PromptBuilder, columns: Mapping[str, Column | str | by_url]) -> Column:
    """Return the struct of columns passed by name; raises `ConfigError` if they are not the template's fields."""
    if set(columns) != set(prompt.fields):
        raise ConfigError(
            f"The template has the fields {_join(prompt.fields)}; the UDF was called with {_join(columns)}.",
            f"name every field and nothing else: ({_example_arguments(prompt)}).",
        )
    parts, unsupported = dict[str, Column](), list[Column]()
    for name in prompt.fields:
        column = _column(prompt, name, columns[name])
        parts |= _own_fields(prompt, name, column, by_its_url=isinstance(columns[name], by_url))
        unsupported.append(_unsupported(prompt, name, column, by_its_url=isinstance(columns[name], by_url)))
    parts[_UNSUPPORTED] = F.coalesce(*unsupported)
    if prompt.conversation_field and f"{URL}{prompt.conversation_field}" not in parts:
        column = _column(prompt, prompt.conversation_field, columns[prompt.conversation_field])
        parts[CONVERSATION] = F.when(F.typeof(column).startswith("array<"), column)
    # Not F.struct with aliases: over an inline struct Spark then fails to name the result column.
    return F.named_struct(*(part for name, value in parts.items() for part in (F.lit(name), value)))


def _column(prompt: PromptBuilder, name: str, given: Column | str | by_url) -> Column:
    """Return the column of a field; raises `ConfigError` for what is none."""
    column = given.column if isinstance(given, by_url) else given
    if not isinstance(column, (Column, str)):
        raise ConfigError(
            f"{name}={given!r} is not a column.", "pass a column or its name; write a value as F.lit(value)."
        )
    if isinstance(given, by_url) and not prompt.takes_media(name):
        raise ConfigError(
            f"{name}=by_url(…) is an image, which {'system=' if prompt.allows_conversations else 'this UDF'} cannot"
            " hold.",
            "put the field into template= of chat_udf alone.",
        )
    return F.col(column) if isinstance(column, str) else column


def _own_fields(prompt: PromptBuilder, name: str, column: Column, *, by_its_url: bool) -> dict[str, Column]:
    """Return the struct's fields for one field of the template."""
    text, type_name = column.cast("string"), F.typeof(column)
    if by_its_url:
        return {f"{URL}{name}": text}
    parts = {name: F.when(type_name != "binary", text)}
    if prompt.takes_media(name):
        # The cast to a string and back changes no byte, and has one type, whatever that of the column is.
        parts[f"{MEDIA}{name}"] = F.when(type_name == "binary", text.cast("binary"))
    return parts


def _unsupported(prompt: PromptBuilder, name: str, column: Column, *, by_its_url: bool) -> Column:
    """Return the field's name with its type if the field cannot hold that, else null."""
    unsupported = {"array", "map", "struct", "binary"}
    if name == prompt.conversation_field:
        unsupported.discard("array")
    if prompt.takes_media(name):
        unsupported.discard("binary")
    pattern = r"^(?!(string|void)\b)" if by_its_url else rf"^({'|'.join(sorted(unsupported))})\b"
    type_name = F.typeof(column)
    return F.when(type_name.rlike(pattern), F.concat(F.lit(f"{name} is "), type_name))


def arrow_prompts(batches: Iterator[pa.Array], prompt: PromptBuilder) -> Iterator[Sequence[Row]]:
    """Read Arrow batches of structs as the prompts of their rows, slice by slice; None for a row with a null field."""
    for batch in batches:
        columns, makers = _arrow_fields(batch, prompt)
        yield from (
            prompt.build(
                {name: _arrow_values(name, column, makers) for name, column in part.items()}, media=bool(makers)
            )
            for part in arrow_slices(columns)
        )
        del batch, columns  # their memory is free before the next one is read


def _arrow_fields(batch: pa.Array, prompt: PromptBuilder) -> tuple[dict[str, pa.Array], _Makers]:
    if not isinstance(batch, pa.Array):
        raise _struct_error("several columns", prompt)
    if pa.types.is_null(batch.type):
        return dict.fromkeys(prompt.fields, batch), {}
    if not pa.types.is_struct(batch.type):
        raise _struct_error(spark_name(batch.type), prompt)
    columns = dict(zip([field.name for field in batch.type], batch.flatten(), strict=True))
    fields, makers = _template_fields(
        columns, lambda column: column.null_count < len(column), lambda column: is_binary(column.type), prompt
    )
    for name, column in fields.items():
        if name not in makers and not is_prompt_type(column.type, conversations=name == prompt.conversation_field):
            raise _field_error(name, spark_name(column.type), prompt)
    return fields, makers


def _arrow_values(name: str, column: pa.Array, makers: _Makers) -> list[Any]:
    if name not in makers:
        return prompts_of(column)
    return [None if value is None else _media_or_error(name, makers[name], value) for value in python_values(column)]


def pandas_prompts(batches: Iterator[pd.Series | pd.DataFrame], prompt: PromptBuilder) -> Iterator[Sequence[Row]]:
    """Read pandas batches of structs (frames) as the prompts of their rows, slice by slice."""
    for batch in batches:
        columns, makers = _pandas_fields(batch, prompt)
        yield from (
            prompt.build(
                {name: _pandas_values(name, column, makers, prompt) for name, column in part.items()},
                media=bool(makers),
            )
            for part in pandas_slices(columns)
        )
        del batch, columns  # as above


def _pandas_fields(batch: Any, prompt: PromptBuilder) -> tuple[dict[str, pd.Series], _Makers]:  # noqa: ANN401 -- whatever Spark makes of columns
    if isinstance(batch, pd.Series) and bool(batch.isna().all()):  # any type may hold only nulls
        return dict.fromkeys(prompt.fields, batch), {}
    if not isinstance(batch, pd.DataFrame):
        raise _struct_error("a column of another type" if isinstance(batch, pd.Series) else "several columns", prompt)
    fields, makers = _template_fields(
        {str(name): column for name, column in batch.items()},
        lambda column: bool(column.notna().any()),
        lambda column: isinstance(next(iter(column.dropna()), None), bytes),
        prompt,
    )
    for name, column in fields.items():
        if column.dtype != object and not isinstance(column.dtype, pd.StringDtype):
            raise _field_error(name, str(column.dtype), prompt)
    return fields, makers


def _pandas_values(name: str, column: pd.Series, makers: _Makers, prompt: PromptBuilder) -> list[Any]:
    def type_error(found: str) -> InputTypeError:
        return _field_error(name, found, prompt)

    if name in makers:
        return [
            None if missing else _media_or_error(name, makers[name], cell)
            for cell, missing in zip(column, column.isna(), strict=True)
        ]
    return [prompt_from_cell(cell, type_error, conversations=name == prompt.conversation_field) for cell in column]


def _template_fields(
    columns: Mapping[str, Any],
    has_values: Callable[[Any], bool],
    holds_bytes: Callable[[Any], bool],
    prompt: PromptBuilder,
) -> tuple[dict[str, Any], _Makers]:
    """Return the column of each template field, and what makes media of those that hold some.

    Raises `InputTypeError` for a field that is absent or of an unsupported type.
    """
    if _UNSUPPORTED in columns and has_values(columns[_UNSUPPORTED]):
        name, _, found = columns[_UNSUPPORTED].tolist()[0].partition(" is ")
        raise _field_error(name, found, prompt)
    fields, makers = dict[str, Any](), dict[str, Callable[[Any], Media]]()
    for name in prompt.fields:
        extra = [f"{URL}{name}", f"{MEDIA}{name}", *([CONVERSATION] if name == prompt.conversation_field else [])]
        known = [each for each in extra if each in columns and has_values(columns[each])]
        known += [each for each in (name, f"{URL}{name}") if each in columns]
        if not known:
            found = _join([name for name in columns if not name.startswith(_EXTRA)])
            raise _struct_error(f"a struct of {found}, without {name}", prompt)
        fields[name] = columns[known[0]]
        if known[0] == f"{URL}{name}":
            makers[name] = media_at
        elif holds_bytes(fields[name]) and prompt.takes_media(name):
            makers[name] = media_of
    return fields, makers


def _media_or_error(name: str, make: Callable[[Any], Media], value: Any) -> Media | RowError:  # noqa: ANN401 -- bytes, or a URL
    try:
        return make(value)
    except MediaError as error:
        return invalid_row(f"{name} {error}")


def _struct_error(found: str, prompt: PromptBuilder) -> InputTypeError:
    return InputTypeError(
        f"The template takes a struct with the fields {_join(prompt.fields)}; the UDF was called on {found}.",
        f"call it with the columns by name, ({_example_arguments(prompt)}), or in SQL on"
        f" named_struct('{prompt.fields[0]}', …).",
    )


def _field_error(name: str, found: str, prompt: PromptBuilder) -> InputTypeError:
    note = f" ({prompt.conversation_field} may be {CONVERSATION_TYPE})" if prompt.conversation_field else ""
    casts = (
        "pass a number or a time by name in the call, which casts it, or cast it in the struct, in SQL with"
        " CAST(… AS STRING); write an array, a map or a struct with to_json()."
    )
    return InputTypeError(
        f"The template's fields are strings{note}, and {name} is {found}.",
        hint_for(found, casts, conversations=name == prompt.conversation_field),
    )


def _join(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _example_arguments(prompt: PromptBuilder) -> str:
    return ", ".join(f"{name}=…" for name in prompt.fields)
