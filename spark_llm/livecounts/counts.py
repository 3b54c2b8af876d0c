"""Live counts: each Spark task sends the driver the number of its answered rows over UDP.

Spark Connect has no accumulators. A datagram needs no connection, so no task waits or fails for it. If none arrives,
nothing is shown until a chunk is done.
"""

import contextlib
import ipaddress
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import TracebackType

from spark_llm.livecounts.column_count import Count
from spark_llm.livecounts.datagrams import Report, RunningCounts, Sender, encoded_counts
from spark_llm.livecounts.flows import CurrentFlow, JobFlow, RunningFlows
from spark_llm.livecounts.signing import signed, verified
from spark_llm.metering.operations import Operations
from spark_llm.metering.tally import Tally
from spark_llm.protocol.values import Result

SEND_INTERVAL_S = 0.5  # of one task, at least
SECRET_BYTES = 16
PENDING_ROWS = 256  # results that a reporter holds before it counts them: counting several at once costs less
CHECK_S = 1.0  # between two looks at whether hosts still need answers after the end
RECEIVE_BYTES = 2**20  # of datagrams that may wait to be read; the system may allow less
_JOIN_TIMEOUT_S = 5.0
MAX_DATAGRAM_BYTES = 65_535
ADDRESS_ERRORS = (OSError, ValueError)  # no route to an address; ValueError for a malformed one

Answer = Callable[[bytes, float], bytes | None]
"""The driver's answer to a signed payload at a time of `time.monotonic`; None where it has none."""


@dataclass(frozen=True)
class Address:
    """The address where the driver listens, and the secret that signs datagrams; it travels to workers.

    `operations` says that the driver wants the operations of each column counted too.
    """

    host: str
    port: int
    secret: bytes = field(repr=False)
    operations: bool = False

    def __repr__(self) -> str:
        return f"Address(host={self.host!r}, port={self.port}, secret='***')"


