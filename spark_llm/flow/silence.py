"""Detects that refusals have stopped: then the limit has grown, and its old ceiling says little.

A sender that probes a limit is refused again and again, in a rhythm. Where several senders share the limit and some
end, refusals stop for the others. The rhythm is counted in answers, not seconds, and the caller counts only answers
that came while its limit held requests back. So a stream that pauses for an hour is not taken for silence.
"""

from typing import Any

from spark_llm.flow.snapshot import number, whole

RUN_RATIO = 1.5  # of the longest recent run: a longer run is silence
MIN_ROUNDS = 12  # of answers, however short the runs were; a round is as many answers as requests are in flight
FADE_RATIO = 0.7  # to which the longest run falls with every run that ended


class Silence:
    """The run of answers since the last refusal, against the longest recent run between two refusals."""

    def __init__(self) -> None:
        """Wait for the first refusal: without one there is no rhythm."""
        self._run: int | None = None
        self._longest_run = 0.0

    def on_answer(self, in_flight: int) -> bool:
        """Count an answer, with so many requests in flight; return whether refusals have stopped."""
        if self._run is None:
            return False
        self._run += 1
        return self._run > max(RUN_RATIO * self._longest_run, MIN_ROUNDS * in_flight)

    def on_refusal(self, in_flight: int) -> None:
        """End the run; a run of less than a round is part of a burst, and says nothing of the rhythm."""
        if self._run is not None and self._run > in_flight:
            self._longest_run = max(self._run, FADE_RATIO * self._longest_run)
        self._run = 0

    def snapshot(self) -> list[float | None]:
        """Return what it has learned, as JSON holds it."""
        return [self._run, self._longest_run]

    def restore(self, snapshot: list[Any]) -> None:
        """Go on from a snapshot."""
        run, longest_run = snapshot
        self._run = None if run is None else whole(run)
        self._longest_run = number(longest_run)
