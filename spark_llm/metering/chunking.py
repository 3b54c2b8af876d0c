"""Plans the chunks of a run: how many rows the next one has, and when the run stops within its budget.

The cost of a row is learned from earlier rows. So a run with a budget begins with few rows, and no chunk has more than
ten times the rows before it. Every chunk takes some seconds whatever its size, so a rest of the budget that pays for a
few rows only is left unused. Knows no clock and no Spark: `now_s` is an argument.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from spark_llm.errors import HINT, ConfigError, Kind
from spark_llm.metering.budget import Budget
from spark_llm.metering.forecast import CostForecast, TimeForecast, affordable_rows
from spark_llm.metering.tally import Tally
from spark_llm.text.format import by_kind
from spark_llm.validation.numbers import check_number, check_whole

PILOT_ROWS = 200  # the most in the first chunk of a run with a budget
GROWTH = 10  # the most rows of a chunk, in multiples of the rows before it
MIN_CHUNK_ROWS = 50  # the fewest that are worth the seconds of a chunk; less in small chunks
MIN_RATE_ROWS = 20  # the fewest from which a failure rate is computed
FATAL_KINDS: tuple[Kind, ...] = ("unauthorized", "not_found", "quota")  # every further row would get the same error
FATAL_SHARE = 0.1  # of a chunk's answers; fewer fatal errors may belong to a task's last rows alone
NOT_ROW_ERRORS: tuple[Kind, ...] = ("cancelled", *FATAL_KINDS)  # errors with another cause than their row
RUN_AGAIN = "answered rows are not sent again."
_NONE: Mapping[str, str | None] = {}


@dataclass(frozen=True)
class Limits:
    """The limits that the user sets: the largest chunk, the budget, and the failure rate at which the run stops."""

    chunk_rows: int = 5_000
    budget: Budget | None = None
    max_failure_rate: float | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        check_whole("chunk_rows", self.chunk_rows, 1, hint="leave it out for 5000.")
        if not isinstance(self.budget, (Budget, type(None))):
            raise ConfigError(f"budget={self.budget!r} is not a Budget.", "write budget=Budget(tokens=2_000_000).")
        if self.max_failure_rate is not None:
            hint = "write 0.1 for a tenth of the rows, or leave it out."
            check_number("max_failure_rate", self.max_failure_rate, 0.0, 1.0, exclusive_minimum=True, hint=hint)


@dataclass(frozen=True)
class PerRow:
    """The estimated highest cost of a row over all columns, before the first answer; None where it is unknown."""

    tokens: float | None = None
    usd: float | None = None


class ChunkPlanner:
    """The chunks of one run: call `next` for the rows of a chunk, and `done` with its result, until `next` returns 0.

    Attributes:
        stopped: Why the run stopped before the last row, with a hint; None where it did not.
    """

    def __init__(self, pending: int, limits: Limits, estimate: PerRow, began_s: float) -> None:
        """Begin with the pending rows of a run that started at `began_s`."""
        self.stopped: str | None = None
        self._limits = limits
        self._budget = limits.budget
        self._estimate = estimate
        self._began_s = began_s
        self._pending = pending
        self._deferred = 0
        self._rows = 0
        self._columns: dict[str, Tally] = {}
        self._tokens = CostForecast()
        self._usd = CostForecast()
        self._time = TimeForecast()
        self._chunk_began_s = began_s

    @property
    def left(self) -> int:
        """Rows for the next run: those of no chunk so far, and those that failed for another reason than their own."""
        return self._pending + self._deferred

    def next(self, now_s: float) -> int:
        """Return how many rows the chunk has that begins now; 0 at the end of the run."""
        rows = self._budget.rows if self._budget else None
        remaining = self._pending if rows is None else min(self._pending, max(0, rows - self._rows))
        if self.stopped or not self._pending:
            return 0
        if not remaining:
            return self._stop(f"the budget of {rows:,} rows is used up", f"run it again for the rest: {RUN_AGAIN}")
        max_rows = self._limits.chunk_rows
        min_rows = min(remaining, 1 if not self._rows else max(1, min(MIN_CHUNK_ROWS, max_rows // 20)))
        for allowed, limit in self._allowed(now_s):
            if allowed < min_rows:
                return self._stop(
                    f"the budget of {limit} would be exceeded", f"run it again with a larger one: {RUN_AGAIN}"
                )
            max_rows = int(min(max_rows, allowed))
        even = math.ceil(remaining / math.ceil(remaining / self._limits.chunk_rows))
        self._chunk_began_s = now_s
        return min(even, max_rows, self._max_rows_by_evidence)

    def done(
        self,
        rows: int,
        tallies: Mapping[str, Tally],
        usd: float | None,
        now_s: float,
        stop_errors: Mapping[str, str | None] = _NONE,
    ) -> None:
        """Record a chunk: its rows, its tallies by column, and its cost where there are prices.

        `stop_errors` has by column the message of an error of `NOT_ROW_ERRORS`, with its hint. A chunk without rows
        ends the run, since its rows were deleted.
        """
        self._pending = max(0, self._pending - rows) if rows else 0
        self._rows += rows
        self._deferred += max((_deferred_rows(tally) for tally in tallies.values()), default=0)
        for name, tally in tallies.items():
            self._columns[name] = self._columns.get(name, Tally()).plus(tally)
        asked = sum(tally.asked for tally in tallies.values())
        answered = rows * sum(tally.answered for tally in tallies.values()) / asked if asked else 0.0
        self._tokens.add(rows, answered, sum(tally.total_tokens for tally in tallies.values()))
        self._usd.add(rows, answered, usd or 0.0)
        self._time.add(rows, now_s - self._chunk_began_s)
        for name, tally in self._columns.items():
            self._check_column(name, tally, stop_errors.get(name), tallies.get(name, Tally()))

    def _allowed(self, now_s: float) -> Iterator[tuple[float, str]]:
        """Yield how many more rows each limit allows, as far as is known, and the limit as a text."""
        budget, known = self._budget, self._tokens.spent > 0
        if budget and budget.tokens is not None:
            per_row = self._tokens.per_row if known else self._estimate.tokens
            yield affordable_rows(budget.tokens - self._tokens.spent, per_row), f"{budget.tokens:,} tokens"
        if budget and budget.usd is not None:
            per_row = self._usd.per_row if known else self._estimate.usd
            yield affordable_rows(budget.usd - self._usd.spent, per_row), f"{budget.usd:,.10g} US dollars"
        if budget and budget.seconds is not None:
            left_s = budget.seconds - (now_s - self._began_s)
            yield self._time.rows_in(left_s), f"{budget.seconds:,.10g} seconds"

    @property
    def _max_rows_by_evidence(self) -> int:
        """The most rows of the next chunk, given how well their cost is known."""
        budget = self._budget
        if budget is None or (budget.tokens, budget.usd, budget.seconds) == (None, None, None):
            return self._limits.chunk_rows
        estimated = (budget.tokens is None or self._estimate.tokens is not None) and (
            budget.usd is None or self._estimate.usd is not None
        )
        if not estimated and not self._tokens.spent:
            return MIN_CHUNK_ROWS
        return GROWTH * self._rows or PILOT_ROWS

    def _check_column(self, name: str, tally: Tally, stop_error: str | None, last: Tally) -> None:
        """Stop the run where one column fails: `tally` is its sum so far, `last` the last chunk alone."""
        asked, failed = tally.asked, sum(tally.failed.values())
        enough = asked >= min(MIN_RATE_ROWS, self._limits.chunk_rows) or not self._pending
        rate, budget = self._limits.max_failure_rate, self._budget
        message, _, hint = (stop_error or "").partition(HINT)
        message = message.rstrip(".")
        failures = (
            f"{failed:,} of {asked:,} rows failed in column {name!r} ({by_kind(tally.failed)}), "
            f"a rate of {failed / max(1, asked):.3g}"
        )
        not_asked = f", and {tally.cancelled:,} more were not asked" if tally.cancelled else ""
        fatal = [kind for kind in FATAL_KINDS if last.failed.get(kind, 0)]
        if fatal and sum(last.failed[kind] for kind in fatal) > FATAL_SHARE * last.answered:
            self._stop(
                f"the endpoint of column {name!r} answers no row ({': '.join(filter(None, [fatal[0], message]))})",
                f"{hint} Then run it again: {RUN_AGAIN}" if hint else f"fix that, and run it again: {RUN_AGAIN}",
            )
        elif rate is not None and enough and failed > rate * asked:
            self._stop(
                f"{failures}, more than max_failure_rate={rate:g} allows{not_asked}",
                f"read the rows' error, then run it again: {RUN_AGAIN}",
            )
        elif tally.cancelled:
            self._stop(
                f"{failures}{not_asked}{f' ({message})' if message else ''}",
                f"read the rows' error, then run it again: {RUN_AGAIN}",
            )
        elif budget and (budget.tokens or budget.usd) and tally.answered and tally.requests and not tally.total_tokens:
            self._stop(
                f"the answers in column {name!r} report no tokens, so a budget of tokens or US dollars cannot be kept",
                "limit the run with Budget(rows=…) or Budget(seconds=…).",
            )

    def _stop(self, why: str, hint: str) -> int:
        self.stopped = self.stopped or f"{why}: {rows_left(self.left)}.{HINT}{hint}"
        return 0


def rows_left(count: int) -> str:
    """Return how many rows are left, as a sentence."""
    return "1 row is left" if count == 1 else f"{count:,} rows are left"


def _deferred_rows(tally: Tally) -> int:
    """Return how many rows failed for another reason than their own; the next run sends them again."""
    return tally.cancelled + sum(tally.failed.get(kind, 0) for kind in FATAL_KINDS)
