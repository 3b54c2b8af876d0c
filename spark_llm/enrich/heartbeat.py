"""Tells from heartbeats whether the holder of a lease is alive. Knows no clock, no Spark and no process.

A heartbeat counts if it differs from the last one, so the clocks of two machines need not agree.
"""

HEARTBEAT_S = 60.0  # between two heartbeats; each is a commit to the lease table
SILENCE_S = 300.0  # without a new heartbeat the holder is dead


class HeartbeatMonitor:
    """The heartbeats of one holder."""

    def __init__(self) -> None:
        """Begin without a heartbeat."""
        self._last: object = None
        self._last_s = 0.0

    def is_silent(self, heartbeat: object, now_s: float) -> bool:
        """Record the current heartbeat; return whether it has been the same for `SILENCE_S`."""
        if heartbeat != self._last:
            self._last, self._last_s = heartbeat, now_s
        return now_s - self._last_s >= SILENCE_S
