"""Outcomes of a member's requests, as the host's flow controller counts them. Pure."""

import math
from collections.abc import Callable

from spark_llm.coordination.messages import Kind, Message
from spark_llm.flow.controller import FlowController
from spark_llm.flow.limiter import Permit


def apply_outcome(
    controller: FlowController, permit: Permit, outcome: Message, now: float, draw: Callable[[], float]
) -> None:
    """Count the outcome of a member's permit; `draw` returns a random number from [0, 1)."""
    kind, _, a, b = outcome
    if kind in (Kind.ANSWERED, Kind.ANSWERED_AND_KEPT):
        controller.on_answer(permit, now, None if math.isnan(a) else a, None if math.isnan(b) else b)
    elif kind == Kind.FAULT:
        controller.on_fault(permit, now, draw(), short=a > 0)
    elif kind == Kind.RATE_LIMITED:
        controller.on_rate_limited(permit, now, pause_s=a, paused=b > 0)
    elif kind == Kind.UNUSED:
        controller.on_unused(permit, now)
    else:
        controller.on_inconclusive(permit)
