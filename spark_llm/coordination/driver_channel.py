"""The channel from a host to the driver: needs go out once a second, allotments come back, on one UDP socket."""

import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from spark_llm.coordination.allotment import MIN_ASK_INTERVAL_S, SOURCES, HardLimits, HostShare, Source, Usage
from spark_llm.coordination.allotment_datagrams import decoded_allotment, encoded_need
from spark_llm.coordination.worker import Worker
from spark_llm.livecounts.counts import ADDRESS_ERRORS, MAX_DATAGRAM_BYTES, Address, connected_socket
from spark_llm.livecounts.signing import signed, verified

if TYPE_CHECKING:
    import socket

_logger = logging.getLogger("spark_llm.flow")


class DriverChannel:
    """Asks the driver for a host's share of hard limits, and tells each change of it; all on the worker's event loop.

    It belongs to the holder of the host's limiter. Nothing waits for it, and it raises nothing.

    >>> channel = DriverChannel(worker, address, "host-7", key, limits, usage, controller.set_limits, label)
    >>> channel.ask()  # at once, because rows have come
    >>> channel.close()
    """

    def __init__(  # noqa: PLR0917 -- the parts of a channel
        self,
        worker: Worker,
        address: Address,
        host: str,
        key: str,
        limits: HardLimits,
        usage: Callable[[], Usage],
        on_limits: Callable[[HardLimits | None], None],
        label: str,
    ) -> None:
        """Ask from now on; call it in the thread of the worker's loop.

        Args:
            worker: The worker that holds the host's limiter.
            address: Where the driver listens.
            host: The host's identity, unique in the job, and the same for each holder of its limiter.
            key: The endpoint and policy that the limits belong to.
            limits: The limits of the whole job.
            usage: Returns what the host has used.
            on_limits: Gets what the host may use now, at the next turn of the loop and at each change. None says that
                the driver cannot be heard: then `static_share` decides.
            label: The endpoint's name in the log.
        """
        self._worker, self._address = worker, address
        self._usage, self._on_limits, self._label = usage, on_limits, label
        self._new_share = partial(HostShare, host, key, limits)
        self._share = self._new_share(time.monotonic())
        self._socket: socket.socket | None = None
        self._told: list[HardLimits | None] = []  # the last that `on_limits` got
        self._source: Source = "waiting"
        self._asked_at, self._asks_at = -float("inf"), time.monotonic()
        self._waking = worker.alarm(self._wake)
        self._waking.set(worker.now())
        with contextlib.suppress(*ADDRESS_ERRORS):  # then the driver is never heard
            self._socket = connected_socket(address)
            worker.loop.add_reader(self._socket, worker.guarded, self._read)

    def ask(self) -> None:
        """Tell the driver soon what the host needs, because it has changed.

        A driver that was lost counts as one that was never heard: its block has ended, and the query goes on.
        """
        now = time.monotonic()
        if self._share.is_lost(now):
            self._share = self._new_share(now)
        self._asks_at = min(self._asks_at, max(now, self._asked_at + MIN_ASK_INTERVAL_S))
        self._sleep()

    def close(self) -> None:
        """Ask no more. A host that has nothing in flight and nothing waiting gives its share back."""
        self._waking.close()
        usage = self._usage()
        if not usage.in_flight + usage.waiting:
            self._send(leaves=True)
        if self._socket is not None:
            self._worker.loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _wake(self) -> None:
        """Ask where it is time to, and tell a change that came with time alone."""
        now = time.monotonic()
        if now >= self._asks_at:
            self._send()
        self._tell(now)
        self._sleep()

    def _sleep(self) -> None:
        """Wake when it is time to ask, or when the share changes unheard."""
        now = time.monotonic()
        wakes_at = min(self._asks_at, self._share.next_change_at(now) or self._asks_at)
        self._waking.set(self._worker.now() + max(0.001, wakes_at - now))

    def _send(self, *, leaves: bool = False) -> None:
        self._asked_at = time.monotonic()  # a clock that all processes of a host share: a later holder is ahead
        self._asks_at = self._asked_at + self._share.asks_again_s(self._asked_at)
        need = self._share.need(self._usage(), self._asked_at, leaves=leaves)
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(signed(self._address.secret, encoded_need(need)))

    def _read(self) -> None:
        """Take the allotments that have come, and tell the driver a new share at once: others may wait for the old."""
        while self._socket is not None:
            try:
                datagram = self._socket.recv(MAX_DATAGRAM_BYTES)
            except OSError:  # there are no more, or nobody listens
                return
            payload = verified(self._address.secret, datagram)
            allotment = None if payload is None else decoded_allotment(payload)
            if allotment is not None and self._share.on_allotment(allotment) and self._tell(time.monotonic()):
                self.ask()

    def _tell(self, now: float) -> bool:
        """Tell what the host may use where it has changed; return whether it has."""
        limits, source = self._share.limits(now), self._share.source(now)
        if source != self._source:
            self._source = source
            _logger.info("%s: %s", self._label, SOURCES[source])
        if self._told == [limits]:
            return False
        self._told = [limits]
        self._on_limits(limits)
        return True
