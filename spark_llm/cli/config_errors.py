"""What is wrong in a file of settings, gathered so that all of it is said at once. Knows no file system."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from spark_llm.errors import ConfigError
from spark_llm.text.suggestion import did_you_mean

_NONE: Mapping[str, str] = {}


class ConfigErrors:
    """The faults of one file. A place is a table of it, as in `columns.summary`; the top of the file is an empty one.

    >>> faults = Faults("job.toml")
    >>> with faults.at("budget"):
    ...     budget = Budget(**faults.known("budget", table, ["tokens", "usd", "rows", "seconds"]))
    >>> faults.raise_any()
    """

    def __init__(self, file: str) -> None:
        """Gather the faults of a file of this name."""
        self._file = file
        self._found: list[ConfigError] = []

    def add(self, place: str, what: str, hint: str) -> None:
        """Take note of one."""
        self._found.append(ConfigError(f"{self._file}{f' [{place}]' if place else ''}: {what}", hint))

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Take note of the `ConfigError` that the block raises, and go on after the block."""
        try:
            yield
        except ConfigError as error:
            self.add(place, error.what, error.hint)

    def known(
        self, place: str, table: Mapping[str, Any], names: Iterable[str], instead: Mapping[str, str] = _NONE
    ) -> dict[str, Any]:
        """Return the entries of a table that have one of these names; each other one is a fault.

        `instead` has the next step for names that one might well write and that are refused. No value is repeated.
        """
        names = list(names)
        for name in table:
            if name not in names:
                hint = did_you_mean(name, names, otherwise=f"its keys are {', '.join(names)}.")
                self.add(place, f"{name!r} is no key of it.", instead.get(name, hint))
        return {name: value for name, value in table.items() if name in names}

    def table(self, place: str, value: object) -> Mapping[str, Any]:
        """Return a value that has to be a table; what is none is a fault, and an empty table instead."""
        if isinstance(value, Mapping):
            return value
        self.add(place, f"{place} is a value, and it has to be a table.", f"write it as [{place}], with keys below it.")
        return {}

    def raise_any(self) -> None:
        """Raise one `ConfigError` with a line for each fault; where there is none, return."""
        if self._found:
            *others, last = self._found
            raise ConfigError("\n".join([*map(str, others), last.what]), last.hint)
