"""Live counts: while Spark's tasks ask, each tells the driver over UDP how many rows it has answered.

Spark Connect has no accumulators. A datagram needs no connection and waits for nobody: where none arrives, nothing is
shown until a chunk is done, and no task ever waits or fails for it.
"""

import contextlib
import ipaddress
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from spark_llm.livecounts.datagrams import Count, RunningCounts, Sender, written
from spark_llm.metering.tally import Tally
from spark_llm.protocol.values import Result

EVERY_S = 0.5  # no task tells more often
SECRET_BYTES = 16
_JOIN_S = 5.0
_MOST_BYTES = 65_535
_NO_WAY = (OSError, ValueError)  # an address that leads nowhere; ValueError for one that is no address at all


@dataclass(frozen=True)
class Address:
    """Where the driver listens, and the secret that datagrams to it are signed with; travels to workers."""

    host: str
    port: int
    secret: bytes = field(repr=False)

    def __repr__(self) -> str:
        return f"Address(host={self.host!r}, port={self.port}, secret='***')"


class LiveCounts:
    """What tasks have counted so far in the chunk that is running, as the driver hears it.

    >>> with LiveCounts(own_address_towards("executor.host")) as live:
    ...     live.begin(1)
    ...     run_a_job_whose_tasks_report_to(live.address, chunk=1)
    ...     live.rows()
    """

    def __init__(self, host: str) -> None:
        """Listen on this address of the machine alone, from when the `with` begins to where it ends."""
        self._host = host
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._running = RunningCounts(self._secret)
        self._lock = threading.Lock()
        self._opened = contextlib.ExitStack()
        self._address: Address | None = None

    @property
    def address(self) -> Address | None:
        """Where tasks send to; None where nothing is heard."""
        return self._address

    def __enter__(self) -> "LiveCounts":  # noqa: PYI034 -- typing.Self came with Python 3.11
        with contextlib.suppress(*_NO_WAY, RuntimeError), contextlib.ExitStack() as opened:
            heard = opened.enter_context(_bound(self._host))
            ours, theirs = map(opened.enter_context, socket.socketpair())
            reader = threading.Thread(target=self._read, args=(heard, theirs), name="spark_llm-live", daemon=True)
            reader.start()  # a RuntimeError where the machine has no thread left
            opened.callback(reader.join, _JOIN_S)
            opened.callback(ours.close)  # the reader's sign to end
            host, port, *_ = heard.getsockname()
            self._address = Address(host, port, self._secret)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._address = None
        with contextlib.suppress(OSError):  # a job does not fail, and its error is not hidden, for a socket
            self._opened.close()

    def begin(self, chunk: int) -> None:
        """Forget what was counted, and listen to the tasks of this chunk alone; no two chunks have one number."""
        with self._lock:
            self._running.begin(chunk)

    def end(self) -> None:
        """Forget what was counted, and listen to nobody until the next chunk begins."""
        with self._lock:
            self._running.end()

    def counts(self) -> dict[str, Tally]:
        """Return what tasks have counted, by column."""
        with self._lock:
            return self._running.counts()

    def rows(self) -> int:
        """Return how many rows are done in all their columns."""
        with self._lock:
            return self._running.rows()

    def _read(self, heard: socket.socket, end: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(heard, selectors.EVENT_READ)
            selector.register(end, selectors.EVENT_READ)
            while all(ready.fileobj is heard for ready, _ in selector.select()):
                try:
                    datagram = heard.recv(_MOST_BYTES)
                except BlockingIOError:  # its checksum was wrong
                    continue
                except OSError:
                    return
                with self._lock:
                    self._running.take(datagram)


class Reporter:
    """One task's counts, told to the driver; for as many threads as ask. It never waits and never raises."""

    def __init__(
        self,
        address: Address | None,
        chunk: int,
        partition: int,
        attempt: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Report to an address; to None, nothing is told.

        `attempt` grows with every attempt at the partition, as `TaskContext.taskAttemptId` does.
        """
        self._address = address
        self._sender = Sender(chunk, partition, attempt)
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[str, Count] = {}
        self._untold = False
        self._due = -float("inf")
        self._socket: socket.socket | None = None

    def add(self, column: str, results: Sequence[Result | None]) -> None:
        """Count results of a column, None for a row that asked nothing, and tell when it is time.

        Without results it tells what had to wait.
        """
        if self._address is None:
            return
        with self._lock:
            if results:
                self._counts[column] = self._counts.get(column, Count()).plus(Count.of(results))
                self._untold = True
            if self._untold and (now := self._clock()) >= self._due:
                self._due = now + EVERY_S
                self._tell(self._address)

    def close(self) -> None:
        """Tell how it ended."""
        with self._lock:
            if self._address is not None and self._untold:
                self._tell(self._address)
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _tell(self, address: Address) -> None:
        self._untold = False
        with contextlib.suppress(*_NO_WAY):
            # A numeric host: a name would have to be looked up, and that waits.
            [(family, kind, protocol, _, where), *_] = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
            )
            if self._socket is None:
                self._socket = socket.socket(family, kind, protocol)
                self._socket.setblocking(False)
            for datagram in written(address.secret, self._sender, self._counts):
                self._socket.sendto(datagram, where)


def own_address_towards(host: str, port: int = 9) -> str:
    """Return this machine's address on the way to another; empty where no way leads there. Nothing is sent."""
    with contextlib.suppress(*_NO_WAY):
        for family, kind, protocol, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.connect(where)  # a datagram socket only looks up the route
                return str(probe.getsockname()[0])
    return ""


def _bound(host: str) -> socket.socket:
    """Return a socket on a free port of this address; raises `OSError` where none can be, or it would be of all."""
    places = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM) if host else []
    for family, kind, protocol, _, where in places:
        if ipaddress.ip_address(str(where[0]).partition("%")[0]).is_unspecified:
            continue
        bound = socket.socket(family, kind, protocol)
        try:
            bound.bind(where)
            bound.setblocking(False)
        except OSError:
            bound.close()
            continue
        return bound
    raise OSError(host)
