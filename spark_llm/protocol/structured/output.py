"""Typed answers: how one is asked for, how its text is read, and what is said where it does not fit.

A server is asked for JSON of a schema by `response_format`; one that does not know the field is asked in words. Either
way the text is read by the schema, exactly: nothing is coerced, and nothing is made up for what is missing.

Source of the request field: the OpenAI API reference, as Databricks Model Serving takes it over.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import msgspec

from spark_llm.protocol.reasoning import parted
from spark_llm.protocol.structured.schema import Convert, Field, Map, Shape, Struct, walk
from spark_llm.protocol.wire import NotJSONError, mended, read_json, write_json
from spark_llm.text.excerpt import excerpt

_ASK = (
    "Answer with one JSON object and nothing else: no explanation, no code fence. It has to be valid against this JSON"
    " schema:\n{}"
)
_ASK_AGAIN = "That is not what was asked for: {}. Answer once more.\n{}"
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_NAME_MOST = 64
_ALONE = "answer"  # the field of an answer that is no struct: servers take schemas of objects only
_JSON = json.JSONDecoder()
_THOUGHT = "</think>"
_OBJECT = re.compile(r'\{\s*"')
_ESCAPED = re.compile(  # an escape in JSON; `half` is that of one half of a surrogate pair
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_NUMBERS = re.compile(  # strings, to pass over them, and numbers with a point or an exponent
    r"""
    "(?:[^"\\]|\\.)*"
    |(?P<number>-?[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+))
    """,
    re.DOTALL | re.VERBOSE,
)
_DIGITS_MOST = 19  # of a whole number of 64 bits
_FENCED = re.compile(r"```[\w-]*\n(.*?)```", re.DOTALL)


class Mismatch(NamedTuple):
    """Why a text is not the answer that was asked for, and whether it is JSON at all."""

    why: str
    is_json: bool


@dataclass(frozen=True)
class StructuredOutput:
    """The type that answers have: a name for it, which models may see, and its shape.

    >>> Reply("mood", Struct((Field("score", Scalar("long")),))).read('{"score": 3}')
    {'score': 3}
    """

    name: str
    shape: Shape

    @cached_property
    def schema(self) -> bytes:
        """Its JSON Schema, written."""
        return write_json(_object(self.shape).schema())

    @cached_property
    def response_format(self) -> bytes:
        """The request's field of this name with its value, as JSON."""
        name = write_json(_NO_NAME.sub("_", self.name)[:_NAME_MOST] or _ALONE)
        strict = b"false" if any(isinstance(part, Map) for part in walk(self.shape)) else b"true"
        inner = b'{"name":%b,"strict":%b,"schema":%b}' % (name, strict, self.schema)
        return b'"response_format":{"type":"json_schema","json_schema":%b}' % inner

    @cached_property
    def instructions(self) -> str:
        """The same in words."""
        return _ASK.format(self.schema.decode())

    def ask_again(self, misfit: Mismatch) -> str:
        """Return what is said to an answer that does not fit."""
        return _ASK_AGAIN.format(misfit.why, self.instructions)

    def read(self, text: str) -> Any | Mismatch:  # noqa: ANN401 -- a value of any shape
        """Return the value that a text holds, as a column takes it, or why it holds none that fits.

        What stands around the JSON is passed over: reasoning, a code fence, a sentence.
        """
        decoder, convert = _reader(self.shape)
        first: Mismatch | None = None
        whole = text.strip()
        for part in _parts(whole):
            try:
                value = _decoded(decoder, part)
                value = value if convert is None else convert(value)
            except NotJSONError:
                continue
            except (ValueError, RecursionError) as error:
                first = first or Mismatch(excerpt(str(error)), is_json=True)
            else:
                if value:
                    return value if isinstance(self.shape, Struct) else value[_ALONE]
                first = first or Mismatch("it has none of the fields", is_json=True)
            if part == whole:
                break  # what else may be found stands in one of its strings
        return first or Mismatch("it holds no JSON object", is_json=False)

    def check(self) -> None:
        """Raise `TypeError`, `ValueError`, `ArithmeticError` or `re.error` where a rule cannot be held to."""
        _reader(self.shape)


def _object(shape: Shape) -> Struct:
    return shape if isinstance(shape, Struct) else Struct((Field(_ALONE, shape),))


@lru_cache(maxsize=1_000)
def _reader(shape: Shape) -> tuple["msgspec.json.Decoder[Any]", Convert | None]:
    """Return what reads JSON of a shape, and what makes a column's value of it; made once."""
    whole = _object(shape)
    return msgspec.json.Decoder(whole.hint()), whole.convert()


def _decoded(decoder: "msgspec.json.Decoder[Any]", text: str) -> Any:  # noqa: ANN401 -- a value of any shape
    """Read JSON by its type; raises `NotJSONError`, or `msgspec.ValidationError` for JSON of another type."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        read_json(text.encode())  # what comes after the place that does not fit may be no JSON
        whole = _NUMBERS.sub(_without_point, text)  # 1.0 is an integer in JSON Schema, but not in msgspec
        if whole == text:
            raise
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        whole = _ESCAPED.sub(lambda found: r"\ufffd" if found["half"] else found[0], mended(text))
        if whole == text:
            raise NotJSONError(str(error)) from None
    return _decoded(decoder, whole)


def _without_point(found: "re.Match[str]") -> str:
    """Return a number without point and exponent where it is whole and has 64 bits; else the match as it is."""
    with contextlib.suppress(InvalidOperation):  # an exponent that no decimal has
        number = Decimal(found["number"] or "NaN")
        if not number or (number.adjusted() < _DIGITS_MOST and number == number.to_integral_value()):
            return str(int(number))
    return found[0]


def _parts(said: str) -> Iterator[str]:
    """Yield what may be the JSON of a text, the likeliest first."""
    if said.startswith("{"):
        yield said  # whatever its strings hold
    if _THOUGHT in said:
        yield from _parts_of(said.partition(_THOUGHT)[2])
        yield from _parts_of(said.rpartition(_THOUGHT)[2])
        yield from _leading(said)
    else:
        yield from _parts_of(parted(said).answer or said)


def _parts_of(said: str) -> Iterator[str]:
    if not said.lstrip().startswith("{"):
        yield from _FENCED.findall(said)[-1:]
    opened, end = _OBJECT.search(said), said.rfind("}")
    if opened and opened.start() < end:
        yield said[opened.start() : end + 1]
        yield from _leading(said[opened.start() :])


def _leading(said: str) -> Iterator[str]:
    """Yield the JSON object that a text begins with; braces may stand in what follows."""
    with contextlib.suppress(ValueError, RecursionError):
        if said.startswith("{"):
            yield said[: _JSON.raw_decode(said)[1]]
