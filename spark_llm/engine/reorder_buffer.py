"""The reorder buffer of a stream: rows in their order, of which the answered head can leave.

Two threads share it: Spark's appends rows and pops results, the event loop's puts results in.
"""

import threading
from collections.abc import Iterable, Sequence
from types import NoneType

from spark_llm.flow.batcher import Indexed
from spark_llm.protocol.values import Result, Row, RowError

_SETTLED = (RowError, Result, NoneType)  # rows that have their results without a request


class ReorderBuffer:
    """Holds rows until all rows before them have their results."""

    def __init__(self) -> None:
        """Begin empty."""
        self.stop_error: RowError | None = None  # why no further row is sent
        self.aborted = False  # whether `stop_error` is the result of all rows that had none
        self.extra_rows_wanted = 0  # rows to read although the read-ahead allows none
        self.unsent = 0  # rows to send that no request has carried yet
        self.unsent_bytes = 0  # of these rows
        self._results: dict[int, Result | None] = {}
        self._head = 0  # the first row that has not left
        self._ready = 0  # the first row after it without a result
        self._end = 0  # one past the last row
        self._changed = threading.Condition()
        self._wake_at: tuple[int, int, int] | None = None  # ready rows, or unsent rows and bytes, that end `wait`
        self._input_ended = False

    @property
    def ready(self) -> int:
        """How many results at the head can leave now."""
        return self._ready - self._head

    @property
    def popped(self) -> int:
        """How many rows have left."""
        return self._head

    @property
    def held(self) -> int:
        """How many rows are inside, with or without a result."""
        return self._end - self._head

    @property
    def settled(self) -> int:
        """How many rows inside have their results."""
        return len(self._results)

    def append(self, rows: Sequence[Row]) -> list[Indexed]:
        """Number rows at the end; return those to send. A null, an error and a result need no request."""
        numbered = list(enumerate(rows, self._end))
        to_send = [(number, row) for number, row in numbered if not isinstance(row, _SETTLED)]
        with self._changed:
            self._end += len(rows)
            if self.aborted:
                self._results.update((number, Result(error=self.stop_error)) for number, _ in to_send)
                to_send = []
            if len(to_send) < len(rows):
                errors = ((number, Result(error=row)) for number, row in numbered if isinstance(row, RowError))
                self._results.update((number, row) for number, row in numbered if isinstance(row, (Result, NoneType)))
                self._results.update(errors)
                self._advance()
        return to_send

    def add_unsent(self, rows: int, row_bytes: int) -> None:
        """Count rows that requests are to carry; a row that waits for its duplicate is not one of them."""
        with self._changed:
            if not self.aborted:
                self.unsent += rows
                self.unsent_bytes += row_bytes

    def remove_unsent(self, rows: int, row_bytes: int) -> None:
        """Count rows that a request carries for the first time."""
        with self._changed:
            if not self.aborted:
                self.unsent -= rows
                self.unsent_bytes -= row_bytes
            self._wake()

    def settle(self, results: Iterable[tuple[int, Result]]) -> None:
        """Put results in their places; ignore them in an aborted buffer, where every row has one."""
        with self._changed:
            if not self.aborted:
                self._results.update(results)
                self._advance()
                self._wake()

    def stop(self, error: RowError) -> None:
        """Set the reason why no further row is sent."""
        self.stop_error = error

    def abort(self, error: RowError) -> None:
        """Give this error to every row without a result, and to every later row; the first error stays."""
        with self._changed:
            if self.aborted:
                return
            self.stop_error, self.aborted, self.unsent, self.unsent_bytes = error, True, 0, 0
            for number in range(self._ready, self._end):
                self._results.setdefault(number, Result(error=error))
            self._advance()
            self._wake()

    def request_row(self) -> bool:
        """Ask for another row, beyond the read-ahead; return whether there may be one."""
        with self._changed:
            self.extra_rows_wanted = 0 if self._input_ended else 1
            self._changed.notify_all()
        return bool(self.extra_rows_wanted)

    def end_input(self) -> None:
        """Take note that no further row will come."""
        with self._changed:
            self._input_ended, self.extra_rows_wanted = True, 0

    def pop_ready(self) -> list[Result | None]:
        """Remove the results at the head and return them."""
        with self._changed:
            chunk = [self._results.pop(number) for number in range(self._head, self._ready)]
            self._head = self._ready
        return chunk

    def wait(self, timeout_s: float, ready: int, unsent: tuple[int, int]) -> None:
        """Wait until `ready` results can leave, at most `unsent` rows and bytes are, or `timeout_s` has passed."""
        with self._changed:
            self._wake_at = (ready, *unsent)
            if not self._is_due(*self._wake_at):
                self._changed.wait(timeout_s)
            self._wake_at = None

    def _is_due(self, ready: int, unsent: int, unsent_bytes: int) -> bool:
        return self.ready >= ready or (self.unsent <= unsent and self.unsent_bytes <= unsent_bytes)

    def _wake(self) -> None:
        if self._wake_at is not None and self._is_due(*self._wake_at):
            self._changed.notify_all()

    def _advance(self) -> None:
        while self._ready in self._results:
            self._ready += 1
