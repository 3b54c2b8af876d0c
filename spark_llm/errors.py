"""What can go wrong, drawn as a tree; every message ends in a next step.

    SparkLLMError
    ├── ConfigError      a UDF cannot be built so                 where you stand, before anything runs
    ├── InputTypeError   a column of a type that cannot be asked  at the first batch, before any request
    ├── RowFailedError   a row failed under on_error="raise"      in the task that asked it
    └── JobFailedError   a job over a table cannot go on          where it was started

Without `on_error="raise"` a row that fails is data: its `error` field says why, with one of `KINDS`.
"""

from typing import Literal, get_args

Kind = Literal[
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
KINDS: tuple[Kind, ...] = get_args(Kind)


HINT = " Hint: "  # between what is wrong and what to do, in every message


class SparkLLMError(Exception):
    """The root of every exception of this library: what is wrong, and what to do next."""

    def __init__(self, what: str, hint: str) -> None:
        """Say `what` is wrong, and the next step as `hint`."""
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        """Return the sentence and its hint."""
        return self.what + HINT + self.hint


class ConfigError(SparkLLMError, ValueError):
    """An endpoint, a parameter or a policy that cannot be right; raised when the UDF is built."""


class InputTypeError(SparkLLMError, TypeError):
    """A column whose type cannot be asked; raised at the first batch, before any request."""


class RowFailedError(SparkLLMError, RuntimeError):
    """A row that was not answered, under `Policy(on_error="raise")`."""


class JobFailedError(SparkLLMError, RuntimeError):
    """A job over a table that cannot go on; what was answered is in the table, or merged by the next run."""
