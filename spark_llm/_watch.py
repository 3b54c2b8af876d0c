"""Whether somebody who should give signs of life is still there. Knows no clock, no Spark and no process.

What is watched is a change, so the clocks of two machines need not agree.
"""

BEAT_S = 20.0  # between two signs
SILENCE_S = 120.0  # without a new one: whoever gave them is gone


class Watch:
    """Watches the signs that one holder gives."""

    def __init__(self) -> None:
        """Have seen nothing yet."""
        self._seen: object = None
        self._since = 0.0

    def is_silent(self, sign: object, now: float) -> bool:
        """Take note of the last sign there is; return whether it has been the same for too long."""
        if sign != self._seen:
            self._seen, self._since = sign, now
        return now - self._since >= SILENCE_S
