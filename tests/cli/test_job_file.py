"""A job's file: what it may say, and that all that is wrong in it is said at once, before there is a session."""

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm import ConfigError, Policy, chat_udf, complete_udf, embed_udf
from spark_llm.ai.catalog import FUNCTIONS
from spark_llm.cli.job_columns import TASKS
from spark_llm.cli.job_file import ENDPOINT_KEYS, KEYS, JobFile
from spark_llm.enrich.api import enrich_table
from spark_llm.metering.budget import Budget
from tests.conftest import ROOT

SECRET = "dapi5ecretthatmustnotbeseen"
ENVIRON = {"MY_TOKEN": SECRET}
URL = "http://127.0.0.1:9/v1"
COLUMN = {"task": "chat", "endpoint": "llama", "input": "review"}
JOB: Mapping[str, Any] = {
    "source": "main.reviews",
    "target": "delta.`/data/out`",
    "key": "review_id",
    "endpoints": {"llama": {"url": URL, "model": "m", "token_env": "MY_TOKEN"}},
    "columns": {"summary": COLUMN},
}


def toml(value: object) -> str:
    """Write a value as TOML: its strings, numbers and lists are JSON's, but for a few signs."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value).replace("\x7f", "\\u007f")


def read(job: Mapping[str, Any] | str, environ: Mapping[str, str] = ENVIRON) -> JobFile:
    """Write a job down as a file, and read it."""
    text = job if isinstance(job, str) else "\n".join(f"{toml(key)} = {toml(value)}" for key, value in job.items())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "job.toml")
        path.write_text(text, encoding="utf-8")
        return JobFile.read(path, environ)


def refusal(job: Mapping[str, Any] | str) -> str:
    """Return why a file is refused."""
    with pytest.raises(ConfigError) as raised:
        read(job)
    return str(raised.value)


def with_column(**keys: object) -> dict[str, Any]:
    """Return the job with another column, of which None leaves a key out."""
    return {**JOB, "columns": {"it": {key: value for key, value in {**COLUMN, **keys}.items() if value is not None}}}


def test_a_file_has_the_arguments_of_enrich_table() -> None:
    """Whatever it takes, but for the session; and besides the session's settings and endpoints by name."""
    assert {*signature(enrich_table).parameters, "endpoints"} == set(KEYS)


def test_a_small_file_is_read() -> None:
    """What it leaves out, `enrich_table` has defaults for."""
    job = read(JOB)

    assert {"source": "main.reviews", "target": "delta.`/data/out`", "key": "review_id"} == job.options
    assert ["summary"] == list(job.columns)
    assert {} == job.settings


def test_a_whole_file_is_read() -> None:
    """Budget and policy become what the arguments are; settings are texts, by their whole names."""
    job = read(
        """
        source = "s"
        target = "t"
        key = ["region", "`a.b`"]
        chunk_rows = 500
        retry_errors = false
        max_failure_rate = 0.5
        runs_table = "runs"
        on_missing = "delete"
        format = "iceberg"
        progress = false
        [budget]
        usd = 20
        [prices]
        summary = [0.5, 1.5]
        [spark]
        spark.sql.shuffle.partitions = 64
        "spark.sql.ansi.enabled" = true
        [endpoints.llama]
        url = "https://example.com/v1"
        model = "my-model"
        token_env = "MY_TOKEN"
        headers_env = { X-Team = "MY_TOKEN" }
        [columns.summary]
        task = "chat"
        endpoint = "llama"
        input = "review"
        stop = ["a", "b"]
        extra_body = { top_k = 4 }
        [columns.summary.policy]
        max_in_flight = 64
        """
    )

    assert {
        "source": "s",
        "target": "t",
        "key": ["region", "`a.b`"],
        "chunk_rows": 500,
        "retry_errors": False,
        "max_failure_rate": 0.5,
        "runs_table": "runs",
        "on_missing": "delete",
        "format": "iceberg",
        "progress": False,
        "budget": Budget(usd=20),
        "prices": {"summary": [0.5, 1.5]},
    } == job.options
    assert {"spark.sql.shuffle.partitions": "64", "spark.sql.ansi.enabled": "true"} == job.settings
    assert SECRET not in repr(job)


