"""The budget of a job whose requests are answered in batches: how many rows may still be sent.

What is sent cannot be called back, and its cost is known only at the end. So what is with the provider counts as spent,
by the estimate. Knows no clock and no Spark.
"""

from dataclasses import dataclass

from spark_llm.errors import HINT
from spark_llm.metering.budget import Budget
from spark_llm.metering.chunking import RUN_AGAIN, PerRow, rows_left
from spark_llm.metering.forecast import MARGIN, affordable_rows

_NO_LIMIT = "cannot be kept, because the length of an answer has no limit"


def next_step(limit: str) -> str:
    """Return what helps where `BatchBudget.affordable` names this limit."""
    if limit.endswith(_NO_LIMIT):
        return "set max_tokens or max_completion_tokens, or limit the rows instead: Budget(rows=…)."
    return f"run it again with a larger one: {RUN_AGAIN}"


def why_left(rows: int, limit: str | None, *, sends: bool) -> str | None:
    """Return why so many rows are neither asked nor with the provider, with a hint; None where there are none.

    `limit` is the one that forbade to send them, as `BatchBudget.affordable` names it. `sends` is False in a run that
    only collects.
    """
    if not rows:
        return None
    why, hint = "the time to wait is over", f"run it again for the rest: {RUN_AGAIN}"
    if limit is not None:
        why, hint = f"the budget of {limit}", next_step(limit)
    elif not sends:
        why = "this run sends nothing"
    return f"{why}: {rows_left(rows)}.{HINT}{hint}"


@dataclass
class BatchBudget:
    """The rows and their cost so far.

    Attributes:
        budget: The limits of the run; None for none.
        estimate: The highest cost of a row, before any was answered.
        answered: Rows that were answered in this run.
        tokens: Their tokens.
        usd: Their cost in US dollars.
        out: Rows that are with the provider.
        sent: Rows that this run has sent.
    """

    budget: Budget | None
    estimate: PerRow
    answered: int = 0
    tokens: int = 0
    usd: float = 0.0
    out: int = 0
    sent: int = 0

    @property
    def row(self) -> PerRow:
        """The cost of a row: what the answered ones cost with a margin, else the estimate; dollars only with prices."""
        if not self.answered or not self.tokens:
            return self.estimate
        usd = MARGIN * self.usd / self.answered if self.usd or self.estimate.usd is not None else None
        return PerRow(MARGIN * self.tokens / self.answered, usd)

    def add(self, answered: int, tokens: int, usd: float) -> None:
        """Record rows that were answered, and their cost."""
        self.answered += answered
        self.tokens += tokens
        self.usd += usd

    def affordable(self, wanted: int, again: int = 0) -> tuple[int, str | None]:
        """Return how many of so many rows may be sent, and the limit that forbids the rest, in words.

        Of the wanted rows this run has sent `again` before, which are counted and come first.
        """
        if self.budget is None:
            return wanted, None
        row, found, limit = self.row, float(wanted), None
        for name, total, spent, each in (
            ("rows", self.budget.rows, self.sent - again, 1.0),
            ("tokens", self.budget.tokens, self.tokens + self.out * (row.tokens or 0), row.tokens),
            ("US dollars", self.budget.usd, self.usd + self.out * (row.usd or 0), row.usd),
        ):
            if total is None:
                continue
            if each is None:
                return 0, f"{total:,.10g} {name} {_NO_LIMIT}"
            if (allowed := affordable_rows(total - spent, each)) < found:
                found, limit = allowed, f"{total:,.10g} {name} would be exceeded"
        return int(found), limit
