"""Detects saturation: the concurrency above which throughput stops growing, of an endpoint that queues.

By Little's law the throughput at a level of requests in flight is that level over the mean latency. Answers are sampled
by the level they were sent at. One that took more than five times the mean counts as five times, so that hung requests
weigh little. While the window doubles, a level is compared with half of it: where the latency has grown almost as much
as the level, the endpoint queues.

Latencies also grow for other reasons (longer answers, batching on a GPU), so an experiment follows. The level falls to
where the queue would begin, and stays there only if the throughput stays as well; else it climbs back step by step.
From then on it probes above from time to time, and looks again when latencies drift.

Sources: Little (1961); the slow start exit of HyStart++ (RFC 9406).
"""

import math
from enum import Enum

from spark_llm.flow.snapshot import number

MIN_SAMPLES = 24
ROUNDS_PER_LEVEL = 5  # of answers, over which a level is measured
COMPARISONS = ((1, 24, 24), (2, 12, 4))  # octaves below, and the samples needed at the upper and the lower one
QUEUE_SLOPE = 0.7  # of the latency over the level, both as logarithms: 0 is an idle endpoint, 1 one that queues
SEARCH_SAMPLES = 6  # latencies at low levels that locate roughly where the queue begins, and
EDGE_SAMPLES = 12  # that locate it
HEADROOM = 1.12  # the window over the point where the queue begins, so that the endpoint never idles
HARMLESS_LATENCY_S = 0.05  # below it no queue is looked for: this machine may be busy, and not the endpoint
MIN_SEARCH_SHARE = 1 / 32  # of the level that a search starts from
MAX_LOSS = 0.1  # of throughput, as a logarithm: a level that loses more is too low
STEP = 1.25  # from one level to the next
MIN_GAIN = 0.4  # of the throughput that a step up would gain at an idle endpoint: with less the step is undone
MAX_PRICE = 0.15  # of the throughput that a step down would cost at a busy one: with less the level was too high
HOLD_ROUNDS = 6  # between probes; doubled by each that failed, up to
MAX_HOLD_ROUNDS = 96
MAX_DRIFT = math.log(1.7)  # of the latency at one level
OUTLIER_RATIO = 5.0  # times the mean, once it is one of more than
SAMPLES_TO_CLIP = 4
MIN_LEVEL_SHARE = 0.8  # answers to requests sent below this share of the level say nothing about it


class _Mean:
    """A running mean of latencies, which forgets what is more than `memory` samples old."""

    def __init__(self, memory: float) -> None:
        self.count = 0
        self.value = 0.0
        self._memory = memory

    def add(self, sample: float) -> None:
        self.count += 1
        if self.count > SAMPLES_TO_CLIP:
            sample = min(sample, OUTLIER_RATIO * self.value)
        self.value += (sample - self.value) / min(self.count, self._memory)

    @property
    def log(self) -> float:
        return math.log(max(1e-6, self.value))


class _State(Enum):
    OPEN = "no saturation was found"
    CHECK = "the endpoint seems to queue: its throughput is measured"
    SEARCH = "the level where the queue should begin is tried, and higher ones as long as throughput is lost"
    DESCEND = "a lower level is tried"
    HOLD = "the level is kept"
    PROBE = "a higher level is tried"


