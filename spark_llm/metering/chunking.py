"""How many rows are asked next, and when a run stops: a chunk that would pass the budget is not begun.

What a row costs is learned from the rows before it. So where there is a budget to keep, the run begins with few rows,
and no chunk is more than ten times what was asked before it. A chunk also costs some seconds whatever its size, so the
rest of a budget that is worth only a handful of rows is left. Knows no clock, no Spark: `now_s` is an argument.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from spark_llm.errors import HINT, ConfigError, Kind
from spark_llm.metering.budget import Budget
from spark_llm.metering.forecast import CostForecast, TimeForecast, fit
from spark_llm.metering.tally import Tally
from spark_llm.validation.numbers import check_number, check_whole

PILOT_ROWS = 200  # at most, in the first chunk of a run with a budget to keep
GROWTH = 10  # times the rows that were asked so far: as many may be asked on their evidence
FEWEST_ROWS = 50  # at most, for which a chunk is worth its seconds
ENOUGH_ROWS = 20  # that were asked, before a failure rate means something
FATAL_KINDS: tuple[Kind, ...] = ("unauthorized", "not_found", "quota")  # every further row would fare the same
FATAL_SHARE = 0.1  # of a chunk's rows: fewer such errors may be of a task's last rows, which others cannot clear
NOT_ROW_ERRORS: tuple[Kind, ...] = ("cancelled", *FATAL_KINDS)  # errors that say nothing of the row they are in
_RUN_AGAIN = "what was answered is not asked again."


@dataclass(frozen=True)
class Limits:
    """What the user sets: the largest chunk, the budget, and the share of failed rows at which the run stops."""

    chunk_rows: int = 5_000
    budget: Budget | None = None
    max_failure_rate: float | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        check_whole("chunk_rows", self.chunk_rows, 1, hint="leave it out for 5000.")
        if not isinstance(self.budget, (Budget, type(None))):
            raise ConfigError(f"budget={self.budget!r} is no Budget.", "write budget=Budget(tokens=2_000_000), say.")
        if self.max_failure_rate is not None:
            hint = "write 0.1 for a tenth of the rows, or leave it out."
            check_number("max_failure_rate", self.max_failure_rate, 0.0, 1.0, exclusive_minimum=True, hint=hint)


@dataclass(frozen=True)
class PerRow:
    """What a row costs at most, over all columns, as it is guessed before any was asked; None where nobody knows."""

    tokens: float | None = None
    usd: float | None = None


class ChunkPlanner:
    """The chunks of one run. Ask for the `next` one, say what came of it when it is `done`, until there is none.

    Attributes:
        stopped: Why the run stopped before its rows were done, and what to do; None where it did not.
    """

    def __init__(self, waiting: int, limits: Limits, guess: PerRow, began_s: float) -> None:
        """Begin with the rows that wait to be asked, in a run that began at `began_s`."""
        self.stopped: str | None = None
        self._limits = limits
        self._budget = limits.budget
        self._guess = guess
        self._began_s = began_s
        self._waiting = waiting
        self._held = 0
        self._rows = 0
        self._columns: dict[str, Tally] = {}
        self._tokens = CostForecast()
        self._usd = CostForecast()
        self._pace = TimeForecast()
        self._chunk_began_s = began_s

    @property
    def left(self) -> int:
        """Rows that are still to be asked: those of no chunk so far, and those of which nothing came."""
        return self._waiting + self._held

    def next(self, now_s: float) -> int:
        """Return how many rows the chunk has that begins now; 0 when the run is over."""
        rows = self._budget.rows if self._budget else None
        wanted = self._waiting if rows is None else min(self._waiting, max(0, rows - self._rows))
        if self.stopped or not self._waiting:
            return 0
        if not wanted:
            return self._stop(f"the budget of {rows:,} rows is used up", f"run it again for the rest: {_RUN_AGAIN}")
        most = self._limits.chunk_rows
        fewest = min(wanted, 1 if not self._rows else max(1, min(FEWEST_ROWS, most // 20)))
        for allowed, limit in self._allowed(now_s):
            if allowed < fewest:
                return self._stop(
                    f"the budget of {limit} would be passed", f"run it again with more, or for the rest: {_RUN_AGAIN}"
                )
            most = int(min(most, allowed))
        even = math.ceil(wanted / math.ceil(wanted / self._limits.chunk_rows))
        self._chunk_began_s = now_s
        return min(even, most, self._evidence)

    def done(
        self, rows: int, tallies: Mapping[str, Tally], usd: float | None, now_s: float, trouble: str | None = None
    ) -> None:
        """Take note of a chunk: its rows, what came of them by column, and its cost where there are prices.

        `trouble` is what an error of a `HOPELESS` kind says, with its hint, where there was one.

        A chunk that turned out to have no rows ends the run: they are gone.
        """
        self._waiting = max(0, self._waiting - rows) if rows else 0
        self._rows += rows
        self._held += max((_held(tally) for tally in tallies.values()), default=0)
        for name, tally in tallies.items():
            self._columns[name] = self._columns.get(name, Tally()).plus(tally)
        asked = sum(tally.asked for tally in tallies.values())
        answered = rows * sum(tally.answered for tally in tallies.values()) / asked if asked else 0.0
        self._tokens.add(rows, answered, sum(tally.total_tokens for tally in tallies.values()))
        self._usd.add(rows, answered, usd or 0.0)
        self._pace.add(rows, now_s - self._chunk_began_s)
        for name, tally in self._columns.items():
            self._judge(name, tally, trouble, tallies.get(name, Tally()))

    def _allowed(self, now_s: float) -> Iterator[tuple[float, str]]:
        """Return how many more rows each limit allows, as far as is known, and the limit in words."""
        budget, known = self._budget, self._tokens.spent > 0
        if budget and budget.tokens is not None:
            yield (
                fit(budget.tokens - self._tokens.spent, self._tokens.per_row if known else self._guess.tokens),
                f"{budget.tokens:,} tokens",
            )
        if budget and budget.usd is not None:
            yield (
                fit(budget.usd - self._usd.spent, self._usd.per_row if known else self._guess.usd),
                f"{budget.usd:,.10g} US dollars",
            )
        if budget and budget.seconds is not None:
            left_s = budget.seconds - (now_s - self._began_s)
            yield self._pace.rows_in(left_s), f"{budget.seconds:,.10g} seconds"

    @property
    def _evidence(self) -> int:
        """How many rows may be asked on what is known of their cost."""
        budget = self._budget
        if budget is None or (budget.tokens, budget.usd, budget.seconds) == (None, None, None):
            return self._limits.chunk_rows
        guessed = (budget.tokens is None or self._guess.tokens is not None) and (
            budget.usd is None or self._guess.usd is not None
        )
        if not guessed and not self._tokens.spent:
            return FEWEST_ROWS
        return GROWTH * self._rows or PILOT_ROWS

    def _judge(self, name: str, tally: Tally, trouble: str | None, last: Tally) -> None:
        """Stop where going on would be a waste, by what came of one column so far, and of it in the last chunk."""
        failed: dict[Kind, int] = {kind: count for kind, count in tally.failed.items() if count and kind != "cancelled"}
        asked = tally.answered + sum(failed.values())
        enough = asked >= min(ENOUGH_ROWS, self._limits.chunk_rows) or not self._waiting
        rate, budget = self._limits.max_failure_rate, self._budget
        hopeless = [kind for kind in FATAL_KINDS if last.failed.get(kind, 0)]
        if hopeless and sum(last.failed[kind] for kind in hopeless) > FATAL_SHARE * last.answered:
            said, _, hint = (trouble or "").partition(HINT)
            self._stop(
                f"the endpoint of column {name!r} answers no row ({': '.join(filter(None, [hopeless[0], said]))})",
                f"{hint} Then run it again: {_RUN_AGAIN}" if hint else f"mend that, and run it again: {_RUN_AGAIN}",
            )
        elif rate is not None and enough and sum(failed.values()) > rate * asked:
            self._stop(
                f"{sum(failed.values()):,} of {asked:,} rows failed in column {name!r} ({_counted(failed)}), more than "
                f"max_failure_rate={rate:g} allows",
                f"the rows' error says why; then run it again: {_RUN_AGAIN}",
            )
        elif "cancelled" in tally.failed:
            self._stop(
                f"so many rows failed in column {name!r} ({_counted(failed)}) that its tasks stopped asking",
                f"the rows' error says why; then run it again: {_RUN_AGAIN}",
            )
        elif budget and (budget.tokens or budget.usd) and tally.answered and tally.requests and not tally.total_tokens:
            self._stop(
                f"the answers in column {name!r} report no tokens, so a budget of tokens or US dollars cannot be kept",
                "limit the run by Budget(rows=…) or Budget(seconds=…).",
            )

    def _stop(self, why: str, hint: str) -> int:
        left = "1 row is left" if self.left == 1 else f"{self.left:,} rows are left"
        self.stopped = self.stopped or f"{why}: {left}.{HINT}{hint}"
        return 0


def _held(tally: Tally) -> int:
    return sum(tally.failed.get(kind, 0) for kind in NOT_ROW_ERRORS)


def _counted(failed: Mapping[Kind, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(failed.items(), key=lambda item: -item[1]))
