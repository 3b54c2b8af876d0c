"""The tree of exceptions, and the kinds of a row's error."""

import pickle

import pytest

from spark_llm.errors import KINDS, ConfigError, InputTypeError, JobFailedError, RowFailedError, SparkLLMError

LEAVES = [ConfigError, InputTypeError, JobFailedError, RowFailedError]
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
        (InputTypeError, TypeError),
        (JobFailedError, RuntimeError),
        (RowFailedError, RuntimeError),
    ],
)
def test_every_error_is_ours_and_pythons(error: type[SparkLLMError], builtin: type[Exception]) -> None:
    """One `except SparkLLMError` catches them all, and so does the exception that Python would have raised."""
    assert issubclass(error, SparkLLMError)
    assert issubclass(error, builtin)


def test_the_tree_has_no_other_leaves() -> None:
    """What is drawn in the module is what there is."""
    assert LEAVES == sorted(SparkLLMError.__subclasses__(), key=lambda error: error.__name__)


@pytest.mark.parametrize("error", [SparkLLMError, *LEAVES])
def test_a_message_ends_in_a_hint(error: type[SparkLLMError]) -> None:
    """First what is wrong, then what to do next."""
    assert "The bridge is out. Hint: take the ferry." == str(error("The bridge is out.", "take the ferry."))


@pytest.mark.parametrize("error", [SparkLLMError, *LEAVES])
def test_an_error_survives_its_way_from_a_worker(error: type[SparkLLMError]) -> None:
    """Spark pickles what a task raised: the copy is the same error in the same words."""
    raised = error("The bridge is out.", "take the ferry.")
    copy = pickle.loads(pickle.dumps(raised))  # noqa: S301 -- our own bytes

    assert (type(raised), str(raised), raised.what, raised.hint) == (type(copy), str(copy), copy.what, copy.hint)


def test_the_kinds_are_the_documented_ones() -> None:
    """A user's query compares `error.kind` with these words: none may change its name."""
    assert DOCUMENTED_KINDS == list(KINDS)
