"""What the rules of sending come to: whole jobs against simulated endpoints, with bounds on what they use and cost.

A share is the mean over the seeds, from the first request to the last answer. Where it is taken over the first 80 or
90 % of the rows only, the rest is the job's end: workers that are done leave room that the others have to find, and the
last rows may be those that hang. The bounds leave room below what six other sets of seeds gave.
"""

from collections.abc import Callable
from statistics import fmean

import pytest
from hypothesis import settings

from spark_llm.flow.limiter import ConcurrencyLimiter, Permit
from spark_llm.policy import Policy
from tests.support.servers import (
    Batching,
    Concurrency,
    Endpoint,
    FixedWindow,
    Gone,
    Latency,
    Metered,
    Noisy,
    Queue,
    Quota,
    SlidingWindow,
    Steps,
    TokenBucket,
)
from tests.support.simulation import Job, Leaving

pytestmark = pytest.mark.waits

SEEDS = range(3 if settings.get_current_profile_name() == "explore" else 1)
FORTY: Steps = ((0, 40),)
FORTY_TEN_FORTY: Steps = ((0, 40), (60, 10), (180, 40))

Made = Callable[[int], Endpoint]


def jobs(
    endpoint: Made,
    rows: int,
    workers: int = 1,
    limit: Callable[[Policy], ConcurrencyLimiter] = ConcurrencyLimiter,
    seeds: range = SEEDS,
) -> list[Job]:
    """Play a job once for every seed."""
    return [Job(endpoint(seed), rows, workers=workers, limit=limit) for seed in seeds]


def share(played: list[Job], of_rows: float = 1.0) -> float:
    """Return the mean share of the capacity."""
    return fmean(job.share(of_rows) for job in played)


def cost(played: list[Job]) -> float:
    """Return the requests a row of the job that took most, of which no row may have failed."""
    assert [0] * len(played) == [job.failed for job in played]
    return max(job.requests_per_row for job in played)


def concurrency(most: Steps, retry_after_s: float | None = None, median_s: float = 1.0) -> Made:
    """Refuse what goes beyond so many at once."""
    return lambda seed: Concurrency(Latency(seed, median_s), most, retry_after_s)


def metered(quota: Callable[[], Quota], retry_after_s: float | None = None, median_s: float = 1.0) -> Made:
    """Refuse what goes beyond a quota."""
    return lambda seed: Metered(Latency(seed, median_s), quota(), retry_after_s)


def queue(servers: Steps, median_s: float = 1.0) -> Made:
    """Let everybody wait for so many servers."""
    return lambda seed: Queue(Latency(seed, median_s, sigma=0.6), servers)


def fifty_a_second() -> Quota:
    """Count every attempt of the second just past."""
    return SlidingWindow(50, 1)


def test_a_hidden_concurrency_is_found_and_kept() -> None:
    """One worker uses nearly all of a limit of 40, with one request in a hundred refused."""
    played = jobs(concurrency(FORTY), 8_000)

    assert 0.95 <= share(played)
    assert 1.03 >= cost(played)
    assert all(38 <= job.in_flight() <= 40.5 for job in played)


@pytest.mark.parametrize(("most", "rows", "at_least", "at_most"), [(4, 1_500, 0.91, 1.09), (200, 12_000, 0.85, 1.02)])
def test_a_small_and_a_large_concurrency_are_found_too(most: int, rows: int, at_least: float, at_most: float) -> None:
    """Four at once are probed by whole requests, and two hundred take some time to reach."""
    played = jobs(concurrency(((0, most),)), rows)

    assert at_least <= share(played)
    assert at_most >= cost(played)


def test_workers_share_a_concurrency_without_knowing_of_each_other() -> None:
    """Eight workers use a limit of 40 well over the first 80 % of the rows, and leave little of it at the end."""
    played = jobs(concurrency(FORTY), 8_000, workers=8)

    assert 0.92 <= share(played, 0.8)
    assert 0.82 <= share(played)
    assert 1.11 >= cost(played)


