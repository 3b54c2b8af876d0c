"""Names of columns as a message lists them."""

from collections.abc import Iterable


def column_list(names: Iterable[str]) -> str:
    """Return the names in quotes, with commas between them: `'id', 'text'`."""
    return ", ".join(map(repr, names)) or "no columns"