VALUES: Mapping[str, object] = {
    "response_format": {"type": "json_object"},
    "extra_body": {"top_k": 4},
    "policy": {"max_tries": 2},
    "template": "{review}",
    "returns": "mood STRING",
    "system": "Be brief.",
    "stop": "\n",
    "instruction": "Find it.",
    "temperature": 0.5,
    "top_p": 0.5,
    "max_completion_tokens": 4,
    "labels": ["a", "b"],
    "to_lang": "fr",
}


@pytest.mark.parametrize(("task", "udf"), [("chat", chat_udf), ("complete", complete_udf), ("embed", embed_udf)])
def test_a_column_has_the_parameters_of_its_udf(task: str, udf: Callable[..., object]) -> None:
    """Every keyword of the function is a key, and no other is."""
    for name in list(signature(udf).parameters)[1:]:
        assert ["it"] == list(read(with_column(task=task, **{name: VALUES.get(name, 3)})).columns)
    assert "'top_q' is no key of it. Hint: " in refusal(with_column(task=task, top_q=1))


def test_every_ai_function_is_a_task() -> None:
    """With the parameters that it takes after its text, and those of the model that are not its own."""
    assert {"chat", "complete", "embed", "similarity", *FUNCTIONS} == set(TASKS)
    for name, function in FUNCTIONS.items():
        options = {each.name: VALUES.get(each.name, 3) for each in function.parameters[1:]}
        assert ["it"] == list(read(with_column(task=name, max_tokens=9, **options)).columns)
        assert f"'system' is no key of it. Hint: {name} has its own" in refusal(
            with_column(task=name, system="x", **options)
        )
    assert ["it"] == list(read(with_column(task="similarity", input=["title", "body"], dimensions=8)).columns)


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({**JOB, "chunk_row": 5}, "job.toml: 'chunk_row' is no key of it. Hint: did you mean 'chunk_rows'?"),
        ({**JOB, "chunk_rows": "5"}, "chunk_rows='5' is not a whole number of at least 1. Hint: "),
        ({**JOB, "source": 5}, "source = 5 is not a name. Hint: "),
        ({**JOB, "source": "a b"}, "source = 'a b' is not a table's name: "),
        ({**JOB, "target": "a..b"}, "target = 'a..b' is not a table's name: "),
        ({**JOB, "runs_table": []}, "runs_table = [] is not a name. Hint: "),
        ({**JOB, "key": []}, "key = [] names no column. Hint: "),
        ({**JOB, "key": "a.b"}, "key = 'a.b' is not the name of one column. Hint: "),
        ({**JOB, "retry_errors": "no"}, "retry_errors = 'no' is neither true nor false. Hint: "),
        ({**JOB, "progress": 1}, "progress = 1 is neither true nor false. Hint: "),
        ({**JOB, "key": ["id", "`id`"]}, "key= has 'id' and 'id', which are one name to Spark. Hint: "),
        ({**JOB, "format": "a b"}, "format='a b' is not the name of a table format. Hint: "),
        ({**JOB, "on_missing": "drop"}, 'on_missing = \'drop\' is neither "keep" nor "delete". Hint: '),
        ({**JOB, "max_failure_rate": 20}, "max_failure_rate=20 is not a number above 0, up to 1"),
        ({**JOB, "budget": 20}, "job.toml [budget]: budget is a value, and it has to be a table. Hint: "),
        ({**JOB, "budget": {"row": 5}}, "[budget]: 'row' is no key of it. Hint: did you mean 'rows'?"),
        ({**JOB, "budget": {"rows": 0}}, "[budget]: Budget(rows=0) is not a whole number of rows"),
        ({**JOB, "budget": {"usd": 5}}, "[prices]: Budget(usd=5) needs prices. Hint: "),
        ({**JOB, "prices": {"sumary": 1}}, "[prices]: prices= names 'sumary', which is not a column. Hint: "),
        ({**JOB, "spark": 5}, "[spark]: spark is a value, and it has to be a table. Hint: "),
        ({**JOB, "columns": {}}, "it has no columns. Hint: "),
        ({**JOB, "columns": {"a b": COLUMN}}, "[columns.a b]: A new column cannot be called 'a b'. Hint: "),
        ({**JOB, "columns": {"a": 5}}, "[columns.a]: columns.a is a value, and it has to be a table. Hint: "),
        (with_column(task=None), "[columns.it]: it has no task. Hint: write one of chat, "),
        (with_column(task="clasify"), "task = 'clasify' is no task. Hint: did you mean 'classify'?"),
        (with_column(endpoint=None), "it has no endpoint. Hint: "),
        (with_column(endpoint=5), "endpoint = 5 is no name. Hint: "),
        (with_column(input=None), "it has no input. Hint: "),
        (with_column(input=["review"]), "input = ['review'] is no expression of Spark SQL. Hint: "),
        (with_column(sytem="x"), "'sytem' is no key of it. Hint: did you mean 'system'?"),
        (with_column(temperature=3), "temperature=3 is not a number from 0 to 2. Hint: "),
        (with_column(policy={"max_trys": 1}), "[columns.it.policy]: 'max_trys' is no key of it. Hint: did you mean"),
        (with_column(policy={"max_tries": 0}), "[columns.it.policy]: Policy(max_tries=0) is not a whole number"),
        (with_column(template="{title}", input={"titel": "t"}), "input has 'titel', no field of the template. Hint: "),
        (with_column(template="{title}", input=5), "input = 5 says nothing of the template's fields. Hint: "),
        (with_column(task="classify"), "it has no labels. Hint: classify takes labels, a list of strings."),
        (with_column(task="classify", labels=["a", "a"]), "a label is in the list twice. Hint: "),
        (with_column(task="summarize", max_words="5"), "max_words = '5' is not a whole number. Hint: "),
        (with_column(task="similarity"), "input = 'review' is not two texts. Hint: "),
        ({**JOB, "endpoints": {"a": {}}}, "[endpoints.a]: it has neither a name nor a url. Hint: "),
        ({**JOB, "endpoints": {"a": {"url": URL, "name": "b"}}}, "[endpoints.a]: it has a name and a url. Hint: "),
        ({**JOB, "endpoints": {"a": {"ulr": URL}}}, "'ulr' is no key of it. Hint: did you mean 'url'?"),
        ({**JOB, "endpoints": {"a": {"name": "b", "allow_http": "yes"}}}, "allow_http is neither true nor false. Hint"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(job: Mapping[str, Any], words: str) -> None:
    """Each with the next step, in the words that the same mistake has in Python."""
    assert words in refusal(job)


def test_all_that_is_wrong_is_said_at_once() -> None:
    """A line for each, so that a file is corrected in one go."""
    said = refusal({"source": 5, "kye": "id", "columns": {"a": {"task": "sing"}, "b": {"task": "chat", "n": 0}}})

    assert [
        "'kye' is no key of it.",
        "it has no target.",
        "it has no key.",
        "[columns.a]: task = 'sing' is no task.",
        "[columns.b]: it has no endpoint.",
        "source = 5 is not a name.",
    ] == [line.split(" Hint: ")[0].removeprefix("job.toml").removeprefix(":").strip() for line in said.splitlines()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = 1\nb = no\n", "job.toml is no TOML: Invalid value (at line 2, column 5). Hint: "),
        ("a = 1\na = 2", "is no TOML: "),
        ("a = " + "[" * 100_000, "is no TOML: "),
        ("", "job.toml: it has no source. Hint: "),
    ],
)
def test_what_is_no_toml_is_said_with_its_line(text: str, words: str) -> None:
    """The parser's words, and not the line itself."""
    assert words in refusal(text)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """One that is not there, a folder, and one of another encoding."""
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'source = "caf\xe9"')
    for path, words in (
        (tmp_path / "none.toml", "none.toml cannot be read: No such file or directory. Hint: "),
        (tmp_path, "cannot be read: Is a directory. Hint: "),
        (latin, "latin.toml is no UTF-8. Hint: "),
    ):
        with pytest.raises(ConfigError) as raised:
            JobFile.read(path, {})
        assert words in str(raised.value)


