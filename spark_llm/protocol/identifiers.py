"""Names of tables and columns: parsed as Spark parses them, and quoted before they go into SQL.

No name is pasted into SQL unchanged: it is parsed into its parts, and each part is written in back-quotes.

Sources: the grammar of Spark SQL's identifiers (`SqlBaseParser.g4`), and `UnresolvedAttribute` for columns.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from spark_llm.errors import ConfigError
from spark_llm.text.excerpt import excerpt

# Blanks that every Spark takes. Newer ones take more, and comments too, which no name needs.
_BLANKS = " \t\r\n"
_PART = re.compile(rf"[{_BLANKS}]*(?:([A-Za-z0-9_]+)|`((?:[^`]|``)*)`(?!`))[{_BLANKS}]*")
_NUMBER = re.compile(r"[0-9]+(?:[lsy]|(?:e[0-9]+)?(?:f|d|bd)?)", re.IGNORECASE)
_FORMAT = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_COLUMN = re.compile(r"[^`.]+|`((?:[^`]|``)*)`")  # or a part of its name

CaseFold = Callable[[str], str]
"""Maps equal names to one text: `str.lower`, or `str` in a session with case-sensitive names."""


def parse_table_name(what: str, name: str) -> tuple[str, ...]:
    """Return the parts of a table's name; messages begin with `what`, as in `source='a b'`.

    Raises `ConfigError`, with the position, for a name that Spark would refuse, and for a comment.

    >>> parse_table_name("source=", "delta.`/data/my reviews`")
    ('delta', '/data/my reviews')
    """
    parts, end = list[str](), 0
    while found := _PART.match(_text(what, name), end):
        bare, inner = found.groups()
        if bare is not None and _NUMBER.fullmatch(bare):
            raise _table_name_error(what, name, f"{bare} at position {found.start(1)} is a number", f"`{bare}`")
        parts.append(inner.replace("``", "`") if bare is None else bare)
        end = found.end() + 1
        if found.end() == len(name):
            return tuple(parts)
        if name[found.end()] != ".":
            break
    at = found.end() if found else len(name) - len(name[end:].lstrip(_BLANKS))
    if at == len(name):
        raise _table_name_error(what, name, "the part after the last dot is missing" if name.strip() else "it is empty")
    if found is None and name[at] == "`":
        raise _table_name_error(what, name, f"the back-quote at position {at} is not closed")
    raise _table_name_error(what, name, f"{name[at]!r} at position {at} is not allowed outside back-quotes")


def quoted(*parts: str) -> str:
    """Return the name of these parts for SQL: each part in back-quotes, whatever it holds.

    >>> quoted("main", "my reviews")
    '`main`.`my reviews`'
    """
    return ".".join("`{}`".format(part.replace("`", "``")) for part in parts)


def named(values: Mapping[str, str]) -> list[str]:
    """Return SQL expressions, each with its name.

    >>> named({"rows": "count(1)"})
    ['count(1) AS `rows`']
    """
    return [f"{value} AS {quoted(name)}" for name, value in values.items()]


def struct(fields: Mapping[str, str]) -> str:
    """Return the SQL of a struct of these fields, by name."""
    return f"struct({', '.join(named(fields))})"


def parse_column_name(what: str, name: str) -> str:
    """Return the bare name of a column, from its name as `F.col` reads it.

    Raises `ConfigError` for a name that `F.col` refuses, for `*`, and for a field inside a column.
    """
    found = _COLUMN.fullmatch(_text(what, name))
    if found is None or name == "*":
        raise ConfigError(
            f"{what}{excerpt(name)!r} is not the name of one column.",
            f"write a name with dots or back-quotes in back-quotes, {excerpt(quoted(name))}; turn a field of a struct"
            " into a column with withColumn.",
        )
    return name if found[1] is None else found[1].replace("``", "`")


def column_parts(name: str) -> tuple[str, ...]:
    """Return the parts of a column's name that `F.col` takes: the column, and its fields.

    >>> column_parts("answers.`my mood`")
    ('answers', 'my mood')
    """
    return tuple(each[0] if each[1] is None else each[1].replace("``", "`") for each in _COLUMN.finditer(name))


def check_new_column(name: str) -> None:
    """Raise `ConfigError` for a column's name with other characters than letters, digits and `_`."""
    if not isinstance(name, str) or not name or not all(char in "_0123456789" or char.isalpha() for char in name):
        raise ConfigError(
            f"A new column cannot be called {excerpt(name) if isinstance(name, str) else name!r}.",
            "use letters, digits and _, which every table format takes.",
        )


def check_distinct(what: str, names: Iterable[str], case_fold: CaseFold = str.lower) -> None:
    """Raise `ConfigError` where two names are equal for Spark; messages begin with `what`, as in `key= has`."""
    known: dict[str, str] = {}
    for name in names:
        if case_fold(name) in known:
            raise ConfigError(
                f"{what} {known[case_fold(name)]!r} and {name!r}, which are one name to Spark.", "rename one of them."
            )
        known[case_fold(name)] = name


def check_format(name: object) -> None:
    """Raise `ConfigError` for a value that cannot be the name of a table format; None is allowed."""
    if name is not None and not (isinstance(name, str) and _FORMAT.fullmatch(name)):
        raise ConfigError(
            f"format={name!r} is not the name of a table format.",
            'write it as in CREATE TABLE … USING, such as format="iceberg"; leave it out for the catalog\'s default.',
        )


def _text(what: str, name: object) -> str:
    if not isinstance(name, str):
        raise ConfigError(f"{what}{name!r} is not a name.", 'write it as a string, as in "main.reviews".')
    return name


def _table_name_error(what: str, name: str, why: str, example: str = "`my table`") -> ConfigError:
    return ConfigError(
        f"{what}{excerpt(name)!r} is not a table's name: {why}.",
        f"join the parts with dots, and write a part with other characters than A-Z, a-z, 0-9 and _ in back-quotes:"
        f" {example}, and delta.`/a/path` for a path; double a back-quote inside them.",
    )
