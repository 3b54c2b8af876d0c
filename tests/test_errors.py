"""The tree of exceptions, and the kinds of a row's error."""

import pickle

import pytest

from spark_llm.errors import (
    KINDS,
    ArgumentError,
    ConfigError,
    InputTypeError,
    JobFailedError,
    RowFailedError,
    SampleError,
    SparkLLMError,
)

LEAVES = [ConfigError, InputTypeError, JobFailedError, RowFailedError, SampleError]
DOCUMENTED_KINDS = [
    "rate_limited",
    "unavailable",
    "timeout",
    "connection",
    "invalid_request",
    "context_length",
    "truncated",
    "unauthorized",
    "not_found",
    "quota",
    "content_filter",
    "invalid_response",
    "schema_mismatch",
    "cancelled",
]


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigError, ValueError),
        (ArgumentError, ValueError),
        (ArgumentError, TypeError),
        (InputTypeError, TypeError),
        (JobFailedError, RuntimeError),
        (RowFailedError, RuntimeError),
        (SampleError, RuntimeError),
    ],
)
def test_errors_inherit_from_ours_and_from_pythons(error: type[SparkLLMError], builtin: type[Exception]) -> None:
    """`except SparkLLMError` catches them all, and so does the exception that Python would have raised."""
    assert issubclass(error, SparkLLMError)
    assert issubclass(error, builtin)


def test_the_documented_tree_is_complete() -> None:
    """The module's docstring lists every exception class."""
    assert LEAVES == sorted(SparkLLMError.__subclasses__(), key=lambda error: error.__name__)
    assert [ArgumentError] == ConfigError.__subclasses__()


@pytest.mark.parametrize("error", [SparkLLMError, ArgumentError, *LEAVES])
def test_a_message_ends_in_a_hint(error: type[SparkLLMError]) -> None:
    """It says first what is wrong, then what to do."""
    assert "The bridge is out. Hint: take the ferry." == str(error("The bridge is out.", "take the ferry."))


@pytest.mark.parametrize("error", [SparkLLMError, ArgumentError, *LEAVES])
def test_errors_are_picklable(error: type[SparkLLMError]) -> None:
    """Spark pickles the exception of a task: the copy has the same type and message."""
    raised = error("The bridge is out.", "take the ferry.")
    copy = pickle.loads(pickle.dumps(raised))  # noqa: S301 -- our own bytes

    assert (type(raised), str(raised), raised.what, raised.hint) == (type(copy), str(copy), copy.what, copy.hint)


def test_the_kinds_do_not_change() -> None:
    """Users' queries compare `error.kind` with these strings."""
    assert DOCUMENTED_KINDS == list(KINDS)
