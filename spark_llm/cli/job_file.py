"""A job's file: TOML that says what `enrich_table` is called with, and the session that it runs in.

All that can be wrong in it is found before there is a session, and said at once.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from inspect import signature
from pathlib import Path
from typing import Any

from spark_llm.auth.credentials import Bearer
from spark_llm.cli.config_errors import ConfigErrors
from spark_llm.cli.job_columns import LateColumn, read_column
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.enrich.api import enrich_table
from spark_llm.enrich.plan import check_names
from spark_llm.errors import ConfigError
from spark_llm.metering import prices
from spark_llm.metering.budget import Budget
from spark_llm.metering.chunking import Limits
from spark_llm.protocol.identifiers import check_format, check_new_column, parse_column_name, parse_table_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]  # installed where Python has none of its own

_ARGUMENTS = tuple(name for name in signature(enrich_table).parameters if name != "spark")
_REQUIRED = ("source", "target", "key", "columns")
KEYS = (*_ARGUMENTS, "spark", "endpoints")
ENDPOINT_KEYS = ("name", "url", "model", "served_model", "token_env", "headers_env", "ca_bundle", "allow_http")
_NO_SECRETS = "no secret goes into a file: put it into an environment variable, and name that one: "
INSTEAD = {
    "headers": f'{_NO_SECRETS}headers_env = {{X-Team = "TEAM"}}.',
    **dict.fromkeys(
        ("token", "api_key", "key", "password", "secret", "bearer", "authorization"),
        f'{_NO_SECRETS}token_env = "MY_TOKEN" in [endpoints.NAME], for endpoint = "NAME".',
    ),
}


@dataclass(frozen=True)
class JobFile:
    """What a job's file says.

    Attributes:
        options: The arguments of `enrich_table` but for the session and the columns.
        columns: The columns, by name; each is made when there is a session.
        settings: The session's settings.
    """

    options: Mapping[str, Any]
    columns: Mapping[str, LateColumn]
    settings: Mapping[str, str] = field(repr=False)

    @classmethod
    def read(cls, path: Path, environ: Mapping[str, str]) -> "JobFile":
        """Read a file; tokens come from `environ`. Raises `ConfigError` with a line for each thing that is wrong."""
        faults = ConfigErrors(path.name)
        table = faults.known("", _read(path), KEYS, INSTEAD)
        for name in _REQUIRED:
            if name not in table or table[name] == {}:
                faults.add("", f"it has no {name}.", _EXAMPLES[name])
        settings = dict(_flat(faults.table("spark", table.pop("spark", {}))))
        endpoints = _endpoints(faults, faults.table("endpoints", table.pop("endpoints", {})), environ)
        columns = _columns(faults, faults.table("columns", table.pop("columns", {})), endpoints)
        options = _options(faults, table, list(columns))
        faults.raise_any()
        return cls(options, {name: column for name, column in columns.items() if column is not None}, settings)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `enrich_table` but for the session, which has to be there."""
        return {**self.options, "columns": {name: make() for name, make in self.columns.items()}}


_EXAMPLES = {
    "source": 'name the table to read, as in source = "main.reviews".',
    "target": 'name the table to fill, as in target = "main.reviews_enriched"; it is made where it is missing.',
    "key": 'name the column that tells rows apart, as in key = "review_id".',
    "columns": 'say what to ask, as in [columns.summary] with task = "chat", endpoint = "my-endpoint" and'
    ' input = "review".',
}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "name the file of a job.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no UTF-8.", "save it as UTF-8, which TOML is written in.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {error}.", "correct it there; a text stands in quotes.") from None


def _options(faults: ConfigErrors, table: Mapping[str, Any], columns: list[str]) -> dict[str, Any]:
    """Check the arguments that are no columns, each by the code that checks it for `enrich_table`."""
    options = dict(table)
    for name in ("source", "target", "runs_table"):
        if name in options:
            with faults.at(""):
                parse_table_name(f"{name} = ", options[name])
    if "key" in options:
        with faults.at(""):
            check_names(_key(options["key"]), columns, str)  # the session may take more names for one
    with faults.at(""):
        check_format(options.get("format"))
    for name in ("retry_errors", "progress"):
        if not isinstance(options.get(name, True), bool):
            faults.add("", f"{name} = {options[name]!r} is neither true nor false.", "leave it out for true.")
    if options.get("on_missing", "keep") not in ("keep", "delete"):
        faults.add(
            "", f'on_missing = {options["on_missing"]!r} is neither "keep" nor "delete".', 'leave it out for "keep".'
        )
    if "budget" in options:
        limits = faults.known(
            "budget", faults.table("budget", options["budget"]), (each.name for each in fields(Budget))
        )
        options["budget"] = None
        with faults.at("budget"):
            options["budget"] = Budget(**limits)
    with faults.at(""):
        limits = {name: options[name] for name in ("chunk_rows", "max_failure_rate") if name in options}
        Limits(**limits, budget=options.get("budget"))
    with faults.at("prices"):
        prices.parse_prices(options.get("prices"), columns, options.get("budget"))
    return options


def _key(key: object) -> list[str]:
    names = [key] if isinstance(key, str) else key
    if not isinstance(names, list) or not names:
        raise ConfigError(f"key = {key!r} names no column.", 'write key = "id", or key = ["region", "id"].')
    return [parse_column_name("key = ", name) for name in names]


def _columns(
    faults: ConfigErrors, tables: Mapping[str, Any], endpoints: Mapping[str, Endpoint]
) -> dict[str, LateColumn | None]:
    columns = {}
    for name, table in tables.items():
        place = f"columns.{name}"
        with faults.at(place):
            check_new_column(name)
        columns[name] = read_column(faults, place, faults.table(place, table), endpoints, INSTEAD)
    return columns


def _endpoints(faults: ConfigErrors, tables: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Endpoint]:
    endpoints = {}
    for name, table in tables.items():
        place = f"endpoints.{name}"
        given = faults.known(place, faults.table(place, table), ENDPOINT_KEYS, INSTEAD)
        with faults.at(place):
            endpoints[name] = _endpoint(given, environ)
    return endpoints


def _endpoint(given: dict[str, Any], environ: Mapping[str, str]) -> Endpoint:
    targets = [given.pop(key) for key in ("name", "url") if key in given]
    if len(targets) != 1:
        raise ConfigError(
            "it has a name and a url." if targets else "it has neither a name nor a url.",
            'write one of them, as in url = "https://example.com/v1".',
        )
    token, headers = given.pop("token_env", None), given.pop("headers_env", {})
    if token is not None:
        given["token"] = Bearer.of(_variable("token_env", token, environ), str(token))
    if not isinstance(headers, Mapping):
        raise ConfigError("headers_env is no table.", 'write headers_env = {X-Team = "TEAM"}.')
    given["headers"] = {name: _variable(f"headers_env.{name}", value, environ) for name, value in headers.items()}
    if not isinstance(given.get("allow_http", False), bool):
        raise ConfigError("allow_http is neither true nor false.", "leave it out for false.")
    return Endpoint(targets[0], **given)


def _variable(key: str, name: object, environ: Mapping[str, str]) -> str:
    """Return what a variable holds; its name is not repeated, since somebody may have written the token there."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"{key} names no environment variable.", f'write the name of one: {key} = "MY_TOKEN".')
    if not environ.get(name):
        raise ConfigError(f"the environment variable that {key} names is not set.", "set it where the job is started.")
    return environ[name]


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield settings by their whole names, which a file may write with quotes around the dots or without."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", str(value).lower() if isinstance(value, bool) else str(value)
