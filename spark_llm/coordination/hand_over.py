"""Hand-over of a host's limits from one broker to the next: what others still hold of the earlier one. Pure."""

import math

from spark_llm.coordination.member import is_brokered
from spark_llm.flow.controller import FlowController
from spark_llm.flow.limiter import Permit


class HandOver:
    """The requests in flight that an earlier broker let go, and how long to wait for those who sent them."""

    def __init__(self, controller: FlowController) -> None:
        """Begin with nothing of an earlier broker."""
        self.held_until = -math.inf  # nothing is granted before: others may still have permits of an earlier broker
        self._controller = controller
        self._adopted: list[Permit] = []  # of the broker's own worker
        self._absent: list[Permit] = []  # of a broker that stands still
        self._began_at = -math.inf

    def adopt(self, held: int, now: float) -> None:
        """Count the requests that the broker's own worker has in flight."""
        self._adopted += self._counted(held, now)
        self._began_at = now

    def own(self, permit: Permit) -> Permit:
        """Return the permit that counts here for a request of the broker's own worker that has ended."""
        is_foreign = is_brokered(permit) or permit.sent_at <= self._began_at
        return self._adopted.pop() if is_foreign and self._adopted else permit

    def reserve(self, absent: int, now: float) -> None:
        """Count the permits of the broker before, which stands still; `release` ends it."""
        self._absent += self._counted(absent, now)

    def release(self) -> None:
        """Take back the permits of the broker before."""
        while self._absent:
            self._controller.on_inconclusive(self._absent.pop())

    def _counted(self, held: int, now: float) -> list[Permit]:
        return [self._controller.adopt(now) for _ in range(held)]
