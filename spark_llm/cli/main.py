"""The command line: `spark-llm`, or `python -m spark_llm`.

A subcommand is an entry of `COMMANDS`: its help, a function that adds its arguments, and one that runs it.
"""

import argparse
import errno
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from spark_llm import serving
from spark_llm._version import __version__
from spark_llm.cli.local.java import ensure_java
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import SparkLLMError

_PORT = 8000
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Command(NamedTuple):
    """One subcommand; `run` returns the exit code, which is `error_code` where it raises an error of this library."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    error_code: int = 1


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `serve`."""
    parser.add_argument(
        "--port", type=_port, default=_PORT, help=f"port on 127.0.0.1; 0 for any free one (default: {_PORT})"
    )
    parser.add_argument(
        "--models",
        choices=("real", "echo"),
        default="real",
        help="real: SmolLM2 and MiniLM, 115 MB at the first start; echo: repeats the prompt (default: real)",
    )
    _add_token_arguments(parser, "a new token, which is printed")


def run_serve(arguments: argparse.Namespace) -> int:
    """Serve local endpoints until Ctrl-C."""
    from spark_llm.cli.check import read_token  # imports HTTP, which --help does not need

    token = read_token(arguments.token_file)
    make_endpoints = serving.LocalEndpoints.real if arguments.models == "real" else serving.LocalEndpoints
    endpoints = make_endpoints(token=token, port=arguments.port)
    for number in _STOPPING:  # a background job of a shell ignores SIGINT
        signal.signal(number, _stop)
    try:
        endpoints.start()
        print(_welcome(endpoints, shown=endpoints.token if token is None else "TOKEN"), flush=True)
        while True:
            time.sleep(0.5)  # Windows delivers no signal to a thread that waits without a timeout
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)
        return 0
    except (OSError, ImportError, RuntimeError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        hint = f"Port {arguments.port} is in use. Hint: --port 0 takes any free one."
        print(f"spark-llm: {hint if in_use else error}", file=sys.stderr)
        return 1
    finally:
        endpoints.stop()


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `demo`."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("spark-llm-demo"),
        help="folder for the result and Spark's log (default: ./spark-llm-demo)",
    )


def run_demo(arguments: argparse.Namespace) -> int:
    """Enrich forty customer reviews with Spark and small real models on this machine. Needs no key and no account."""
    try:
        from spark_llm.cli import demo
    except ImportError as error:
        raise SparkLLMError(f"{error}.", "pip install 'spark-llm-endpoints[demo]'") from None
    try:
        print(f"{ensure_java()}.", flush=True)
        with serving.LocalEndpoints.real() as endpoints:
            print(f"Serving SmolLM2-135M (chat) and MiniLM (embeddings) at {endpoints.url}.", flush=True)
            chat, embed = (Endpoint(endpoints.invocations(name), token=endpoints.token) for name in ("chat", "embed"))
            demo.run(chat, embed, lambda: endpoints.stats.rows_answered, arguments.out)
        print(f"\n{page_hint(sys.argv[0])}")
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except (OSError, ImportError, RuntimeError) as error:
        print(f"spark-llm: {error}", file=sys.stderr)
        return 1
    return 0


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    parser.add_argument("endpoint", metavar="ENDPOINT", help="a serving endpoint's name, or a URL")
    parser.add_argument("--task", choices=("chat", "complete", "embed", "predict", "rerank"), help="default: found")
    parser.add_argument("--model", help="the model, for a URL that is an OpenAI-style base")
    parser.add_argument("--served-model", help="one model behind a named endpoint")
    parser.add_argument("--api", choices=("chat", "responses"), help="the route of a chat (default: found)")
    _add_access_arguments(parser)


def run_check(arguments: argparse.Namespace) -> int:
    """Check an endpoint: its address, the credentials, its state, and one request of one token."""
    from spark_llm.cli import check

    report = check.check_endpoint(arguments, os.environ)
    print(report)
    return 0 if report.ok else 1


def add_endpoints_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `endpoints`."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    _add_access_arguments(parser)


def run_endpoints(arguments: argparse.Namespace) -> int:
    """List the serving endpoints of the workspace at DATABRICKS_HOST: name, task and state."""
    from spark_llm.cli import check

    print(check.list_workspace(arguments, os.environ))
    return 0


