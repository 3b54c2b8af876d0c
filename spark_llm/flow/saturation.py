"""Where more in flight buys no throughput: for endpoints that queue, and so never refuse.

By Little's law the throughput at a level of requests in flight is that level over the mean latency. Answers are sampled
by the level they were sent at; one that took five times the mean counts as that, so that hung requests weigh little.
While the window doubles, a level is compared with half of it: where the latency has grown almost as much
as the level, the endpoint queues. What follows is an experiment and not a formula, since latencies also grow for other
reasons (longer answers, batching on a GPU): the window falls to where the queue would begin, and stays there only if
the throughput stays as well; else it climbs back step by step. From then on it probes above from time to time, and
looks again when latencies drift.

Knows no clock, no socket, no Spark. Sources: Little (1961); the slow start exit of HyStart++ (RFC 9406).
"""

import math
from enum import Enum

SAMPLES_LEAST = 24
SAMPLES_ROUNDS = 5  # a level is measured over so many rounds of answers
COMPARED = ((1, 24, 24), (2, 12, 4))  # octaves below, and the samples needed up here and down there
SLOPE = 0.7  # of the latency over the level, both as logarithms: 0 is an idle endpoint, 1 one that queues
SEARCH_SAMPLES = 6  # latencies at low levels that tell where to search for the edge of the queue, and
EDGE_SAMPLES = 12  # that tell where it is
ROOM = 1.12  # the window over the point where the queue begins, so that the endpoint never idles
HARMLESS_S = 0.05  # a latency that no queue is looked for in: it may be this machine that is busy, and not the endpoint
DEEPEST = 1 / 32  # of the level that a search sets out from
LOSS = 0.1  # of throughput, as a logarithm, that shows a level to be too low
STEP = 1.25  # from one level to the next
WORTH = 0.4  # of the throughput that a step up would bring an idle endpoint: with less, it is not worth it
WORTHLESS = 0.15  # of what a step down would cost a busy one: with less, the level was too high
HOLD_ROUNDS = 6  # between probes; doubled by each that failed, up to
LONGEST_HOLD_ROUNDS = 96
DRIFT = math.log(1.7)  # of the latency at one level
OUTLIER = 5.0  # times the mean, once it is one of more than
SAMPLES_TO_CLIP = 4
STALE = 0.8  # answers to requests sent below this share of the level say nothing about it


class _Mean:
    """A running mean of latencies, which forgets what is more than `memory` samples old."""

    def __init__(self, memory: float) -> None:
        self.count = 0
        self.value = 0.0
        self._memory = memory

    def add(self, sample: float) -> None:
        self.count += 1
        if self.count > SAMPLES_TO_CLIP:
            sample = min(sample, OUTLIER * self.value)
        self.value += (sample - self.value) / min(self.count, self._memory)

    @property
    def log(self) -> float:
        return math.log(max(1e-6, self.value))


class _State(Enum):
    OPEN = "nothing is known of a knee"
    CHECK = "the endpoint seems to queue: its throughput is measured"
    SEARCH = "the level where the queue should begin is tried, and higher ones as long as throughput is lost"
    DESCEND = "a lower level is tried"
    HOLD = "the level is kept"
    PROBE = "a higher level is tried"


