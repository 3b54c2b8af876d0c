"""Suggestions for a name that is not known."""

from collections.abc import Sequence
from difflib import get_close_matches


def did_you_mean(name: object, known: Sequence[str], *, otherwise: str, max_suggestions: int = 1) -> str:
    """Return the hint "did you mean 'x'?" with the known names that are most like `name`, or `otherwise`."""
    near = get_close_matches(str(name), known, n=max_suggestions)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else otherwise