class SaturationDetector:
    """Finds the level at which an endpoint is busy and nothing queues; `level` is infinite until one was found."""

    def __init__(self) -> None:
        """Begin without samples."""
        self.level = math.inf
        self.generation = (
            0  # how often the level was moved: an answer counts for the level that its request was sent at
        )
        self._state = _State.OPEN
        self._by_octave: dict[int, _Mean] = {}  # latency, by the binary logarithm of the level
        self._mean = _Mean(2 * MIN_SAMPLES)  # latency at the present level
        self._settled_log: float | None = None  # the logarithm of that latency when the level was settled
        self._idle_log = 0.0  # the logarithm of the latency where nothing queues
        self._best_log = 0.0  # the logarithm of the throughput to keep up with
        self._start_level = 0.0  # the level that a search or a probe started from
        self._hold_rounds = HOLD_ROUNDS
        self._last_probe_up = False  # higher and lower levels are tried in turn

    def on_answer(self, level: int, generation: int, latency_s: float, window: int, *, doubling: bool) -> None:
        """Count an answer to a request that was the `level`th in flight, where the window is `window` wide."""
        if self._state is _State.OPEN and doubling:
            self._compare_with_lower(level, latency_s, window)
            return
        here = min(float(window), self.level)
        if generation != self.generation or level < MIN_LEVEL_SHARE * here:
            return
        self._mean.add(latency_s)
        if self._mean.count >= max(MIN_SAMPLES, ROUNDS_PER_LEVEL * here):
            self._on_measured(here, math.log(here) - self._mean.log)

    def restore(self, level: object) -> None:
        """Hold a level that was found before."""
        self._move(number(level))
        self._state = _State.HOLD
        self._hold()

    def _compare_with_lower(self, level: int, latency_s: float, window: int) -> None:
        octave = int(math.log2(level))
        mean = self._by_octave.setdefault(octave, _Mean(64))
        mean.add(latency_s)
        if level < window / 2:
            return
        for lower, samples, samples_lower in COMPARISONS:
            other = self._by_octave.get(octave - lower)
            if other is None or mean.count < samples or other.count < samples_lower:
                continue
            if mean.value > HARMLESS_LATENCY_S and mean.log - other.log > QUEUE_SLOPE * lower * math.log(2):
                self._check(float(level), self._idle_latency_log(octave))
                return

    def _mean_log_up_to(self, octave: int) -> tuple[int, float]:
        """Return the number of latencies up to this octave, and the logarithm of their mean."""
        means = [mean for at, mean in self._by_octave.items() if at <= octave]
        samples = sum(mean.count for mean in means)
        return samples, math.log(max(1e-6, sum(mean.value * mean.count for mean in means) / max(1, samples)))

    def _idle_latency_log(self, below: int) -> float:
        """Return the logarithm of the shortest mean latency up to any octave below this one."""
        means = [self._mean_log_up_to(octave) for octave in range(below)]
        return min((mean for samples, mean in means if samples >= SEARCH_SAMPLES), default=means[-1][1])

    def _queue_edge(self, level: float) -> float:
        """Return the level at which the queue begins; 0 where there are too few latencies of lower levels.

        Where requests take no longer here than at lower levels, that is this level, or one above.
        """
        samples, idle = self._mean_log_up_to(int(math.log2(level)) - 1)
        return 0.0 if samples < EDGE_SAMPLES else level * math.exp(idle - self._mean.log) * HEADROOM

    def _on_measured(self, here: float, throughput: float) -> None:
        """Choose the next level after one that was measured."""
        if self._state is _State.CHECK:
            self._search(here, throughput)
        elif self._state is _State.SEARCH:
            self._judge_search(here, throughput)
        elif self._state is _State.DESCEND:
            is_cheap = throughput >= self._best_log - MAX_PRICE * math.log(self._start_level / here)
            self._descend(here, throughput) if is_cheap else self._go_back()
        elif self._state is _State.PROBE:
            is_gain = throughput > self._best_log + MIN_GAIN * math.log(here / self._start_level)
            self._hold_rounds = HOLD_ROUNDS if is_gain else min(MAX_HOLD_ROUNDS, 2 * self._hold_rounds)
            self._probe(here, throughput) if is_gain else self._go_back()
        else:
            self._watch(here, throughput)

    def _watch(self, here: float, throughput: float) -> None:
        """Keep the level; look again where the latency drifted, and try other levels from time to time."""
        if self._settled_log is None:
            self._settled_log = self._mean.log
        elif self._mean.value > HARMLESS_LATENCY_S and self._mean.log - self._settled_log > MAX_DRIFT:
            self._check(here, self._settled_log)
        elif self._state is _State.HOLD and self._mean.count >= self._hold_rounds * here:
            self._last_probe_up = not self._last_probe_up
            self._best_log = throughput
            self._probe(here, throughput) if self._last_probe_up else self._descend(here, throughput)

    def _judge_search(self, here: float, throughput: float) -> None:
        """Go lower from a level that loses nothing, and higher from one that does, back to where it began at most."""
        higher = max(here + 1, here * STEP)
        if throughput >= self._best_log - MAX_LOSS:
            self._descend(here, throughput)
        elif higher < self._start_level:
            self._move(higher)
        else:
            self._go_back()

    def _go_back(self) -> None:
        """Return to the level that the search or probe started from."""
        self._move(self._start_level)
        self._hold()
        self._settled_log = math.log(self.level) - self._best_log

    def _check(self, level: float, idle: float) -> None:
        """Measure the level where it is; `idle` is the latency's logarithm as it was before anything queued."""
        self._idle_log = idle
        self._move(level)
        self._state = _State.CHECK

    def _search(self, level: float, throughput: float) -> None:
        """Try the level at which the throughput of this one would be reached without a queue."""
        self._best_log, self._start_level = throughput, level
        latency_s = max(HARMLESS_LATENCY_S, math.exp(self._idle_log) * HEADROOM)
        self._move(min(level, max(level * MIN_SEARCH_SHARE, math.exp(throughput) * latency_s)))
        self._state = _State.SEARCH

    def _descend(self, level: float, throughput: float) -> None:
        """Try a lower level, unless this one is the lowest, or nothing queues at it."""
        self._best_log, self._start_level = max(self._best_log, throughput), level
        edge = self._queue_edge(level)
        if level < 2 or self._mean.value <= HARMLESS_LATENCY_S or edge >= level:
            self._hold()
            return
        self._move(max(edge, min(level - 1, level / STEP)))
        self._state = _State.DESCEND

    def _probe(self, level: float, throughput: float) -> None:
        self._best_log, self._start_level = throughput, level
        self._move(max(level + 1, level * STEP))
        self._state = _State.PROBE

    def _hold(self) -> None:
        self._state = _State.HOLD
        self._settled_log = None
        self._mean = _Mean(max(2.0 * MIN_SAMPLES, 4 * self.level))

    def _move(self, level: float) -> None:
        self.level = max(1.0, level)
        self.generation += 1
        self._mean = _Mean(max(4.0 * MIN_SAMPLES, 8 * self.level))
