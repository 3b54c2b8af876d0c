"""Reads a job's file: TOML with the arguments of `enrich_table` and the settings of its Spark session.

It checks everything that needs no session, and reports all errors at once.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from spark_llm.auth.credentials import Bearer
from spark_llm.batches.settings import Batch
from spark_llm.cli.config_errors import ConfigErrors
from spark_llm.cli.job_columns import MakeColumn, read_column
from spark_llm.cli.option_words import JOB_FILE, reworded
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.enrich.plan import check_names
from spark_llm.errors import ConfigError
from spark_llm.metering import prices
from spark_llm.metering.budget import Budget
from spark_llm.metering.chunking import Limits
from spark_llm.protocol.identifiers import check_format, check_new_column, parse_column_name, parse_table_name
from spark_llm.udf.by_task import TOKENLESS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]  # installed where Python has no tomllib

_NO_SECRETS = "a file holds no secret: put it into an environment variable, and name that variable: "
SECRET_HINTS = {
    "headers": f'{_NO_SECRETS}headers_env = {{X-Team = "TEAM"}}.',
    **dict.fromkeys(
        ("token", "api_key", "key", "password", "secret", "bearer", "authorization"),
        f'{_NO_SECRETS}token_env = "MY_TOKEN" in [endpoints.NAME], for endpoint = "NAME".',
    ),
}


JOB_KEYS: Mapping[str, Any] = {  # the arguments of `enrich_table`, then the session's settings and the endpoints
    "source": str,
    "target": str,
    "key": str | list[str],
    "columns": dict[str, Any],
    "chunk_rows": int,
    "budget": Any,
    "prices": Any,
    "max_failure_rate": int | float,
    "retry_errors": bool,
    "runs_table": str,
    "mlflow": bool,
    "on_missing": Literal["keep", "delete"],
    "format": str,
    "progress": bool,
    "batch": Any,
    "spark": dict[str, Any],
    "endpoints": dict[str, Any],
}
ENDPOINT_KEYS: Mapping[str, Any] = {  # the fields of `Endpoint`, with environment variables in place of secrets
    **dict.fromkeys(("name", "url", "model", "served_model", "api", "token_env", "ca_bundle"), str),
    "headers_env": dict[str, str],
    "allow_http": bool,
    "attribution": bool,
}
_INVALID_ENDPOINT = Endpoint("http://127.0.0.1:9/v1", model="none")
_REQUIRED = {
    "source": 'name the table to read, as in source = "main.reviews".',
    "target": 'name the table to fill, as in target = "main.reviews_enriched"; the job creates it if it is missing.',
    "key": 'name the column that identifies a row, as in key = "review_id".',
    "columns": 'describe a column, as in [columns.summary] with task = "chat", endpoint = "my-endpoint" and'
    ' input = "review".',
}


@dataclass(frozen=True)
class JobFile:
    """The content of a job's file.

    Attributes:
        name: The file's name, for messages.
        options: The arguments of `enrich_table` without the session and the columns.
        columns: A function for each new column, by name; it makes the column once there is a session.
        settings: The session's settings.
    """

    name: str
    options: Mapping[str, Any]
    columns: Mapping[str, MakeColumn]
    settings: Mapping[str, str] = field(repr=False)

    @classmethod
    def read(cls, path: Path, environ: Mapping[str, str]) -> "JobFile":
        """Read a file, with tokens from `environ`. Raises `ConfigError` with a line for each error in the file."""
        toml, errors = _toml(path), _errors(path.name)
        options = errors.entries("", toml, JOB_KEYS, required=_REQUIRED, hints=SECRET_HINTS)
        settings = dict(_flat(options.pop("spark", {})))
        endpoints = _endpoints(errors, options.pop("endpoints", {}), environ)
        tables, columns = options.pop("columns", {}), {}
        for name, table in tables.items():
            with errors.at(f"columns.{name}"):
                check_new_column(name)
            columns[name] = read_column(errors, f"columns.{name}", table, endpoints, SECRET_HINTS)
        tokenless = [name for name, it in tables.items() if isinstance(it, Mapping) and it.get("task") in TOKENLESS]
        _check_options(errors, options, list(columns), tokenless)
        errors.raise_any()
        made = {name: column for name, column in columns.items() if column is not None}
        return cls(path.name, options, made, settings)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `enrich_table` without the session, which has to be active.

        Raises `ConfigError` with a line for each column whose type the session cannot read.
        """
        errors, columns = _errors(self.name), {}
        for name, make in self.columns.items():
            with errors.at(f"columns.{name}"):
                columns[name] = make()
        errors.raise_any()
        return {**self.options, "columns": columns}


