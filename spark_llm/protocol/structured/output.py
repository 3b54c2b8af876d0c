"""Structured output: its part of the request, the parsing of an answer, and the correction after a mismatch.

`response_format` requests JSON of a schema; for a server that does not know the field, a text does. Either way the
answer is parsed strictly by the schema: no value is coerced, and no missing value is filled in.

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

from spark_llm.protocol.chat.reasoning import split_reasoning
from spark_llm.protocol.json_codec import NotJSONError, read_json, replace_surrogates, write_json
from spark_llm.protocol.structured.schema import Convert, Field, Map, Shape, Struct, walk
from spark_llm.protocol.values import Result
from spark_llm.text.excerpt import excerpt

_ASK = (
    "Answer with one JSON object and nothing else: no explanation, no code fence. It has to be valid against this JSON"
    " schema:\n{}"
)
_ASK_AGAIN = "That is not what was asked for: {}. Answer once more.\n{}"
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_NAME = 64
SINGLE_FIELD = "answer"  # the field of a value that is not a struct: servers take schemas of objects only
_JSON = json.JSONDecoder()
_END_OF_REASONING = "</think>"
_OBJECT = re.compile(r'\{\s*"')
_ESCAPED = re.compile(  # an escape in JSON; `half` is a lone surrogate
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_NUMBERS = re.compile(  # numbers with a point or an exponent; strings match too, so that their digits do not
    r"""
    "(?:[^"\\]|\\.)*"
    |(?P<number>-?(?<![0-9])[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+))
    """,
    re.DOTALL | re.VERBOSE,
)
_MAX_DIGITS = 19  # of a whole number of 64 bits
_FENCED = re.compile(r"```[\w-]*\n(.*?)```", re.DOTALL)


class Mismatch(NamedTuple):
    """Why a text does not fit its type, and whether it holds JSON at all."""

    reason: str
    is_json: bool


@dataclass(frozen=True)
class StructuredOutput:
    """The type of answers: a name, which models may see, and a shape.

    >>> StructuredOutput("mood", Struct((Field("score", Scalar("long")),))).parse('{"score": 3}')
    {'score': 3}
    """

    name: str
    shape: Shape

    asks_logprobs = False  # whether requests ask for the logprobs of the answer's tokens

    @property
    def column_shape(self) -> Shape:
        """The type of a column of these answers."""
        return self.shape

    def fill(self, result: Result, value: Any, text: str, logprobs: object) -> None:  # noqa: ANN401, ARG002 -- a value of any shape; for those that read text or logprobs
        """Set what a result has of an answer: its value, and what the row's text and the tokens' logprobs tell."""
        result.parsed = value

    @cached_property
    def schema(self) -> bytes:
        """Its JSON Schema as JSON."""
        return write_json(_object(self.shape).json_schema())

    @cached_property
    def response_format(self) -> bytes:
        """The field `response_format` of a chat completions request with its value, as JSON."""
        return b'"response_format":{"type":"json_schema","json_schema":{%b}}' % self._named_schema

    @cached_property
    def text_format(self) -> bytes:
        """The same as the member `format` of the field `text` of a Responses request."""
        return b'"format":{"type":"json_schema",%b}' % self._named_schema

    @property
    def _named_schema(self) -> bytes:
        name = write_json(_NOT_IN_NAME.sub("_", self.name)[:_MAX_NAME] or SINGLE_FIELD)
        strict = b"false" if any(isinstance(part, Map) for part in walk(self.shape)) else b"true"
        return b'"name":%b,"strict":%b,"schema":%b' % (name, strict, self.schema)

    @cached_property
    def instructions(self) -> str:
        """The same as a text."""
        return _ASK.format(self.schema.decode())

    def correction(self, mismatch: Mismatch) -> str:
        """Return the message that follows an answer that does not fit."""
        return _ASK_AGAIN.format(mismatch.reason, self.instructions)

    def parse(self, text: str) -> Any | Mismatch:  # noqa: ANN401 -- a value of any shape
        """Return the value in a text, ready for a column, or the mismatch of a text without a value that fits.

        Text around the JSON is ignored: reasoning, a code fence, a sentence.
        """
        decoder, convert = _decoder_of(self.shape)
        first: Mismatch | None = None
        whole = text.strip()
        for part in _candidates(whole):
            try:
                value = _decoded(decoder, part)
                value = value if convert is None else convert(value)
            except NotJSONError:
                continue
            except (ValueError, RecursionError) as error:
                first = first or Mismatch(excerpt(str(error)), is_json=True)
            else:
                if value:
                    return value if isinstance(self.shape, Struct) else value[SINGLE_FIELD]
                first = first or Mismatch("it has none of the fields", is_json=True)
            if part == whole:
                break  # any other candidate is inside one of its strings
        return first or Mismatch("it holds no JSON object", is_json=False)

    def check_constraints(self) -> None:
        """Raise `TypeError`, `ValueError`, `ArithmeticError` or `re.error` for a constraint that cannot be checked."""
        _decoder_of(self.shape)


def _object(shape: Shape) -> Struct:
    return shape if isinstance(shape, Struct) else Struct((Field(SINGLE_FIELD, shape),))


@lru_cache(maxsize=1_000)
def _decoder_of(shape: Shape) -> tuple["msgspec.json.Decoder[Any]", Convert | None]:
    """Return the decoder of a shape, and the conversion to a column's value; cached."""
    whole = _object(shape)
    return msgspec.json.Decoder(whole.decode_type()), whole.converter()


