"""The report of an estimate, as values and as text. Knows no Spark and no clock."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from spark_llm.text.format import dollars
from spark_llm.text.table import html_table, text_table

_HEADINGS = ("column", "rows", "prompt tokens", "completion tokens", "cost", "rests on")
_UNKNOWN = "unknown"
_NUMBERS = range(1, 5)


@dataclass(frozen=True)
class ColumnEstimate:
    """The estimate of one column.

    Attributes:
        rows: Rows that would be asked.
        prompt_tokens: Tokens of the prompts.
        completion_tokens: Tokens of the answers; None where they have no limit.
        usd: US dollars for them; None without prices, or where tokens are unknown.
        rests_on: The basis of the numbers, in words.
    """

    rows: int
    prompt_tokens: int
    completion_tokens: int | None
    usd: float | None
    rests_on: str

    @property
    def total_tokens(self) -> int | None:
        """Tokens of prompts and answers; None where those of the answers are unknown."""
        return None if self.completion_tokens is None else self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, repr=False)
class Estimate:
    """The estimate of a run; prints as text, and as a table in a notebook.

    Attributes:
        target: The table that would be filled.
        rows: Rows of the source.
        to_ask: How many of them would be asked, for at least one column.
        deleted: Rows of the target that would be deleted.
        columns: The estimate of each column, by its name.
    """

    target: str
    rows: int
    to_ask: int
    deleted: int
    columns: Mapping[str, ColumnEstimate]

    @property
    def total_tokens(self) -> int | None:
        """Tokens of all columns; None where those of one are unknown."""
        tokens = [column.total_tokens for column in self.columns.values()]
        return None if None in tokens else sum(filter(None, tokens))

    @property
    def usd(self) -> float | None:
        """US dollars for all columns; None where those of one are unknown."""
        costs = [column.usd for column in self.columns.values()]
        return None if None in costs else sum(filter(None, costs))

    def row(self) -> dict[str, object]:
        """Return the estimate as plain values, fit for JSON."""
        columns = {name: {**vars(column), "total_tokens": column.total_tokens} for name, column in self.columns.items()}
        return {**vars(self), "total_tokens": self.total_tokens, "usd": self.usd, "columns": columns}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        yield self._heading
        if not self.to_ask:
            return
        yield text_table([_HEADINGS, *self._cells()], right_aligned=_NUMBERS)
        yield self._total

    @property
    def _heading(self) -> str:
        asked = f"{self.to_ask:,}" if self.to_ask else "none"
        deleted = f", and {self.deleted:,} would be deleted" if self.deleted else ""
        return f"{self.target}: of {self.rows:,} rows {asked} would be asked{deleted}."

    @property
    def _total(self) -> str:
        tokens = _UNKNOWN if self.total_tokens is None else f"about {self.total_tokens:,}"
        return f"Tokens in all: {tokens}{'' if self.usd is None else f', for {dollars(self.usd)}'}."

    def _cells(self) -> Iterator[tuple[str, ...]]:
        for name, column in self.columns.items():
            answers = _UNKNOWN if column.completion_tokens is None else f"{column.completion_tokens:,}"
            cost = "" if column.usd is None else dollars(column.usd)
            yield name, f"{column.rows:,}", f"{column.prompt_tokens:,}", answers, cost, column.rests_on

    def _repr_html_(self) -> str:
        shown = f"<p>{escape(self._heading)}</p>"
        if not self.to_ask:
            return shown
        table = html_table(_HEADINGS, self._cells(), left_aligned=(0, 5), right_aligned=_NUMBERS)
        return f"{shown}{table}<p>{escape(self._total)}</p>"
