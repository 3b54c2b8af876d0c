"""Names of tables and columns: read as Spark reads them, and quoted again before they go back to it.

A name is never pasted into SQL: it is read into its parts, and what is written is the parts, each in back-quotes.

Sources: the grammar of Spark SQL's identifiers (`SqlBaseParser.g4`), and `UnresolvedAttribute` for columns.
"""

import re
from collections.abc import Callable, Iterable

from spark_llm.errors import ConfigError
from spark_llm.text.excerpt import excerpt

# What every Spark takes. Newer ones know more blanks than these, and read comments away, which no name needs.
_BLANKS = " \t\r\n"
_PART = re.compile(rf"[{_BLANKS}]*(?:([A-Za-z0-9_]+)|`((?:[^`]|``)*)`(?!`))[{_BLANKS}]*")
_NUMBER = re.compile(r"[0-9]+(?:[lsy]|(?:e[0-9]+)?(?:f|d|bd)?)", re.IGNORECASE)
_FORMAT = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_COLUMN = re.compile(r"[^`.]+|`((?:[^`]|``)*)`")

Same = Callable[[str], str]
"""What makes two names equal that are one to a session: `str.lower`, or `str` where it tells case apart."""


def parse(what: str, name: str) -> tuple[str, ...]:
    """Return the parts of a table's name, as Spark reads one; messages put `what` before it, as in `source='a b'`.

    Raises `ConfigError`, with the place, for what Spark would refuse, and for a comment.

    >>> parse("source=", "delta.`/data/my reviews`")
    ('delta', '/data/my reviews')
    """
    parts, end = list[str](), 0
    while found := _PART.match(_text(what, name), end):
        bare, inner = found.groups()
        if bare is not None and _NUMBER.fullmatch(bare):
            raise _no_name(what, name, f"{bare} at position {found.start(1)} is a number", f"`{bare}`")
        parts.append(inner.replace("``", "`") if bare is None else bare)
        end = found.end() + 1
        if found.end() == len(name):
            return tuple(parts)
        if name[found.end()] != ".":
            break
    at = found.end() if found else len(name) - len(name[end:].lstrip(_BLANKS))
    if at == len(name):
        raise _no_name(what, name, "a part is missing at its end" if name.strip() else "it is empty")
    if found is None and name[at] == "`":
        raise _no_name(what, name, f"nothing closes the back-quote at position {at}")
    raise _no_name(what, name, f"{name[at]!r} at position {at} belongs to no part")


def quoted(parts: Iterable[str]) -> str:
    """Return the name of these parts as SQL reads it: each in back-quotes, whatever it holds.

    >>> quoted(("main", "my reviews"))
    '`main`.`my reviews`'
    """
    return ".".join("`{}`".format(part.replace("`", "``")) for part in parts)


def parse_column(what: str, name: str) -> str:
    """Return the bare name of a column, from its name as `F.col` reads it.

    Raises `ConfigError` for a name that `F.col` refuses, for `*`, and for a field inside a column.
    """
    found = _COLUMN.fullmatch(_text(what, name))
    if found is None or name == "*":
        raise ConfigError(
            f"{what}{excerpt(name)!r} is not the name of one column.",
            f"write a name that has dots or back-quotes in it in back-quotes, {excerpt(quoted([name]))}; a field of a"
            " struct has to be a column first, by withColumn.",
        )
    return name if found[1] is None else found[1].replace("``", "`")


def check_new_column(name: str) -> None:
    """Raise `ConfigError` for a column's name that not every table format takes: letters, digits and `_` are."""
    if not isinstance(name, str) or not name or not all(sign in "_0123456789" or sign.isalpha() for sign in name):
        raise ConfigError(
            f"A new column cannot be called {excerpt(name) if isinstance(name, str) else name!r}"
            f"{'' if name else ', which is no name'}.",
            "use letters, digits and _, which every table format takes.",
        )


def check_apart(what: str, names: Iterable[str], same: Same = str.lower) -> None:
    """Raise `ConfigError` where two of these names are one to Spark; messages begin with `what`, as in `key= has`."""
    known: dict[str, str] = {}
    for name in names:
        if same(name) in known:
            raise ConfigError(
                f"{what} {known[same(name)]!r} and {name!r}, which are one name to Spark.", "rename one of them."
            )
        known[same(name)] = name


def check_format(name: object) -> None:
    """Raise `ConfigError` for what cannot be the name of a table format; there may be none."""
    if name is not None and not (isinstance(name, str) and _FORMAT.fullmatch(name)):
        raise ConfigError(
            f"format={name!r} is not the name of a table format.",
            'write it as CREATE TABLE … USING takes it, as in format="iceberg"; leave it out for that of the catalog.',
        )


def _text(what: str, name: object) -> str:
    if not isinstance(name, str):
        raise ConfigError(f"{what}{name!r} is not a name.", 'write it as a string, as in "main.reviews".')
    return name


def _no_name(what: str, name: str, why: str, example: str = "`my table`") -> ConfigError:
    return ConfigError(
        f"{what}{excerpt(name)!r} is not a table's name: {why}.",
        f"join the parts by dots, and write one of other signs than A-Z, a-z, 0-9 and _ in back-quotes: {example}, and"
        " delta.`/a/path` for a path; a back-quote in it is written twice.",
    )
