"""Where more in flight buys no throughput: found from latencies, for endpoints that never refuse."""

import math
import random
from collections.abc import Callable
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_llm.flow.saturation import SaturationDetector

WIDEST = 512
SEEDS = st.integers(0, 2**32)

MeanLatency = Callable[[int], float]  # by the requests in flight


def idle(level: int) -> float:
    """Take a second, however many are in flight."""
    return 1.0


def queues(servers: int) -> MeanLatency:
    """Let each wait for one of so many servers."""
    return lambda level: max(1.0, level / servers)


def batches(slope: float) -> MeanLatency:
    """Slow all down a little with each."""
    return lambda level: 1 + slope * level


def hangs(latency_of: MeanLatency, share: float, seed: int) -> MeanLatency:
    """Take half a minute for a share of the requests."""
    dice = random.Random(seed)
    return lambda level: 30.0 if dice.random() < share else latency_of(level)


class SimulatedSender:
    """A sender whose window is always full, and doubles with every round of answers up to the widest."""

    def __init__(self, seed: int, sigma: float) -> None:
        """Begin with one request."""
        self.knee = SaturationDetector()
        self._dice, self._sigma = random.Random(seed), sigma
        self._width = 1

    def ask(self, latency_of: MeanLatency, answers: int) -> list[int]:
        """Receive so many answers; return how many requests were in flight at each."""
        levels = []
        for _ in range(answers):
            level = max(1, int(min(self._width, self.knee.level)))
            latency_s = latency_of(level) * math.exp(self._dice.gauss(0, self._sigma))
            self.knee.on_answer(level, self.knee.generation, latency_s, level, doubling=self._width < WIDEST)
            if self._width <= self.knee.level:
                self._width = min(WIDEST, self._width + 1)
            levels.append(level)
        return levels

    def settled(self, latency_of: MeanLatency, answers: int) -> float:
        """Receive so many answers; return the mean level over the last half."""
        return fmean(self.ask(latency_of, answers)[answers // 2 :])


@pytest.mark.waits
@settings(max_examples=30)
@given(SEEDS, st.floats(0, 0.5))
def test_an_idle_endpoint_has_no_saturation(seed: int, sigma: float) -> None:
    """However the latencies spread, where they do not grow with the load nothing holds the window back."""
    asking = SimulatedSender(seed, sigma)
    asking.ask(idle, 4_000)

    assert asking.knee.level >= WIDEST / 2


@pytest.mark.parametrize("servers", [1, 4, 10, 40, 100])
def test_a_queue_is_found_where_it_begins(servers: int) -> None:
    """Without chance the level settles at the number of servers and a little room, so that none idles."""
    level = SimulatedSender(0, 0.0).settled(queues(servers), 12_000)

    assert servers <= level <= 1.25 * servers + 1


@pytest.mark.waits
@settings(max_examples=30)
@given(SEEDS, st.sampled_from((1, 4, 10, 40, 100)), st.floats(0.1, 0.5))
def test_a_queue_is_found_whatever_the_spread(seed: int, servers: int, sigma: float) -> None:
    """Chance makes the level rougher, and never so low that servers idle nor a line of hundreds."""
    level = SimulatedSender(seed, sigma).settled(queues(servers), 12_000)

    assert 0.85 * servers <= level <= 1.5 * servers + 40


@pytest.mark.waits
@settings(max_examples=30)
@given(SEEDS, st.floats(0, 0.3))
def test_a_level_that_loses_throughput_is_left_again(seed: int, sigma: float) -> None:
    """Batching looks like a queue at first: the level where a queue would begin is tried, and it climbs back."""
    asking = SimulatedSender(seed, sigma)
    levels = asking.ask(batches(0.02), 12_000)
    falls = [b for a, b in pairwise(levels) if b < 0.7 * a]

    assert falls
    assert min(falls) < 60 < fmean(levels[6_000:])


def test_light_batching_is_left_alone() -> None:
    """Where a full window takes not much longer than half of it, there is no saturation level."""
    assert [WIDEST] * 5 == [SimulatedSender(seed, 0.3).ask(batches(0.002), 4_000)[-1] for seed in range(5)]


def test_no_lower_level_is_tried_where_nothing_queues() -> None:
    """A lower level would leave servers idle: once the edge of the queue is known, it is not passed again."""
    asking = SimulatedSender(0, 0.0)
    asking.ask(queues(40), 2_000)

    assert min(asking.ask(queues(40), 10_000)) >= 40


@pytest.mark.waits
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_queue_behind_which_the_model_changed_keeps_its_level(factor: float) -> None:
    """All latencies three times as long, or half, are no longer line: the number of servers is what it was."""
    for seed in range(5):
        asking = SimulatedSender(seed, 0.3)
        asking.ask(queues(40), 12_000)
        level = asking.settled(lambda level: factor * queues(40)(level), 12_000)

        assert 34 <= level <= 80


@pytest.mark.waits
def test_a_queue_that_lost_servers_is_found_again() -> None:
    """Latencies drift away from what they were at the level that is kept, so it looks again: from 40 servers to 10."""
    levels = []
    for seed in range(5):
        asking = SimulatedSender(seed, 0.3)
        asking.ask(queues(40), 10_000)
        levels.append(asking.settled(queues(10), 12_000))

    assert all(8 <= level <= 30 for level in levels)


@pytest.mark.waits
def test_a_queue_that_gained_servers_is_found_by_probing() -> None:
    """A level that is kept is probed above from time to time: from 10 servers to 40."""
    for seed in range(5):
        asking = SimulatedSender(seed, 0.3)
        before, after = asking.settled(queues(10), 4_000), asking.settled(queues(40), 16_000)

        assert before < 30 <= after <= 80


def test_answers_that_hung_weigh_little_at_a_level_that_is_kept() -> None:
    """One in fifty takes thirty times as long: latencies have not drifted for that, and the level stays."""
    for seed in range(5):
        asking = SimulatedSender(seed, 0.3)
        asking.ask(queues(40), 8_000)
        level = asking.settled(hangs(queues(40), 0.02, seed), 8_000)

        assert 34 <= level <= 60


def test_answers_that_hung_delay_the_window_and_do_not_hold_it() -> None:
    """Where one in a hundred made an idle endpoint look like a queue, the window climbs back."""
    for seed in range(5):
        levels = SimulatedSender(seed, 0.3).ask(hangs(idle, 0.01, seed), 10_000)

        assert levels[-1] >= WIDEST / 2


def test_only_answers_to_requests_sent_at_the_level_count() -> None:
    """What was sent before the level moved, or while little was in flight, says nothing about it."""
    asking = SimulatedSender(0, 0.0)
    asking.ask(queues(40), 12_000)
    knee = asking.knee
    level, generation = knee.level, knee.generation
    for _ in range(10_000):
        knee.on_answer(int(level), generation - 1, 100.0, int(level), doubling=False)
        knee.on_answer(int(level / 2), generation, 100.0, int(level), doubling=False)

    assert (level, generation) == (knee.level, knee.generation)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 600), st.floats(0, 1e4), st.booleans(), st.booleans()), max_size=300))
def test_a_level_is_never_below_one(answers: list[tuple[int, float, bool, bool]]) -> None:
    """Whatever comes, latencies of nothing at all too, at least one request may be out."""
    knee = SaturationDetector()
    for level, latency_s, doubling, current in answers * 3:
        knee.on_answer(level, knee.generation - (not current), latency_s, level, doubling=doubling)

        assert knee.level >= 1


@pytest.mark.waits
@given(SEEDS, st.floats(0, 0.5))
@settings(max_examples=20)
def test_a_queue_that_nobody_notices_is_none(seed: int, sigma: float) -> None:
    """Where latencies are milliseconds it may be this machine that is busy: a narrow window would only cost."""
    asking = SimulatedSender(seed, sigma)

    assert asking.settled(lambda level: level / 20_000, 8_000) > WIDEST / 2