def test_workers_with_short_latencies_share_a_concurrency_to_the_end() -> None:
    """At 0.2 s as at 1 s: no worker is held long by a rate that a few refusals taught it."""
    played = jobs(concurrency(FORTY, median_s=0.2), 8_000, workers=8)

    assert 0.90 <= share(played, 0.8)
    assert 0.80 <= share(played)
    assert 1.11 >= cost(played)


@pytest.mark.parametrize(("leave", "rows", "of_rows"), [(7, 16_000, 1.0), (4, 10_000, 0.8)])
def test_a_window_grows_when_the_others_have_gone(leave: int, rows: int, of_rows: float) -> None:
    """Of eight workers some end after 20 s: those that stay soon use the room that is left, and flood nothing."""
    forty, leaving = concurrency(FORTY, median_s=0.2), Leaving(leave, at=20.0)
    played = [Job(forty(seed), rows, workers=8, leaving=leaving) for seed in SEEDS]

    assert 0.70 <= fmean(job.share(of_rows, begin=20.0) for job in played)
    assert 1.12 >= cost(played)


@pytest.mark.parametrize(
    ("endpoint", "at_most"),
    [(concurrency(FORTY, median_s=0.2), 1.04), (queue(FORTY, median_s=0.2), 1.0)],
    ids=["concurrency", "queue"],
)
def test_a_short_job_loses_little_while_it_learns(endpoint: Made, at_most: float) -> None:
    """Of 150 rounds at a limit of 40, it takes six to get there and two for the last answers."""
    played = jobs(endpoint, 6_000)

    assert 0.94 <= share(played)
    assert at_most >= cost(played)
    assert all(38 <= job.in_flight() <= 60 for job in played)


def test_a_concurrency_that_changes_is_followed() -> None:
    """From 40 down to 10 at once and back up again, which takes the longest."""
    played = jobs(concurrency(FORTY_TEN_FORTY), 8_000)

    assert 0.88 <= share(played)
    assert 1.08 >= cost(played)


@pytest.mark.parametrize(
    ("most", "least", "median_s", "low_share"),
    [
        (40, 10, 0.2, 0.80),
        (40, 5, 0.2, 0.80),
        (40, 20, 0.2, 0.80),
        (40, 10, 1.0, 0.90),
        pytest.param(200, 50, 0.2, 0.80, marks=pytest.mark.slow),
    ],
)
def test_a_concurrency_that_falls_far_is_found_again_in_seconds(
    most: int, least: int, median_s: float, low_share: float
) -> None:
    """From a few seconds after the fall on, most of what is left is used: pauses end where requests are answered."""
    falls_at, stays = 150 * median_s, 120 * median_s
    steps = ((0, most), (falls_at, least), (falls_at + stays, most))
    rows = int((most * falls_at * 1.6 + least * stays) / median_s / 1.133)
    played = jobs(concurrency(steps, median_s=median_s), rows)

    for job in played:
        assert low_share <= job.share_between(falls_at + 20 * median_s, falls_at + stays)
    assert 1.05 >= cost(played)


@pytest.mark.parametrize(("workers", "at_least", "at_most"), [(1, 0.89, 1.01), (8, 0.75, 1.05)])
def test_retry_after_costs_a_share_and_saves_requests(workers: int, at_least: float, at_most: float) -> None:
    """An endpoint that names a second is left alone for a second, so its limit is tried less often."""
    played = jobs(concurrency(FORTY, retry_after_s=1.0), 8_000, workers)

    assert at_least <= share(played)
    assert at_most >= cost(played)


@pytest.mark.parametrize(
    ("quota", "at_most"),
    [(SlidingWindow, 1.03), (TokenBucket, 1.09), (FixedWindow, 1.12)],
)
def test_a_quota_a_second_is_kept_though_refused_requests_count(
    quota: Callable[[float, float], Quota], at_most: float
) -> None:
    """50 requests a second, however they are counted, are used nearly whole; no window could find out about them."""
    played = jobs(metered(lambda: quota(50, 1)), 8_000)

    assert 0.87 <= share(played)
    assert at_most >= cost(played)


