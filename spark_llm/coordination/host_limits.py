"""Keeps a broker within its host's part of the user's limits: as the driver allots it, else by `Policy.tasks`."""

from spark_llm.coordination.allotment import HardLimits, Usage, static_share
from spark_llm.coordination.broker import PermitBroker
from spark_llm.coordination.driver_channel import DriverChannel
from spark_llm.coordination.worker import Worker
from spark_llm.flow.limiter import Limits
from spark_llm.livecounts.counts import Address
from spark_llm.policy import MAX_IN_FLIGHT, Policy

CHECK_S = 0.5  # between two looks at how many tasks are at work


class HostLimits:
    """The limits of one broker; it changes nothing where the policy has neither a limit nor `tasks`."""

    def __init__(self, worker: Worker, broker: PermitBroker, policy: Policy, host: str, endpoint: str) -> None:
        """Go by `Policy.tasks`, until `set_driver` is called.

        `host` is the same for each broker of this host and no other; `endpoint` is the same on all hosts of a job.
        """
        self._worker = worker
        self._broker = broker
        self._limits = HardLimits.of(policy)
        self._tasks = policy.tasks
        self._host, self._endpoint = host, endpoint
        self._driver: Address | None = None
        self._channel: DriverChannel | None = None
        self._allotted: HardLimits | None = None
        self._applied: HardLimits | None = self._limits
        self._checking = worker.alarm(self._check)
        if self._tasks > 1:
            self._check()

    def set_driver(self, driver: Address | None) -> None:
        """Ask this driver for the host's part, or go by `Policy.tasks`."""
        if not self._limits.are_set:
            return
        if driver != self._driver:
            self._close_channel()
            self._driver, self._allotted = driver, None
        if driver is None:
            self._apply()
        elif self._channel is None:
            key = f"{self._endpoint} {self._limits}"
            self._channel = DriverChannel(
                *(self._worker, driver, self._host, key, self._limits, self._usage, self._take, self._endpoint)
            )
        else:
            self._channel.ask()

    def close(self) -> None:
        """Keep the limits as they are, and give the driver's part back if nothing needs it."""
        self._checking.close()
        self._close_channel()

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _take(self, limits: HardLimits | None) -> None:
        self._allotted = limits
        self._apply()

    def _check(self) -> None:
        """Look at how many tasks are at work here."""
        self._checking.set(self._worker.now() + CHECK_S)
        self._apply()

    def _apply(self) -> None:
        limits = self._allotted
        if limits is None:
            limits = static_share(self._limits, self._tasks, max(1, self._broker.working))
        if limits == self._applied:
            return
        self._applied = limits
        most = MAX_IN_FLIGHT if limits.max_in_flight is None else limits.max_in_flight
        self._broker.set_limits(Limits(most, *limits[1:]), self._worker.now())
        self._worker.pump()

    def _usage(self) -> Usage:
        limiter = self._broker.controller.limiter
        requests, tokens = limiter.used
        return Usage(limiter.in_flight, self._broker.waiting, int(requests), tokens)