def test_a_mark_at_the_beginning_is_passed_over() -> None:
    """Editors on Windows leave one."""
    assert (
        "main.reviews"
        == read("\ufeff" + "\n".join(f"{key} = {toml(each)}" for key, each in JOB.items())).options["source"]
    )


@pytest.mark.parametrize(
    "job",
    [
        {**JOB, "token": SECRET},
        with_column(token=SECRET),
        with_column(api_key=SECRET),
        {**JOB, "endpoints": {"llama": {"url": URL, "model": "m", "token": SECRET}}},
        {**JOB, "endpoints": {"llama": {"url": URL, "model": "m", "headers": {"api-key": SECRET}}}},
        {**JOB, "endpoints": {"llama": {"url": URL, "model": "m", "token_env": SECRET}}},
        {**JOB, "endpoints": {"llama": {"url": URL, "model": "m", "headers_env": {"api-key": SECRET}}}},
        {**JOB, "endpoints": {"llama": {"url": URL, "model": "m", "headers_env": SECRET}}},
    ],
)
def test_a_secret_in_a_file_is_refused_and_not_repeated(job: Mapping[str, Any]) -> None:
    """The next step is a variable of the environment, also where the secret stands in place of the variable's name."""
    said = refusal(job)

    assert SECRET not in said
    assert "environment variable" in said or "_env" in said


