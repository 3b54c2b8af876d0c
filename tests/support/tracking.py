"""A report of a job, and MLflow as the tests of its runs use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, TypeAlias

from spark_llm.enrich.report import EnrichReport
from spark_llm.metering.tally import Tally

MLflow: TypeAlias = Any
"""The module `mlflow`, which is imported where a test uses it."""

STOPPED = EnrichReport(
    run="0123456789ab",
    target="`main`.`reviews_enriched`",
    started_at=datetime(2026, 11, 23, 3, 39, 51, tzinfo=timezone.utc),
    seconds=500.4,
    rows=48_000,
    asked=12_000,
    answered=11_989,
    left=1_234,
    recovered=450,
    deleted=17,
    usd=1.2345,
    stopped="the budget of 1,500,000 tokens would be exceeded: 1,234 rows are left. Hint: run it again with more.",
    columns={
        "mood": Tally(12_000, {"timeout": 2, "rate_limited": 9}, 1_000_000, 34_567, 200_000, 1_034_567, 12_345),
        "vector": Tally(1_200, {"timeout": 1}, 200_000, 0, 0, 200_000, 19),
    },
)


@contextmanager
def tracked_at(address: str) -> Iterator[MLflow]:
    """Yield MLflow, which records at this address in the block."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(address)
    yield mlflow
    mlflow.set_tracking_uri(before)
