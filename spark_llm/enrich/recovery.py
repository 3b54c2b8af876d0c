"""Runs that fail, die or are interrupted: what remains of them is merged by the next run, and then removed."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.utils import is_remote

from spark_llm.enrich.column_types import same_of
from spark_llm.enrich.lease import Lease
from spark_llm.enrich.merge import Merger, mergeable_schema
from spark_llm.enrich.staging import Staging
from spark_llm.enrich.table import Table

_logger = logging.getLogger("spark_llm.enrich")


@contextmanager
def cleaned_up(staging: Staging, lease: Lease, kept: Sequence[str]) -> Iterator[None]:
    """Remove the staging at the end of the block; after an error keep these parts, where there are answers.

    Answers that are merged are removed whatever happens. An error here hides no error of the block, and fails no run:
    the next run removes the rest. After Ctrl-C that is all of it, because each step may have to wait for cores.
    """
    try:
        yield
    except BaseException as error:
        with suppress(Exception):  # the session may be dead
            staging.remove_merged()
            if isinstance(error, Exception) and lease.is_held():
                staging.keep(kept)
        raise
    try:
        lease.check()
        staging.clear()
    except Exception as error:  # noqa: BLE001 -- see above
        with suppress(Exception):
            staging.remove_merged()
        _logger.warning("The staging tables of the run are not removed (%s).", type(error).__name__)


def recover(abandoned: Sequence[Staging], merger: Merger, known: DataFrame | None, target: Table) -> int:
    """Merge what earlier runs had asked when they failed or died; return how many rows that are.

    Nothing is merged where the target was created just now (`known` is None): a new target begins empty.
    """
    total = 0
    for each in abandoned if known is not None else []:
        answers = each.read("answers")
        rows = 0 if answers is None else answers.where("NOT deferred").count()
        if answers is None or known is None or not rows:
            continue
        columns = mergeable_schema(answers.schema, known.schema, same_of(answers.sparkSession))
        if columns is None:
            _logger.warning("%d rows of an earlier run have no columns in %s any more, and are dropped", rows, target)
        else:
            merger.merge_answers(answers, each, columns=columns)
            each.remove_merged()
            _logger.info("%d rows of an earlier run are merged", rows)
            total += rows
    return total


@contextmanager
def interruptible(spark: SparkSession, tag: str) -> Iterator[None]:
    """Cancel at Ctrl-C the Spark jobs of the block; else they go on asking, because PySpark only stops waiting.

    On Connect those are the jobs with the tag. Classic Spark no longer knows the tag when the thread's way to Java was
    cut, so it cancels all of the session, as PySpark itself means it to be. It finds no job that creates a Delta table,
    because the smaller jobs of such a job take the session's tag away; before Spark 4.0 it finds none. Those go on to
    their end, and the next run merges their answers.
    """
    if is_remote():
        spark.addTag(tag)
    try:
        yield
    except KeyboardInterrupt:
        _logger.info("Ctrl-C: the Spark jobs of the run are cancelled")
        with suppress(Exception):
            _ = spark.interruptTag(tag) if is_remote() else spark.interruptAll()
        raise
    finally:
        if is_remote():
            spark.removeTag(tag)
