"""How much a run may cost: the one place where each limit of a budget is explained."""

from dataclasses import dataclass, fields

from spark_llm.errors import ConfigError

_LARGEST = 1e15
_UNITS = {"usd": "US dollars", "seconds": "seconds"}


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
        given = {limit.name: value for limit in fields(self) if (value := getattr(self, limit.name)) is not None}
        if not given:
            raise ConfigError("Budget() limits nothing.", "give it tokens=, usd=, rows= or seconds=, or leave it out.")
        for name, value in given.items():
            kinds = (int, float) if name in _UNITS else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value <= _LARGEST:
                wanted = f"number of {_UNITS[name]}" if name in _UNITS else f"whole number of {name}"
                raise ConfigError(
                    f"Budget({name}={value!r}) is not a {wanted} from above 0 to {_LARGEST:g}.",
                    f"set {name} within it, or leave it out.",
                )
