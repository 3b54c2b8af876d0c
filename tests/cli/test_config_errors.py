"""What is wrong in a file is said at once, each thing with its place and its next step."""

import pytest

from spark_llm.cli.config_errors import ConfigErrors
from spark_llm.errors import ConfigError


def test_a_file_without_a_fault_raises_nothing() -> None:
    """Known keys come back with their values."""
    faults = ConfigErrors("job.toml")

    assert {"a": 1} == faults.known("budget", {"a": 1}, ["a", "b"])
    faults.raise_any()


def test_every_fault_is_a_line_with_its_place_and_its_next_step() -> None:
    """A block that raised does not end the search, and the message as a whole ends in a next step."""
    faults = ConfigErrors("job.toml")
    faults.add("", "it has no key.", "write one.")
    with faults.at("columns.mood"):
        raise ConfigError("n=0 is too few.", "leave it out.")

    with pytest.raises(ConfigError) as raised:
        faults.raise_any()
    assert [
        "job.toml: it has no key. Hint: write one.",
        "job.toml [columns.mood]: n=0 is too few. Hint: leave it out.",
    ] == str(raised.value).splitlines()
    assert "leave it out." == raised.value.hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sytem", "did you mean 'system'?"),
        ("zzz", "its keys are task, system."),
        ("token", "not in a file."),
    ],
)
def test_a_key_that_is_not_known_is_named_without_its_value(name: str, hint: str) -> None:
    """The nearest key is the next step, or the list of them, or what is said of this key alone."""
    faults = ConfigErrors("job.toml")

    assert {"task": "chat"} == faults.known(
        "columns.a", {name: "5ecret", "task": "chat"}, ["task", "system"], {"token": "not in a file."}
    )
    with pytest.raises(ConfigError) as raised:
        faults.raise_any()
    assert f"job.toml [columns.a]: {name!r} is no key of it. Hint: {hint}" == str(raised.value)


def test_a_value_where_a_table_has_to_be_is_a_fault() -> None:
    """What comes back in its place is an empty table, so that the search goes on."""
    faults = ConfigErrors("job.toml")

    assert {} == faults.table("budget", 20)
    with pytest.raises(ConfigError, match=r"budget is a value, and it has to be a table. Hint: write it as \[budget\]"):
        faults.raise_any()
