"""What a check of an endpoint found, and how that prints: first what is wrong and what to do, then everything.

Values and their text. Knows no clock, no socket and no Spark; what it is given has no secret in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Literal, NamedTuple

from spark_llm.errors import HINT
from spark_llm.text.table import Cell, html_table, text_table

Where = Literal["driver", "executor"]
Outcome = Literal["passed", "failed", "skipped"]
_COLOURS: dict[Outcome, str] = {"passed": "#1a7f37", "failed": "#b3261e", "skipped": "#6b6b6b"}


class Check(NamedTuple):
    """One check: what was looked at, from where, and what came of it.

    Attributes:
        name: What was looked at: "address", "credentials", "description", "request" or "packages".
        where: From where: "driver" or "executor". The command line is a driver.
        outcome: "passed", "failed" or "skipped".
        message: What was found, or why nothing was.
        hint: What to do about it; empty where there is nothing to do.
    """

    name: str
    where: Where
    outcome: Outcome
    message: str
    hint: str = ""

    @classmethod
    def of_words(cls, name: str, where: Where, outcome: Outcome, words: str) -> "Check":
        """Make a check of a message that may end in a hint."""
        message, _, hint = words.partition(HINT)
        return cls(name, where, outcome, message, hint)

    @property
    def words(self) -> str:
        """The message and the hint, as an error of a row has them."""
        return self.message + (HINT + self.hint if self.hint else "")


@dataclass(frozen=True, repr=False)
class Report:
    """What `preflight` found; prints as text, and as a table in a notebook.

    >>> report = preflight("my-endpoint")
    >>> if not report.ok:
    ...     raise SystemExit(str(report))

    Attributes:
        endpoint: What was checked, fit to print.
        checks: Every check, in the order in which they were made.
    """

    endpoint: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.outcome == "failed")

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        yield f"{self.endpoint}: {self._verdict}"
        for check in self.failed:
            yield f"\nFAILED {check.name} ({check.where}): {check.message}"
            if check.hint:
                yield f"  Hint: {check.hint}"
        yield ""
        found = ("see above" if check.outcome == "failed" else check.words for check in self.checks)
        yield text_table(
            (check.where, check.name, check.outcome, words) for check, words in zip(self.checks, found, strict=True)
        )

    @property
    def _verdict(self) -> str:
        counts = {outcome: sum(check.outcome == outcome for check in self.checks) for outcome in _COLOURS}
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        return f"{'ready' if self.ok else 'not ready'} ({told})"

    def _repr_html_(self) -> str:
        checks = sorted(self.checks, key=lambda check: check.outcome != "failed")
        table = html_table(("where", "check", "outcome", "what was found"), map(_cells, checks), left_aligned=(3,))
        return f"<p><strong>{escape(self.endpoint)}</strong>: {escape(self._verdict)}</p>{table}"


def _cells(check: Check) -> tuple[str | Cell, ...]:
    outcome = Cell(check.outcome, colour=_COLOURS[check.outcome])
    return check.where, check.name, outcome, Cell(check.message, note=f"Hint: {check.hint}" if check.hint else "")
