"""`spark-llm enrich`: runs or estimates the job that a file describes, and returns the text to print."""

import argparse
import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from datetime import datetime
from inspect import signature
from pathlib import Path

from spark_llm.cli.job_file import JobFile
from spark_llm.cli.local.spark import job_session
from spark_llm.enrich.api import enrich_table
from spark_llm.enrich.estimation.estimate import estimate
from spark_llm.enrich.report import EnrichReport

STOPPED, SUBMITTED = 3, 4
_NOT_IN_ROW = ("notes", "out", "out_batches", "out_usd", "usd_at_once")  # what a table of runs does not have


def enrich(arguments: argparse.Namespace, environ: Mapping[str, str]) -> tuple[str, int]:
    """Run the job of a file, or estimate it; return the text to print and the exit code.

    Raises `SparkLLMError` where that fails.
    """
    job = JobFile.read(Path(arguments.job), environ)
    with job_session(job.settings) as spark:
        options = job.arguments()
        if arguments.dry_run:
            parameters = signature(estimate).parameters
            estimated = estimate(spark, **{name: value for name, value in options.items() if name in parameters})
            return to_json(estimated.row()) if arguments.json else str(estimated), 0
        with redirect_stdout(sys.stderr):  # MLflow prints the addresses of its run
            report = enrich_table(spark, **options)
    return report_text(report, as_json=arguments.json), exit_code(report)


def exit_code(report: EnrichReport) -> int:
    """Return 3 where the run stopped early, whatever is out; 4 where requests are with the provider, else 0."""
    if not report.done:
        return STOPPED
    return SUBMITTED if report.submitted else 0


def report_text(report: EnrichReport, *, as_json: bool) -> str:
    """Return a report as text, or as JSON with the column names of a table of runs and what such a table lacks."""
    return (
        to_json({**report.row(), **{name: getattr(report, name) for name in _NOT_IN_ROW}}) if as_json else str(report)
    )


def to_json(value: object) -> str:
    """Return a value as one line of JSON."""
    return json.dumps(value, default=datetime.isoformat, ensure_ascii=False)
