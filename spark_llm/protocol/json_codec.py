"""JSON documents: read from any bytes, and written as UTF-8. Lone surrogates are replaced both ways."""

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_encode_rows = msgspec.json.Encoder(decimal_format="number").encode_lines
_EVENT_DATA = re.compile(r"^data:(.*)$", re.MULTILINE)
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")


class NotJSONError(ValueError):
    """Bytes that hold no JSON document."""


FloatHook = Callable[[str], Any]  # makes a number of the text of one that has a point or an exponent
WrittenNumber = msgspec.Raw


def read_json(body: bytes, float_hook: FloatHook | None = None) -> Any:  # noqa: ANN401 -- a JSON document has any type
    """Read a JSON document; bytes that are not UTF-8 and lone surrogates are replaced.

    A byte order mark, UTF-16, UTF-32 and the frame of an event stream around one document are removed. NaN and
    Infinity, which JSON lacks and Python writes, are floats, and so is a whole number with more digits than Python
    reads, unless there is a hook. Raises `NotJSONError` for all other bytes.
    """
    try:
        return _decode(body) if float_hook is None else _decoder(float_hook).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        text = _unframed(body.decode(json.detect_encoding(body), "replace"))
        document = json.loads(text, parse_float=float_hook, parse_int=partial(_whole, float_hook or float))
        return replace_surrogates(document) if _ESCAPED_SURROGATE.search(text) else document
    except (ValueError, RecursionError) as error:
        raise NotJSONError(str(error)) from None


def number_as_written(text: str) -> WrittenNumber:
    """Return a number that is written back with the same digits: a `FloatHook`."""
    return WrittenNumber(text.encode())


@lru_cache(maxsize=8)
def _decoder(float_hook: FloatHook) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(float_hook=float_hook)


def _whole(otherwise: FloatHook, text: str) -> Any:  # noqa: ANN401 -- what the hook makes of a number
    """Return a whole number; what `otherwise` makes of one with more digits than Python reads."""
    try:
        return int(text)
    except ValueError:
        return otherwise(text)


def _unframed(text: str) -> str:
    """Return the only document of an event stream, which some servers send unasked; any other text unchanged."""
    if not text.lstrip().startswith(("data:", "event:", "id:", ":")):
        return text
    lines = (found.lstrip(" \t").rstrip(" \t\r") for found in _EVENT_DATA.findall(text))
    documents = [line for line in lines if line != "[DONE]"]
    return documents[0] if len(documents) == 1 else text


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; return an empty one for any other bytes."""
    try:
        document = read_json(body)
    except NotJSONError:
        return {}
    return document if isinstance(document, dict) else {}


def replace_surrogates(value: Any) -> Any:  # noqa: ANN401 -- a JSON document has any type
    """Replace lone surrogates in a document: JSON escapes and headers may hold them, and UTF-8 cannot."""
    if isinstance(value, str):
        return value.translate(_SURROGATES)
    if isinstance(value, (list, tuple)):
        return [replace_surrogates(part) for part in value]
    if isinstance(value, dict):
        return {replace_surrogates(key): replace_surrogates(part) for key, part in value.items()}
    return value


def write_json(value: object) -> bytes:
    """Write a JSON document as UTF-8; lone surrogates are replaced, and NaN and infinity become null.

    Raises `TypeError` or `ValueError` for an object that JSON cannot hold.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(replace_surrogates(value))


def write_rows(rows: Sequence[object]) -> list[bytes]:
    """Return the JSON of each row. Decimals are numbers with all their digits, times ISO 8601, and bytes base64.

    NaN and infinity become null, and lone surrogates are replaced. All rows at once take half the time of one by one.
    """
    try:
        lines = _encode_rows(rows)
    except UnicodeEncodeError:
        lines = _encode_rows(replace_surrogates(list(rows)))
    return lines.split(b"\n")[:-1]  # JSON has no line break, but each line ends in one
