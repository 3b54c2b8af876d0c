"""The report of the checks, as values and as text: failures with their hints first, then every check.

Knows no clock, no socket, no Spark and no secret.
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
    """One check: its subject, where it ran, and its outcome.

    Attributes:
        name: Its subject: "address", "credentials", "description", "request", "batches", "packages" or "cache".
        where: "driver" or "executor". The command line counts as a driver.
        outcome: "passed", "failed" or "skipped".
        message: The finding, or the reason why the check was skipped.
        hint: The next step; empty if there is nothing to do.
    """

    name: str
    where: Where
    outcome: Outcome
    message: str
    hint: str = ""

    @classmethod
    def from_text(cls, name: str, where: Where, outcome: Outcome, text: str) -> "Check":
        """Return a check whose text is a message with or without a hint."""
        message, _, hint = text.partition(HINT)
        return cls(name, where, outcome, message, hint)

    @property
    def text(self) -> str:
        """The message and the hint, as in a row's error."""
        return self.message + (HINT + self.hint if self.hint else "")


@dataclass(frozen=True, repr=False)
class Report:
    """The result of `preflight`; prints as text, and as a table in a notebook.

    >>> report = preflight("my-endpoint")
    >>> if not report.ok:
    ...     raise SystemExit(str(report))

    Attributes:
        endpoint: The endpoint's name or URL, without secrets.
        checks: Every check, in the order in which they ran.
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
        yield text_table(
            (check.where, check.name, check.outcome, "see above" if check.outcome == "failed" else check.text)
            for check in self.checks
        )

    @property
    def _verdict(self) -> str:
        counts = {outcome: sum(check.outcome == outcome for check in self.checks) for outcome in _COLOURS}
        summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        return f"{'ready' if self.ok else 'not ready'} ({summary})"

    def _repr_html_(self) -> str:
        checks = sorted(self.checks, key=lambda check: check.outcome != "failed")
        table = html_table(("where", "check", "outcome", "finding"), map(_cells, checks), left_aligned=(3,))
        return f"<p><strong>{escape(self.endpoint)}</strong>: {escape(self._verdict)}</p>{table}"


def _cells(check: Check) -> tuple[str | Cell, ...]:
    outcome = Cell(check.outcome, colour=_COLOURS[check.outcome])
    return check.where, check.name, outcome, Cell(check.message, note=f"Hint: {check.hint}" if check.hint else "")
