"""The report of what a column of answers used: as values, as text, in a notebook, and as a plot. It is pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from spark_llm.errors import HINT, ConfigError, Kind
from spark_llm.metering.tally import NUMBERS, Tally, Totals
from spark_llm.text.excerpt import excerpt
from spark_llm.text.format import dollars
from spark_llm.text.table import html_table, text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADINGS = ("error", "rows", "for example")
_MESSAGE_CHARACTERS = 100
_OF_A_TALLY = tuple(name for name in NUMBERS if name != "requests")


class Latency(NamedTuple):
    """Milliseconds of the last attempt, at three percentiles of the rows, to three digits."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, repr=False, kw_only=True)
class UsageReport(Totals):
    """What a column of answers used; prints as text, and as a table in a notebook.

    >>> report = usage_report("reviews_enriched", "mood", prices=(0.5, 1.5))
    >>> report.answered, report.total_tokens, report.usd
    >>> report.plot()

    Further attributes are those of its tally: `asked`, `answered`, `failed` (rows by the kind of their error),
    `cancelled` (rows that a stopped task did not ask), `prompt_tokens`, `completion_tokens`, `total_tokens`,
    `cached_tokens`, `cache_write_tokens`, `image_tokens` and `audio_tokens`.

    Attributes:
        column: The column's name.
        rows: All rows, also those that asked nothing because their input is null.
        tally: The counts that have a cost.
        examples: For each kind of error one of its messages.
        attempts: Attempts of all rows. A request with several rows counts once for each. None where the column has no
            attempts.
        retries: Attempts after the first of a row. None where `attempts` is.
        requests: HTTP requests. None where the column does not tell: one request may have several rows.
        reasoning_tokens: Tokens of the answers that are reasoning.
        service_tiers: The tiers that answers name.
        latency_ms: Milliseconds of the last attempt of each row, at the percentiles `p50`, `p95` and `p99`. None
            where no row has one.
        latencies: Rows by those milliseconds: the start of each bin, and its rows. Four bins end at twice their start.
        row_tokens: Rows by their `total_tokens`, likewise.
        usd: The cost in US dollars; None without prices.
        notes: A sentence for each sort of tokens without a price of its own.
    """

    column: str
    rows: int
    tally: Tally
    examples: Mapping[Kind, str]
    attempts: int | None
    retries: int | None
    requests: int | None
    reasoning_tokens: int
    service_tiers: Sequence[str]
    latency_ms: Latency | None
    latencies: Mapping[float, int]
    row_tokens: Mapping[float, int]
    usd: float | None
    notes: Sequence[str] = ()

    @property
    def asked(self) -> int:
        """Rows with a prompt that were asked."""
        return self.tally.asked

    @property
    def answered(self) -> int:
        """Rows that were answered."""
        return self.tally.answered

    @property
    def _total(self) -> Tally:
        return self.tally

    def row(self) -> dict[str, object]:
        """Return the report as plain values, fit for JSON."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "tally"}
        latency = None if self.latency_ms is None else self.latency_ms._asdict()
        sums = {name: getattr(self, name) for name in _OF_A_TALLY}
        bins = {name: [list(each) for each in own[name].items()] for name in ("latencies", "row_tokens")}
        lists = {name: list(own[name]) for name in ("service_tiers", "notes")}
        failed = {"answered": self.answered, "failed": dict(self.failed), "examples": dict(self.examples)}
        return {**own, **sums, **failed, **bins, **lists, "latency_ms": latency}

    def plot(self) -> "Figure":
        """Return three charts: rows by latency, errors by kind, and rows by tokens.

        Raises `ConfigError` where matplotlib is not installed.
        """
        try:
            from spark_llm.usage.plot import usage_figure
        except ImportError:
            raise ConfigError(
                "A plot needs matplotlib, which is not installed.", "pip install 'spark-llm-endpoints[plot]'."
            ) from None
        return usage_figure(self.column, self.latencies, self._errors, self.row_tokens)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        yield self.column
        yield ""
        yield text_table(self._facts().items())
        if self._errors:
            yield ""
            yield text_table([_HEADINGS, *self._error_cells()], right_aligned=(1,))
        if self.notes:
            yield from ("", *self.notes)

    def _repr_html_(self) -> str:
        facts = html_table((), self._facts().items(), left_aligned=(0, 1), row_headers=True)
        errors = (
            html_table(_HEADINGS, self._error_cells(), left_aligned=(0, 2), right_aligned=(1,), row_headers=True)
            if self._errors
            else ""
        )
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<p><strong>{escape(self.column)}</strong></p>{facts}{errors}{notes}"

    def _facts(self) -> dict[str, str]:
        """Return the lines of the report as text, by their labels; most are left out where they are 0."""
        failed = self.asked - self.answered
        latency = self.latency_ms
        retries = f" ({self.retries:,} {'retry' if self.retries == 1 else 'retries'})" if self.retries else ""
        facts = {
            "rows": f"{self.rows:,}",
            "asked": f"{self.asked:,}",
            "answered": f"{self.answered:,}" if self.asked else "",
            "failed": f"{failed:,}" if failed else "",
            "not asked": f"{self.cancelled:,} cancelled: their task had stopped" if self.cancelled else "",
            "requests": f"{self.requests:,}" if self.requests else "",
            "attempts": f"{self.attempts:,}{retries}" if self.attempts else "",
            "tokens": self._tokens_text(self.reasoning_tokens),
            "tier": ", ".join(self.service_tiers),
            "latency": f"{latency.p50:,.0f} ms median, {latency.p95:,.0f} ms p95, {latency.p99:,.0f} ms p99"
            if latency
            else "",
            "cost": dollars(self.usd) if self.usd is not None else "",
        }
        return {name: fact for name, fact in facts.items() if fact}

    @property
    def _errors(self) -> Mapping[Kind, int]:
        """Rows with an error, asked or not, by its kind."""
        return {**self.failed, "cancelled": self.cancelled} if self.cancelled else self.failed

    def _error_cells(self) -> Iterator[tuple[str, str, str]]:
        """Yield the kinds of errors, the most frequent first."""
        for kind, count in sorted(self._errors.items(), key=lambda each: -each[1]):
            yield kind, f"{count:,}", excerpt(self.examples.get(kind, "").partition(HINT)[0], _MESSAGE_CHARACTERS)
