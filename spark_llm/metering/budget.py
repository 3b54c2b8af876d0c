"""The budget of a run: its limits of tokens, dollars, rows and seconds."""

from dataclasses import dataclass

from spark_llm.errors import ConfigError
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.numbers import check_number, check_whole

_MAX_LIMIT = 10**15


@checks_arguments
@dataclass(frozen=True, kw_only=True)
class Budget:
    """The limits of one run, which stops before a chunk of rows that would exceed any of them.

    >>> Budget(tokens=2_000_000)  # as the endpoint reports them, over all columns
    >>> Budget(usd=5, seconds=3600)  # whichever is reached first; dollars need `prices=`

    The cost of a chunk is predicted from earlier rows, with a margin of a tenth. The first chunk has 200 rows at most,
    to learn the cost. The next run continues with the remaining rows.

    Attributes:
        tokens: Tokens of all prompts and answers of the run: the endpoint's `total_tokens`.
        usd: US dollars for those tokens, at the given prices.
        rows: Rows that are sent, whatever they cost. This limit is exact.
        seconds: Seconds of wall clock, from the start of the run.
    """

    tokens: int | None = None
    usd: float | None = None
    rows: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Check every limit."""
        if (self.tokens, self.usd, self.rows, self.seconds) == (None,) * 4:
            raise ConfigError("Budget() has no limit.", "give it tokens=, usd=, rows= or seconds=, or leave it out.")
        for name in ("tokens", "rows"):
            if (value := getattr(self, name)) is not None:
                check_whole(name, value, 1, _MAX_LIMIT, unit=name, owner="Budget")
        for name, unit in (("usd", "US dollars"), ("seconds", "seconds")):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, 0.0, _MAX_LIMIT, exclusive_minimum=True, unit=unit, owner="Budget")
