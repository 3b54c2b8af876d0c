"""The driver's allotments: the sum of what hosts may use never passes a limit, and all of it is given."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spark_llm.coordination.allotment import (
    FLOOR_VALID_S,
    VALID_S,
    Allotment,
    HardLimits,
    HostShare,
    Need,
    Usage,
)
from spark_llm.coordination.allotter import TURN_S, Allotter, divided

LIMITS = HardLimits(12, 90.0, 5_000.0)
CLOCK_OFFSETS_S = dict(zip("abcdef", (0.0, 0.0, 500.0, -900.0, 1e6, 3.0), strict=True))
WANTED = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.floats(0.001, 1e3), max_size=8)


class Host:
    """The holder of a host's limiter, with a clock of its own and requests that take a while."""

    def __init__(self, name: str, clock_offset_s: float, now: float, in_flight: int = 0) -> None:
        """Begin as a holder that may take over requests in flight."""
        self.name, self.clock_offset_s, self.in_flight, self.requests = name, clock_offset_s, in_flight, 0
        self.share = HostShare(name, "chat", LIMITS, self.clock(now))

    def clock(self, now: float) -> float:
        """Return its own time."""
        return now + self.clock_offset_s

    def need(self, waiting: int, now: float) -> Need:
        """Return what it tells the driver."""
        return self.share.need(Usage(self.in_flight, waiting, self.requests, 40.0 * self.requests), self.clock(now))

    def send(self, now: float) -> None:
        """Send as many requests as its share lets go."""
        if self.share.source(self.clock(now)) in ("driver", "floor"):
            limits = self.share.limits(self.clock(now))
            assert limits is not None
            sent = max(0, (limits.max_in_flight or 0) - self.in_flight)
            self.in_flight += sent
            self.requests += sent

    def uses(self, now: float) -> tuple[float, float, float]:
        """Return what it may be using; requests that outlast the share of a silent host are not counted."""
        source, limits = self.share.source(self.clock(now)), self.share.limits(self.clock(now))
        if limits is None or source not in ("driver", "floor"):
            return 0.0, 0.0, 0.0
        in_flight, requests, tokens = (number or 0 for number in limits)
        return max(in_flight, self.in_flight if source == "driver" else 0), requests, tokens


class Cluster(RuleBasedStateMachine):
    """Hosts come, go and die, and the network does to datagrams whatever it likes."""

    def __init__(self) -> None:
        """Begin with a driver alone."""
        super().__init__()
        self.allotter = Allotter()
        self.now = 1_000.0
        self.hosts: dict[str, Host] = {}
        self.needs: list[Need] = []  # on their way
        self.allotments: list[Allotment] = []

    @initialize(names=st.sets(st.sampled_from("abcdef"), min_size=1))
    def begin(self, names: set[str]) -> None:
        """Begin with some hosts."""
        for name in sorted(names):
            self.come(name)

    @rule(name=st.sampled_from("abcdef"))
    def come(self, name: str) -> None:
        """A host comes; where it is here, another worker becomes the holder of its limiter, at a later time."""
        self.now += 0.01
        in_flight = self.hosts[name].in_flight if name in self.hosts else 0
        self.hosts[name] = Host(name, CLOCK_OFFSETS_S[name], self.now, in_flight)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), waiting=st.integers(0, 30), both_ways=st.booleans())
    def ask(self, data: st.DataObject, waiting: int, *, both_ways: bool) -> None:
        """A host asks; often the answer arrives at once."""
        host = self.hosts[data.draw(st.sampled_from(sorted(self.hosts)))]
        self.now += 0.001
        need = host.need(waiting, self.now)
        self.needs.append(need)
        if both_ways and (allotment := self.allotter.on_need(need, self.now)) is not None:
            self.allotments.append(allotment)
            host.share.on_allotment(allotment)
            host.send(self.now)

    @precondition(lambda self: self.needs)
    @rule(data=st.data(), again=st.booleans())
    def hear_need(self, data: st.DataObject, *, again: bool) -> None:
        """The driver gets any of the needs, once or more often, and in any order."""
        index = data.draw(st.integers(0, len(self.needs) - 1))
        need = self.needs[index] if again else self.needs.pop(index)
        if (allotment := self.allotter.on_need(need, self.now)) is not None:
            self.allotments.append(allotment)

    @precondition(lambda self: self.allotments)
    @rule(data=st.data(), again=st.booleans())
    def hear_allotment(self, data: st.DataObject, *, again: bool) -> None:
        """A host gets any of the allotments that were for it."""
        index = data.draw(st.integers(0, len(self.allotments) - 1))
        allotment = self.allotments[index] if again else self.allotments.pop(index)
        if (host := self.hosts.get(allotment.host)) is not None:
            host.share.on_allotment(allotment)
            host.send(self.now)

    @rule(seconds=st.floats(0.001, 2 * VALID_S) | st.floats(FLOOR_VALID_S - 2, FLOOR_VALID_S + 2))
    def wait(self, seconds: float) -> None:
        """Time passes; a request takes less of it than a share that ends unheard has left."""
        self.now += seconds
        for host in self.hosts.values():
            if host.share.source(host.clock(self.now)) != "driver":
                host.in_flight = min(host.in_flight, int(host.uses(self.now)[0]))

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), requests=st.integers(1, 12))
    def answer(self, data: st.DataObject, requests: int) -> None:
        """Requests of a host are answered, and it sends the next."""
        host = self.hosts[data.draw(st.sampled_from(sorted(self.hosts)))]
        host.in_flight = max(0, host.in_flight - requests)
        host.send(self.now)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), says_so=st.booleans())
    def go(self, data: st.DataObject, *, says_so: bool) -> None:
        """A host dies, or leaves with a word that may get lost."""
        host = self.hosts.pop(data.draw(st.sampled_from(sorted(self.hosts))))
        if says_so:
            usage = Usage(0, 0, host.requests, 0.0)
            self.now += 0.001
            self.needs.append(host.share.need(usage, host.clock(self.now), leaves=True))

    @invariant()
    def no_limit_is_passed(self) -> None:
        """What all hosts may use at this instant is within each limit."""
        used = [sum(kind) for kind in zip(*(host.uses(self.now) for host in self.hosts.values()), strict=True)]

        assert all(limit + 1e-6 >= use for limit, use in zip(LIMITS, used or LIMITS, strict=True) if limit is not None)


