"""All errors in a file are reported at once, each with its place and a hint."""

from typing import Any

import pytest

from spark_llm.cli.config_errors import ConfigErrors
from spark_llm.errors import ConfigError
from spark_llm.metering.budget import Budget


def test_a_valid_table_raises_nothing() -> None:
    """Its entries come back with their values."""
    errors = ConfigErrors("job.toml")

    assert {"a": 1} == errors.entries("budget", {"a": 1}, {"a": int, "b": str})
    assert Budget(rows=5) == errors.build("budget", {"rows": 5}, Budget)
    errors.raise_any()


def test_each_error_is_a_line_with_its_place_and_a_hint() -> None:
    """An error in a block does not end the checks, and the whole message ends in a hint."""
    errors = ConfigErrors("job.toml")
    errors.add("", "the key 'key' is missing.", "write one.")
    with errors.at("columns.mood"):
        raise ConfigError("n=0 is too few.", "leave it out.")

    with pytest.raises(ConfigError) as raised:
        errors.raise_any()
    assert [
        "job.toml: the key 'key' is missing. Hint: write one.",
        "job.toml [columns.mood]: n=0 is too few. Hint: leave it out.",
    ] == str(raised.value).splitlines()
    assert "leave it out." == raised.value.hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sytem", "did you mean 'system'?"),
        ("zzz", "the keys are task, system."),
        ("token", "not in a file."),
    ],
)
def test_an_unknown_key_is_named_without_its_value(name: str, hint: str) -> None:
    """The hint is the nearest key, or the list of keys, or the key's own hint."""
    errors = ConfigErrors("job.toml")
    table = {name: "5ecret", "task": "chat"}

    assert {"task": "chat"} == errors.entries(
        "columns.a", table, dict.fromkeys(("task", "system"), Any), hints={"token": "not in a file."}
    )
    with pytest.raises(ConfigError) as raised:
        errors.raise_any()
    assert f"job.toml [columns.a]: unknown key {name!r}. Hint: {hint}" == str(raised.value)


def test_values_of_a_wrong_type_are_all_reported_without_the_values() -> None:
    """Each is left out of the entries; a key that must be there and is not is an error too."""
    errors = ConfigErrors("job.toml")
    table = {"a": "5ecret", "b": ["5ecret", 1], "c": 2}

    assert {"c": 2} == errors.entries("x", table, {"a": int, "b": list[str], "c": int}, required={"d": "write it."})
    with pytest.raises(ConfigError) as raised:
        errors.raise_any()
    assert [
        "job.toml [x]: a is not valid: expected `int`, got `str`. Hint: write it as in a = 100.",
        'job.toml [x]: b is not valid: expected `str`, got `int` - at `$[1]`. Hint: write it as in b = ["…", "…"].',
        "job.toml [x]: the key 'd' is missing. Hint: write it.",
    ] == str(raised.value).splitlines()


def test_a_value_in_place_of_a_table_is_an_error() -> None:
    """Its entries are empty, so that the checks go on."""
    errors = ConfigErrors("job.toml")

    assert {} == errors.entries("budget", 20, {"rows": int})
    with pytest.raises(ConfigError, match=r"budget is not a table. Hint: write it as \[budget\]"):
        errors.raise_any()
