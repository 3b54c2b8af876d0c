"""The flow of requests of a running job: what each host tells the driver of it, and their sum. It is pure.

The worker that holds a host's limiter tells it once a second, for each endpoint. It tells the present state, so a
datagram that is lost or late does no harm.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from spark_llm.flow.reasons import REASONS, Reason
from spark_llm.livecounts.datagrams import compact_json, non_negative
from spark_llm.livecounts.signing import signed, verified

TELL_S = 1.0  # between two tellings of a host
FRESH_S = 3.0  # for which what a host told counts
_TAG = "flow"
_SHOWN_REASONS = 2
_SHOWN_SHARE = 0.01
_ORDER = list(REASONS)


class HostFlow(NamedTuple):
    """What one host tells of its requests to one endpoint.

    Attributes:
        host: The host's identity, unique in the job.
        limits: The endpoint and the limits that the host's limiter is for.
        endpoint: The endpoint's name for people.
        told_at: The time on the host's clock, in seconds. A later holder of the host's limiter has a greater one.
        in_flight: Requests in flight.
        peak_in_flight: The most requests in flight since it told last.
        window: The most requests that may be in flight.
        limited_by: What kept more requests from going, most of the time since it told last; None where no rows are
            asked now.
    """

    host: str
    limits: str
    endpoint: str
    told_at: float
    in_flight: int
    peak_in_flight: int
    window: int
    limited_by: Reason | None


class CurrentFlow(NamedTuple):
    """The requests of all hosts now: in flight, how many may be, and what limits each endpoint, by its name."""

    in_flight: int
    window: int
    limited_by: Mapping[str, Reason]

    def __str__(self) -> str:
        endpoints: dict[Reason, list[str]] = {}
        for endpoint, reason in self.limited_by.items():
            endpoints.setdefault(reason, []).append(endpoint)
        shown = [
            REASONS[reason] + (f" ({', '.join(endpoints[reason])})" if len(endpoints) > 1 else "")
            for reason in sorted(endpoints, key=_ORDER.index)
        ]
        reasons = ", ".join(shown[:_SHOWN_REASONS]) + (", …" if len(shown) > _SHOWN_REASONS else "")
        return f"{self.in_flight:,} in flight of {self.window:,} · limited by {reasons}"


@dataclass(frozen=True)
class JobFlow:
    """How the requests of a job went, as its hosts told once a second.

    Attributes:
        peak_in_flight: The most requests in flight, of all hosts together.
        window: How many might be in flight in the end, of all hosts together.
        limited_by: The share of time, from 0 to 1, for which each reason kept more requests from going; the greatest
            share first. `spark_llm.flow.reasons.REASONS` has the reasons in words.
    """

    peak_in_flight: int
    window: int
    limited_by: Mapping[Reason, float]

    def __str__(self) -> str:
        shown = {REASONS[reason]: share for reason, share in self.limited_by.items() if share >= _SHOWN_SHARE}
        shares = ", ".join(f"{reason} {share:.0%}" for reason, share in shown.items())
        return f"{self.peak_in_flight:,} at most, window {self.window:,} in the end; limited by {shares}"


class RunningFlows:
    """The sum of what the hosts of a job have told."""

    def __init__(self, secret: bytes) -> None:
        """Begin with no host known; later, hear only datagrams that are signed with this secret."""
        self._secret = secret
        self._latest: dict[tuple[str, str], tuple[float, HostFlow]] = {}  # and when it came
        self._tellings: Counter[Reason] = Counter()
        self._peak_in_flight = self._window = 0

    def receive(self, datagram: bytes, now: float) -> None:
        """Take note of what a host tells, unless it has told something newer."""
        flow = decoded_flow(self._secret, datagram)
        if flow is None:
            return
        key = flow.host, flow.limits
        if key in self._latest and flow.told_at <= self._latest[key][1].told_at:
            return
        self._latest[key] = now, flow
        if flow.limited_by is not None:
            flows = self._present(now)
            self._tellings[flow.limited_by] += 1
            self._peak_in_flight = max(self._peak_in_flight, sum(each.peak_in_flight for each in flows))
            self._window = (
                sum(each.window for each in flows) or self._window
            )  # a host that has ended gives its part back

    def current(self, now: float) -> CurrentFlow | None:
        """Return the sum of all hosts that ask rows; None where none has told so for a while."""
        flows = self._present(now)
        if not flows:
            return None
        endpoints = dict.fromkeys(flow.endpoint for flow in flows)
        limited_by = {name: _main_reason(flow for flow in flows if flow.endpoint == name) for name in endpoints}
        return CurrentFlow(sum(flow.in_flight for flow in flows), sum(flow.window for flow in flows), limited_by)

    def _present(self, now: float) -> list[HostFlow]:
        return [flow for came_at, flow in self._latest.values() if now - came_at < FRESH_S and flow.limited_by]

    def job(self) -> JobFlow | None:
        """Return how the requests of the job have gone; None where no host has told."""
        total = self._tellings.total()
        shares = {reason: count / total for reason, count in self._tellings.most_common()}
        return JobFlow(self._peak_in_flight, self._window, shares) if shares else None


def encoded_flow(secret: bytes, flow: HostFlow) -> bytes:
    """Return a host's flow as a signed datagram."""
    return signed(secret, compact_json([_TAG, *flow]).encode("utf-8", "surrogatepass"))


def decoded_flow(secret: bytes, datagram: bytes) -> HostFlow | None:
    """Return the flow; None unless `encoded_flow` signed the bytes with this secret."""
    if (payload := verified(secret, datagram)) is None:
        return None
    try:  # a signed datagram may be of another kind or version
        tag, *texts, told_at, in_flight, peak, window, reason = json.loads(payload.decode("utf-8", "surrogatepass"))
        host, limits, endpoint = texts
        is_text = all(isinstance(text, str) for text in texts)
        is_known = tag == _TAG and is_text and (reason is None or reason in REASONS)
        if not is_known or not isinstance(told_at, float) or not math.isfinite(told_at):
            return None
        in_flight, peak, window = map(non_negative, (in_flight, peak, window))
        return HostFlow(host, limits, endpoint, told_at, in_flight, peak, window, reason)
    except (ValueError, TypeError, RecursionError):
        return None


def _main_reason(flows: Iterable[HostFlow]) -> Reason:
    """Return the reason of most hosts; of as many, the one that holds back most."""
    counts = Counter(flow.limited_by for flow in flows if flow.limited_by is not None)
    return min(counts, key=lambda reason: (-counts[reason], _ORDER.index(reason)))
