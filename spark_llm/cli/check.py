"""`spark-llm check` and `spark-llm endpoints`: run the checks of their arguments, and return the text to print.

Tokens come from a file or from standard input: every user of a machine can read its command lines.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from spark_llm.auth.credentials import Bearer, valid_secret
from spark_llm.cli.option_words import COMMAND_LINE, reworded
from spark_llm.endpoint.endpoint import PROVIDERS, Endpoint
from spark_llm.errors import ConfigError
from spark_llm.readiness.checks import list_endpoints, run_driver_checks
from spark_llm.readiness.report import Report
from spark_llm.readiness.target import Target, candidate_tasks, printable_name, workspace_route
from spark_llm.text.table import text_table


@contextmanager
def _option_words() -> Iterator[None]:
    """Name options in the hint of a `ConfigError` of the block."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(error.what, reworded(error.hint, COMMAND_LINE)) from None


@_option_words()
def check_endpoint(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Report:
    """Check the endpoint that the arguments name, and return the report; raises `ConfigError` for invalid arguments."""
    endpoint = Endpoint(
        arguments.endpoint,
        model=arguments.model,
        served_model=arguments.served_model,
        token=_bearer(arguments.token_file),
        ca_bundle=arguments.ca_bundle,
        allow_http=arguments.allow_http,
        api=arguments.api,
    )
    tasks = candidate_tasks(endpoint, arguments.task)
    path = tasks[0].route
    found = run_driver_checks(
        endpoint, path, lambda: Target(endpoint.resolve(path, environ, PROVIDERS), tasks), environ
    )
    checks = (check._replace(hint=reworded(check.hint, COMMAND_LINE)) for check in found.checks)
    return Report(printable_name(endpoint), tuple(checks))


@_option_words()
def list_workspace(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Return the workspace's endpoints as text; raises `ConfigError` if the workspace does not list them."""
    token = _bearer(arguments.token_file)
    route = workspace_route(environ, PROVIDERS, token, ca_bundle=arguments.ca_bundle, allow_http=arguments.allow_http)
    found = sorted(list_endpoints(route), key=lambda each: each.name)
    rows = [{"name": each.name, "task": each.kind, "state": each.state} for each in found]
    return json.dumps(rows, indent=2) if arguments.json else _table(rows)


def _table(rows: list[dict[str, str]]) -> str:
    if not rows:
        return "The workspace has no endpoints that you may see."
    return text_table([tuple(map(str.upper, rows[0])), *(tuple(row.values()) for row in rows)])


def _bearer(file: str | None) -> Bearer | None:
    token = read_token(file)
    return None if token is None else Bearer.of(token, "--token-file")


def read_token(file: str | None) -> str | None:
    """Return the token in a file, or in standard input for "-"; None for no file. Raises `ConfigError`."""
    if file is None:
        return None
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(
            f"The file of --token-file cannot be read: {reason}.", "name a file that holds only the token."
        ) from None
    return valid_secret(text.strip(), "The token (--token-file)")