@pytest.mark.parametrize("quota", [SlidingWindow, TokenBucket, FixedWindow])
def test_a_quota_a_minute_is_kept_though_refused_requests_count(quota: Callable[[float, float], Quota]) -> None:
    """Where a minute's quota goes in a few seconds, the rest of the minute is waited out, with a probe now and then."""
    played = jobs(metered(lambda: quota(10, 60)), 4_000)

    assert 0.82 <= share(played)
    assert 1.35 >= cost(played)


def test_workers_share_a_quota_without_knowing_of_each_other() -> None:
    """Eight workers use two thirds of 50 requests a second where refused ones count, and are not locked out."""
    played = jobs(metered(fifty_a_second), 8_000, workers=8)

    assert 0.66 <= share(played)
    assert 1.18 >= cost(played)


def test_a_quota_with_retry_after_is_kept() -> None:
    """The first refusal that names a time ends the sending, and teaches the rate."""
    played = jobs(metered(fifty_a_second, retry_after_s=1.0), 8_000)

    assert 0.82 <= share(played)
    assert 1.01 >= cost(played)


def test_an_endpoint_that_queues_is_kept_busy_and_no_more() -> None:
    """Of 40 servers none idles, and the queue is no longer than one or two times that, though nothing is refused."""
    played = jobs(queue(FORTY), 12_000)

    assert 0.95 <= share(played)
    assert 1.0 == cost(played)
    assert all(40 <= job.in_flight() <= 100 for job in played)


@pytest.mark.parametrize(("servers", "rows", "at_most"), [(1, 3_000, 8), (4, 6_000, 20)])
def test_a_small_queue_is_found_too(servers: int, rows: int, at_most: int) -> None:
    """A model that answers one at a time has a few requests in the queue, and not hundreds."""
    played = jobs(queue(((0, servers),)), rows)

    assert 0.94 <= share(played)
    assert all(0.9 * servers <= job.in_flight() <= at_most for job in played)


def test_a_queue_that_changes_is_followed() -> None:
    """From 40 servers down to 10 and back up again."""
    played = jobs(queue(FORTY_TEN_FORTY), 8_000)

    assert 0.78 <= share(played)
    assert all(job.in_flight() <= 90 for job in played)


def test_workers_share_a_queue_without_knowing_of_each_other() -> None:
    """Eight workers keep 40 servers busy, and leave the queue short."""
    played = jobs(queue(FORTY), 8_000, workers=8)

    assert 0.80 <= share(played, 0.8)
    assert all(job.in_flight(0.2, 0.8) <= 120 for job in played)


def test_batching_is_not_mistaken_for_a_queue() -> None:
    """Where latency grows with the load and throughput still grows too, the window stays wide."""
    played = jobs(lambda seed: Batching(Latency(seed, sigma=0.6), 0.02), 8_000)

    assert 0.82 <= share(played, 0.8)
    assert all(200 <= job.in_flight(0.3, 0.7) for job in played)


@pytest.mark.parametrize(("most", "rows", "at_least", "at_most"), [(200, 10_000, 0.79, 1.03), (40, 6_000, 0.85, 1.07)])
def test_noise_costs_hardly_more_than_itself(most: int, rows: int, at_least: float, at_most: float) -> None:
    """One request in fourteen fails for no reason: those are sent again, and the window is left where it was."""
    played = jobs(lambda seed: Noisy(concurrency(((0, most),))(seed), seed), rows)

    assert at_most / (1 - Noisy.SHARE) >= cost(played)
    assert at_least <= share(played, 0.9)


def test_answers_may_take_three_times_as_long_from_one_moment_on() -> None:
    """A slower model behind the same limit is not mistaken for a queue."""
    slower = ((0.0, 1.0), (60.0, 3.0))
    played = jobs(lambda seed: Concurrency(Latency(seed, slower=slower), FORTY), 5_000, seeds=range(3))

    assert 0.85 <= share(played)
    assert 1.04 >= cost(played)


