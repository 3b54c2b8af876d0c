"""Tells the driver how the requests of a host go to one endpoint, and what keeps more from going."""

import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING

from spark_llm.coordination.allotment import HardLimits
from spark_llm.coordination.broker import PermitBroker
from spark_llm.coordination.worker import Worker
from spark_llm.flow.reasons import Reason
from spark_llm.livecounts.counts import ADDRESS_ERRORS, Address, connected_socket
from spark_llm.livecounts.flows import TELL_S, HostFlow, encoded_flow
from spark_llm.policy import Policy

if TYPE_CHECKING:
    import socket

FIRST_TELL_S = 0.5  # after the first stream began: what is told at once says nothing of the job
SAMPLE_S = 0.125  # between two looks at what limits the requests; between an answer and the next request nothing does


class FlowReporter:
    """Tells the driver once a second; it belongs to the holder of the host's limiter. Nothing waits for it."""

    def __init__(self, worker: Worker, broker: PermitBroker, policy: Policy, host: str, endpoint: str) -> None:
        """Tell nobody, until `set_driver` is called.

        `host` is the same for each broker of this host and no other; `endpoint` is the same on all hosts of a job.
        """
        self._worker = worker
        self._broker = broker
        self._host, self._limits = host, f"{endpoint} {HardLimits.of(policy)}"
        self._name = short_name(endpoint)
        self._driver: Address | None = None
        self._socket: socket.socket | None = None
        self._is_idle = True  # by what was told last
        self._tell_at = 0.0
        self._reasons: Counter[Reason] = Counter()  # in the samples since then
        self._sampling = worker.alarm(self._sample)

    def set_driver(self, driver: Address | None) -> None:
        """Tell this driver from now on, or nobody."""
        if driver == self._driver:
            return
        self._close_socket()
        self._driver, self._is_idle, self._reasons = driver, True, Counter()
        if driver is not None:
            with contextlib.suppress(*ADDRESS_ERRORS):  # then it is never told
                self._socket = connected_socket(driver)
            self._tell_at = self._worker.now() + FIRST_TELL_S
            self._sampling.set(self._worker.now() + SAMPLE_S)

    def close(self) -> None:
        """Tell no more."""
        self._sampling.close()
        self._close_socket()

    def _sample(self) -> None:
        if self._driver is None or self._socket is None:
            return
        now = self._worker.now()
        reason = limited_by(self._broker, self._worker, now)
        if reason is not None:
            self._reasons[reason] += 1
        if now >= self._tell_at:
            self._tell(self._socket, self._driver.secret, is_idle=reason is None)
            self._tell_at = now + TELL_S
        self._sampling.set(self._tell_at if reason is None else min(now + SAMPLE_S, self._tell_at))

    def _tell(self, driver: "socket.socket", secret: bytes, *, is_idle: bool) -> None:
        reasons, self._reasons = self._reasons, Counter()
        if is_idle and self._is_idle:
            return
        self._is_idle = is_idle
        reason = None if is_idle else reasons.most_common(1)[0][0]
        # A clock that all processes of a host share: what a later holder tells is newer.
        controller, told_at = self._broker.controller, time.monotonic()
        requests = controller.in_flight, controller.take_peak_in_flight(), controller.window
        flow = HostFlow(self._host, self._limits, self._name, told_at, *requests, reason)
        with contextlib.suppress(OSError):  # nobody listens any more
            driver.send(encoded_flow(secret, flow))

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def limited_by(broker: PermitBroker, worker: Worker, now: float) -> Reason | None:
    """Return what keeps more requests of a host from going now; None where no stream is open.

    `worker` is the broker's own.
    """
    if not broker.working:
        return None
    if (reason := broker.controller.limited_by(now, broker.waiting)) is not None:
        return reason
    queued = worker.queued()
    if not queued or queued < broker.window - broker.in_flight:
        return "spark"
    return "connections" if broker.in_flight >= worker.connections else "retries"


def short_name(endpoint: str) -> str:
    """Return the model of an endpoint's label, or the last part of its URL that names it."""
    url, _, model = endpoint.partition(" ")
    return (model or url.removesuffix("/invocations").rstrip("/")).rpartition("/")[2]
