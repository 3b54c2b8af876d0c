"""Waits for what another process or thread does, where nothing announces it."""

import threading
from collections.abc import Callable

_POLL_S = 0.01


def until(condition: Callable[[], object], patience_s: float = 60.0) -> None:
    """Wait until a condition holds; fails when it does not hold for so long."""
    pause = threading.Event()
    assert any(condition() for _ in range(round(patience_s / _POLL_S)) if not pause.wait(_POLL_S))
