"""What the measurements of flow control have in common: a job that knows nothing of its endpoint, and its figures."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from benchmarks.support.behaviours import Steady
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.running import CHAT
from benchmarks.support.session import Bench, Outcome
from spark_llm import Policy, chat_udf

Kind = TypeVar("Kind", bound=Steady)
WARM_ROWS = 40  # of each task, asked where nothing is refused


@dataclass(frozen=True)
class Job(Generic[Kind]):
    """So many rows for an endpoint that behaves like this, with nothing in the policy but what is said here."""

    behaviour: Kind
    rows: int
    tasks: int = 1
    policy: Policy = Policy()
    number: str = "id"  # what a row's question ends in, as SQL

    def run(self, spark: Bench) -> Outcome:
        """Warm the workers, then ask."""
        self.warm(spark)
        return self.ask(spark)

    def warm(self, spark: Bench) -> None:
        """Warm the workers where nothing goes wrong: of this behaviour they learn nothing."""
        spark.warm(chat_udf(spark.endpoint.url(CHAT)), WARM_ROWS * self.tasks)

    def ask(self, spark: Bench) -> Outcome:
        """Ask every row."""
        udf = chat_udf(spark.endpoint.url(CHAT, self.behaviour), policy=self.policy)
        return spark.checked(udf, spark.questions(self.rows, self.number))

    @property
    def told(self) -> str:
        """The job in words."""
        latency = f"median {self.behaviour.median_s:g} s, sigma {self.behaviour.sigma:g}"
        return f"{self.rows:,} rows on `local[{self.tasks}]`, lognormal latencies ({latency})"


def lines(
    what: str, outcome: Outcome, ideal_s: float, *, share: Goal | None = None, per_row: Goal | None = None, note: str
) -> list[Figure]:
    """Return the figures that belong together: the share of what could be had, its price, and the harm to the rows."""
    took_s, requests = outcome.counted.span_s, outcome.counted.requests
    used, sent = [ideal_s / took_s], [requests / outcome.rows]
    return [
        Figure(f"{what}: share used", used, f"{took_s:.1f} s", f"{ideal_s:.1f} s", share, digits=3, note=note),
        Figure("… requests per row", sent, f"{requests:,}", f"{outcome.rows:,}", per_row, unit="", digits=3),
        *unharmed(outcome),
    ]


def unharmed(outcome: Outcome) -> list[Figure]:
    """Return what must be nothing: the rows without an answer, and those with another's."""
    why = f" ({', '.join(outcome.errors)})" if outcome.errors else ""
    return [
        Figure(f"… rows {name}", [count], f"{count:,}{why}", goal=Goal(at_most=0), unit="rows", digits=0)
        for name, count, why in (("lost", outcome.lost, why), ("with a wrong answer", outcome.wrong, ""))
    ]
