"""The errors in a file of settings, collected so that one message has them all. Reads no file."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from spark_llm.errors import ConfigError
from spark_llm.validation.suggestion import did_you_mean

Settings = TypeVar("Settings")
_EXAMPLES: Mapping[Any, str] = {  # in TOML, by type
    str: '{key} = "…"',
    str | list[str]: '{key} = "…", or {key} = ["…", "…"]',
    list[str]: '{key} = ["…", "…"]',
    int: "{key} = 100",
    int | float: "{key} = 0.5",
    bool: "{key} = true",
    dict[str, str]: '{key} = {{NAME = "…"}}',
}


class ConfigErrors:
    """Collects the errors of one file. A place is a table in it, as in `columns.summary`; "" is its top.

    >>> errors = ConfigErrors("job.toml")
    >>> entries = errors.entries("", toml, {"source": str, "budget": Any}, required={"source": "name a table."})
    >>> budget = errors.build("budget", entries["budget"], Budget)
    >>> errors.raise_any()
    """

    def __init__(self, file: str, reword: Callable[[str], str] = str) -> None:
        """Collect the errors of a file of this name, with their hints reworded."""
        self._file = file
        self._reword = reword
        self._found: list[ConfigError] = []

    def add(self, place: str, what: str, hint: str) -> None:
        """Add an error."""
        self._found.append(ConfigError(f"{self._file}{f' [{place}]' if place else ''}: {what}", self._reword(hint)))

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Add the `ConfigError` that the block raises, and go on after the block."""
        try:
            yield
        except ConfigError as error:
            self.add(place, error.what, error.hint)

    def entries(
        self,
        place: str,
        value: object,
        types: Mapping[str, Any],
        *,
        required: Mapping[str, str] | None = None,
        hints: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return the valid entries of a table. Each other entry is an error, whose message does not have its value.

        Args:
            place: The table's place.
            value: The value in the file, which has to be a table.
            types: The known keys, and the types of their values.
            required: The keys that must be there, and a hint for each.
            hints: Hints for unknown keys, instead of the most similar known key.
        """
        if not isinstance(value, Mapping):
            self.add(place, f"{place} is not a table.", f"write it as [{place}], with keys below it.")
            return {}
        entries = {}
        for key, entry in value.items():
            if key not in types:
                hint = did_you_mean(key, list(types), otherwise=f"the keys are {', '.join(types)}.")
                self.add(place, f"unknown key {key!r}.", (hints or {}).get(key, hint))
                continue
            try:
                entries[key] = msgspec.convert(entry, types[key])
            except msgspec.ValidationError as error:
                self.add(
                    place,
                    f"{key} is not valid: {str(error)[0].lower()}{str(error)[1:]}.",
                    _type_hint(key, types[key]),
                )
        for key, hint in (required or {}).items():
            if value.get(key, {}) == {}:
                self.add(place, f"the key {key!r} is missing.", hint)
        return entries

    def build(self, place: str, value: object, make: Callable[..., Settings]) -> Settings | None:
        """Return `make(**value)`; None where that is an error. The keys of the table are the parameters of `make`."""
        entries = self.entries(place, value, dict.fromkeys(signature(make).parameters, Any))
        if not entries and value != {}:
            return None  # all of them are errors, and that it is empty would be one more
        with self.at(place):
            return make(**entries)
        return None

    def raise_any(self) -> None:
        """Raise one `ConfigError` with a line for each error; return if there is none."""
        if self._found:
            *others, last = self._found
            raise ConfigError("\n".join([*map(str, others), last.what]), last.hint)


def _type_hint(key: str, kind: Any) -> str:  # noqa: ANN401 -- any type hint
    """Return how to write a value of this type."""
    if get_origin(kind) is Literal:
        return f"write one of {', '.join(map(repr, get_args(kind)))}."
    if kind in _EXAMPLES:
        return f"write it as in {_EXAMPLES[kind].format(key=key)}."
    return f"write it as a table: [{key}], with keys below it."
