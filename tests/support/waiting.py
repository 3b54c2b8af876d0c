"""Waits for what another process or thread does, where nothing announces it."""

import threading
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

from spark_llm.serving import LocalEndpoints

_POLL_S = 0.01


def until(condition: Callable[[], object], patience_s: float = 60.0) -> None:
    """Wait until a condition holds; fails when it does not hold for so long."""
    pause = threading.Event()
    assert any(condition() for _ in range(round(patience_s / _POLL_S)) if not pause.wait(_POLL_S))


def settled_requests(endpoints: LocalEndpoints, timeout_s: float = 30.0) -> int:
    """Return how many requests there were once none is in flight, those included that were not read until then."""
    endpoints.wait_for(lambda stats: stats.in_flight == 0, timeout_s=timeout_s)
    with closing(HTTPConnection(urlsplit(endpoints.url).netloc, timeout=timeout_s)) as connection:
        connection.request("GET", "/")
        connection.getresponse().read()  # what had been sent before was read first
    return endpoints.wait_for(lambda stats: stats.in_flight == 0, timeout_s=timeout_s).requests