def _decoded(decoder: "msgspec.json.Decoder[Any]", text: str) -> Any:  # noqa: ANN401 -- a value of any shape
    """Decode JSON by its type; raises `NotJSONError`, or `msgspec.ValidationError` for JSON of another type."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        read_json(text.encode())  # raises where the rest of the text is not JSON
        whole = _NUMBERS.sub(_without_point, text)  # 1.0 is an integer in JSON Schema, but not in msgspec
        if whole == text:
            raise
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        whole = _ESCAPED.sub(lambda found: r"\ufffd" if found["half"] else found[0], replace_surrogates(text))
        if whole == text:
            raise NotJSONError(str(error)) from None
    return _decoded(decoder, whole)


def _without_point(found: "re.Match[str]") -> str:
    """Return a whole number of 64 bits without point and exponent; any other match unchanged."""
    with contextlib.suppress(InvalidOperation):  # an exponent beyond those of decimals
        number = Decimal(found["number"] or "NaN")
        if not number or (number.adjusted() < _MAX_DIGITS and number == number.to_integral_value()):
            return str(int(number))
    return found[0]


def _candidates(text: str) -> Iterator[str]:
    """Yield the parts of a text that may be its JSON, the likeliest first."""
    if text.startswith("{"):
        yield text
    if _END_OF_REASONING in text:
        yield from _objects_in(text.partition(_END_OF_REASONING)[2])
        yield from _objects_in(text.rpartition(_END_OF_REASONING)[2])
        yield from _leading_object(text)
    else:
        yield from _objects_in(split_reasoning(text).answer or text)


def _objects_in(text: str) -> Iterator[str]:
    """Yield the last code fence, the text between the outermost braces, and the first object."""
    if not text.lstrip().startswith("{"):
        yield from _FENCED.findall(text)[-1:]
    opened, end = _OBJECT.search(text), text.rfind("}")
    if opened and opened.start() < end:
        yield text[opened.start() : end + 1]
        yield from _leading_object(text[opened.start() :])


def _leading_object(text: str) -> Iterator[str]:
    """Yield the JSON object at the beginning of a text; braces may follow it."""
    with contextlib.suppress(ValueError, RecursionError):
        if text.startswith("{"):
            yield text[: _JSON.raw_decode(text)[1]]
