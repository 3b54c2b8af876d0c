"""A job's file: its keys; all errors in it are reported at once, before there is a session."""

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
from pyspark.sql.types import DoubleType

from spark_llm import (
    ConfigError,
    Endpoint,
    Policy,
    chat_udf,
    complete_udf,
    embed_udf,
    extract_udf,
    predict_udf,
    rerank_udf,
)
from spark_llm.ai.catalog import FUNCTIONS
from spark_llm.batches.settings import Batch
from spark_llm.cli.job_columns import IN_LABELS, TASKS
from spark_llm.cli.job_file import ENDPOINT_KEYS, JOB_KEYS, JobFile
from spark_llm.enrich.api import enrich_table
from spark_llm.metering.budget import Budget
from spark_llm.udf.by_task import FACTORIES, TOKENLESS
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
    """Return a value as TOML, whose strings, numbers and lists are those of JSON except for a few characters."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value).replace("\x7f", "\\u007f")


def read(job: Mapping[str, Any] | str, environ: Mapping[str, str] = ENVIRON) -> JobFile:
    """Write a job to a file, and read the file."""
    text = job if isinstance(job, str) else "\n".join(f"{toml(key)} = {toml(value)}" for key, value in job.items())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "job.toml")
        path.write_text(text, encoding="utf-8")
        return JobFile.read(path, environ)


def refusal(job: Mapping[str, Any] | str) -> str:
    """Return the error message of a file."""
    with pytest.raises(ConfigError) as raised:
        read(job)
    return str(raised.value)


def with_column(**keys: object) -> dict[str, Any]:
    """Return the job with one other column; None leaves a key out."""
    return {**JOB, "columns": {"it": {key: value for key, value in {**COLUMN, **keys}.items() if value is not None}}}


def test_a_file_has_the_arguments_of_enrich_table() -> None:
    """Its keys are those arguments, `spark` for the session's settings, and `endpoints`."""
    assert {*signature(enrich_table).parameters, "endpoints"} == set(JOB_KEYS)


def test_a_small_file_is_read() -> None:
    """`enrich_table` has defaults for all other keys."""
    job = read(JOB)

    assert {"source": "main.reviews", "target": "delta.`/data/out`", "key": "review_id"} == job.options
    assert ["summary"] == list(job.columns)
    assert {} == job.settings


def test_a_whole_file_is_read() -> None:
    """Budget and policy become objects; settings are strings by their full names; the token is not printed."""
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
        [batch]
        wait_s = 0
        max_mb = 90.5
        then = "now"
        [prices]
        summary = { prompt = 0.5, completion = 1.5, tiers = { flex = 0.5 } }
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
        "batch": Batch(wait_s=0, max_mb=90.5, then="now"),
        "prices": {"summary": {"prompt": 0.5, "completion": 1.5, "tiers": {"flex": 0.5}}},
    } == job.options
    assert {"spark.sql.shuffle.partitions": "64", "spark.sql.ansi.enabled": "true"} == job.settings
    assert SECRET not in repr(job)


def test_a_column_without_tokens_has_no_price() -> None:
    """As in `enrich_table`: the others have theirs, and a price for it is an error."""
    scorer = "http://127.0.0.1:9/invocations"
    others = {task: make for task, make in FACTORIES.items() if task != "predict"}
    types = {task: make(Endpoint(URL, model="m")).returnType for task, make in others.items()}
    types["predict"] = predict_udf(Endpoint(scorer), returns=DoubleType()).returnType
    assert list(TOKENLESS) == [task for task, kind in types.items() if "usage" not in kind.fieldNames()]
    columns = {"a": COLUMN, "risk": {**COLUMN, "task": "predict", "returns": "DOUBLE", "endpoint": scorer}}
    job = {**JOB, "columns": columns, "prices": {"a": 1}}
    assert {"a": 1} == read(job).options["prices"]
    assert "a price for 'risk', whose answers report no tokens." in refusal({**job, "prices": {"a": 1, "risk": 1}})


TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
VALUES: Mapping[str, object] = {
    "condition": "it is good",
    "instructions": "Irony is angry.",
    "examples": [{"content": "It broke.", "label": "a"}],
    "rationale": True,
    "confidence": True,
    "rubric": "how good it is",
    "least": 0,
    "most": 5.5,
    "tools": TOOLS,
    "tool_choice": "look_up",
    "reasoning_effort": "low",
    "verbosity": "low",
    "service_tier": "flex",
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
    """The keyword parameters of the UDF are the keys, and no others."""
    for name in list(signature(udf).parameters)[1:]:
        beside = {"tools": TOOLS} if name == "tool_choice" else {}
        assert ["it"] == list(read(with_column(task=task, **beside, **{name: VALUES.get(name, 3)})).columns)
    assert "unknown key 'top_q'. Hint: " in refusal(with_column(task=task, top_q=1))


def custom_model(**keys: object) -> dict[str, Any]:
    """Return the job with a column of predictions."""
    served = {"score": {"url": f"{URL}/invocations", "token_env": "MY_TOKEN"}}
    return {**with_column(task="predict", endpoint="score", **keys), "endpoints": served}


def test_a_custom_model_is_a_task() -> None:
    """Its input is an expression, or one for each of the model's columns; it needs the type of a prediction."""
    for value in ("age", {"age": "age", "text": "trim(review)"}):
        column = custom_model(input=value, returns="DOUBLE", format="inputs")
        assert ["it"] == list(read(column).columns)
    assert "the key 'returns' is missing. Hint: write the type" in refusal(custom_model())
    assert "unknown key 'max_tokens'. Hint: " in refusal(custom_model(returns="INT", max_tokens=3))
    refused = refusal(custom_model(returns="INT", input={"age": 7}))
    assert "input.age = 7 is not an expression of Spark SQL" in refused


def test_every_ai_function_is_a_task() -> None:
    """Its keys are its parameters after the text, and those of the model that it does not set itself."""
    assert {"chat", "complete", "embed", "predict", "rerank", "similarity", *FUNCTIONS} == set(TASKS)
    for name, function in FUNCTIONS.items():
        options = {each.name: VALUES.get(each.name, 3) for each in function.parameters[1:] if each.name != IN_LABELS}
        assert ["it"] == list(read(with_column(task=name, max_tokens=9, **options)).columns)
        assert f"unknown key 'system'. Hint: {name} sets it" in refusal(with_column(task=name, system="x", **options))
    assert ["it"] == list(read(with_column(task="similarity", input=["title", "body"], dimensions=8)).columns)
    rerank = with_column(task="rerank", endpoint="https://host/v1/rerank", input=["title", "parts"], top_n=8)
    assert ["it"] == list(read(rerank).columns)


def test_extract_takes_labels_or_fields() -> None:
    """With fields it has the parameters of a chat, and may have citations; the types are read by a session."""
    fields = "name STRING, total DOUBLE"
    for keys in ({"fields": fields}, {"fields": fields, "citations": True, "max_tokens": 9}, {"labels": ["a"]}):
        assert ["it"] == list(read(with_column(task="extract", **keys)).columns)
    assert "unknown key 'fields'. Hint: " in refusal(with_column(fields=fields))


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (with_column(task="extract", fields="a INT", labels=["a"]), "extract has labels, and fields or citations too."),
        (with_column(task="extract", citations=True), "the key 'fields' is missing. Hint: write the names and types"),
        (with_column(task="extract", fields=["a"]), "fields = ['a'] is not DDL. Hint: write the names and types"),
        (with_column(task="extract", fields=" "), "fields=' ' is not an answer type. Hint: pass DDL"),
        (with_column(task="extract", fields="a INT", citations=1), "citations=1 is neither True nor False. Hint: "),
        (with_column(task="extract", fields="a INT", system="x"), "unknown key 'system'. Hint: extract sets it"),
        (
            with_column(task="extract", fields="a INT", response_format={"type": "text"}),
            "got a UDF with response_format=",
        ),
        ({**JOB, "chunk_row": 5}, "job.toml: unknown key 'chunk_row'. Hint: did you mean 'chunk_rows'?"),
        ({**JOB, "chunk_rows": "5"}, "expected `int`, got `str`. Hint: write it as in chunk_rows = 100."),
        ({**JOB, "source": 5}, 'source is not valid: expected `str`, got `int`. Hint: write it as in source = "…".'),
        ({**JOB, "key": 5}, 'Hint: write it as in key = "…", or key = ["…", "…"].'),
        ({**JOB, "source": "a b"}, "source = 'a b' is not a table's name: "),
        ({**JOB, "target": "a..b"}, "target = 'a..b' is not a table's name: "),
        ({**JOB, "runs_table": []}, "runs_table is not valid: expected `str`, got `array`. Hint: "),
        ({**JOB, "key": []}, "key = [] names no column. Hint: "),
        ({**JOB, "key": "a.b"}, "key = 'a.b' is not the name of one column. Hint: "),
        ({**JOB, "retry_errors": "no"}, "expected `bool`, got `str`. Hint: write it as in retry_errors = true."),
        ({**JOB, "progress": 1}, "progress is not valid: expected `bool`, got `int`. Hint: "),
        ({**JOB, "key": ["id", "`id`"]}, "key= has 'id' and 'id', which are one name to Spark. Hint: "),
        ({**JOB, "format": "a b"}, "format='a b' is not the name of a table format. Hint: "),
        (
            {**JOB, "on_missing": "drop"},
            "on_missing is not valid: invalid enum value 'drop'. Hint: write one of ",
        ),
        ({**JOB, "max_failure_rate": 20}, "max_failure_rate=20 is not a number above 0, up to 1"),
        ({**JOB, "budget": 20}, "job.toml [budget]: budget is not a table. Hint: "),
        ({**JOB, "budget": {"row": 5}}, "[budget]: unknown key 'row'. Hint: did you mean 'rows'?"),
        ({**JOB, "budget": {"rows": 0}}, "[budget]: Budget(rows=0) is not a whole number of rows"),
        ({**JOB, "batch": True}, "job.toml [batch]: batch is not a table. Hint: write it as [batch], with keys below"),
        ({**JOB, "batch": {"wait": 5}}, "[batch]: unknown key 'wait'. Hint: did you mean 'wait_s'?"),
        ({**JOB, "batch": {"poll_s": 0}}, "[batch]: Batch(poll_s=0) is not a number of seconds above 0, up to 3,600"),
        ({**JOB, "batch": {"then": "later"}}, "[batch]: Batch(then='later') is neither 'batch' nor 'now'. Hint: "),
        ({**JOB, "budget": {"usd": 5}}, "[prices]: Budget(usd=5) needs prices. Hint: "),
        ({**JOB, "prices": {"sumary": 1}}, "[prices]: prices= names 'sumary', which is not a column. Hint: "),
        ({**JOB, "spark": 5}, "expected `object`, got `int`. Hint: write it as a table: [spark], with keys below it."),
        ({**JOB, "columns": {}}, "the key 'columns' is missing. Hint: "),
        ({**JOB, "columns": {"a b": COLUMN}}, "[columns.a b]: A new column cannot be called 'a b'. Hint: "),
        ({**JOB, "columns": {"a": 5}}, "[columns.a]: columns.a is not a table. Hint: "),
        (with_column(task=None), "[columns.it]: the key 'task' is missing. Hint: the tasks are chat, "),
        (with_column(task="clasify"), "unknown task 'clasify'. Hint: did you mean 'classify'?"),
        (with_column(endpoint=None), "the key 'endpoint' is missing. Hint: "),
        (with_column(endpoint=5), "endpoint is not valid: expected `str`, got `int`. Hint: "),
        (with_column(input=None), "the key 'input' is missing. Hint: "),
        (with_column(input=["review"]), "input = ['review'] is not an expression of Spark SQL. Hint: "),
        (with_column(sytem="x"), "unknown key 'sytem'. Hint: did you mean 'system'?"),
        (with_column(temperature=3), "temperature=3 is not a number from 0 to 2. Hint: "),
        (with_column(policy={"max_trys": 1}), "[columns.it.policy]: unknown key 'max_trys'. Hint: did you mean"),
        (with_column(policy={"max_tries": 0}), "[columns.it.policy]: Policy(max_tries=0) is not a whole number"),
        (
            with_column(template="{title}", input={"titel": "t"}),
            "input has 'titel', which is not a field of",
        ),
        (with_column(template="{title}", input=5), "input = 5 is not a table of the template's fields. Hint: "),
        (with_column(task="classify"), "the key 'labels' is missing. Hint: classify takes labels, a list of strings."),
        (with_column(task="classify", labels=["a", "a"]), "a label is in the list twice. Hint: "),
        (with_column(task="summarize", max_words="5"), "max_words = '5' is not a whole number. Hint: "),
        (with_column(task="similarity"), "input is not a list of two texts. Hint: "),
        (
            with_column(task="rerank", endpoint="https://host/v1/rerank"),
            "input is not a list of a query and its documents. Hint: ",
        ),
        (with_column(task="rerank", endpoint="my-endpoint", input=["title", "parts"]), "serves no reranking"),
        ({**JOB, "endpoints": {"llama": {"url": URL}}}, 'Hint: pass model = "NAME", or a URL that ends in '),
        ({**JOB, "endpoints": {"a": {}}}, "[endpoints.a]: it has neither a name nor a url. Hint: "),
        ({**JOB, "endpoints": {"a": {"url": URL, "name": "b"}}}, "[endpoints.a]: it has both a name and a url. Hint: "),
        ({**JOB, "endpoints": {"a": {"ulr": URL}}}, "unknown key 'ulr'. Hint: did you mean 'url'?"),
        (
            {**JOB, "endpoints": {"a": {"name": "b", "allow_http": "yes"}}},
            "allow_http is not valid: expected `bool`",
        ),
    ],
)
def test_an_error_has_its_place_and_a_hint(job: Mapping[str, Any], expected: str) -> None:
    """The message names the table and the key, and ends in a hint."""
    assert expected in refusal(job)