Cluster.TestCase.settings = settings(stateful_step_count=60)
test_no_limit_is_passed_whatever_the_network_does = Cluster.TestCase


@given(st.integers(0, 100) | st.floats(0, 100), WANTED, st.sampled_from([0.0, 1.0, 4.0]))
def test_all_of_a_limit_is_divided_and_no_more(limit: float, wanted: dict[str, float], least: float) -> None:
    """Who gets less than another one has all that it wants, or less by one of a whole number."""
    shares = divided(limit, wanted, least)
    scarce = limit < least * len(wanted)

    assert wanted.keys() == shares.keys()
    assert sum(shares.values()) <= limit + 1e-9
    assert not wanted or sum(shares.values()) >= limit - 1e-9
    assert all(share >= 0 for share in shares.values())
    for name, share in shares.items() if not scarce else ():
        most = max(shares.values())
        assert share >= min(most - (1 if least else 1e-9), wanted[name] - 1e-9)


@pytest.mark.parametrize(
    ("limit", "wanted", "least", "expected"),
    [
        (15, {"a": 9, "b": 9}, 1.0, {"a": 8, "b": 7}),
        (15, {"a": 2, "b": 99, "c": 99}, 1.0, {"a": 2, "b": 7, "c": 6}),
        (15, {"a": 1, "b": 2}, 1.0, {"a": 7, "b": 8}),
        (2, {"a": 9, "b": 9, "c": 9}, 1.0, {"a": 1, "b": 1, "c": 0}),
        (10, {"a": 9, "b": 9, "c": 9}, 4.0, {"a": 5, "b": 5, "c": 0}),
        (3, {"a": 9, "b": 9}, 4.0, {"a": 3, "b": 0}),
        (9, {"a": 9, "b": 9, "c": 9}, 4.0, {"a": 5, "b": 4, "c": 0}),
        (20.5, {"a": 20}, 1.0, {"a": 20.5}),
        (90.5, {"a": 99, "b": 99}, 4.0, {"a": 45.5, "b": 45}),
        (90.5, {"a": 99, "b": 99}, 0.0, {"a": 45.25, "b": 45.25}),
    ],
)
def test_a_limit_is_divided(limit: float, wanted: dict[str, float], least: float, expected: dict[str, float]) -> None:
    """Of whole numbers the first get the remainder; what nobody wants is given out evenly."""
    assert expected == divided(limit, wanted, least)


def test_who_has_none_gets_its_turn() -> None:
    """Of three hosts at a limit of one, each has it for a while; the others send nothing meanwhile."""
    allotter, hosts = Allotter(), [HostShare(name, "chat", HardLimits(1), 0.0) for name in "abc"]
    had: list[str] = []
    for tenth in range(10, int(10 * 4 * TURN_S[0])):
        now = tenth / 10
        for name, host in zip("abc", hosts, strict=True):
            if (
                tenth % 10 == 0
                and (allotment := allotter.on_need(host.need(Usage(0, 9, 0, 0.0), now), now)) is not None
            ):
                host.on_allotment(allotment)
            if (host.limits(now) or HardLimits()).max_in_flight and had[-1:] != [name]:
                had.append(name)

    assert list("abca") == had


def test_keys_have_limits_of_their_own() -> None:
    """Two endpoints of a job do not share."""
    allotter = Allotter()
    usage = Usage(0, 9, 0, 0.0)
    first = allotter.on_need(HostShare("a", "chat", HardLimits(5), 0.0).need(usage, 1.0), 1.0)
    second = allotter.on_need(HostShare("a", "embed", HardLimits(7), 0.0).need(usage, 1.0), 1.0)

    assert first is not None
    assert second is not None
    assert (HardLimits(5), HardLimits(7)) == (first.share, second.share)


def test_answers_are_needed_while_a_host_wants_to_send() -> None:
    """Not before, not when its rows have ended, and not long after it has fallen silent."""
    allotter = Allotter()
    need = Need("a", "chat", LIMITS, 1.0, 0, 3, HardLimits(0))
    needed = [allotter.is_needed(0.0)]
    allotter.on_need(need, 1.0)
    needed += [allotter.is_needed(1.0), allotter.is_needed(1.0 + VALID_S)]
    allotter.on_need(need._replace(asked_at=20.0), 20.0)
    allotter.on_need(need._replace(asked_at=21.0, wanted=0), 21.0)
    needed.append(allotter.is_needed(21.0))

    assert [False, True, False, False] == needed
