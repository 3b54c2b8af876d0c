"""Each snippet of the page's "Use in code" is run as it stands, and gives the answer that the page shows."""

import ast
import gc
import json
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from spark_llm.serving import Echo, LocalEndpoints, PredictFunction, ServingEndpoint
from spark_llm.serving.stock import echo_endpoints
from tests.integration.clients.environment import peer_environment, peers_python
from tests.support.browser import Tab, browser
from tests.support.local_client import chat_body

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# The session's group has the whole file, so one browser serves it.
pytestmark = [pytest.mark.spark, pytest.mark.browser]

HARD = 'it\'s "quoted", $HOME `ls` \\n {x} %s\n\'\'\'""" é 漢 😀'
CONVERSATION = [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", HARD)]
MESSAGES = [{"role": role, "content": content} for role, content in CONVERSATION]
# Endpoint and body; None is the example as the page has it.
CASES: dict[str, tuple[str, dict[str, object] | None]] = {
    "chat": ("chat", None),
    "completions": ("complete", None),
    "embeddings": ("embed", None),
    "hard": (
        "chat",
        {"messages": MESSAGES, "n": 2, "seed": 2**62 + 1, "top_k": 3, "stop": ["x\n"], "temperature": 1.0},
    ),
    "parts": ("chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": HARD}]}], "user": None}),
    "streamed": ("chat", chat_body(HARD, stream=True, max_tokens=5)),
    "streamed completion": ("complete", {"prompt": "one two three", "stream": True}),
    "prompts": ("complete", {"prompt": ["one", HARD], "stop": "z", "logit_bias": {"1": True, "2": False}}),
    "dimensions": ("embed", {"input": HARD, "dimensions": 4, "user": "me"}),
}
SAMPLES = [
    case if case in ("chat", "embeddings", "hard", "streamed") else pytest.param(case, marks=pytest.mark.slow)
    for case in CASES
]
# Tasks that fewer clients have, with what the code prints.
FURTHER_CASES: dict[str, tuple[str, dict[str, object] | None]] = {
    "table": ("score", None),
    "records": ("score", {"dataframe_records": [{"age": 1}, {"age": 2}]}),
    "response": ("codex", None),
}
PRINTED = {"table": "'predictions': [42]", "records": "'predictions': [1, 2]", "response": "What is Apache Spark?"}


class Shown(NamedTuple):
    """What the page shows for a request: its answers, and its code by client."""

    answers: list[object]
    code: dict[str, str]


@pytest.fixture(scope="module")
def endpoints() -> Iterator[LocalEndpoints]:
    """The endpoints that the page and the snippets ask."""
    models: dict[str, PredictFunction | ServingEndpoint] = {
        **echo_endpoints(),
        "score": lambda table: table["age"].tolist(),
        "codex": ServingEndpoint(Echo(), tasks=["responses"]),
    }
    with LocalEndpoints(models) as running:
        yield running


@pytest.fixture(scope="module")
def shown(endpoints: LocalEndpoints, request: pytest.FixtureRequest) -> dict[str, Shown]:
    """What the page shows in each case that a test needs; the browser is closed before any code runs."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    needed = {call.params.get("case") for call in calls if call is not None}
    cases = {}
    with browser() as chromium, Tab(chromium) as tab:
        for case, (name, body) in {**CASES, **FURTHER_CASES}.items():
            if case not in needed:
                continue
            page = tab.open(endpoints, name)
            tab.send(None if body is None else json.dumps(body, ensure_ascii=False, indent=1))
            if name == "embed":
                answer = json.loads(page.get_by_label("Response body", exact=True).inner_text())
                answers = [row["embedding"] for row in answer["data"]]
            else:
                answers = page.locator(".reply p").all_text_contents()
            page.get_by_role("tab", name="Use in code").click()
            blocks = page.locator("[data-client]")
            code = blocks.evaluate_all(
                "(all) => all.map((each) => [each.dataset.client, each.querySelector('code').textContent])"
            )
            assert not [text for _, text in code if endpoints.token in text]
            page.get_by_role("tab", name="Query").click()
            cases[case] = Shown(answers, dict(code))
        assert [] == tab.errors
    return cases


@pytest.fixture
def variables(endpoints: LocalEndpoints, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """The two variables that each snippet reads, and no other of this machine's."""
    for name in ("CLIENT_ID", "CLIENT_SECRET", "CONFIG_PROFILE", "AUTH_TYPE"):
        monkeypatch.delenv(f"DATABRICKS_{name}", raising=False)
    values = {"DATABRICKS_HOST": endpoints.url, "DATABRICKS_TOKEN": endpoints.token}
    for name, value in {**values, "DATABRICKS_CONFIG_FILE": str(tmp_path / "none")}.items():
        monkeypatch.setenv(name, value)
    return values


