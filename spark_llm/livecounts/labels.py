"""The labels of UDFs in live counts: a UDF's name and, where operations are exported, whom it asks. It is pure."""

from typing import NamedTuple

_SEPARATOR = "\x1f"  # between units, in ASCII


class Label(NamedTuple):
    """A UDF's name, its task, and the URL and model that it asks; without these three, it asks several, or a table."""

    name: str
    task: str = ""
    url: str = ""
    model: str = ""

    def __str__(self) -> str:
        return _SEPARATOR.join(self) if self.task else self.name

    @classmethod
    def of(cls, text: str) -> "Label":
        """Return the label that a text is."""
        parts = text.split(_SEPARATOR)
        return cls(*parts) if len(parts) == len(cls._fields) else cls(text)
