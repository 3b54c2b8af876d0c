"""How much a run may cost: the one place where each limit of a budget is explained."""

from dataclasses import dataclass

from spark_llm.errors import ConfigError
from spark_llm.validation.numbers import check_number, check_whole

_LARGEST = 10**15


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What one run may use up; it stops before the chunk of rows that would pass any of its limits.

    >>> Budget(tokens=2_000_000)  # what the endpoint reports, over all columns
    >>> Budget(usd=5, seconds=3600)  # whichever ends first; dollars need `prices=`

    What a chunk will cost is predicted from the rows before it, with a margin of a tenth. The run's first rows, 200 at
    most, are there to learn it. The rows that are left are asked by the next run.

    Attributes:
        tokens: Tokens of all questions and answers of the run, as the endpoint adds them up in `total_tokens`.
        usd: US dollars for those tokens, at the prices that are given with it.
        rows: Rows that are asked, whatever they cost. This one is exact.
        seconds: Seconds of wall clock, from the start of the run.
    """

    tokens: int | None = None
    usd: float | None = None
    rows: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Check every limit."""
        if (self.tokens, self.usd, self.rows, self.seconds) == (None,) * 4:
            raise ConfigError("Budget() limits nothing.", "give it tokens=, usd=, rows= or seconds=, or leave it out.")
        for name in ("tokens", "rows"):
            if (value := getattr(self, name)) is not None:
                check_whole(name, value, 1, _LARGEST, unit=name, owner="Budget")
        for name, unit in (("usd", "US dollars"), ("seconds", "seconds")):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, 0.0, _LARGEST, exclusive_minimum=True, unit=unit, owner="Budget")
