"""What `spark-llm check` and `spark-llm endpoints` do: their arguments read, the endpoint asked, the text returned.

No token stands on a command line, where every user of the machine can read it.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from spark_llm.auth.credentials import Bearer, valid_secret
from spark_llm.endpoint.endpoint import PROVIDERS, Endpoint
from spark_llm.errors import ConfigError
from spark_llm.readiness.checks import check_here, endpoints_at
from spark_llm.readiness.report import Report
from spark_llm.readiness.target import Target, shown, tasks_of, workspace
from spark_llm.readiness.workspace import Description
from spark_llm.text.table import text_table


def check(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Report:
    """Check the endpoint that the arguments name; raises `ConfigError` for arguments that cannot be right."""
    endpoint = Endpoint(
        arguments.endpoint,
        model=arguments.model,
        served_model=arguments.served_model,
        token=_credential(arguments.token_file),
        ca_bundle=arguments.ca_bundle,
        allow_http=arguments.allow_http,
    )
    tasks = tasks_of(endpoint, arguments.task)
    path = tasks[0].route
    found = check_here(endpoint, path, lambda: Target(endpoint.resolve(path, environ, PROVIDERS), tasks), environ)
    return Report(shown(endpoint), tuple(found.checks))


def endpoints(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """List the workspace's endpoints as text; raises `ConfigError` where it does not list them."""
    token = _credential(arguments.token_file)
    route = workspace(environ, PROVIDERS, token, ca_bundle=arguments.ca_bundle, allow_http=arguments.allow_http)
    rows = [_row(each) for each in sorted(endpoints_at(route), key=lambda each: each.name)]
    return json.dumps(rows, indent=2) if arguments.json else _table(rows)


def _row(described: Description) -> dict[str, str]:
    return {"name": described.name, "task": described.kind, "state": described.state}


def _table(rows: list[dict[str, str]]) -> str:
    if not rows:
        return "The workspace has no endpoints that you may see."
    return text_table([tuple(map(str.upper, rows[0])), *(tuple(row.values()) for row in rows)])


def _credential(file: str | None) -> Bearer | None:
    token = token_in(file)
    return None if token is None else Bearer.of(token, "--token-file")


def token_in(file: str | None) -> str | None:
    """Read a token from a file, or from standard input ("-"); None where none is named. Raises `ConfigError`."""
    if file is None:
        return None
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or "no UTF-8"
        raise ConfigError(
            f"The file of --token-file cannot be read: {words}.", "name a file with the token alone."
        ) from None
    return valid_secret(text.strip(), "The token (--token-file)")
