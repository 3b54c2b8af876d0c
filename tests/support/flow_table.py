"""Prints the table of decision 0008: `python -m tests.support.flow_table [first seed] [seeds]`, ten minutes for twenty.

Each row is a job against a simulated endpoint. A share is the mean over the seeds, with its standard error. The
requests a row and the requests in flight (the mean of the second half, and the maximum) are means too.
"""

import sys
from collections.abc import Iterator
from statistics import fmean, stdev
from typing import NamedTuple

from tests.flow.test_simulation import FORTY, FORTY_TEN_FORTY, Made, concurrency, fifty_a_second, metered, queue
from tests.support.servers import Batching, Concurrency, FixedWindow, Gone, Latency, Noisy, SlidingWindow, TokenBucket
from tests.support.simulation import Job, Leaving


class Row(NamedTuple):
    """One job, and the part of its rows over which the share is taken: after `leaving`, where workers leave."""

    name: str
    endpoint: Made
    rows: int
    workers: int = 1
    of_rows: float = 1.0
    leaving: Leaving | None = None


QUICK_FORTY = concurrency(FORTY, median_s=0.2)
SLOWER = ((0.0, 1.0), (60.0, 3.0))

ROWS = (
    Row("40 at once", concurrency(FORTY), 8_000),
    Row("40 at once, eight workers (first 80 % of the rows)", concurrency(FORTY), 8_000, 8, 0.8),
    Row("40 at once, eight workers (all rows)", concurrency(FORTY), 8_000, 8),
    Row("40 at once, 0.2 s, eight workers (first 80 %)", QUICK_FORTY, 12_000, 8, 0.8),
    Row("40 at once, 0.2 s, eight workers (all rows)", QUICK_FORTY, 12_000, 8),
    Row("40 at once, 0.2 s, seven of eight leave", QUICK_FORTY, 16_000, 8, 1.0, Leaving(7, 20.0)),
    Row("40 at once, 0.2 s, four of eight leave", QUICK_FORTY, 10_000, 8, 0.8, Leaving(4, 20.0)),
    Row("40 at once, seven of eight leave", concurrency(FORTY), 16_000, 8, 1.0, Leaving(7, 80.0)),
    Row("40 at once, four of eight leave", concurrency(FORTY), 10_000, 8, 0.8, Leaving(4, 80.0)),
    Row("200 at once", concurrency(((0, 200),)), 12_000),
    Row("4 at once", concurrency(((0, 4),)), 1_500),
    Row("40 at once, then 10, then 40", concurrency(FORTY_TEN_FORTY), 8_000),
    Row("40 at once, Retry-After of 1 s", concurrency(FORTY, 1.0), 8_000),
    Row("40 at once, Retry-After of 1 s, eight workers", concurrency(FORTY, 1.0), 8_000, 8),
    Row("50 a second", metered(fifty_a_second), 8_000),
    Row("50 a second, token bucket", metered(lambda: TokenBucket(50, 1)), 8_000),
    Row("50 a second, fixed window", metered(lambda: FixedWindow(50, 1)), 8_000),
    Row("50 a second, Retry-After of 1 s", metered(fifty_a_second, 1.0), 8_000),
    Row("50 a second, eight workers", metered(fifty_a_second), 8_000, 8),
    Row("50 a second, 0.2 s", metered(fifty_a_second, median_s=0.2), 8_000),
    Row("50 a second, 0.2 s, eight workers", metered(fifty_a_second, median_s=0.2), 8_000, 8),
    Row("50 a second, gone for 20 s", lambda seed: Gone(metered(fifty_a_second)(seed), 40, 60), 5_000),
    Row("600 in any minute", metered(lambda: SlidingWindow(10, 60)), 4_000),
    Row("600 a minute, token bucket", metered(lambda: TokenBucket(10, 60)), 4_000),
    Row("600 a minute, fixed window", metered(lambda: FixedWindow(10, 60)), 4_000),
    Row("40 at once, 7 % noise (first 90 %)", lambda seed: Noisy(concurrency(FORTY)(seed), seed), 6_000, 1, 0.9),
    Row("40 at once, slower after a minute", lambda seed: Concurrency(Latency(seed, slower=SLOWER), FORTY), 5_000),
    Row("40 at once, gone for 20 s", lambda seed: Gone(concurrency(FORTY)(seed), 40, 60), 5_000),
    Row("40 servers and a queue", queue(FORTY), 12_000),
    Row("40 servers and a queue, eight workers (first 80 %)", queue(FORTY), 8_000, 8, 0.8),
    Row("40 servers and a queue, then 10, then 40", queue(FORTY_TEN_FORTY), 8_000),
    Row("one server and a queue", queue(((0, 1),)), 3_000),
    Row("batching (first 80 %)", lambda seed: Batching(Latency(seed, sigma=0.6), 0.02), 8_000, 1, 0.8),
    Row("short job: 40 at once, 0.2 s", QUICK_FORTY, 6_000),
    Row("short job: 40 servers and a queue, 0.2 s", queue(FORTY, 0.2), 6_000),
)


def lines(seeds: range) -> Iterator[str]:
    """Play every row's job once for each seed, and yield the lines of the table."""
    yield "| endpoint | share of the capacity | requests a row | in flight | at the most |"
    yield "| --- | --- | --- | --- | --- |"
    for row in ROWS:
        played = [Job(row.endpoint(seed), row.rows, workers=row.workers, leaving=row.leaving) for seed in seeds]
        shares = [job.share(row.of_rows, begin=row.leaving.at if row.leaving else 0.0) for job in played]
        error = stdev(shares) / len(shares) ** 0.5
        requests, mean = fmean(job.requests_per_row for job in played), fmean(job.in_flight() for job in played)
        max_in_flight = fmean(job.max_in_flight for job in played)
        yield f"| {row.name} | {fmean(shares):.3f} ± {error:.3f} | {requests:.2f} | {mean:.0f} | {max_in_flight:.0f} |"


if __name__ == "__main__":
    first, count = [*(int(word) for word in sys.argv[1:3]), *(100, 20)[len(sys.argv) - 1 :]]
    for line in lines(range(first, first + count)):
        print(line, flush=True)  # noqa: T201 -- it is what the command is for
