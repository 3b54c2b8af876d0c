"""How many tests of `tests/integration/spark` passed on a Spark, as docs/versions.md has it."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from tests.conftest import SessionKind

ARROW_UDFS = (4, 1)  # Spark has them from this version on


class Passed(NamedTuple):
    """The tests that passed on one Spark, by the UDFs that they ran: "pandas" or "Arrow"."""

    spark: str
    kind: SessionKind
    by_udfs: Counter[str]

    @classmethod
    def of(cls, spark: str, kind: SessionKind, tests: Iterable[str]) -> "Passed":
        """Count tests: each runs the UDFs of its Spark, unless it asks for pandas ones by a parameter."""
        own = "Arrow" if version_of(spark) >= ARROW_UDFS else "pandas"
        return cls(spark, kind, Counter("pandas" if re.search(r"\[(.*-)?pandas\b", test) else own for test in tests))


def version_of(spark: str) -> tuple[int, int]:
    """Return the first two numbers of Spark's version."""
    first, second = re.findall(r"\d+", spark)[:2]
    return int(first), int(second)


def table(runs: Iterable[Passed]) -> list[str]:
    """Return the lines of a table in Markdown, a row for each Spark."""
    rows = [
        f"| {spark} | {kind} | {by_udfs['pandas'] or '–'} | {by_udfs['Arrow'] or '–'} |"
        for spark, kind, by_udfs in runs
    ]
    return ["| Spark | session | tests with pandas UDFs | with Arrow UDFs |", "| --- | --- | --- | --- |", *rows]
