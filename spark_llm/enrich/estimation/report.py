"""The report of an estimate, as values and as text. Knows no Spark and no clock."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from spark_llm.text.format import dollars
from spark_llm.text.table import html_table, text_table

_HEADINGS = ("column", "rows", "prompt tokens", "completion tokens", "cost", "by batch", "rests on")
_BY_BATCH = _HEADINGS.index("by batch")
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class ColumnEstimate:
    """The estimate of one column.

    Attributes:
        rows: Rows that would be asked.
        prompt_tokens: Tokens of the prompts.
        completion_tokens: Tokens of the answers; None where they have no limit.
        usd: US dollars for them in single requests; None without prices, or where tokens are unknown.
        rests_on: The basis of the numbers, in words.
        usd_batch: US dollars for them through a Batch API; None too for a column that cannot go through one.
    """

    rows: int
    prompt_tokens: int
    completion_tokens: int | None
    usd: float | None
    rests_on: str
    usd_batch: float | None = None

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
        """US dollars for all columns in single requests; None where those of one are unknown."""
        return _sum([column.usd for column in self.columns.values()])

    @property
    def usd_batch(self) -> float | None:
        """US dollars for all columns through a Batch API; None where one is unknown, or cannot go through one."""
        return _sum([column.usd_batch for column in self.columns.values()])

    def row(self) -> dict[str, object]:
        """Return the estimate as plain values, fit for JSON."""
        columns = {name: {**vars(column), "total_tokens": column.total_tokens} for name, column in self.columns.items()}
        totals = {"total_tokens": self.total_tokens, "usd": self.usd, "usd_batch": self.usd_batch}
        return {**vars(self), **totals, "columns": columns}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        yield self._heading
        if not self.to_ask:
            return
        yield text_table(self._table, right_aligned=self._numbers)
        yield self._total

    @property
    def _heading(self) -> str:
        asked = f"{self.to_ask:,}" if self.to_ask else "none"
        deleted = f", and {self.deleted:,} would be deleted" if self.deleted else ""
        return f"{self.target}: of {self.rows:,} rows {asked} would be asked{deleted}."

    @property
    def _total(self) -> str:
        tokens = _UNKNOWN if self.total_tokens is None else f"about {self.total_tokens:,}"
        at_once = "" if self.usd is None else f", for {dollars(self.usd)}"
        by_batch = "" if self.usd_batch is None else f" at once, or {dollars(self.usd_batch)} by batch"
        return f"Tokens in all: {tokens}{at_once}{by_batch}."

    @property
    def _has_batches(self) -> bool:
        return any(column.usd_batch is not None for column in self.columns.values())

    @property
    def _numbers(self) -> range:
        """The places of the columns of numbers."""
        return range(1, len(self._table[0]) - 1)

    @property
    def _table(self) -> list[tuple[str, ...]]:
        """The headings and the cells; the cost by batch only where one is known."""
        table = [_HEADINGS, *map(_cells, self.columns, self.columns.values())]
        return table if self._has_batches else [(*row[:_BY_BATCH], *row[_BY_BATCH + 1 :]) for row in table]

    def _repr_html_(self) -> str:
        shown = f"<p>{escape(self._heading)}</p>"
        if not self.to_ask:
            return shown
        headings, *cells = self._table
        ends = (0, len(headings) - 1)
        table = html_table(headings, cells, left_aligned=ends, right_aligned=self._numbers)
        return f"{shown}{table}<p>{escape(self._total)}</p>"


def _cells(name: str, column: ColumnEstimate) -> tuple[str, ...]:
    answers = _UNKNOWN if column.completion_tokens is None else f"{column.completion_tokens:,}"
    at_once, by_batch = ("" if usd is None else dollars(usd) for usd in (column.usd, column.usd_batch))
    return name, f"{column.rows:,}", f"{column.prompt_tokens:,}", answers, at_once, by_batch, column.rests_on


def _sum(costs: Sequence[float | None]) -> float | None:
    """Return the sum; None where one is unknown."""
    return None if None in costs else sum(filter(None, costs))
