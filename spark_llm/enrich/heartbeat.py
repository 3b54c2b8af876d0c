"""Whether the holder of a lease is still alive, by its heartbeats. Knows no clock, no Spark and no process.

What counts is that a heartbeat differs from the last one, so the clocks of two machines need not agree.
"""

HEARTBEAT_S = 60.0  # between two heartbeats: each is a commit of the lease's table
SILENCE_S = 300.0  # without a new one: the holder is dead


class HeartbeatMonitor:
    """Watches the heartbeats of one holder."""

    def __init__(self) -> None:
        """Have seen none yet."""
        self._seen: object = None
        self._since = 0.0

    def is_silent(self, sign: object, now: float) -> bool:
        """Take note of the last heartbeat; return whether it has been the same for too long."""
        if sign != self._seen:
            self._seen, self._since = sign, now
        return now - self._since >= SILENCE_S
