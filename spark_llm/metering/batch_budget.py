"""The budget of a job whose requests are answered in batches: how many rows may still be sent.

What is sent cannot be called back, and its cost is known only at the end. So what is with the provider counts as spent,
by the estimate. Knows no clock and no Spark.
"""

from dataclasses import dataclass

from spark_llm.metering.budget import Budget
from spark_llm.metering.chunking import PerRow
from spark_llm.metering.forecast import MARGIN, affordable_rows

_NO_LIMIT = "cannot be kept, because the length of an answer has no limit"


def next_step(limit: str) -> str:
    """Return what helps where `BatchBudget.affordable` names this limit."""
    if limit.endswith(_NO_LIMIT):
        return "set max_tokens or max_completion_tokens, or limit the rows instead: Budget(rows=…)."
    return "run it again with a larger one: answered rows are not sent again."


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
        """The cost of a row: what the answered ones cost with a margin, else the estimate."""
        if not self.answered or not self.tokens:
            return self.estimate
        return PerRow(MARGIN * self.tokens / self.answered, MARGIN * self.usd / self.answered)

    def add(self, answered: int, tokens: int, usd: float) -> None:
        """Record rows that were answered, and their cost."""
        self.answered += answered
        self.tokens += tokens
        self.usd += usd

    def affordable(self, wanted: int) -> tuple[int, str | None]:
        """Return how many of so many rows may be sent, and the limit that forbids the rest, in words."""
        if self.budget is None:
            return wanted, None
        row, found, limit = self.row, float(wanted), None
        for name, total, spent, each in (
            ("rows", self.budget.rows, self.sent, 1.0),
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