class SaturationDetector:
    """The level at which an endpoint is busy and nothing queues; `level` is infinite as long as none was found."""

    def __init__(self) -> None:
        """Know nothing."""
        self.level = math.inf
        self.generation = 0  # how often the level was moved: an answer counts for the era that its request was sent in
        self._state = _State.OPEN
        self._by_octave: dict[int, _Mean] = {}  # latencies, by the binary logarithm of the level
        self._here = _Mean(2 * SAMPLES_LEAST)  # latencies at the level kept
        self._usual: float | None = None  # its logarithm when the level was settled
        self._idle = 0.0  # the logarithm of the latency where nothing queues, as far as is known
        self._best = 0.0  # the logarithm of the throughput to keep up with
        self._from = 0.0  # the level that a search or a probe set out from
        self._hold_rounds = HOLD_ROUNDS
        self._upward = False  # whether the last level tried from the one kept was a higher one; they take turns

    def answered(self, level: int, generation: int, latency_s: float, window: int, *, doubling: bool) -> None:
        """Take note of an answer to a request that was the `level`th in flight, when the window is `window` wide."""
        if self._state is _State.OPEN and doubling:
            self._compare_with_lower(level, latency_s, window)
            return
        here = min(float(window), self.level)
        if generation != self.generation or level < STALE * here:
            return
        self._here.add(latency_s)
        if self._here.count >= max(SAMPLES_LEAST, SAMPLES_ROUNDS * here):
            self._decide(here, math.log(here) - self._here.log)

    def _compare_with_lower(self, level: int, latency_s: float, window: int) -> None:
        octave = int(math.log2(level))
        mean = self._by_octave.setdefault(octave, _Mean(64))
        mean.add(latency_s)
        if level < window / 2:
            return
        for lower, samples, samples_lower in COMPARED:
            other = self._by_octave.get(octave - lower)
            if other is None or mean.count < samples or other.count < samples_lower:
                continue
            if mean.value > HARMLESS_S and mean.log - other.log > SLOPE * lower * math.log(2):
                self._check(float(level), self._idle_latency(octave))
                return

    def _up_to(self, octave: int) -> tuple[int, float]:
        """Return how many latencies were sampled up to this octave, and the logarithm of their mean."""
        means = [mean for at, mean in self._by_octave.items() if at <= octave]
        samples = sum(mean.count for mean in means)
        return samples, math.log(max(1e-6, sum(mean.value * mean.count for mean in means) / max(1, samples)))

    def _idle_latency(self, below: int) -> float:
        """Return the logarithm of the mean latency up to that octave, below this one, where it is the shortest."""
        means = [self._up_to(octave) for octave in range(below)]
        return min((mean for samples, mean in means if samples >= SEARCH_SAMPLES), default=means[-1][1])

    def _edge(self, level: float) -> float:
        """Return the level at which the queue begins; 0 where too few latencies of lower levels are known.

        Where requests take no longer here than at lower levels, that is this level, or one above.
        """
        samples, idle = self._up_to(int(math.log2(level)) - 1)
        return 0.0 if samples < EDGE_SAMPLES else level * math.exp(idle - self._here.log) * ROOM

    def _decide(self, here: float, throughput: float) -> None:
        """Go on from a level that was measured."""
        if self._state is _State.CHECK:
            self._search(here, throughput)
        elif self._state is _State.SEARCH:
            self._searched(here, throughput)
        elif self._state is _State.DESCEND:
            worthless = throughput >= self._best - WORTHLESS * math.log(self._from / here)
            self._descend(here, throughput) if worthless else self._go_back()
        elif self._state is _State.PROBE:
            worth = throughput > self._best + WORTH * math.log(here / self._from)
            self._hold_rounds = HOLD_ROUNDS if worth else min(LONGEST_HOLD_ROUNDS, 2 * self._hold_rounds)
            self._probe(here, throughput) if worth else self._go_back()
        else:
            self._watch(here, throughput)

    def _watch(self, here: float, throughput: float) -> None:
        """Keep the level; look again where the latency drifted, and try more from time to time."""
        if self._usual is None:
            self._usual = self._here.log
        elif self._here.value > HARMLESS_S and self._here.log - self._usual > DRIFT:
            self._check(here, self._usual)
        elif self._state is _State.HOLD and self._here.count >= self._hold_rounds * here:
            self._upward = not self._upward
            self._best = throughput
            self._probe(here, throughput) if self._upward else self._descend(here, throughput)

    def _searched(self, here: float, throughput: float) -> None:
        """Go lower from a level that loses nothing, and higher from one that does, back to where it began at most."""
        higher = max(here + 1, here * STEP)
        if throughput >= self._best - LOSS:
            self._descend(here, throughput)
        elif higher < self._from:
            self._move(higher)
        else:
            self._go_back()

    def _go_back(self) -> None:
        """Keep the level that was tried before."""
        self._move(self._from)
        self._hold()
        self._usual = math.log(self.level) - self._best

    def _check(self, level: float, idle: float) -> None:
        """Measure the level where it is; `idle` is the latency's logarithm as it was before anything queued."""
        self._idle = idle
        self._move(level)
        self._state = _State.CHECK

    def _search(self, level: float, throughput: float) -> None:
        """Try the level at which the throughput of this one would be reached without a queue."""
        self._best, self._from = throughput, level
        latency_s = max(HARMLESS_S, math.exp(self._idle) * ROOM)
        self._move(min(level, max(level * DEEPEST, math.exp(throughput) * latency_s)))
        self._state = _State.SEARCH

    def _descend(self, level: float, throughput: float) -> None:
        """Try a lower level, unless this one is the lowest, or nothing queues at it."""
        self._best, self._from = max(self._best, throughput), level
        edge = self._edge(level)
        if level < 2 or self._here.value <= HARMLESS_S or edge >= level:
            self._hold()
            return
        self._move(max(edge, min(level - 1, level / STEP)))
        self._state = _State.DESCEND

    def _probe(self, level: float, throughput: float) -> None:
        self._best, self._from = throughput, level
        self._move(max(level + 1, level * STEP))
        self._state = _State.PROBE

    def _hold(self) -> None:
        self._state = _State.HOLD
        self._usual = None
        self._here = _Mean(max(2.0 * SAMPLES_LEAST, 4 * self.level))

    def _move(self, level: float) -> None:
        self.level = max(1.0, level)
        self.generation += 1
        self._here = _Mean(max(4.0 * SAMPLES_LEAST, 8 * self.level))