def test_a_token_that_no_header_can_hold_is_not_repeated() -> None:
    """The variable is named, and what it holds is not."""
    with pytest.raises(ConfigError, match="MY_TOKEN") as raised:
        read(JOB, {"MY_TOKEN": f"{SECRET}\n"})
    assert SECRET not in str(raised.value)


PATHS = [
    *([key] for key in KEYS),
    *(["budget", each.name] for each in fields(Budget)),
    *(["endpoints", "llama", key] for key in ENDPOINT_KEYS),
    *(["columns", "summary", key] for key in (*COLUMN, *list(signature(chat_udf).parameters)[1:])),
    *(["columns", "summary", "policy", each.name] for each in fields(Policy)),
    ["columns", "summary", "input", "title"],
    ["prices", "summary"],
]
ANYTHING = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.sampled_from(["chat", "embed", "classify", "similarity", "{title}", "a STRING", URL, "MY_TOKEN"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(st.lists(st.tuples(st.sampled_from(PATHS), ANYTHING), min_size=1, max_size=3))
def test_whatever_a_file_says_it_is_read_or_refused(changes: list[tuple[list[str], object]]) -> None:
    """No value in any place is an error other than ours, and each of ours ends in a next step."""
    job = json.loads(json.dumps(JOB))
    for path, value in changes:
        table = job
        for step in path[:-1]:
            if not isinstance(table.setdefault(step, {}), dict):
                table[step] = {}
            table = table[step]
        table[path[-1]] = value
    said = ""
    try:
        columns = list(read(job).columns)
    except ConfigError as error:
        columns, said = list(job["columns"]), str(error)

    assert list(job["columns"]) == columns
    assert all(" Hint: " in line for line in said.splitlines())
    assert SECRET not in said


def test_the_example_is_a_file_that_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, with the environment that it asks for."""
    monkeypatch.setenv("DATABRICKS_HOST", "https://example.com")
    monkeypatch.setenv("DATABRICKS_TOKEN", SECRET)
    job = JobFile.read(Path(ROOT, "docs/examples/nightly.toml"), {"CHAT_TOKEN": SECRET})

    assert ["summary", "mood", "vector"] == list(job.columns)
    assert "reviews_enriched" == job.options["target"]


PAGE = Path(ROOT, "docs/enrichment-jobs.md").read_text(encoding="utf-8")


def test_the_page_shows_the_example_as_it_is() -> None:
    """One file, in two places."""
    assert f"```toml\n{Path(ROOT, 'docs/examples/nightly.toml').read_text(encoding='utf-8')}```\n" in PAGE


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("### Top-level keys", set(KEYS)),
        ("### `[endpoints.NAME]`", set(ENDPOINT_KEYS)),
        (
            "### `[columns.NAME]`",
            {"task", "input"}
            | {name for udf in (chat_udf, complete_udf, embed_udf) for name in signature(udf).parameters}
            | {each.name for function in FUNCTIONS.values() for each in function.parameters[1:]},
        ),
    ],
)
def test_the_page_has_every_key(heading: str, keys: set[str]) -> None:
    """Its tables name each key in the first cell of a row, and no other."""
    table = PAGE.partition(f"{heading}\n\n")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]

    assert keys == {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
