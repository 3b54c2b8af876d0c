"""The endpoint's counters, which all benchmarks rely on."""

from dataclasses import dataclass
from typing import NamedTuple

SAMPLE_S = 0.05  # between two samples


@dataclass
class Counters:
    """The counters since the last reset; times are in seconds after it."""

    requests: int = 0
    rows: int = 0
    answered: int = 0  # requests with a whole 200
    refused: int = 0  # requests with a 429
    in_flight: int = 0
    max_in_flight: int = 0
    service_s: float = 0.0  # the sum of the latencies, without time in the server's queue
    first_s: float | None = None  # the first request
    last_s: float = 0.0  # the last request
    ended_s: float = 0.0  # the last response
    cpu_s: float = 0.0  # of the endpoint
    wall_s: float = 0.0

    @property
    def span_s(self) -> float:
        """The seconds from the first request to the last answer."""
        return self.ended_s - (self.first_s or 0.0)


class Sample(NamedTuple):
    """The counters at one moment."""

    at_s: float
    in_flight: int
    requests: int
    answered: int
