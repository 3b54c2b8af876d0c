"""`spark-llm check` and `spark-llm endpoints` as a user meets them: what they print, and how they end."""

import io
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
from tests.support.stub_server import CHAT_RESPONSE, stub_server

SECRET = "dapi-5ecret-that-must-not-be-seen"


@pytest.fixture(autouse=True)
def _signed_in_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take the machine's own workspaces and proxies out of the environment."""
    for name in list(os.environ):
        if name.startswith("DATABRICKS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """Echo endpoints with a token that is easy to find where it must not be."""
    with LocalEndpoints(token=SECRET) as started:
        yield started


@pytest.fixture
def workspace(endpoints: LocalEndpoints, monkeypatch: pytest.MonkeyPatch) -> LocalEndpoints:
    """The same, as the workspace that the environment names."""
    monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", SECRET)
    return endpoints


def test_an_endpoint_that_is_ready_ends_with_0(workspace: LocalEndpoints, capsys: pytest.CaptureFixture[str]) -> None:
    """Its report is printed; the token is not."""
    code = main(["check", "embed"])
    out, err = capsys.readouterr()

    assert (0, "") == (code, err)
    assert out.startswith("embed: ready (4 passed)\n")
    assert "a token (DATABRICKS_TOKEN)" in out
    assert SECRET not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chta"], "did you mean 'chat'?"),
        (["chat", "--task", "embed"], "use chat_udf"),
        (["chat", "--served-model", "chat-9"], "it has chat-1"),
        (["http://far.example/v1", "--model", "m"], "plain http to another machine"),
        (["https://nowhere.invalid/v1", "--model", "m"], "the name nowhere.invalid cannot be resolved"),
    ],
)
def test_an_endpoint_that_is_not_ready_ends_with_1(
    arguments: list[str], words: str, workspace: LocalEndpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    """What failed is printed first, with the next step."""
    code = main(["check", *arguments])
    out, err = capsys.readouterr()

    assert (1, "") == (code, err)
    assert ": not ready (" in out.splitlines()[0]
    assert out.splitlines()[2].startswith("FAILED ")
    assert words in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["my endpoint"], "is neither an endpoint's name nor a URL. Hint: "),
        (["chat", "--model", "m"], "a name stands for its model. Hint: "),
        (
            ["chat", "--token-file", "no/such/file"],
            "The file of --token-file cannot be read: No such file or directory. Hint: ",
        ),
        (["chat", "--task", "sing"], "invalid choice: 'sing'"),
        (["chat", "--token-file", SECRET], "The file of --token-file cannot be read"),
        (["chat", f"--token={SECRET}"], "a token does not go on the command line"),
        (["chat", "--token", SECRET], "a token does not go on the command line: name --token-file FILE"),
        ([], "ENDPOINT"),
    ],
)
def test_arguments_that_cannot_be_right_end_with_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is asked, and what is wrong is on stderr; there is no way to name a token among the arguments."""
    try:
        code: object = main(["check", *arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()

    assert (2, "") == (code, out)
    assert words in err
    assert SECRET not in err


def test_a_token_is_read_from_a_file(
    endpoints: LocalEndpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line end that every editor leaves behind is no part of it."""
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    code = main(["check", endpoints.invocations("chat"), "--token-file", str(file)])
    out, _ = capsys.readouterr()

    assert 0 == code
    assert "a token (--token-file)" in out


def test_a_token_is_read_from_stdin(
    endpoints: LocalEndpoints, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the file is "-"."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{SECRET}\n"))

    assert 0 == main(["check", endpoints.invocations("chat"), "--token-file", "-"])
    assert "chat was answered" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"), [("one\ntwo", "The token (--token-file) is empty, or"), ("", "is empty")]
)
def test_a_token_file_that_holds_none_is_said(
    content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two lines are no token, and nothing of them is printed."""
    file = tmp_path / "token"
    file.write_text(content)

    assert 2 == main(["check", "chat", "--token-file", str(file)])
    err = capsys.readouterr().err
    assert words in err
    assert "two" not in err


def test_a_ca_bundle_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With it a server is trusted that nobody else trusts; without it the next step names the argument for it."""
    trusted = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(trusted))
    with stub_server({"POST /v1/chat/completions": (200, CHAT_RESPONSE)}, tls=True) as server:
        arguments = ["check", f"{server.url}/v1", "--model", "m"]
        codes = [main(arguments), main([*arguments, "--ca-bundle", str(trusted)])]
    out = capsys.readouterr().out

    assert [1, 0] == codes
    assert "certificate verify failed" in out
    assert "ca_bundle=" in out


def test_endpoints_are_listed_as_a_table(workspace: LocalEndpoints, capsys: pytest.CaptureFixture[str]) -> None:
    """Name, task and state, in columns."""
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
    """An empty list is no failure."""
    with stub_server({"GET /api/2.0/serving-endpoints": (200, {})}) as server:
        monkeypatch.setenv("DATABRICKS_HOST", server.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", SECRET)
        codes = [main(["endpoints"]), main(["endpoints", "--json"])]

    assert [0, 0] == codes
    assert "The workspace has no endpoints that you may see.\n[]\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "DATABRICKS_HOST does not say at which workspace. Hint: "),
        ({"DATABRICKS_HOST": "https://nowhere.invalid", "DATABRICKS_TOKEN": SECRET}, "cannot be resolved"),
        ({"DATABRICKS_HOST": "https://nowhere.invalid", "DATABRICKS_TOKEN": f"{SECRET}\n"}, "no header can hold"),
        ({"DATABRICKS_HOST": "http://far.example", "DATABRICKS_TOKEN": SECRET}, "plain http to another machine"),
    ],
)
def test_a_workspace_that_cannot_be_asked_ends_with_1(
    environ: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr, with the next step and without the token."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    code = main(["endpoints"])
    out, err = capsys.readouterr()

    assert (1, "") == (code, out)
    assert err.startswith("spark-llm endpoints: ")
    assert words in err
    assert " Hint: " in err
    assert SECRET not in err


@pytest.mark.parametrize("arguments", [["check", "chat"], ["endpoints"]])
def test_neither_loads_spark(workspace: LocalEndpoints, arguments: list[str]) -> None:
    """A machine without pyspark can check an endpoint; nor are pandas and pyarrow loaded."""
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
