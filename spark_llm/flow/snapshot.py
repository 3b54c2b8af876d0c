"""Numbers of a snapshot, which another process wrote: one that ended as it wrote may have left anything."""

from spark_llm.validation.numbers import is_number

MAX_NUMBER = 1e12


def number(value: object, minimum: float = 0.0, maximum: float = MAX_NUMBER) -> float:
    """Return a number within bounds; raises `ValueError` for any other value, NaN included."""
    if not is_number(value) or not minimum <= value <= maximum:
        raise ValueError(value)
    return value


def whole(value: object, minimum: int = 0, maximum: float = MAX_NUMBER) -> int:
    """Return a whole number within bounds; raises `ValueError` for any other value."""
    return int(number(value, minimum, maximum))


def optional(value: object, minimum: float = 0.0) -> float | None:
    """Return a number of at least `minimum`, or None; raises `ValueError` for any other value."""
    return None if value is None else number(value, minimum)
