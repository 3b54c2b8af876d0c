"""What `spark-llm enrich` does: a job's file read, a session made, the job run or estimated, the text returned."""

import argparse
import json
from collections.abc import Mapping
from datetime import datetime
from inspect import signature
from pathlib import Path
from typing import NamedTuple

from spark_llm.cli.job_file import JobFile
from spark_llm.cli.session import session
from spark_llm.enrich.api import enrich_table
from spark_llm.enrich.estimation.estimate import estimate

STOPPED = 3


class Outcome(NamedTuple):
    """What is printed, and the exit code."""

    text: str
    code: int


def enrich(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Outcome:
    """Run the job of a file, or estimate it; raises `SparkLLMError` where that cannot be."""
    job = JobFile.read(Path(arguments.job), environ)
    with session(job.settings) as spark:
        given = job.arguments()
        if arguments.dry_run:
            wanted = {name: value for name, value in given.items() if name in signature(estimate).parameters}
            estimated = estimate(spark, **wanted)
            return Outcome(_json(estimated.row()) if arguments.json else str(estimated), 0)
        report = enrich_table(spark, **given)
    told = {**report.row(), "notes": report.notes}
    return Outcome(_json(told) if arguments.json else str(report), 0 if report.done else STOPPED)


def _json(row: Mapping[str, object]) -> str:
    return json.dumps(row, default=datetime.isoformat, ensure_ascii=False)
