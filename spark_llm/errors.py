"""The exceptions of this library, as a tree. Every message ends in a hint.

    SparkLLMError
    ├── ConfigError      a wrong argument                     raised when the UDF is built or the job is started
    │   └── ArgumentError    an unknown or a missing argument; it is a TypeError too
    ├── InputTypeError   a column of an unsupported type      raised at the first batch, before any request
    ├── RowFailedError   a row failed with on_error="raise"   raised in the task that sent it
    ├── JobFailedError   a table job cannot continue          raised where the job was started
    └── SampleError      a sample decides nothing             raised by classify_by_sample, before the rest is asked

Without `on_error="raise"` a failed row raises nothing: its `error` field has the message, and one of `KINDS`.
"""

from typing import Any, Literal, get_args

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

HINT = " Hint: "  # stands in every message, between the problem and the next step


class SparkLLMError(Exception):
    """The base class of all exceptions of this library: what is wrong, and a hint."""

    def __init__(self, what: str, hint: str) -> None:
        """Make an exception of `what` is wrong, and the next step as `hint`."""
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        """Return the message with its hint."""
        return self.what + HINT + self.hint


class ConfigError(SparkLLMError, ValueError):
    """A wrong endpoint, parameter or policy; raised when the UDF is built or the job is started."""


class ArgumentError(ConfigError, TypeError):
    """Arguments that a function or a class of this library does not take."""


class InputTypeError(SparkLLMError, TypeError):
    """A column of an unsupported type; raised at the first batch, before any request."""


class RowFailedError(SparkLLMError, RuntimeError):
    """A row that was not answered, with `Policy(on_error="raise")`."""


class JobFailedError(SparkLLMError, RuntimeError):
    """A table job that cannot continue; its answers are in the table, or the next run merges them."""


class SampleError(SparkLLMError, RuntimeError):
    """A sample that lets no small model decide, in `classify_by_sample`; the other rows were not asked.

    Attributes:
        report: What was asked and measured so far.
        sample: The answers that were paid for, as a DataFrame with `content`, `label`, `usage` and `error`; None where
            nothing was asked.
    """

    report: Any = None
    sample: Any = None