def add_enrich_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enrich`."""
    parser.add_argument("job", metavar="JOB.toml", help="the file that describes the job")
    parser.add_argument("--dry-run", action="store_true", help="send no requests; print the expected rows and cost")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run_enrich(arguments: argparse.Namespace) -> int:
    """Fill columns of a table as a file describes, with requests only for rows that need one.

    Exit codes: 0 done; 3 stopped early, by the budget, by failures or by the endpoint; 4 submitted, so run it again for
    the answers; 1 an error; 130 Ctrl-C.
    """
    try:
        from spark_llm.cli import enrich
    except ImportError as error:
        raise _without_spark(error) from None
    return _print_result(enrich.enrich, arguments)


def add_batches_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `batches`."""
    parser.add_argument("job", metavar="JOB.toml", help="the file that describes the job")
    parser.add_argument("--cancel", action="store_true", help="cancel the batches, and merge what was answered by then")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run_batches(arguments: argparse.Namespace) -> int:
    """List the batches of a job that goes through a Batch API, with their progress.

    Exit codes: 0; with --cancel those of enrich; 1 an error.
    """
    try:
        from spark_llm.cli import batches
    except ImportError as error:
        raise _without_spark(error) from None
    return _print_result(batches.batches, arguments)


def _without_spark(error: ImportError) -> SparkLLMError:
    return SparkLLMError(f"{error}.", "pip install 'spark-llm-endpoints[spark,java]'")


def _print_result(
    run: Callable[[argparse.Namespace, Mapping[str, str]], tuple[str, int]], arguments: argparse.Namespace
) -> int:
    """Run a command on a job, print its text, and return its exit code."""
    try:
        text, code = run(arguments, os.environ)
    except KeyboardInterrupt:
        print("\nStopped. Run it again: rows that have an answer are not asked again.", file=sys.stderr)
        return 130
    print(text)
    return code


def add_java_arguments(_: argparse.ArgumentParser) -> None:
    """Add no arguments: `java` takes none."""


def run_java(_: argparse.Namespace) -> int:
    """Print the home of a Java that Spark starts with, for JAVA_HOME: this machine's own, or the installed package."""
    java = ensure_java()
    if not java.outlasts_process:
        raise SparkLLMError(
            "the user's cache cannot hold the script that starts the packaged Java.",
            "set XDG_CACHE_HOME to a folder that can be written, and from which programs may start",
        )
    print(java.home)
    return 0


class _NoToken(argparse.Action):
    """Refuses a token on the command line, where every user of the machine can read it, without repeating it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(f"a token must not be on the command line: use --token-file FILE (default: {self.const})")


def _add_token_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    hidden = argparse.SUPPRESS
    parser.add_argument("--token", action=_NoToken, const=default, help=hidden)  # not short for the next
    parser.add_argument("--token-file", metavar="FILE", help=f"a file with the token, - for stdin (default: {default})")


def _add_access_arguments(parser: argparse.ArgumentParser) -> None:
    _add_token_arguments(parser, "DATABRICKS_TOKEN or other variables, or a profile")
    parser.add_argument("--ca-bundle", metavar="FILE", help="a PEM file of certificates to trust, besides the system's")
    parser.add_argument("--allow-http", action="store_true", help="allow plain HTTP to another machine")


COMMANDS = {
    "batches": Command("list or cancel the batches of a job", add_batches_arguments, run_batches),
    "check": Command("check an endpoint: address, credentials, state, one request", add_check_arguments, run_check, 2),
    "demo": Command("enrich a small table with local models; needs no key", add_demo_arguments, run_demo),
    "endpoints": Command("list the workspace's serving endpoints", add_endpoints_arguments, run_endpoints),
    "enrich": Command("fill columns of a table, as a file describes", add_enrich_arguments, run_enrich),
    "java": Command("print the home of a Java for Spark", add_java_arguments, run_java),
    "serve": Command("serve local endpoints for a first try; needs no key", add_serve_arguments, run_serve, 2),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return its exit code."""
    parser = argparse.ArgumentParser(prog="spark-llm", description="Call model-serving endpoints from Apache Spark.")
    parser.add_argument("--version", action="version", version=f"spark-llm {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(subparsers.add_parser(name, help=command.help, description=command.run.__doc__))
    parsed = parser.parse_args(arguments)
    command = COMMANDS[parsed.command]
    try:
        return command.run(parsed)
    except SparkLLMError as error:
        print(f"spark-llm {parsed.command}: {error}", file=sys.stderr)
        return command.error_code


def _welcome(endpoints: "serving.LocalEndpoints", *, shown: str) -> str:
    url = endpoints.invocations("chat")
    headers = [f"Authorization: Bearer {shown}", "Content-Type: application/json"]
    body = '{"messages": [{"role": "user", "content": "Say hello."}]}'
    curl = ["curl", url, *(word for header in headers for word in ("-H", header)), "-d", body]
    workspace = {"DATABRICKS_HOST": endpoints.url, "DATABRICKS_TOKEN": shown}
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in workspace.items())
    is_secret = shown != endpoints.token
    page = f"{endpoints.url}/ (it asks for the token)" if is_secret else endpoints.page_url
    return f"""\
Serving {", ".join(endpoints.names)} at {endpoints.url} (OpenAI clients: {endpoints.openai_url})
Token: {f"the one in --token-file; {shown} stands for it below" if is_secret else shown}

In a browser:
  {page}

In a shell:
  {shlex.join(curl)}

From Spark:
  from spark_llm import Endpoint, chat_udf
  chat = chat_udf(Endpoint({json.dumps(url)}, token={json.dumps(shown)}))

As a workspace, for databricks-sdk, MLflow and `spark-llm check chat`:
  export {variables}

Ctrl-C stops it."""


def page_hint(program: str) -> str:
    """Return where the serving page is and how to open it; `program` is the path of the running program."""
    command = shlex.quote(program) if Path(program).stem == "spark-llm" else "python -m spark_llm"
    return (
        f"The same models answer in a browser, on the serving page at http://127.0.0.1:{_PORT}/.\n"
        f"To open it, run `{command} serve` and open the URL that it prints."
    )


def _stop(*_: object) -> None:
    """Stop as Ctrl-C does; a further signal ends the process at once, without a traceback."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdecimal() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port from 0 to 65535")
    return port
