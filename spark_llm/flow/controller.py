"""Flow controller: whether a request may go to one endpoint now, by its limiter, its retry budget and its Retry-After.

`RequestScheduler` asks it for permits and gives each permit back with an outcome. Several workers of a host may share
one controller (`coordination`); then each scheduler has a member of the group in place of it.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from spark_llm.flow.limiter import ConcurrencyLimiter, Limits, Permit
from spark_llm.flow.reasons import Reason
from spark_llm.flow.retry_budget import RetryBudget, Shortage
from spark_llm.flow.snapshot import number
from spark_llm.policy import Policy


class Controller(Protocol):
    """The methods of `FlowController` that a scheduler calls."""

    @property
    def window(self) -> int:
        """The most requests that may be in flight now."""

    @property
    def in_flight(self) -> int:
        """The requests in flight."""

    @property
    def outage_since(self) -> float | None:
        """When the outage began; None while there is none."""

    def available(self, now: float) -> int:
        """Return how many more requests may go now."""

    def opens_at(self, now: float) -> float | None:
        """Return when `available` can next be more than none; None where only an outcome will help."""

    def resumes_at(self, now: float) -> float | None:
        """Return when neither a pause nor an outage stops a request; None while a probe is in flight."""

    def widen(self, requests: int) -> None:
        """Let at least so many go before any outcome."""

    def acquire(self, now: float, characters: int = 0) -> Permit:
        """Count a request as in flight."""

    def on_answer(
        self, permit: Permit, now: float, latency_s: float | None = None, tokens: float | None = None
    ) -> None:
        """Count a request that the endpoint served."""

    def on_fault(self, permit: Permit, now: float, random_value: float, *, short: bool = False) -> None:
        """Count a request that failed in a way that an outage would explain; the number is random, from [0, 1).

        `short`: the provider has no room left at the request's tier.
        """

    def on_inconclusive(self, permit: Permit) -> None:
        """Count a request that says nothing of the endpoint, such as a cancelled one."""

    def on_rate_limited(self, permit: Permit, now: float, *, pause_s: float = 0.0, paused: bool = False) -> None:
        """Count a request that was refused, and hold back sending for so long."""


class FlowController:
    """The limiter, the retry budget, the shortage and the pause of one endpoint."""

    def __init__(self, policy: Policy) -> None:
        """Begin with one request; never pass the policy's limits."""
        self.limiter = ConcurrencyLimiter(policy)
        self._peak_in_flight = 0
        self.paused_until = 0.0  # by Retry-After
        self._budget = RetryBudget()
        self._shortage = Shortage()

    @property
    def window(self) -> int:
        """The most requests that may be in flight now."""
        return self.limiter.window

    @property
    def in_flight(self) -> int:
        """The requests in flight."""
        return self.limiter.in_flight

    @property
    def outage_since(self) -> float | None:
        """When the outage began; None while there is none."""
        return self._budget.spent_at

    @property
    def is_paced(self) -> bool:
        """Whether the time decides when a request may go, and not only the window."""
        return self.limiter.is_paced or self._budget.spent_at is not None

    def limited_by(self, now: float, waiting: int) -> Reason | None:
        """Return what keeps more requests from going now, where so many wait; None where nothing does."""
        if self._shortage.is_on and (self._budget.spent_at is not None or self._shortage.room(self.in_flight) < 1):
            return "refusals"
        if self._budget.spent_at is not None:
            return "outage"
        return "retry_after" if now < self.paused_until else self.limiter.limited_by(now, waiting)

    def available(self, now: float) -> int:
        """Return how many more requests may go now."""
        if now < self.paused_until or self._budget.opens_at(now) != now:
            return 0
        available = int(min(self.limiter.available(now), self._shortage.room(self.in_flight)))
        return available if self._budget.spent_at is None else min(available, 1)  # a probe

    def opens_at(self, now: float) -> float | None:
        """Return when `available` can next be more than none; None where only an outcome will help."""
        if self._shortage.room(self.in_flight) < 1:
            return None
        opens_at, resumes_at = self.limiter.opens_at(now), self.resumes_at(now)
        return None if opens_at is None or resumes_at is None else max(opens_at, resumes_at)

    def resumes_at(self, now: float) -> float | None:
        """Return when neither a pause nor an outage stops a request; None while a probe is in flight."""
        probe_at = self._budget.opens_at(now)
        return None if probe_at is None else max(now, probe_at, self.paused_until)

    def widen(self, requests: int) -> None:
        """Let at least so many go before any outcome: a slow first answer must not hold all others."""
        self.limiter.widen(requests)

    def acquire(self, now: float, characters: int = 0) -> Permit:
        """Count a request of so many characters as in flight; its outcome's method takes the permit."""
        permit = self.limiter.acquire(now, characters, is_probe=self._budget.on_send())
        self._peak_in_flight = max(self._peak_in_flight, permit.level)
        return permit

    def on_answer(
        self, permit: Permit, now: float, latency_s: float | None = None, tokens: float | None = None
    ) -> None:
        """Count a request that the endpoint served; without `latency_s` it says nothing of the endpoint's speed."""
        self.limiter.on_answer(permit, now, latency_s, tokens)
        self._budget.on_answer()
        self._shortage.on_answer(self.window)

    def on_fault(self, permit: Permit, now: float, random_value: float, *, short: bool = False) -> None:
        """Count a request that failed in a way that an outage would explain; the number is random, from [0, 1).

        `short`: the provider has no room left at the request's tier. Then too a probe looks for the end of it.
        """
        self.limiter.on_failure()
        if short and self._budget.spent_at is None:
            self._shortage.on_refusal(self.window)
        self._budget.on_fault(now, random_value, probe=permit.is_probe)

    def on_inconclusive(self, permit: Permit) -> None:
        """Count a request that says nothing of the endpoint, such as a cancelled one."""
        self.limiter.on_failure()
        self._budget.on_inconclusive(probe=permit.is_probe)

    def on_rate_limited(self, permit: Permit, now: float, *, pause_s: float = 0.0, paused: bool = False) -> None:
        """Count a request that was refused, and send nothing for `pause_s`; `paused`: a Retry-After says so."""
        self.limiter.on_rate_limited(permit, now, paused=paused)
        self._budget.on_inconclusive(probe=permit.is_probe)
        if pause_s > 0:
            self.paused_until = max(self.paused_until, now + pause_s)

    def set_limits(self, limits: Limits, now: float) -> None:
        """Change the user's limits; what is in flight beyond them is not replaced. Afterwards more may go at once."""
        self.limiter.set_limits(limits, now)

    def on_unused(self, permit: Permit, now: float) -> None:
        """Take back a permit that no request was sent with."""
        self.limiter.on_unused(permit, now)
        self._budget.on_inconclusive(probe=permit.is_probe)

    def take_peak_in_flight(self) -> int:
        """Return the most requests that were in flight since the last call."""
        peak, self._peak_in_flight = self._peak_in_flight, self.in_flight
        return peak

    def adopt(self, now: float) -> Permit:
        """Count a request as in flight that another process let go: it is not charged again, and is no probe."""
        return self.limiter.adopt(now)

    def recharge(self, permit: Permit, now: float, characters: int) -> Permit:
        """Charge the quota for so many characters in place of those that the permit was acquired for."""
        return self.limiter.recharge(permit, now, characters)

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return what it has learned, as JSON holds it, with times before or after `now`."""
        return {
            "limiter": self.limiter.snapshot(),
            "budget": self._budget.snapshot(now),
            "pause_s": max(0.0, self.paused_until - now),
        }

    def restore(self, snapshot: Mapping[str, Any], age_s: float, now: float) -> None:
        """Go on from a snapshot that is `age_s` old; raises an error where it is malformed."""
        age_s = max(0.0, age_s)  # the clock of the files may have been set back
        self.limiter.restore(snapshot["limiter"], now)
        self._budget.restore(snapshot["budget"], now)
        if (pause_s := number(snapshot["pause_s"])) > age_s:
            self.paused_until = now + pause_s - age_s
