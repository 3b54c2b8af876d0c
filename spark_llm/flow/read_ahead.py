"""Read-ahead and flush policy of one row stream: how many rows to read, and when results leave.

A reader may want five rows or a million, and does not say. So a task begins with a small allowance of rows. The
allowance doubles whenever half of it has left and the reader is still there: a LIMIT of n costs at most about 4n
requests, and a full read is at full width after ten doublings. Python's writer buffers the results that leave, so a
*flush* follows: the caller pushes the buffer out, which also shows whether the reader has gone.
"""

OPENING_ROWS = 28  # read before anything is known of the reader; show() reads 21
OPENING_REQUEST_ROWS = 64  # the opening is one whole request, of no more rows than this: a larger one begins small
OPENING_GRACE_S = 0.05  # how long a reader that has enough may take to end the task
SPAN_ROWS = 10_000  # rows read and not yet left, beyond the window: one Arrow batch
MIN_BACKLOG_ROWS = 64  # rows that wait to be sent, however narrow the window
MAX_BACKLOG_ROWS = 2 * SPAN_ROWS  # the most that have to wait, however wide the window
MIN_BACKLOG_BYTES = 8_000_000  # that wait to be sent, whatever they are: large rows are fewer
ROW_BYTES = 4_096  # of a row of text; smaller ones are bounded by their number alone
CHUNK_ROWS = 256  # results that leave at once, unless
CHUNK_WAIT_S = 0.2  # the first of them waited so long
FLUSH_S = 1.5  # between flushes while nothing leaves


class ReadAhead:
    """Decides for one stream how many rows to read, and when to yield and to flush."""

    def __init__(self, now: float, rows_per_request: int = 1) -> None:
        """Begin with the opening allowance, or with one request where that is more, and small enough."""
        self.allowance = max(OPENING_ROWS, min(rows_per_request, OPENING_REQUEST_ROWS))
        self.rows_read = 0
        self.rows_left = 0  # the stream
        self._flushed_at = now
        self._left_at = now  # the last time that results left
        self._widen_at: float | None = None
        self._input_ended = False

    @property
    def opening(self) -> bool:
        """Whether the allowance still bounds the read-ahead."""
        return self.allowance < SPAN_ROWS

    def rows_to_read(self, backlog: int, window_rows: int, now: float, backlog_bytes: int = 0) -> int:
        """Return how many rows to read now, where `backlog` are unsent and `window_rows` may be in flight."""
        if self._input_ended:
            return 0
        if self._widen_at is not None and now >= self._widen_at:
            self._widen()
        min_backlog = _min_backlog(window_rows)
        if backlog >= min_backlog or backlog_bytes >= _max_backlog_bytes(min_backlog):
            return 0
        wanted = min(2 * min_backlog - backlog, SPAN_ROWS + window_rows - (self.rows_read - self.rows_left))
        return max(0, min(wanted, self.allowance - self.rows_read) if self.opening else wanted)

    def on_read(self, rows: int, *, ended: bool) -> None:
        """Count rows that were read; `ended` says that they were the last."""
        self.rows_read += rows
        if ended:
            self._input_ended = True
            self.allowance = SPAN_ROWS
            self._widen_at = None

    def low_watermark(self, window_rows: int, now: float) -> tuple[int, int]:
        """Return how many unsent rows, and how many bytes of them, to read more at.

        -1 rows say that results have to leave first.
        """
        min_backlog = _min_backlog(window_rows)
        rows = min(window_rows, min_backlog // 2) if self.rows_to_read(0, window_rows, now) else -1
        return rows, _max_backlog_bytes(min_backlog) // 2

    def should_yield(self, ready: int, now: float) -> bool:
        """Return whether `ready` results, the head of the buffer, should leave now."""
        if ready == 0:
            return False
        return ready >= self.min_chunk_rows() or now - self._left_at >= CHUNK_WAIT_S

    def min_chunk_rows(self) -> int:
        """Return how many results are worth waking for."""
        return 1 if self.rows_left < OPENING_ROWS else CHUNK_ROWS

    def should_flush(self, now: float) -> bool:
        """Return whether to flush now: as the allowance is used up, and from time to time."""
        if self.opening and self.rows_left > 0 and self._widen_at is None and 2 * self.rows_left >= self.allowance:
            return True
        return now - self._flushed_at >= FLUSH_S

    def on_yield(self, rows: int, now: float) -> bool:
        """Count results that left; return whether to flush at once."""
        self.rows_left += rows
        self._left_at = now
        return self.rows_left - rows < OPENING_ROWS or self.should_flush(now)

    def on_flush(self, now: float, settled: int) -> None:
        """Take note of a flush after which the reader is still there; `settled` rows wait behind the head."""
        waited = now - self._flushed_at >= FLUSH_S
        self._flushed_at = now
        if not self.opening or self._widen_at is not None:
            return
        if 2 * self.rows_left >= self.allowance:
            self._widen_at = now + OPENING_GRACE_S
        elif waited and self.rows_read >= self.allowance and 2 * settled >= self.rows_read - self.rows_left:
            self._widen()  # a head that hangs must not hold the rest

    def next_check_at(self, ready: int) -> float:
        """Return when to look again if nothing happens before."""
        due = self._flushed_at + FLUSH_S
        if self._widen_at is not None:
            due = min(due, self._widen_at)
        return min(due, self._left_at + CHUNK_WAIT_S) if ready else due

    def _widen(self) -> None:
        self.allowance *= 2
        self._widen_at = None


def _min_backlog(window_rows: int) -> int:
    """Return how many rows have to wait to be sent before reading stops: those of two windows, within bounds."""
    return min(max(MIN_BACKLOG_ROWS, 2 * window_rows), MAX_BACKLOG_ROWS)


def _max_backlog_bytes(min_backlog: int) -> int:
    """Return the bytes of unsent rows at which no further one is read, where so many rows may wait."""
    return max(MIN_BACKLOG_BYTES, min_backlog * ROW_BYTES)
