"""Requests of `ai_query`, each in the form that the endpoint of its row takes.

A text and a file are for a chat model. Where custom models are among the endpoints, the column of requests may have any
type: a row of columns is for those.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from spark_llm.errors import InputTypeError
from spark_llm.protocol.json_codec import read_json
from spark_llm.protocol.media import MediaError, media_of
from spark_llm.protocol.predictions.scalars import write_prediction
from spark_llm.protocol.predictions.task import Predict
from spark_llm.protocol.values import Result, Row, RowError
from spark_llm.udf.arguments import Arguments, Columns
from spark_llm.udf.conversations import invalid_row
from spark_llm.udf.input_rows import arrow_input_rows, column_names, pandas_input_rows
from spark_llm.validation.parameter import Parameter

NO_FILE = b"spark_llm: no file"  # the default of `files`; a null is a null row, as in any argument
_ENDPOINT, _REQUEST, _FILES = Parameter("endpoint"), Parameter("request"), Parameter("files", "file", NO_FILE)
_UNREAD = b""  # a request that no endpoint gets, since the name of its row is wrong
QUERY_PARAMETERS = (_ENDPOINT, _REQUEST, _FILES)


ErrorOfName = Callable[[str | None], RowError | None]  # the error of a row that names this endpoint


class Requests(NamedTuple):
    """Some rows: the endpoints that they name, their requests, and the columns of those for custom models."""

    endpoints: Sequence[str | None]
    requests: Sequence[Row]
    columns: tuple[str, ...] = ()


def text_requests(slices: Iterator[Columns]) -> Iterator[Requests]:
    """Yield slices of names, texts and files as requests."""
    return (Requests(endpoints, _with_files(texts, files)) for endpoints, texts, files in slices)


def arrow_requests(
    batches: Iterator[Any], custom: Mapping[str, Predict], name_error: ErrorOfName
) -> Iterator[Requests]:
    """Read Arrow arrays of the arguments; `custom` has the tasks of the custom models."""
    return _requests(batches, custom, name_error, Arguments.arrow, arrow_input_rows)


def pandas_requests(
    batches: Iterator[Any], custom: Mapping[str, Predict], name_error: ErrorOfName, time_zone: str
) -> Iterator[Requests]:
    """Read pandas series of the arguments; requests are frames where they are structs."""
    return _requests(batches, custom, name_error, Arguments.pandas, partial(pandas_input_rows, time_zone=time_zone))


def _requests(
    batches: Iterator[Any],
    custom: Mapping[str, Predict],
    name_error: ErrorOfName,
    read: Callable[[Arguments, Iterator[Any]], Iterator[Columns]],
    read_columns: Callable[[Iterator[Any], Predict], Iterator[list[bytes | None]]],
) -> Iterator[Requests]:
    def values(parameter: Parameter, column: Any) -> list[Any]:  # noqa: ANN401 -- a column of any type
        return [value for [part] in read(Arguments("ai_query", [parameter]), iter([column])) for value in part]

    for batch in batches:
        if not isinstance(batch, tuple) or len(batch) > len(QUERY_PARAMETERS):
            raise InputTypeError("ai_query takes endpoint, request and perhaps files.", "pass them in this order.")
        names, column, *files = batch
        endpoints, columns = values(_ENDPOINT, names), column_names(column)
        named = set(endpoints)
        forms: dict[str | None, Sequence[Row]] = {
            name: list(chain.from_iterable(read_columns(iter([column]), replace(task, columns=columns))))
            for name, task in custom.items()
            if name in named
        }
        if others := named - forms.keys():
            try:
                forms |= dict.fromkeys(others, values(_REQUEST, column))
            except InputTypeError as error:
                if asked := [name for name in others if name_error(name) is None]:
                    raise InputTypeError(
                        f"{error.what} Its rows name {', '.join(sorted(map(repr, asked)))}.",
                        f"pass a string, or name a custom model: {', '.join(map(repr, custom))}.",
                    ) from None
                forms |= dict.fromkeys(others, [_UNREAD] * len(endpoints))
        requests = [forms[name][row] for row, name in enumerate(endpoints)]
        yield Requests(endpoints, _with_files(requests, values(_FILES, files[0])) if files else requests, columns)


def _with_files(requests: Sequence[Row], files: Sequence[bytes | None]) -> Sequence[Row]:
    """Return requests, each with its file behind it; None where one of the two is null, an error for a wrong one."""
    if all(file == NO_FILE for file in files):
        return requests
    return [_with_file(request, file) for request, file in zip(requests, files, strict=True)]


def _with_file(request: Row, file: bytes | None) -> Row:
    if request is None or file is None:
        return None
    if file == NO_FILE:
        return request
    if not isinstance(request, str):
        return _NOT_A_CHAT
    try:
        return [{"role": "user", "content": [*([request] if request else []), media_of(file)]}]
    except MediaError as error:
        return invalid_row(f"files {error}")


def without_files(requests: Sequence[Row]) -> list[Row]:
    """Return the requests for a model that takes texts alone; one with a file is an error."""
    return [_NOT_A_CHAT if isinstance(request, list) else request for request in requests]


_NOT_A_CHAT = invalid_row("files are for chat models. Hint: leave them out, or name a chat model.")


def as_text(result: Result | None) -> Result | None:
    """Return a custom model's result as a chat's: a text as it is, and any other prediction as JSON."""
    if result is not None and result.error is None and result.prediction is not None:
        text = write_prediction(result.prediction)
        result.text = read_json(text.encode()) if text.startswith('"') else text
    return result
