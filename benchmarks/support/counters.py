"""What the endpoint counts: the only truth that the benchmarks have."""

from dataclasses import dataclass
from typing import NamedTuple

SAMPLE_S = 0.05  # between two samples


@dataclass
class Counters:
    """What the endpoint saw since the last reset; times are in seconds after it."""

    requests: int = 0
    rows: int = 0
    answered: int = 0  # requests that got a whole 200
    refused: int = 0  # requests that got a 429
    in_flight: int = 0
    max_in_flight: int = 0
    service_s: float = 0.0  # the sum of the times that answering took, waiting in the server's own line left out
    first_s: float | None = None  # when the first request came
    last_s: float = 0.0  # when the last one came
    ended_s: float = 0.0  # when the last one was answered
    cpu_s: float = 0.0  # the endpoint's own
    wall_s: float = 0.0

    @property
    def span_s(self) -> float:
        """The seconds from the first request to the last answer."""
        return self.ended_s - (self.first_s or 0.0)


class Sample(NamedTuple):
    """The state of things at one moment."""

    at_s: float
    in_flight: int
    requests: int
    answered: int