@pytest.mark.parametrize(
    "endpoint", [concurrency(FORTY), metered(fifty_a_second), queue(FORTY)], ids=["concurrency", "quota", "queue"]
)
def test_an_outage_costs_no_row(endpoint: Made) -> None:
    """Twenty seconds without the endpoint are waited out, with a probe now and then."""
    played = jobs(lambda seed: Gone(endpoint(seed), 40, 60), 5_000)
    undisturbed = jobs(endpoint, 5_000)

    assert 1.1 * cost(undisturbed) >= cost(played)
    assert 0.80 <= share(played)


class FixedSize(ConcurrencyLimiter):
    """So many at once, whatever comes back: what a thread pool does."""

    def __init__(self, policy: Policy) -> None:
        """Let 64 out."""
        super().__init__(policy)
        self.window = 64

    def available(self, now: float) -> int:
        """Return what is left of the window."""
        return max(0, self.window - self.in_flight)

    def opens_at(self, now: float) -> float | None:
        """Say that only an outcome helps, where the window is full."""
        return now if self.available(now) else None

    def widen(self, requests: int) -> None:
        """Let no more out."""

    def on_answer(
        self, permit: Permit, now: float, latency_s: float | None = None, tokens: float | None = None
    ) -> None:
        """Count a request in."""
        self.in_flight -= 1

    def on_rate_limited(self, permit: Permit, now: float, *, paused: bool = False) -> None:
        """Count a request in."""
        self.in_flight -= 1


class PlainAIMD(FixedSize):
    """TCP's oldest rule: one more a round, and half as many after a refusal."""

    def __init__(self, policy: Policy) -> None:
        """Let one out."""
        super().__init__(policy)
        self.window, self._width, self._halved = 1, 1.0, 0

    def acquire(self, now: float, characters: int = 0, *, is_probe: bool = False) -> Permit:
        """Note how many times the window was halved."""
        return super().acquire(now, characters, is_probe=is_probe)._replace(cuts=self._halved)

    def on_answer(
        self, permit: Permit, now: float, latency_s: float | None = None, tokens: float | None = None
    ) -> None:
        """Grow: by doubling, until something is refused."""
        if self.in_flight * 2 >= self.window:
            self._width = min(512.0, self._width + (1 / self._width if self._halved else 1.0))
        super().on_answer(permit, now)
        self.window = int(self._width)

    def on_rate_limited(self, permit: Permit, now: float, *, paused: bool = False) -> None:
        """Halve, once for what was out together."""
        if permit.cuts == self._halved:
            self._halved += 1
            self._width = max(1.0, self._width / 2)
        super().on_rate_limited(permit, now)
        self.window = int(self._width)


def test_a_fixed_size_storms_an_endpoint_that_refuses() -> None:
    """64 at once on a limit of 40 take six requests a row; under a quota that counts refused ones rows fail."""
    impatient = Policy(give_up_after_s=60)
    on_quota = Job(metered(fifty_a_second)(0), 2_000, policy=impatient, limit=FixedSize)

    assert 4 < cost(jobs(concurrency(FORTY), 600, limit=FixedSize))
    assert 1_000 < on_quota.failed
    assert 0 == Job(metered(fifty_a_second)(0), 2_000, policy=impatient).failed


def test_plain_aimd_leaves_a_quarter_unused_and_stops_at_noise() -> None:
    """Halving at every refusal idles below the limit; with noise hardly anything is left."""
    on_forty, noisy = (
        jobs(endpoint, 3_000, limit=PlainAIMD)
        for endpoint in (concurrency(FORTY), lambda seed: Noisy(concurrency(FORTY)(seed), seed))
    )

    assert 0.80 > share(on_forty)
    assert 0.20 > share(noisy)


def test_plain_aimd_never_finds_a_queue() -> None:
    """Without refusals it grows to the most that is allowed: hundreds wait where 40 are served."""
    assert all(job.in_flight() > 400 for job in jobs(queue(FORTY), 8_000, limit=PlainAIMD))
