"""Numbers as people read them: money, time, and errors by kind."""

from collections.abc import Mapping

from spark_llm.errors import KINDS, Kind


def by_kind(failed: Mapping[Kind, int]) -> str:
    """Return numbers of errors by kind, the most frequent first: `9 rate_limited, 3 timeout`."""
    kinds = sorted((kind for kind in KINDS if failed.get(kind)), key=lambda kind: -failed[kind])
    return ", ".join(f"{failed[kind]:,} {kind}" for kind in kinds)


def dollars(usd: float) -> str:
    """Return an amount to the cent, and below ten cents to the hundredth of a cent: `$1,234.50`, `$0.0123`."""
    places = 4 if 0 < round(usd, 4) < 0.1 else 2
    return f"${usd:,.{places}f}"


def span(seconds: float) -> str:
    """Return a time in its two largest units: `3 d 4 h`, `2 h 5 min`, `8 min 20 s`, `12 s`; a short one as `3.4 s`."""
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    days, rest = divmod(round(seconds), 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next(place for place, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)
