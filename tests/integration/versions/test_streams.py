"""Structured streaming on a cluster: a query that is started again goes on where it was."""

from pathlib import Path

import pytest

from spark_llm.serving import LocalEndpoints
from tests.integration.versions.cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.spark]


@pytest.mark.parametrize("sink", ["parquet", "foreachBatch"])
def test_a_stream_asks_each_row_once(sink: str, cluster: Cluster, endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """What is there is asked once, over several batches; started again, the query asks for what is new and no more."""
    source = tmp_path / "source"
    source.mkdir()

    def arrive(file: int) -> None:
        lines = [f"row {file}-{number}" for number in range(20)]
        (source / f"{file}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run() -> tuple[int, int, int]:
        """Run the query; return how many rows there are, how many different ones are right, and what was asked."""
        job = cluster.start(
            job="stream",
            url=endpoints.invocations("chat"),
            token=endpoints.token,
            in_flight=8,
            source=str(source),
            checkpoint=str(tmp_path / "checkpoint"),
            target=str(tmp_path / "target"),
            sink=sink,
        )
        rows = job.answer()
        return len(rows), len({prompt for prompt, text in rows if text == prompt}), endpoints.stats.requests

    for file in range(3):
        arrive(file)

    assert (60, 60, 60) == run()
    arrive(3)
    assert (80, 80, 80) == run()