class LiveCounts:
    """The driver's listener: the counts of the tasks of a chunk or block, and the flow of the hosts' requests.

    >>> with LiveCounts(local_address_for("executor.host")) as live:
    ...     live.begin(1)
    ...     run_a_job_whose_tasks_report_to(live.address, chunk=1)
    ...     live.rows()
    """

    def __init__(
        self,
        host: str,
        answer: Answer | None = None,
        *,
        secret: bytes | None = None,
        is_needed: Callable[[float], bool] = lambda now: False,  # noqa: ARG005 -- whatever the time
    ) -> None:
        """Listen on this address of the machine only, inside the `with` block.

        Args:
            host: The address.
            answer: Gets the payload of each signed datagram; what it returns is signed and sent back to its sender.
            secret: Signs the datagrams; without one, the listener makes its own.
            is_needed: Whether somebody needs answers at this time of `time.monotonic`: then they are given also after
                the block, until nobody does.
        """
        self._host, self._answer, self._is_needed = host, answer, is_needed
        self._secret = secret or secrets.token_bytes(SECRET_BYTES)
        self._running, self._flows = RunningCounts(self._secret), RunningFlows(self._secret)
        self._lock = threading.Lock()
        self._reader: tuple[threading.Thread, socket.socket] | None = None  # which ends when the socket is closed
        self._has_read_all = threading.Event()
        self._goes_on = False  # after the block
        self._address: Address | None = None

    @property
    def address(self) -> Address | None:
        """The address for tasks; None if the driver does not listen."""
        return self._address

    def __enter__(self) -> "LiveCounts":  # noqa: PYI034 -- typing.Self came with Python 3.11
        with contextlib.suppress(*ADDRESS_ERRORS, RuntimeError), contextlib.ExitStack() as resources:
            listener = resources.enter_context(_bound_socket(self._host))
            ours, theirs = map(resources.enter_context, socket.socketpair())
            reader = threading.Thread(target=self._read, args=(listener, theirs), name="spark_llm-live", daemon=True)
            reader.start()  # RuntimeError if the machine has no thread left
            resources.pop_all()  # the reader closes its sockets
            host, port, *_ = listener.getsockname()
            self._address, self._reader = Address(host, port, self._secret), (reader, ours)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Read what has arrived, and end. Where hosts still need answers, the reader goes on with them alone."""
        self._address = None
        if self._reader is not None:
            reader, end = self._reader
            end.close()
            self._has_read_all.wait(_JOIN_TIMEOUT_S)
            if not self._goes_on:
                reader.join(_JOIN_TIMEOUT_S)

    def want_operations(self) -> None:
        """Let tasks that get the address from now on count operations too."""
        if self._address is not None:
            self._address = replace(self._address, operations=True)

    def begin(self, chunk: int, columns: Iterable[str] = ()) -> None:
        """Reset the counts and count the tasks of this chunk only; each chunk has a number of its own.

        A row is done when all its `columns` are; without their names, those count that have reported.
        """
        with self._lock:
            self._running.begin(chunk, columns)

    def end(self) -> None:
        """Reset the counts, and count nothing until the next chunk begins."""
        with self._lock:
            self._running.end()

    def counts(self) -> dict[str, Tally]:
        """Return the counts of all tasks, by column."""
        with self._lock:
            return self._running.counts()

    def operations(self) -> dict[str, Operations]:
        """Return the operations of all tasks, by column; none where nobody wants them."""
        with self._lock:
            return self._running.operations()

    def rows(self) -> int:
        """Return the number of rows that are done in all their columns."""
        with self._lock:
            return self._running.rows()

    def flow(self) -> CurrentFlow | None:
        """Return the requests in flight of all hosts, and what limits them.

        None where no host has told for a while, and after the block.
        """
        with self._lock:
            return None if self._address is None else self._flows.current(time.monotonic())

    def job_flow(self) -> JobFlow | None:
        """Return how the requests have gone so far; None where no host has told."""
        with self._lock:
            return self._flows.job()

    def _read(self, listener: socket.socket, end: socket.socket) -> None:
        with contextlib.suppress(OSError), listener, end, selectors.DefaultSelector() as selector:
            try:
                selector.register(listener, selectors.EVENT_READ)
                selector.register(end, selectors.EVENT_READ)
                while all(ready.fileobj is listener for ready, _ in selector.select()):
                    self._receive(listener)
                selector.unregister(end)
                until = time.monotonic() + _JOIN_TIMEOUT_S
                while selector.select(0) and time.monotonic() < until:
                    self._receive(listener)
                self._goes_on = self._is_needed(time.monotonic())
            finally:
                self._has_read_all.set()
            while self._is_needed(time.monotonic()):
                if selector.select(CHECK_S):
                    self._receive(listener, counts=False)

    def _receive(self, listener: socket.socket, *, counts: bool = True) -> None:
        try:
            datagram, sender = listener.recvfrom(MAX_DATAGRAM_BYTES)
        except BlockingIOError:  # its checksum was wrong
            return
        now = time.monotonic()
        if counts:
            with self._lock:
                self._running.receive(datagram)
                self._flows.receive(datagram, now)
        if self._answer is None or (payload := verified(self._secret, datagram)) is None:
            return
        if (reply := self._answer(payload, now)) is not None:
            with contextlib.suppress(OSError):  # the sender asks again
                listener.sendto(signed(self._secret, reply), sender)


class Reporter:
    """Sends one stream's counts to the driver; safe for threads. It never waits and never raises."""

    def __init__(self, address: Address | None, sender: Sender, clock: Callable[[], float] = time.monotonic) -> None:
        """Report to an address; with None, nothing is sent."""
        self._address = address
        self._sender = sender
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[str, Count] = {}
        self._pending: dict[str, list[Result | None]] = {}  # results that are not counted yet
        self._has_unsent = False
        self._next_send_at = -float("inf")
        self._socket: socket.socket | None = None

    def add(self, column: str, results: Sequence[Result | None]) -> None:
        """Count results of a column, and send the counts if the interval is over; None is a row that asked nothing.

        Without results, it sends only counts that are still unsent.
        """
        if self._address is None:
            return
        with self._lock:
            if results:
                pending = self._pending.setdefault(column, [])
                pending += results
                self._has_unsent = True
                if len(pending) >= PENDING_ROWS:
                    self._count(column, self._address)
            if self._has_unsent and (now := self._clock()) >= self._next_send_at:
                self._next_send_at = now + SEND_INTERVAL_S
                self._send(self._address)

    def close(self, *, ended: bool = False) -> None:
        """Send the final counts, and close the socket. `ended` says that the stream has come to its end."""
        with self._lock:
            if self._address is not None and (self._has_unsent or ended):
                self._send(self._address, ended=ended)
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _count(self, column: str, address: Address) -> None:
        count = Count.of(self._pending.pop(column), operations=address.operations)
        self._counts[column] = Count.total([self._counts.get(column, Count()), count])

    def _send(self, address: Address, *, ended: bool = False) -> None:
        self._has_unsent = False
        for column in list(self._pending):
            self._count(column, address)
        with contextlib.suppress(*ADDRESS_ERRORS):
            if self._socket is None:
                self._socket = connected_socket(address)
            for datagram in encoded_counts(address.secret, Report(self._sender, ended, self._counts)):
                self._socket.send(datagram)


def connected_socket(address: Address) -> socket.socket:
    """Return a socket whose datagrams go to an address and come from there; raise one of `ADDRESS_ERRORS` for none."""
    # A numeric host: the lookup of a name would block.
    [(family, kind, protocol, _, destination), *_] = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    )
    connected = socket.socket(family, kind, protocol)
    try:
        connected.setblocking(False)
        connected.connect(destination)
    except OSError:
        connected.close()
        raise
    return connected


def local_address_for(host: str, port: int = 9) -> str:
    """Return this machine's address on the route to a host; "" if there is no route. It sends nothing."""
    with contextlib.suppress(*ADDRESS_ERRORS):
        for family, kind, protocol, _, destination in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.connect(destination)  # a datagram socket only looks up the route
                return str(probe.getsockname()[0])
    return ""


def process_secret() -> bytes:
    """Return the secret of this process: always the same one, and another one in a forked process."""
    return _secret_of(os.getpid())


@cache
def _secret_of(process: int) -> bytes:  # noqa: ARG001 -- the cache knows it
    return secrets.token_bytes(SECRET_BYTES)


def _bound_socket(host: str) -> socket.socket:
    """Return a socket on a free port of this address; raise `OSError` for none, or for that of all interfaces."""
    candidates = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM) if host else []
    for family, kind, protocol, _, address in candidates:
        if ipaddress.ip_address(str(address[0]).partition("%")[0]).is_unspecified:
            continue
        bound = socket.socket(family, kind, protocol)
        try:
            bound.bind(address)
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        except OSError:
            bound.close()
            continue
        return bound
    raise OSError(host)
