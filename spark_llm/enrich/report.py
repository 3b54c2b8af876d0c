"""The report of a run, as values, as text, in a notebook, and as a row of a table of runs.

Values and their text. Knows no clock and no Spark.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from html import escape

from spark_llm.errors import HINT
from spark_llm.livecounts.flows import JobFlow
from spark_llm.metering.tally import NUMBERS, Tally, Totals, total_of
from spark_llm.text.format import by_kind, dollars, span
from spark_llm.text.table import html_table, text_table

# A table of runs outlives this version: a number that is new goes into a map, so that old tables can still take it.
RUNS_DDL = (
    "run string, target string, started_at timestamp, seconds double, stopped string, rows bigint, asked bigint, "
    "answered bigint, failed map<string, bigint>, skipped bigint, left bigint, recovered bigint, deleted bigint, "
    "requests bigint, prompt_tokens bigint, completion_tokens bigint, cached_tokens bigint, total_tokens bigint, "
    "usd double, columns map<string, map<string, bigint>>"
)
"""The columns of a table of runs, as `EnrichReport.row` fills them."""
BATCH_NUMBERS = ("out", "out_batches", "out_usd", "usd_at_once")
"""The fields about batches."""
# Fields that a table of runs does not have.
_NOT_IN_RUNS = ("limits", "still_failed", "asked_and_left", "notes", "flow", *BATCH_NUMBERS)
# It has the rows asked, the others in its columns.
_NOT_SUMMED_IN_RUNS = ("asked", "cache_write_tokens", "cancelled", "image_tokens", "audio_tokens")
_HEADINGS = ("column", "asked", "answered", "failed", "requests", "tokens")


@dataclass(frozen=True, repr=False, kw_only=True)
class EnrichReport(Totals):
    """The report of a run of `enrich_table`; prints as text, and as a table in a notebook.

    >>> report = enrich_table(spark, "reviews", "reviews_enriched", "review_id", {"mood": chat("review")})
    >>> if not report.done:
    ...     print(report.stopped)

    Attributes:
        run: The run's id.
        target: The table that was filled.
        started_at: When it began, in UTC.
        seconds: Its duration.
        rows: Rows of the source; None where Spark did not report them.
        asked: Rows that were asked, for at least one column. Those that a stopped task did not ask are in `left`, and
            those that are `out` are not among them.
        answered: Asked rows with an answer in every column that was asked.
        left: Pending rows for the next run: those that a stopped run did not ask, and those in `asked_and_left`.
        recovered: Rows that an earlier run had asked when it failed or was killed; they were merged, not asked again.
        deleted: Rows that were removed from the target, because the source no longer has them.
        usd: The cost in US dollars; None without prices.
        stopped: The reason and the next step where the run stopped early; else None.
        columns: The tally of each column.
        limits: Who kept the hard limits of the policies; None where none is set, or where nothing was asked.
        still_failed: Rows that keep the error of an earlier run: their input and recipe are the same, and the error is
            not retryable, or `retry_errors` is False. None where Spark did not report them.
        asked_and_left: Rows that are in both: a column of theirs failed for a reason that ends the run, such as a
            rejected token. So `rows` is `skipped + asked + left + out - asked_and_left`.
        notes: A sentence for each new column of the source, added or left out, and for tokens without their own price.
        flow: The requests in flight, and what limited them for which share of the time; None where no host told the
            driver. Hosts tell it once a second, with `progress=True` or hard limits, where they can reach it.
        out: Rows whose requests are with the provider, in files or batches; a later run of the same job merges their
            answers.
        out_batches: The batches that have those requests.
        out_usd: What those requests will cost, by the estimate and at the price of batches; None without prices.
        usd_at_once: What this run's answers, and the rows that are out, would cost as single requests; None without
            prices, and for a run without batches.
    """

    run: str
    target: str
    started_at: datetime
    seconds: float
    rows: int | None
    asked: int
    answered: int
    left: int
    recovered: int
    deleted: int
    usd: float | None
    stopped: str | None
    columns: Mapping[str, Tally]
    limits: str | None = None
    still_failed: int | None = None
    asked_and_left: int = 0
    notes: Sequence[str] = ()
    flow: JobFlow | None = None
    out: int = 0
    out_batches: int = 0
    out_usd: float | None = None
    usd_at_once: float | None = None

    @property
    def done(self) -> bool:
        """Whether every pending row was asked, or is out."""
        return self.stopped is None

    @property
    def submitted(self) -> bool:
        """Whether rows are out: a later run of the same job merges their answers."""
        return self.out > 0

    @property
    def skipped(self) -> int | None:
        """Rows of the source that were not pending, recovered ones among them. None where `rows` is."""
        pending = self.asked + self.left + self.out - self.asked_and_left
        return None if self.rows is None else max(0, self.rows - pending)

    @property
    def requests(self) -> int:
        """HTTP requests, every attempt included."""
        return self._total.requests

    def row(self) -> dict[str, object]:
        """Return the report as a row of a table of runs, with the columns of `RUNS_DDL`."""
        flat = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NOT_IN_RUNS}
        sums = {name: getattr(self, name) for name in NUMBERS if name not in _NOT_SUMMED_IN_RUNS}
        columns = {name: {**_numbers(tally)} for name, tally in self.columns.items()}
        return {**flat, **sums, "failed": dict(self.failed), "skipped": self.skipped, "columns": columns}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        yield f"{self.target}: {self._verdict}"
        if self.stopped is not None:
            what, _, hint = self.stopped.partition(HINT)
            yield f"\n{what}"
            if hint:
                yield f"  Hint: {hint}"
        yield ""
        yield text_table(self._facts().items())
        if len(self.columns) > 1:
            yield ""
            yield text_table(self._column_cells(), right_aligned=range(1, len(_HEADINGS)))
        if self.notes:
            yield from ("", *self.notes)

    def _repr_html_(self) -> str:
        stopped = "" if self.stopped is None else f"<p>{escape(self.stopped)}</p>"
        facts = html_table((), self._facts().items(), left_aligned=(0, 1), row_headers=True)
        headings, *cells = self._column_cells()
        columns = html_table(headings, cells, row_headers=True) if len(self.columns) > 1 else ""
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<p><strong>{escape(self.target)}</strong>: {escape(self._verdict)}</p>{stopped}{facts}{columns}{notes}"

    @property
    def _total(self) -> Tally:
        return total_of(self.columns.values())

    @property
    def _verdict(self) -> str:
        ending = "submitted" if self.submitted else "done"
        return f"{ending if self.done else 'stopped'} in {span(self.seconds)}"

    @property
    def _out(self) -> str:
        """Rows, batches and cost of what is out; empty where nothing is."""
        if not self.out:
            return ""
        batches = f" in {_count(self.out_batches, 'batch', 'batches')}" if self.out_batches else ""
        cost = "" if self.out_usd is None else f", about {dollars(self.out_usd)}"
        return f"{_count(self.out, 'row', 'rows')}{batches}{cost}; the next run collects them"

    @property
    def _cost(self) -> str:
        """The cost, and that of single requests; empty without prices."""
        if self.usd is None:
            return ""
        return dollars(self.usd) + ("" if self.usd_at_once is None else f", and {dollars(self.usd_at_once)} at once")

    def _facts(self) -> dict[str, str]:
        """Return the lines of the report as text, by their labels; most are left out where they are 0."""
        total = self._total
        failed = self.asked - self.answered
        kinds = f"({by_kind(total.failed)})" if len(self.columns) == 1 else "in one column or more"
        facts = {
            "rows": "unknown" if self.rows is None else f"{self.rows:,}",
            "skipped": f"{self.skipped:,} needed nothing" if self.skipped else "",
            "still failed": f"{self.still_failed:,} with the error of an earlier run" if self.still_failed else "",
            "recovered": f"{self.recovered:,} from a run that failed or died" if self.recovered else "",
            "deleted": f"{self.deleted:,} that the source has no more" if self.deleted else "",
            "asked": f"{self.asked:,}",
            "answered": f"{self.answered:,}" if self.asked else "",
            "failed": f"{failed:,} {kinds}" if failed else "",
            "out": self._out,
            "left": f"{self.left:,} still to be asked" if self.left else "",
            "requests": f"{total.requests:,}" if total.requests else "",
            "tokens": self._tokens_text(),
            "cost": self._cost,
            "limits": self.limits or "",
            "in flight": "" if self.flow is None else str(self.flow),
        }
        return {name: fact for name, fact in facts.items() if fact}

    def _column_cells(self) -> list[list[str]]:
        """Return the headings and the numbers of each column, and its errors by kind where any column has some."""
        table = [[*_HEADINGS, "errors"]]
        for name, tally in self.columns.items():
            failed = tally.asked - tally.answered
            numbers = (tally.asked, tally.answered, failed, tally.requests, tally.total_tokens)
            table.append([name, *map("{:,}".format, numbers), by_kind(tally.failed)])
        return table if self.failed else [row[:-1] for row in table]


def limits_text(hosts: int) -> str:
    """Return who kept the limits of a run's policies, where the driver heard so many hosts."""
    if not hosts:
        return "held by tasks=, per host or per worker: the driver heard no host"
    return f"shared over the cluster by the driver ({hosts} host{'s' if hosts > 1 else ''})"


def _count(number: int, one: str, more: str) -> str:
    return f"{number:,} {one if number == 1 else more}"


def _numbers(tally: Tally) -> dict[str, int]:
    """Return the numbers of a tally in one mapping, with errors by kind."""
    sums = {name: getattr(tally, name) for name in NUMBERS}
    return {**sums, "answered": tally.answered, **{f"failed_{kind}": count for kind, count in tally.failed.items()}}