@pytest.mark.parametrize("name", ["llam", "llama !"])
def test_a_name_like_that_of_an_endpoint_of_the_file_is_suggested(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is no endpoint of a workspace; other errors of the column keep their own hints."""
    monkeypatch.delenv("DATABRICKS_HOST", raising=False)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", "none")
    message = refusal({**JOB, "columns": {"a": {**COLUMN, "endpoint": name}}})
    assert "[columns.a]: " in message
    assert " Hint: did you mean 'llama'? Else " in message

    monkeypatch.setenv("DATABRICKS_HOST", "https://example.com")
    monkeypatch.setenv("DATABRICKS_TOKEN", "t")
    assert "did you mean" not in refusal({**JOB, "columns": {"a": {**COLUMN, "endpoint": "llam", "n": 0}}})


def test_a_table_of_wrong_keys_is_one_error() -> None:
    """It is not empty besides."""
    message = refusal({**JOB, "budget": {"dollars": 5}})

    assert "[budget]: unknown key 'dollars'" in message
    assert "no limit" not in message
    assert "Budget() has no limit" in refusal({**JOB, "budget": {}})


def test_an_endpoint_with_an_error_is_reported_once() -> None:
    """A column that names it is no second error, and its own errors are reported as well."""
    message = refusal({**JOB, "endpoints": {"llama": {}}, "columns": {"a": COLUMN, "b": {**COLUMN, "n": 0}}})

    assert ["[endpoints.llama]: it has neither", "[columns.b]: n=0 is not"] == [
        re.search(r"\[.*?\]: \S+ \S+ \S+", line)[0]  # type: ignore[index]  # each line has its place
        for line in message.splitlines()
    ]


def test_all_errors_are_reported_at_once() -> None:
    """Each error has a line, so a file is corrected in one go."""
    columns = {"a": {"task": "sing", "temprature": 0, "labels": ["x"]}, "b": {"task": "chat", "n": 0}}
    message = refusal({"source": 5, "kye": "id", "columns": columns})

    assert [
        "source is not valid: expected `str`, got `int`.",
        "unknown key 'kye'.",
        "the key 'target' is missing.",
        "the key 'key' is missing.",
        "[columns.a]: unknown task 'sing'.",
        "[columns.a]: unknown key 'temprature'.",
        "[columns.a]: the key 'endpoint' is missing.",
        "[columns.b]: the key 'endpoint' is missing.",
    ] == [line.split(" Hint: ")[0].removeprefix("job.toml").removeprefix(":").strip() for line in message.splitlines()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\nb = no\n", "job.toml is not TOML: Invalid value (at line 2, column 5). Hint: "),
        ("a = 1\na = 2", "is not TOML: "),
        ("a = " + "[" * 100_000, "is not TOML: "),
        ("", "job.toml: the key 'source' is missing. Hint: "),
    ],
)
def test_a_syntax_error_has_its_line_number(text: str, expected: str) -> None:
    """The message has the parser's text, and not the line itself."""
    assert expected in refusal(text)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A missing file, a folder and a file in another encoding are errors."""
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'source = "caf\xe9"')
    for path, expected in (
        (tmp_path / "none.toml", "none.toml cannot be read: No such file or directory. Hint: "),
        (tmp_path, "cannot be read: Is a directory. Hint: "),
        (latin, "latin.toml is not UTF-8. Hint: "),
    ):
        with pytest.raises(ConfigError) as raised:
            JobFile.read(path, {})
        assert expected in str(raised.value)


def test_a_byte_order_mark_is_skipped() -> None:
    """Editors on Windows write one."""
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
    """The hint is an environment variable, also where the secret stands in place of the variable's name."""
    message = refusal(job)

    assert SECRET not in message
    assert "environment variable" in message or "_env" in message


def test_a_token_that_no_header_can_hold_is_not_repeated() -> None:
    """The message names the variable, and not its value."""
    with pytest.raises(ConfigError, match="MY_TOKEN") as raised:
        read(JOB, {"MY_TOKEN": f"{SECRET}\n"})
    assert SECRET not in str(raised.value)


PATHS = [
    *([key] for key in JOB_KEYS),
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
def test_any_file_is_read_or_refused(changes: list[tuple[list[str], object]]) -> None:
    """Any value in any place is valid or a `ConfigError`, whose lines all end in a hint."""
    job = json.loads(json.dumps(JOB))
    for path, value in changes:
        table = job
        for step in path[:-1]:
            if not isinstance(table.setdefault(step, {}), dict):
                table[step] = {}
            table = table[step]
        table[path[-1]] = value
    message = ""
    try:
        columns = list(read(job).columns)
    except ConfigError as error:
        columns, message = list(job["columns"]), str(error)

    assert list(job["columns"]) == columns
    assert all(" Hint: " in line for line in message.splitlines())
    assert SECRET not in message


def test_the_example_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example is valid as it is, in an environment with its variables."""
    monkeypatch.setenv("DATABRICKS_HOST", "https://example.com")
    monkeypatch.setenv("DATABRICKS_TOKEN", SECRET)
    job = JobFile.read(Path(ROOT, "docs/examples/nightly.toml"), {"CHAT_TOKEN": SECRET})

    assert ["summary", "mood", "vector"] == list(job.columns)
    assert "reviews_enriched" == job.options["target"]


PAGE = Path(ROOT, "docs/enrichment-jobs.md").read_text(encoding="utf-8")


def test_the_page_shows_the_example_as_it_is() -> None:
    """The page and the file are the same text."""
    assert f"```toml\n{Path(ROOT, 'docs/examples/nightly.toml').read_text(encoding='utf-8')}```\n" in PAGE


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("### Top-level keys", set(JOB_KEYS)),
        ("### `[endpoints.NAME]`", set(ENDPOINT_KEYS)),
        (
            "### `[columns.NAME]`",
            {"task", "input"}
            | {
                name
                for udf in (chat_udf, complete_udf, embed_udf, predict_udf, extract_udf, rerank_udf)
                for name in signature(udf).parameters
            }
            | {each.name for function in FUNCTIONS.values() for each in function.parameters[1:]} - {IN_LABELS},
        ),
    ],
)
def test_the_page_has_every_key(heading: str, keys: set[str]) -> None:
    """The first cells of its tables have all keys, and no others."""
    table = PAGE.partition(f"{heading}\n\n")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]

    assert keys == {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
