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

STOPPED = 3


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
            return _json(estimated.row()) if arguments.json else str(estimated), 0
        with redirect_stdout(sys.stderr):  # MLflow prints the addresses of its run
            report = enrich_table(spark, **options)
    row = {**report.row(), "notes": report.notes}
    return _json(row) if arguments.json else str(report), 0 if report.done else STOPPED


def _json(row: Mapping[str, object]) -> str:
    return json.dumps(row, default=datetime.isoformat, ensure_ascii=False)
