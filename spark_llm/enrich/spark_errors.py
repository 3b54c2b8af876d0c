"""Spark's errors: their conditions, their texts in one line, and retries after conflicts with other writers."""

import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TypeVar

from pyspark.errors import PySparkException

from spark_llm.enrich.conflict import conflict_name, pause_after_conflict
from spark_llm.errors import HINT, JobFailedError, SparkLLMError
from spark_llm.text.excerpt import excerpt

_MAX_CHARACTERS = 300
_WORKER_ERROR = re.compile(rf"spark_llm\.\S*Error: (?P<what>[^\n]*?){HINT}(?P<hint>[^\n]*)")

_T = TypeVar("_T")
_logger = logging.getLogger("spark_llm.enrich")


def error_condition(error: BaseException | None) -> str:
    """Return Spark's name for an error of its own; empty for any other error."""
    if not isinstance(error, PySparkException):
        return ""
    condition = getattr(error, "getCondition", None) or error.getErrorClass  # its name before Spark 4
    return str(condition() or "")


def error_text(error: Exception) -> str:
    """Return the message of a Spark error in one line, without its trace."""
    text = str(error).split("JVM stacktrace")[0].split("\n\tat ")[0].partition(" SQLSTATE:")[0]
    text = text.partition("\n: ")[2] or text  # the first line names the Java call
    return excerpt(text, _MAX_CHARACTERS).rstrip(". ;")


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise the error of this library that a task failed with, without the trace of Java around it."""
    try:
        yield
    except SparkLLMError:
        raise
    except Exception as error:
        found = _WORKER_ERROR.search(str(error))
        if found is None:
            raise
        raise JobFailedError(found["what"], found["hint"]) from None


def retry_on_conflict(act: Callable[[int], _T], subject: str) -> _T:
    """Return the result of `act(attempt)`; after a conflict with another writer call it again.

    The last attempt's error is raised. `subject` names the table or the statement in the log.
    """
    began_s = time.monotonic()
    for attempt in count(1):
        try:
            return act(attempt)
        except Exception as error:
            name = conflict_name(str(error))
            pause_s = pause_after_conflict(attempt, time.monotonic() - began_s, random.random()) if name else None
            if pause_s is None:
                raise
            _logger.info("attempt %d on %s met %s; the next comes in %.1f s", attempt, subject, name, pause_s)
            time.sleep(pause_s)
    raise AssertionError("the last attempt returns or raises")
