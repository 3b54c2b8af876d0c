"""What keeps more requests from going to an endpoint, and how it is shown."""

from collections.abc import Mapping
from typing import Literal

Reason = Literal[
    "outage",
    "retry_after",
    "refusals",
    "queue",
    "max_in_flight",
    "requests_per_minute",
    "tokens_per_minute",
    "connections",
    "retries",
    "slow_start",
    "spark",
]
REASONS: Mapping[Reason, str] = {
    "outage": "an outage of the endpoint",
    "retry_after": "the endpoint's Retry-After",
    "refusals": "the endpoint's 429s and 503s",
    "queue": "the endpoint's queue",
    "max_in_flight": "max_in_flight",
    "requests_per_minute": "requests_per_minute",
    "tokens_per_minute": "tokens_per_minute",
    "connections": "a worker's limit on open files",
    "retries": "rows that wait for a retry or a first answer",
    "slow_start": "slow start",
    "spark": "Spark: rows come too slowly",
}
"""Each reason in words, those that hold back most first."""
