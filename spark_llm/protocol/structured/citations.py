"""Citations: the type of answers that quote the text, and the place of each quote in it.

A model gives each value with a quote. Where the quote stands in the text is found here, and never asked of the model. A
quote is found if the text has the same characters; else if it has them with runs of whitespace as one space, and with
typographic quotation marks and dashes as plain ones. Places count characters (Unicode code points), as Spark does.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from spark_llm.protocol.json_codec import replace_surrogates
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Field, Nullable, Scalar, Shape, Struct
from spark_llm.protocol.values import Result

_RUN = re.compile(r"\s+")
_APOSTROPHES = "\u2018\u2019\u201a\u201b\u2032\u2039\u203a"
_QUOTATION_MARKS = "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_PLAIN = {
    **str.maketrans(
        dict.fromkeys(_APOSTROPHES, "'") | dict.fromkeys(_QUOTATION_MARKS, '"') | dict.fromkeys(_DASHES, "-")
    ),
    **dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}"),  # as they are sent
}
_VALUE, _QUOTE = "value", "quote"
_FOUND = (
    Field("start", Nullable(Scalar("integer"))),
    Field("stop", Nullable(Scalar("integer"))),
    Field("supported", Nullable(Scalar("boolean"))),
)


class Citation(NamedTuple):
    """A value, and the place of its quote: characters from 0, of which `stop` is the first one behind it."""

    value: Any
    quote: str | None = None
    start: int | None = None
    stop: int | None = None
    supported: bool | None = None


@dataclass(frozen=True)
class CitedOutput(StructuredOutput):
    """The type of answers with a value and a quote for each field of a struct.

    >>> output = CitedOutput.of("invoice", Struct((Field("total", Scalar("double")),)))
    >>> output.cited(output.parse('{"total": {"value": 4.5, "quote": "4.50 EUR"}}'), "Total: 4.50 EUR")
    {'total': {'value': 4.5, 'quote': '4.50 EUR', 'start': 7, 'stop': 15, 'supported': True}}
    """

    fields: Struct

    @classmethod
    def of(cls, name: str, fields: Struct) -> "CitedOutput":
        """Return the type of answers that cite each of the fields."""
        return cls(name, _each(fields, ()), fields)

    @property
    def column_shape(self) -> Struct:
        """The type of a column of these answers: a `Citation` for each of the fields."""
        return _each(self.fields, _FOUND)

    def fill(self, result: Result, value: Any, text: str, logprobs: object) -> None:  # noqa: ANN401, ARG002 -- as of any type of answers
        """Set the cited fields of an answer about this text."""
        result.parsed = self.cited(value, text)

    def cited(self, value: dict[str, Any], text: str) -> dict[str, Any]:
        """Return each field's value with the place of its quote in the text; all null for a field without a value."""
        source = Source(text)
        return {field.name: source.citation(**(value.get(field.name) or {}))._asdict() for field in self.fields.fields}


def _each(fields: Struct, found: tuple[Field, ...]) -> Struct:
    """Return the fields with a quote beside each value, and what was found of it."""
    return Struct(tuple(field._replace(shape=_with_quote(field.shape, found)) for field in fields.fields))


def _with_quote(shape: Shape, found: tuple[Field, ...]) -> Shape:
    """Return a struct of a value and its quote; it may be null if the value may."""
    both = Struct((Field(_VALUE, shape), Field(_QUOTE, Nullable(Scalar("string"))), *found))
    return Nullable(both) if isinstance(shape, Nullable) else both


@dataclass(frozen=True)
class Source:
    """A text, and where quotes stand in it."""

    text: str

    def citation(self, value: Any = None, quote: str | None = None) -> Citation:  # noqa: ANN401 -- a value of any shape
        """Return a value with the first place of its quote; the quote is then written as the text has it."""
        if value is None:
            return Citation(None)
        place = None if quote is None else self.find(quote)
        if place is None:
            return Citation(value, quote, supported=False)
        return Citation(value, replace_surrogates(self.text[slice(*place)]), *place, supported=True)

    def find(self, quote: str) -> tuple[int, int] | None:
        """Return the first place of a quote: of its characters, else of what reads the same; None for a blank one.

        Blanks around the quote do not count.
        """
        quote = quote.strip()
        if not quote:
            return None
        start = self.text.find(quote)
        if start >= 0:
            return start, start + len(quote)
        wanted = _folded(quote)
        start = self._similar.find(wanted)
        return None if start < 0 else (self._place(start), self._place(start + len(wanted) - 1) + 1)

    @cached_property
    def _similar(self) -> str:
        return _folded(self.text)

    @cached_property
    def _shortened(self) -> tuple[list[int], list[int]]:
        """The places of shortened runs in the similar text, and how many characters it lacks before and after each."""
        runs, removed, total = list[int](), [0], 0
        for run in _RUN.finditer(self.text):
            if (more := run.end() - run.start() - 1) > 0:
                runs.append(run.start() - total)
                removed.append(total := total + more)
        return runs, removed

    def _place(self, place: int) -> int:
        """Return the place in the text of a character of the similar text that is no space."""
        runs, removed = self._shortened
        return place + removed[bisect_left(runs, place)]


def _folded(text: str) -> str:
    """Return a text with runs of whitespace as one space, and plain quotation marks and dashes."""
    return _RUN.sub(" ", text).translate(_PLAIN)
