"""The jobs of the flow control measurements, which know nothing of their endpoint, and their figures."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from benchmarks.support.behaviours import Steady
from benchmarks.support.endpoint_process import CHAT
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.session import Bench, Outcome
from spark_llm import Policy, chat_udf

Kind = TypeVar("Kind", bound=Steady)
WARM_ROWS = 40  # of each task, on an endpoint that refuses nothing


@dataclass(frozen=True)
class Job(Generic[Kind]):
    """A number of rows for an endpoint with this behaviour, under this policy alone."""

    behaviour: Kind
    rows: int
    tasks: int = 1
    policy: Policy = Policy()
    number: str = "id"  # SQL: the number at the end of a row's prompt

    def run(self, spark: Bench) -> Outcome:
        """Warm the workers, then send every row."""
        self.warm(spark)
        return self.ask(spark)

    def warm(self, spark: Bench) -> None:
        """Warm the workers on another behaviour, so that they learn nothing of this one."""
        spark.warm(chat_udf(spark.endpoint.url(CHAT)), WARM_ROWS * self.tasks)

    def ask(self, spark: Bench) -> Outcome:
        """Send every row, and return the outcome."""
        udf = chat_udf(spark.endpoint.url(CHAT, self.behaviour), policy=self.policy)
        return spark.check_answers(udf, spark.prompts(self.rows, self.number))

    @property
    def description(self) -> str:
        """The job in a few words."""
        latency = f"median {self.behaviour.median_s:g} s, sigma {self.behaviour.sigma:g}"
        return f"{self.rows:,} rows on `local[{self.tasks}]`, lognormal latencies ({latency})"


def share_figures(
    name: str, outcome: Outcome, ideal_s: float, *, share: Goal | None = None, per_row: Goal | None = None, note: str
) -> list[Figure]:
    """Return the share of the capacity used, the requests per row, and the lost and wrong rows."""
    elapsed_s, requests = outcome.counters.span_s, outcome.counters.requests
    used, sent = [ideal_s / elapsed_s], [requests / outcome.rows]
    return [
        Figure(f"{name}: share used", used, f"{elapsed_s:.1f} s", f"{ideal_s:.1f} s", share, digits=3, note=note),
        Figure("… requests per row", sent, f"{requests:,}", f"{outcome.rows:,}", per_row, unit="", digits=3),
        *row_error_figures(outcome),
    ]


def row_error_figures(outcome: Outcome) -> list[Figure]:
    """Return the figures that must be zero: rows without an answer, and rows with another row's answer."""
    errors = f" ({', '.join(outcome.errors)})" if outcome.errors else ""
    return [
        Figure(f"… rows {name}", [count], f"{count:,}{kinds}", goal=Goal(at_most=0), unit="rows", digits=0)
        for name, count, kinds in (("lost", outcome.lost, errors), ("with a wrong answer", outcome.wrong, ""))
    ]
