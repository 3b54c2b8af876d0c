"""`spark-llm batches`: lists or cancels the batches of the job that a file describes, and returns the text to print."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import datetime, timezone
from inspect import signature
from pathlib import Path
from typing import Any

from spark_llm.cli.enrich import exit_code, report_text, to_json
from spark_llm.cli.job_file import JobFile
from spark_llm.cli.local.spark import job_session
from spark_llm.enrich.batch_jobs.api import BatchInfo, cancel_batches, job_batches
from spark_llm.text.table import text_table

_HEADINGS = ("column", "status", "answered", "failed", "requests", "created", "batch", "key")
_NUMBERS = range(2, 5)


def batches(arguments: argparse.Namespace, environ: Mapping[str, str]) -> tuple[str, int]:
    """List the batches of a job, or cancel them and merge what was answered; return the text and the exit code.

    Raises `SparkLLMError` where that fails.
    """
    job = JobFile.read(Path(arguments.job), environ)
    with job_session(job.settings) as spark:
        options = job.arguments()
        if not arguments.cancel:
            found = job_batches(spark, options["target"], options["columns"])
            return listed(found, as_json=arguments.json), 0
        with redirect_stdout(sys.stderr):  # MLflow prints the addresses of its run
            parameters = signature(cancel_batches).parameters
            report = cancel_batches(spark, **{name: value for name, value in options.items() if name in parameters})
    return report_text(report, as_json=arguments.json), exit_code(report)


def listed(found: Sequence[BatchInfo], *, as_json: bool) -> str:
    """Return batches with their progress, those that were created first in front, as a table or as JSON."""
    rows = sorted(found, key=lambda each: (each.created_at is None, each.created_at or 0.0, each.key))
    if as_json:
        return to_json([_values(each) for each in rows])
    if not rows:
        return "The job has no batches."
    return "\n".join((_heading(rows), text_table([_HEADINGS, *map(_cells, rows)], right_aligned=_NUMBERS)))


def _heading(rows: Sequence[BatchInfo]) -> str:
    batches = "1 batch" if len(rows) == 1 else f"{len(rows):,} batches"
    answered, failed, total = (_sum(rows, name) for name in ("completed", "failed", "total"))
    return f"{batches}: {answered:,} of {total:,} requests answered{f', {failed:,} failed' if failed else ''}."


def _sum(rows: Iterable[BatchInfo], name: str) -> int:
    return sum(getattr(each, name) for each in rows)


def _cells(each: BatchInfo) -> tuple[str, ...]:
    numbers = map("{:,}".format, (each.completed, each.failed, each.total))
    created = "" if each.created_at is None else f"{_time(each.created_at):%Y-%m-%d %H:%M} UTC"
    return (each.column, each.status, *numbers, created, each.batch_id or "", each.key)


def _values(each: BatchInfo) -> dict[str, Any]:
    return {**each._asdict(), "created_at": None if each.created_at is None else _time(each.created_at).isoformat()}


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
