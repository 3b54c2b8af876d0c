"""How far to look ahead, and when results leave. Knows no thread, no socket, no Spark: counts and `now` go in.

A reader may want five rows or a million, and does not say. So a task begins with a small allowance of rows and doubles
it whenever half of what it allowed has left and the reader is still there: a LIMIT of n costs about 4n requests at the
most, and a full read is at full width after ten doublings. What leaves is buffered on its way by Python's writer, so a
*beat* follows: the caller pushes the buffer out, which also shows a reader that has gone.
"""

OPENING_ROWS = 28  # asked before anything is known of the reader; show() reads 21
OPENING_GRACE_S = 0.05  # how long a reader that has enough may take to end the task
SPAN_ROWS = 10_000  # rows taken in and not yet left, beyond the window: one Arrow batch
LEAST_ROWS = 64  # rows that wait to be sent, however narrow the window
CHUNK_ROWS = 256  # results that leave at once, unless
CHUNK_WAIT_S = 0.2  # the first of them waited so long
FLUSH_S = 1.5  # between beats while nothing leaves


class ReadAhead:
    """The reins of one stream of rows."""

    def __init__(self, now: float, rows_a_request: int = 1) -> None:
        """Begin with the opening allowance, or with one whole request where that is more."""
        self.allowance = max(OPENING_ROWS, rows_a_request)
        self.taken = 0
        self.left = 0
        self._beat_at = now  # the last time the buffer was pushed out
        self._left_at = now  # the last time that results left
        self._widen_at: float | None = None
        self._ended = False

    @property
    def opening(self) -> bool:
        """Whether the allowance still bounds the look-ahead."""
        return self.allowance < SPAN_ROWS

    def wants(self, backlog: int, window_rows: int, now: float) -> int:
        """Return how many rows to take in now, when `backlog` rows are not sent and `window_rows` may be in flight."""
        if self._ended:
            return 0
        if self._widen_at is not None and now >= self._widen_at:
            self._widen()
        low_water = max(LEAST_ROWS, 2 * window_rows)
        if backlog >= low_water:
            return 0
        wanted = min(2 * low_water - backlog, SPAN_ROWS + window_rows - (self.taken - self.left))
        return max(0, min(wanted, self.allowance - self.taken) if self.opening else wanted)

    def has_taken(self, rows: int, *, ended: bool) -> None:
        """Take note that rows were taken in; after the last of them there is nothing to look ahead to."""
        self.taken += rows
        if ended:
            self._ended = True
            self.allowance = SPAN_ROWS
            self._widen_at = None

    def low_watermark(self, window_rows: int, now: float) -> int:
        """Return at how many unsent rows more would be taken in; -1 where only results that leave can change that."""
        return window_rows if self.wants(0, window_rows, now) else -1

    def leaves(self, ready: int, now: float) -> bool:
        """Return whether `ready` results, the head of the line, should leave now."""
        if ready == 0:
            return False
        return ready >= self.enough() or now - self._left_at >= CHUNK_WAIT_S

    def enough(self) -> int:
        """Return how many results are worth waking for."""
        return 1 if self.left < OPENING_ROWS else CHUNK_ROWS

    def flushes(self, now: float) -> bool:
        """Return whether to push the buffer out now: as the allowance is used up, and from time to time."""
        if self.opening and self.left > 0 and self._widen_at is None and 2 * self.left >= self.allowance:
            return True
        return now - self._beat_at >= FLUSH_S

    def has_left(self, rows: int, now: float) -> bool:
        """Take note that results left; return whether a beat should follow at once."""
        self.left += rows
        self._left_at = now
        return self.left - rows < OPENING_ROWS or self.flushes(now)

    def has_flushed(self, now: float, settled: int) -> None:
        """Take note of a beat that the reader survived."""
        waited = now - self._beat_at >= FLUSH_S
        self._beat_at = now
        if not self.opening or self._widen_at is not None:
            return
        if 2 * self.left >= self.allowance:
            self._widen_at = now + OPENING_GRACE_S
        elif waited and self.taken >= self.allowance and 2 * settled >= self.taken - self.left:
            self._widen()  # a head of the line that hangs must not hold the rest

    def next_at(self, ready: int) -> float:
        """Return when to look again if nothing happens before."""
        due = self._beat_at + FLUSH_S
        if self._widen_at is not None:
            due = min(due, self._widen_at)
        return min(due, self._left_at + CHUNK_WAIT_S) if ready else due

    def _widen(self) -> None:
        self.allowance *= 2
        self._widen_at = None