def _errors(file: str) -> ConfigErrors:
    return ConfigErrors(file, partial(reworded, words=JOB_FILE))


def _toml(path: Path) -> dict[str, Any]:
    try:
        return dict(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "name the file of a job.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8.", "save it as UTF-8, the encoding of TOML.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.", "correct it there; a string stands in quotes.") from None


def _check_options(errors: ConfigErrors, options: dict[str, Any], columns: list[str], tokenless: list[str]) -> None:
    """Check the options that are not columns, as `enrich_table` does; tables become a `Budget` and a `Batch`.

    Columns whose answers report no tokens (`tokenless`) have no price; `enrich_table` sees them by their type.
    """
    for name in ("source", "target", "runs_table"):
        if name in options:
            with errors.at(""):
                parse_table_name(f"{name} = ", options[name])
    if "key" in options:
        names = [options["key"]] if isinstance(options["key"], str) else options["key"]
        if not names:
            errors.add("", "key = [] names no column.", 'write key = "id", or key = ["region", "id"].')
        with errors.at(""):  # str: the session may ignore case
            check_names([parse_column_name("key = ", name) for name in names], columns, str)
    with errors.at(""):
        check_format(options.get("format"))
    if "budget" in options:
        options["budget"] = errors.build("budget", options["budget"], Budget)
    if "batch" in options:
        options["batch"] = errors.build("batch", options["batch"], Batch)
    with errors.at(""):
        Limits(**{name: options[name] for name in ("chunk_rows", "budget", "max_failure_rate") if name in options})
    with errors.at("prices"):
        prices.parse_prices(options.get("prices"), columns, options.get("budget"), tokenless)


def _endpoints(errors: ConfigErrors, tables: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Endpoint]:
    endpoints = {}
    for name, table in tables.items():
        endpoints[name] = _INVALID_ENDPOINT  # columns that name it are no further errors
        entries = errors.entries(f"endpoints.{name}", table, ENDPOINT_KEYS, hints=SECRET_HINTS)
        with errors.at(f"endpoints.{name}"):
            endpoints[name] = _endpoint(entries, environ)
    return endpoints


def _endpoint(entries: dict[str, Any], environ: Mapping[str, str]) -> Endpoint:
    targets = [entries.pop(key) for key in ("name", "url") if key in entries]
    if len(targets) != 1:
        raise ConfigError(
            "it has both a name and a url." if targets else "it has neither a name nor a url.",
            'write one of them, as in url = "https://example.com/v1".',
        )
    if "token_env" in entries:
        variable = entries.pop("token_env")
        entries["token"] = Bearer.of(_variable("token_env", variable, environ), variable)
    headers = entries.pop("headers_env", {})
    entries["headers"] = {name: _variable(f"headers_env.{name}", value, environ) for name, value in headers.items()}
    return Endpoint(targets[0], **entries)


def _variable(key: str, name: str, environ: Mapping[str, str]) -> str:
    """Return the value of an environment variable; no error repeats its name, which may be a token by mistake."""
    if not name.isidentifier():
        raise ConfigError(f"{key} is not the name of an environment variable.", f'write a name: {key} = "MY_TOKEN".')
    if not environ.get(name):
        raise ConfigError(f"the environment variable of {key} is not set.", "set it where the job is started.")
    return environ[name]


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield settings by their full names; in the file, the dots in a name may be in quotes or not."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value).lower() if isinstance(value, bool) else str(value)