def run_here(code: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run Python code in this process, and return what it prints."""
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a script's client lasts to its end
        exec(compile(code, "<snippet>", "exec"), {"__name__": "__main__"})  # noqa: S102 -- it is what the page shows
        gc.collect()
    return capsys.readouterr().out


def check(printed: str, answers: list[object], *, is_stream: bool) -> None:
    """Assert that the lines are the answers: texts, or vectors as lists."""
    if answers and isinstance(answers[0], list):
        assert answers == [ast.literal_eval(line) for line in printed.splitlines()]
    else:
        assert "\n".join(map(str, answers)) + ("" if is_stream else "\n") == printed


@pytest.mark.parametrize("case", SAMPLES)
def test_curl_gives_the_answer(case: str, shown: dict[str, Shown], variables: dict[str, str]) -> None:
    """A shell runs the command; its body is what the page shows."""
    answers, code = shown[case]
    ran = subprocess.run(["/bin/bash", "-c", code["curl"]], capture_output=True, timeout=60, check=True)
    body = ran.stdout.decode()
    if body.startswith("data: "):
        chunks = [json.loads(line.removeprefix("data: ")) for line in body.split("\n\n")[:-2]]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        assert answers == [
            "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
        ]
    else:
        answer = json.loads(body)
        rows = answer.get("data") or answer["choices"]
        assert answers == [row.get("embedding") or row.get("text") or row["message"]["content"] for row in rows]


@pytest.mark.parametrize("client", ["openai", "sdk"])
@pytest.mark.parametrize("case", SAMPLES)
def test_a_client_in_python_gives_the_answer(
    case: str, client: str, shown: dict[str, Shown], variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Python runs the code; it prints what the page shows."""
    answers, code = shown[case]
    check(run_here(code[client], capsys), answers, is_stream=client == "openai" and case.startswith("streamed"))


@pytest.mark.slow
@pytest.mark.parametrize("case", SAMPLES)
def test_mlflow_gives_the_answer(case: str, shown: dict[str, Shown], variables: dict[str, str], tmp_path: Path) -> None:
    """The Python of MLflow's environment runs the code; it prints what the page shows."""
    answers, code = shown[case]
    command = [str(peers_python()), "-c", code["mlflow"]]
    ran = subprocess.run(
        command, env=peer_environment(tmp_path, **variables), capture_output=True, timeout=120, check=False
    )
    assert 0 == ran.returncode, ran.stderr.decode()
    check(ran.stdout.decode(), answers, is_stream=case.startswith("streamed"))


@pytest.mark.parametrize(
    ("case", "client"), [("table", "sdk"), ("records", "sdk"), ("response", "openai"), ("response", "sdk")]
)
def test_further_tasks_have_code_in_python(
    case: str, client: str, shown: dict[str, Shown], variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The code for a custom model and for the Responses API prints the answer."""
    assert PRINTED[case] in run_here(shown[case].code[client], capsys)


@pytest.mark.slow
@pytest.mark.parametrize("case", FURTHER_CASES)
def test_further_tasks_have_code_for_mlflow(
    case: str, shown: dict[str, Shown], variables: dict[str, str], tmp_path: Path
) -> None:
    """The Python of MLflow's environment runs the code; it prints the answer."""
    command = [str(peers_python()), "-c", shown[case].code["mlflow"]]
    environment = peer_environment(tmp_path, **variables)
    ran = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=True)

    assert PRINTED[case] in ran.stdout.decode()


@pytest.mark.parametrize("client", ["spark", "sql"])
@pytest.mark.parametrize("case", SAMPLES)
def test_spark_gives_the_answer(
    *,
    case: str,
    client: str,
    shown: dict[str, Shown],
    variables: dict[str, str],
    spark: "SparkSession",
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The code runs in the session of the tests; it prints what the page shows, `n` answers as a list."""
    answers, code = shown[case]
    printed = run_here(code[client], capsys)
    if case == "hard":
        assert answers == ast.literal_eval(printed)
    else:
        check(printed, answers, is_stream=False)
