"""Fairness between the workers of a host: whose turn it is, and who gives back a permit that another needs. Pure.

A member that may use its permits again without asking has them as long as it has requests. So the broker asks for one
back where another worker has fewer (max-min fairness).
"""

from collections.abc import Mapping, Sequence

from spark_llm.coordination.member import Demand
from spark_llm.flow.limiter import Permit

SILENT_S = 2.0  # after which a worker stands still, and its permits are taken back
ROTATION_S = 0.25  # between two permits that change hands where some workers must have one more than others


class MemberState:
    """What the broker knows of another worker."""

    def __init__(self, held: dict[int, Permit], served: int, now: float) -> None:
        """Begin with the permits that an earlier broker gave it."""
        self.served = served  # requests, where a new member counts as well served as the one that was served least
        self.out = held  # permits by number
        self.demand = Demand()
        self.wanted = self.granted = 0  # in all since it joined
        self.returned = self.to_return_in_all = 0
        self.heard_at = now
        self.told: tuple[int, bool, float | None] | None = None
        self.stopped: frozenset[int] = frozenset()  # jobs that it was told to stop

    @property
    def is_hungry(self) -> bool:
        """Whether it wants more permits than it got."""
        return self.granted < self.wanted

    @property
    def turn(self) -> tuple[int, int]:
        """Its place in the line: it has few permits, or has had few."""
        return len(self.out), self.served

    @property
    def to_return(self) -> int:
        """How many permits it was told not to keep, and has not returned."""
        return max(0, self.to_return_in_all - self.returned)

    @property
    def kept(self) -> int:
        """How many permits it may keep."""
        return len(self.out) - self.to_return

    def ask_back(self) -> None:
        """Let it keep one less."""
        self.to_return_in_all = self.returned + self.to_return + 1


class Rotation:
    """Chooses who gives back a permit."""

    def __init__(self) -> None:
        """Begin."""
        self._next_at = 0.0

    def ask_back(self, members: Mapping[int, MemberState], excess: int, needy: Sequence[int], now: float) -> set[int]:
        """Ask members for permits, and return which; `excess` are in flight beyond the window.

        `needy` is how many permits each worker has that wants more. A member that has two more than the poorest is
        asked for one at a time: its next answer may be far away, and that of another member near. Where the poorest has
        none, one more is enough. Where all are as near as whole numbers are, the one more goes round.
        """
        asked = set[int]()
        for _ in range(excess - sum(member.to_return for member in members.values())):
            key = max(members, key=lambda key: members[key].kept, default=None)
            if key is None or not members[key].kept:
                break
            members[key].ask_back()
            asked.add(key)
        if not needy or excess < 0:
            return asked
        poorest = min(needy)
        free = {key: member for key, member in members.items() if not member.to_return and member.kept > poorest}
        rich = [key for key, member in free.items() if member.kept > poorest + 1 or not poorest]
        if not rich and free and now >= self._next_at:
            self._next_at = now + ROTATION_S
            rich = [max(free, key=lambda key: free[key].served)]
        for key in rich:
            members[key].ask_back()
        return asked.union(rich)


def silent_members(members: Mapping[int, MemberState], others: int, latency_s: float, now: float) -> list[int]:
    """Return the members that were not heard for `SILENT_S`, and whose permits others need.

    Their requests may still be worked on. So a permit counts for twice the mean latency, unless no other worker has
    any; `others` are those of the broker's own worker.
    """
    silent = {key: member for key, member in members.items() if now - member.heard_at > SILENT_S}
    others += sum(len(member.out) for key, member in members.items() if key not in silent)
    patience_s = 2 * latency_s if others else 0.0
    return [
        key
        for key, member in silent.items()
        if all(now - permit.sent_at > patience_s for permit in member.out.values())
    ]
