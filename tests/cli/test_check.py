"""`spark-llm check` and `spark-llm endpoints`: their output and their exit codes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spark_llm.cli.main import main
from spark_llm.serving import LocalEndpoints
from tests.conftest import ROOT
from tests.support.raw_server import AUTHORITY
from tests.support.responses_server import ResponsesModel, responses_server
from tests.support.stub_server import CHAT_RESPONSE, stub_server

SECRET = "dapi-5ecret-that-must-not-be-seen"


@pytest.fixture(autouse=True)
def _without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the machine's own workspaces and proxies from the environment."""
    for name in list(os.environ):
        if name.startswith("DATABRICKS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """Echo endpoints with a token that is easy to find in an output."""
    with LocalEndpoints(token=SECRET) as started:
        yield started


@pytest.fixture
def workspace(endpoints: LocalEndpoints, monkeypatch: pytest.MonkeyPatch) -> LocalEndpoints:
    """The same endpoints as the workspace in the environment."""
    monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", SECRET)
    return endpoints


def test_an_endpoint_that_is_ready_ends_with_0(workspace: LocalEndpoints, capsys: pytest.CaptureFixture[str]) -> None:
    """The report is printed without the token."""
    code = main(["check", "embed"])
    out, err = capsys.readouterr()

    assert (0, "") == (code, err)
    assert out.startswith("embed: ready (4 passed)\n")
    assert "a token (DATABRICKS_TOKEN)" in out
    assert SECRET not in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["chta"], "did you mean 'chat'?"),
        (["chat", "--task", "embed"], "use chat_udf"),
        (["chat", "--served-model", "chat-9"], "name one of chat-1"),
        (["http://far.example/v1", "--model", "m"], "plain http to another machine"),
        (["https://nowhere.invalid/v1", "--model", "m"], "the name nowhere.invalid cannot be resolved"),
    ],
)
def test_an_endpoint_that_is_not_ready_ends_with_1(
    arguments: list[str], expected: str, workspace: LocalEndpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    """The failed check comes first, with a hint."""
    code = main(["check", *arguments])
    out, err = capsys.readouterr()

    assert (1, "") == (code, err)
    assert ": not ready (" in out.splitlines()[0]
    assert out.splitlines()[2].startswith("FAILED ")
    assert expected in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["my endpoint"], "is neither an endpoint's name nor a URL. Hint: "),
        (["chat", "--model", "m"], "a name stands for its model. Hint: "),
        (
            ["chat", "--token-file", "no/such/file"],
            "The file of --token-file cannot be read: No such file or directory. Hint: ",
        ),
        (["chat", "--task", "sing"], "invalid choice: 'sing'"),
        (["chat", "--token-file", SECRET], "The file of --token-file cannot be read"),
        (["chat", f"--token={SECRET}"], "a token must not be on the command line"),
        (["chat", "--token", SECRET], "a token must not be on the command line: use --token-file FILE"),
        ([], "ENDPOINT"),
    ],
)
def test_invalid_arguments_end_with_2(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error is on stderr, no request is sent, and no argument takes a token."""
    try:
        code: object = main(["check", *arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()

    assert (2, "") == (code, out)
    assert expected in err
    assert SECRET not in err


def test_a_token_is_read_from_a_file(
    endpoints: LocalEndpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newline at the end of the file is not part of it."""
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    code = main(["check", endpoints.invocations("chat"), "--token-file", str(file)])
    out, _ = capsys.readouterr()

    assert 0 == code
    assert "a token (--token-file)" in out


def test_a_token_is_read_from_stdin(endpoints: LocalEndpoints) -> None:
    """`--token-file -` means standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "spark_llm", "check", endpoints.invocations("chat"), "--token-file", "-"],
        env={**os.environ, "PYTHONPATH": ROOT},
        input=f"{SECRET}\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert "chat was answered" in done.stdout
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("content", "expected"), [("one\ntwo", "The token (--token-file) is empty, or"), ("", "is empty")]
)
def test_a_file_without_a_token_is_an_error(
    content: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two lines are not a token, and neither is printed."""
    file = tmp_path / "token"
    file.write_text(content)

    assert 2 == main(["check", "chat", "--token-file", str(file)])
    err = capsys.readouterr().err
    assert expected in err
    assert "two" not in err


def test_a_ca_bundle_makes_a_server_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without it, the hint names the option."""
    trusted = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(trusted))
    with stub_server({"POST /v1/chat/completions": (200, CHAT_RESPONSE)}, tls=True) as server:
        arguments = ["check", f"{server.url}/v1", "--model", "m"]
        codes = [main(arguments), main([*arguments, "--ca-bundle", str(trusted)])]
    out = capsys.readouterr().out

    assert [1, 0] == codes
    assert "certificate verify failed" in out
    assert "--ca-bundle FILE" in out
    assert "Endpoint(" not in out


@pytest.mark.parametrize(("options", "requests"), [([], 2), (["--api", "responses"], 1)])
def test_the_route_of_a_chat_is_an_option(
    options: list[str], requests: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it the refusal names the route, and the hint the option."""
    with responses_server(ResponsesModel()) as server:
        code = main(["check", f"{server.url}/v1", "--model", "m", *options])
    out = capsys.readouterr().out

    assert (0, requests) == (code, len(server.requests))
    assert ("--api responses saves" in out) == (requests == 2)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["check", "http://127.0.0.1:9/v1"], "pass --model NAME, or a URL that ends in "),
        (["check", "chat", "--model", "m"], "or pass --served-model NAME."),
        (["check", "http://far.example/v1", "--model", "m"], "or --allow-http within a network that you trust."),
        (["endpoints"], "or pass --token-file FILE."),
    ],
)
def test_hints_name_options(
    arguments: list[str], hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are in the words of the command line, and not of Python."""
    monkeypatch.setenv("DATABRICKS_HOST", "https://127.0.0.1:9")
    assert 0 != main(arguments)
    out, err = capsys.readouterr()

    assert hint in out + err


def test_endpoints_are_listed_as_a_table(workspace: LocalEndpoints, capsys: pytest.CaptureFixture[str]) -> None:
    """The columns are name, task and state."""
    workspace.set_ready("embed", ready=False)
    code = main(["endpoints"])

    assert 0 == code
    assert (
        """\
NAME      TASK                STATE
chat      llm/v1/chat         READY
complete  llm/v1/completions  READY
embed     llm/v1/embeddings   NOT_READY
"""
        == capsys.readouterr().out
    )


def test_endpoints_are_listed_for_programs(workspace: LocalEndpoints, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints one list of objects."""
    assert 0 == main(["endpoints", "--json"])
    found = json.loads(capsys.readouterr().out)

    assert {"name": "chat", "task": "llm/v1/chat", "state": "READY"} == found[0]
    assert ["chat", "complete", "embed"] == [each["name"] for each in found]


def test_a_workspace_without_endpoints_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty list is not an error."""
    with stub_server({"GET /api/2.0/serving-endpoints": (200, {})}) as server:
        monkeypatch.setenv("DATABRICKS_HOST", server.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", SECRET)
        codes = [main(["endpoints"]), main(["endpoints", "--json"])]

    assert [0, 0] == codes
    assert "The workspace has no endpoints that you may see.\n[]\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "DATABRICKS_HOST names no workspace. Hint: "),
        ({"DATABRICKS_HOST": "https://nowhere.invalid", "DATABRICKS_TOKEN": SECRET}, "cannot be resolved"),
        ({"DATABRICKS_HOST": "https://nowhere.invalid", "DATABRICKS_TOKEN": f"{SECRET}\n"}, "no header can hold"),
        ({"DATABRICKS_HOST": "http://far.example", "DATABRICKS_TOKEN": SECRET}, "plain http to another machine"),
    ],
)
def test_a_workspace_that_does_not_answer_ends_with_1(
    environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr has a hint and no token."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    code = main(["endpoints"])
    out, err = capsys.readouterr()

    assert (1, "") == (code, out)
    assert err.startswith("spark-llm endpoints: ")
    assert expected in err
    assert " Hint: " in err
    assert SECRET not in err


@pytest.mark.waits
@pytest.mark.parametrize("arguments", [["check", "chat"], ["endpoints"]])
def test_neither_loads_spark(workspace: LocalEndpoints, arguments: list[str]) -> None:
    """A machine without pyspark can check an endpoint; pandas and pyarrow are not loaded either."""
    program = (
        "import sys\n"
        "from spark_llm.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "print(code, [name for name in ('pyspark', 'pandas', 'pyarrow') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "0 []" == done.stdout.splitlines()[-1]
