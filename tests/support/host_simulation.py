"""Simulates the workers of one host that share a flow controller: who holds it, and what each message does, and when.

Broker, members and schedulers are the real ones. Sockets, the lock and the clock are made up: messages take some time
in both directions, processes are killed or stand still, and a killed one's rows are asked again by a new one.
"""

import heapq
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from spark_llm.coordination.broker import PermitBroker
from spark_llm.coordination.broker_side import AGAIN_S, BEAT_S, LATE_S, LEASE_S
from spark_llm.coordination.fairness import SILENT_S
from spark_llm.coordination.group import RETRY_S
from spark_llm.coordination.job_failures import JobFailures
from spark_llm.coordination.links import Greeting
from spark_llm.coordination.member import Demand, PermitMember
from spark_llm.coordination.member_side import GRACE_S, PATIENT_S
from spark_llm.coordination.messages import Decoder, Kind, Message, encoded
from spark_llm.flow.controller import FlowController
from spark_llm.flow.request import Request
from spark_llm.policy import Policy
from spark_llm.protocol.values import Answer, RowError
from tests.support.servers import Endpoint, Reply
from tests.support.simulation import POLICY, Event, Job, Worker

RECENT_S = 3.0  # a state that is older is of a group that had ended
SETTLED_S = 2.0  # after the last answer
JOB = 7
CANCELLED = RowError("cancelled", None, "not sent", retryable=True)
RESTART_S = 0.1  # from a kill to the new process
_FLUSHED_S = 1e-6  # in which messages that are due have gone
_OF_A_PERMIT = frozenset(Kind) - {Kind.HELLO, Kind.WANT, Kind.WIDEN, Kind.ALIVE, Kind.RETURN, Kind.STATE}


class Fault(NamedTuple):
    """At a time, a process is killed or stands still: the broker, or a member by its number."""

    at: float
    kind: Literal["kill", "stop"]
    of: Literal["broker", "member"] = "member"
    number: int = 0
    seconds: float = 1.0  # that it stands still


class Alarm:
    """A timer of one process, which rings at the earliest time that it was set to."""

    def __init__(self, process: "Process", callback: Callable[[], None]) -> None:
        """Begin without a time."""
        self.due: float | None = None
        self.rang_for = 0.0  # the time that it was set to when it rang last
        self._process, self._callback = process, callback

    def set(self, at: float) -> None:
        """Ring at this time, unless it is set to an earlier one."""
        if self.due is None or at < self.due:
            self.due = at
            self._process.host.push(self._process, at, lambda: self._ring(at))

    def soon(self) -> None:
        """Ring after what happens at this time."""
        self.set(self._process.host.now)

    def cancel(self) -> None:
        """Do not ring."""
        self.due = None

    def _ring(self, at: float) -> None:
        if self.due == at:
            self.due, self.rang_for = None, at
            self._callback()


class Link:
    """A connection from a member to the broker; each message arrives after those sent before it."""

    def __init__(self, member: "Process", broker: "Process") -> None:
        """Connect."""
        self.member, self.broker = member, broker
        self.key: int | None = None  # once it was greeted
        self.greeting = Greeting(member.host.now)
        self.on_its_way: list[Message] = []  # in both directions
        self._closed_by: set[Process] = set()
        self._arrives_at = {member: 0.0, broker: 0.0}
        self._decoders = {member: Decoder(), broker: Decoder()}

    def send(self, by: "Process", messages: Iterable[Message]) -> None:
        """Send messages to the other end."""
        sent = list(messages)
        if by not in self._closed_by and sent:
            self.on_its_way += sent
            self._carry(by, lambda to: self._deliver(to, sent))

    def _deliver(self, to: "Process", sent: Sequence[Message]) -> None:
        for message in sent:
            self.on_its_way.remove(message)
        to.hear(self, list(self._decoders[to].decode(encoded(sent))))

    def close(self, by: "Process") -> None:
        """End the connection."""
        if by not in self._closed_by:
            self._closed_by.add(by)
            self._carry(by, lambda to: to.lose(self))

    def _carry(self, by: "Process", arrive: "Callable[[Process], None]") -> None:
        to = self.broker if by is self.member else self.member
        host = by.host
        self._arrives_at[to] = at = max(self._arrives_at[to], host.now + host.delay())
        host.push(to, at, lambda: None if to in self._closed_by else arrive(to))


class Process(Worker):
    """A worker of the host, with what `group`, `broker_side` and `member_side` do around its controller."""

    host: "HostJob"

    def __init__(self, host: "HostJob", rows: Sequence[int], seed: int) -> None:
        """Queue the rows, and begin alone."""
        self.host = host
        self.rows = rows
        self.is_dead = False
        self.stopped_until = 0.0
        self.waits_since: float | None = None
        self.ended_at = 0.0
        self.link: Link | None = None  # of a member
        self.links: dict[int, Link] = {}  # of the broker
        self._joined = 0
        self._heard_at = 0.0
        self._silent: Process | None = None  # a broker that stands still
        self._predecessor: Process | None = None
        self._awaited = set[Process]()  # the members of the broker before
        self._lease_until = 0.0  # of a broker
        self._granting = Alarm(self, self._grant)
        self._flushing = Alarm(self, self._flush)
        self._beating = Alarm(self, self._beat)
        self._seeking = Alarm(self, self.seek)
        self._releasing = Alarm(self, self._release)
        self._dice = random.Random(seed).random
        self.controller: PermitBroker | PermitMember = self._new_broker()
        super().__init__(self.controller, host.policy, rows, seed)

    def demand(self) -> Demand:
        """Return what could be sent now."""
        head, requests = self.scheduler.sendable(self.host.now)
        counts = head is not None and self.host.policy.tokens_per_minute is not None
        return Demand(requests, head.characters if head is not None and counts else 0, 1)

    def kill(self) -> None:
        """End, with the requests in flight; all that it wrote still arrives."""
        self.is_dead = True
        for link in [*self.links.values(), *([self.link] if self.link else [])]:
            link.close(self)

    # As a group does.

    def seek(self) -> None:
        """Become the broker where there is none, or where it stands still; else connect to it."""
        holder = self.host.holder
        if holder is None or holder.is_dead:
            self._become_broker(stood_still=False)
        elif self._silent is holder:
            self._become_broker(stood_still=True)
        else:
            self._become_member(holder)

    def _become_broker(self, *, stood_still: bool) -> None:
        host, before = self.host, self.controller
        predecessor, host.holder, self._silent = host.holder, self, None
        broker = self._new_broker()
        state, age_s = {}, 0.0
        if host.state is not None:
            state, age_s = json.loads(host.state[1]), host.now - host.state[0]
            broker.controller.restore(state["controller"], age_s, host.now)
            broker.failures = JobFailures(state["failures"])
        broker.adopt(before.in_flight, host.now)
        if state and age_s < RECENT_S:
            self._awaited = host.members - {self}
            if self._awaited:
                broker.hand_over.held_until = host.now + (2 * BEAT_S if stood_still else GRACE_S)
            if stood_still:
                broker.hand_over.reserve(state["own"], host.now)
                self._predecessor = predecessor
                self._releasing.set(host.now + host.policy.attempt_s)
        broker.on_due = self._granting.soon
        self._lease_until = host.now + LEASE_S
        self._use(broker)
        self._beat()

    def _become_member(self, holder: "Process") -> None:
        if not isinstance(self.controller, PermitMember):
            in_flight = self.controller.in_flight
            member = PermitMember(self.demand)
            member.adopt(in_flight)
            self._use(member)
        assert isinstance(self.controller, PermitMember)
        self.controller.on_due = self._flush_soon
        self._heard_at = self.host.now
        self.link = link = Link(self, holder)
        link.send(self, self.controller.join(self.host.now))
        self.controller.renew(self.host.now, self.host.now + LEASE_S)
        self._flush()
        self._beating.cancel()
        self._beating.set(self.host.now + BEAT_S)

    def _new_broker(self) -> PermitBroker:
        return PermitBroker(FlowController(replace(self.host.policy, tasks=1)), self.demand, self._dice)

    def _use(self, controller: PermitBroker | PermitMember) -> None:
        self.controller = self.scheduler.controller = controller

    # As either side does.

    def hear(self, link: Link, messages: Sequence[Message]) -> None:
        """Take the messages that arrived."""
        now, controller = self.host.now, self.controller
        if isinstance(controller, PermitMember):
            if link is self.link:
                self._heard_at = now
                if controller.receive(messages, now):
                    self.host.pump(self)
                self._flush_soon()
            return
        if link.key is None:
            rest = link.greeting.take(messages)
            if rest is None:
                return
            self._join(link, controller)
            messages = rest
        assert link.key is not None
        if controller.receive(link.key, messages, now):
            self.host.pump(self)
        self._granting.soon()

    def lose(self, link: Link) -> None:
        """Take note that the other end has closed a connection."""
        if isinstance(self.controller, PermitMember):
            if link is self.link:
                self._on_broker_end(stands_still=False)
        elif link.key in self.links:
            del self.links[link.key]
            self.controller.leave(link.key)
            self._granting.soon()

    def _on_broker_end(self, *, stands_still: bool) -> None:
        assert isinstance(self.controller, PermitMember)
        assert self.link is not None
        self.link.close(self)
        self._flushing.cancel()
        self._beating.cancel()
        self.controller.leave(self.host.now)
        self._silent = self.link.broker if stands_still else None
        self.link = None
        self._seeking.set(self.host.now + (0.0 if stands_still else RETRY_S))

    def _join(self, link: Link, broker: PermitBroker) -> None:
        self._joined += 1
        link.key = self._joined
        self.links[link.key] = link
        if link.member is self._predecessor:
            self._release()
        broker.join(link.key, list(link.greeting.held), self.host.now)
        if link.member in self._awaited:
            self._awaited.remove(link.member)
            if not self._awaited:
                broker.hand_over.held_until = self.host.now
        self._write_state(broker)
        link.send(self, broker.heartbeat(self.host.now)[link.key])

    def _release(self) -> None:
        if isinstance(self.controller, PermitBroker):
            self.controller.hand_over.release()

    def _flush_soon(self) -> None:
        assert isinstance(self.controller, PermitMember)
        self._flushing.set(self.host.now + (0.0 if self.controller.is_urgent else PATIENT_S))

    def _flush(self) -> None:
        if isinstance(self.controller, PermitMember) and self.link is not None:
            self.link.send(self, self.controller.flush())

    def _grant(self) -> None:
        now, broker = self.host.now, self.controller
        if not isinstance(broker, PermitBroker):
            return
        for key, messages in broker.grants(now).items():
            if key in self.links:
                self.links[key].send(self, messages)
        if (due := broker.next_due(now)) is not None:
            self._granting.set(max(due, now + 0.0005))
        if broker.available(now) and self.demand().requests:
            self.host.pump(self)

    def _beat(self) -> None:
        now = self.host.now
        if isinstance(self.controller, PermitMember):
            self._beat_as_member(now)
        elif self.host.holder is not self:
            for link in self.links.values():
                link.close(self)
            self.links = {}
            self._granting.cancel()
            assert self.host.holder is not None
            self._become_member(self.host.holder)
        else:
            stood_still, self._lease_until = now > self._lease_until, now + LEASE_S
            if not stood_still:
                self.controller.renew(now, self._lease_until)
            is_late = now - self._beating.rang_for > LATE_S
            self._beating.set(now + (AGAIN_S if stood_still else BEAT_S))
            for key in () if is_late else self.controller.silent_members(now):
                self.links[key].close(self)
                self.lose(self.links[key])
            for key, messages in self.controller.heartbeat(now).items():
                self.links[key].send(self, messages)
            self._write_state(self.controller)
            self.host.push(self, now + _FLUSHED_S, self._check_permits)
            self._grant()

    def _check_permits(self) -> None:
        """Check that no permit is lost: one that its member does not know is on its way."""
        for key, link in self.links.items():
            process, member = link.member, link.member.controller
            if process.link is link and isinstance(member, PermitMember) and process.stopped_until <= self.host.now:
                assert isinstance(self.controller, PermitBroker)
                on_its_way = (message.number for message in link.on_its_way if message.kind in _OF_A_PERMIT)
                lost = self.controller.members[key].out.keys() - {*member.held, *on_its_way}
                assert not lost, f"permits {lost} are lost"

    def _write_state(self, broker: PermitBroker) -> None:
        self.host.state = self.host.now, json.dumps(broker.snapshot(self.host.now))
        self.host.members = {link.member for link in self.links.values()}

    def _beat_as_member(self, now: float) -> None:
        assert isinstance(self.controller, PermitMember)
        is_late = now - self._beating.rang_for > LATE_S
        if not is_late and self.controller.renew(now, now + LEASE_S):
            self.host.pump(self)
        self._beating.set(now + BEAT_S)
        if not is_late and now - self._heard_at > SILENT_S:
            self._on_broker_end(stands_still=True)
        elif self.link is not None:
            self.link.send(self, [Message(Kind.ALIVE)])


class HostJob(Job):
    """A job played to its end by the workers of one host."""

    holder: Process | None = None  # of the lock

    def __init__(
        self,
        endpoint: Endpoint,
        rows: int,
        *,
        workers: int = 8,
        policy: Policy = POLICY,
        faults: Iterable[Fault] = (),
        delay_s: tuple[float, float] = (0.0001, 0.001),
        network_s: tuple[float, float] = (0.0, 0.0),
        seed: int = 0,
    ) -> None:
        """Share the rows among the workers; messages take `delay_s`, requests and answers `network_s` (bounds)."""
        self.now = 0.0
        self.policy = policy
        self.state: tuple[float, str] | None = None  # that a broker wrote last, and when
        self.members = set[Process]()  # of that broker, then
        self.processes: list[Process] = []
        self.sent_at: list[float] = []
        self.most_in_flight = 0  # at the endpoint, of workers that live
        self.longest_wait_s = 0.0  # of a worker with rows to send and nothing in flight
        self.brokers = 0
        self._at_endpoint: list[tuple[float, int, Process]] = []
        self._host_dice = random.Random(seed)
        self._delay_s, self._network_s = delay_s, network_s
        self._faults = sorted(faults)
        self._done_at: float | None = None
        super().__init__(endpoint, rows, workers=workers, policy=policy)
        self._check_end()

    def delay(self) -> float:
        """Return how long a message takes."""
        return self._host_dice.uniform(*self._delay_s)

    def push(self, process: Process, at: float, action: Callable[[], None]) -> None:
        """Let something happen in a process."""
        heapq.heappush(self._events, Event(at, next(self._serial), process, action=action))

    def pump(self, process: Process) -> None:
        """Send what may go."""
        self._pump(process, self.now)

    @property
    def spread(self) -> float:
        """The time between the first and the last end of a worker, as a share of the whole."""
        ends = [process.ended_at for process in self.processes if not process.is_dead]
        return (max(ends) - min(ends)) / max(ends)

    def most_in_a_minute(self) -> int:
        """Return the most requests that were sent in any minute."""
        most = first = 0
        for last, at in enumerate(self.sent_at):
            while self.sent_at[first] <= at - 60:
                first += 1
            most = max(most, last - first + 1)
        return most

    def _worker(self, rows: Sequence[int]) -> Process:
        process = Process(self, rows, seed=len(self.processes))
        self.processes.append(process)
        self.push(process, self.now, process.seek)
        return process

    def _play(self) -> None:
        while self._events and not self._is_over:
            if self._faults and self._faults[0].at <= self._events[0].at:
                fault = self._faults.pop(0)
                self.now = fault.at
                self._occur(fault)
            else:
                self._happen(heapq.heappop(self._events))

    @property
    def _is_over(self) -> bool:
        if self._done_at is None:
            return False
        return self.now > max(self._done_at, *(process.stopped_until for process in self.processes)) + SETTLED_S

    def _occur(self, fault: Fault) -> None:
        members = [process for process in self.processes if not process.is_dead and process is not self.holder]
        process = self.holder if fault.of == "broker" else members[fault.number % len(members)] if members else None
        if process is None or process.is_dead or process.stopped_until > self.now:
            return
        if fault.kind == "stop":
            process.stopped_until = self.now + fault.seconds
            process.waits_since = None
            return
        process.kill()
        self._count(self.now, -process.in_flight)
        self._at_endpoint = [entry for entry in self._at_endpoint if entry[2] is not process]
        heapq.heapify(self._at_endpoint)
        if left := [number for number in process.rows if number not in self.results]:
            self.now, now = self.now + RESTART_S, self.now
            self._wake(self._worker(left), self.now)
            self.now = now

    def _happen(self, event: Event) -> None:
        process = event.worker
        assert isinstance(process, Process)
        if process.is_dead:
            return
        if event.at < (later := process.stopped_until):
            if process.wakes_at == event.at and event.action is None and event.request is None:
                process.wakes_at = later
            reply = event.reply and event.reply._replace(at=later)
            heapq.heappush(self._events, event._replace(at=later, reply=reply))
            return
        self.now = event.at
        if event.action is None:
            super()._happen(event)
        else:
            event.action()
        if self._done_at is None and len(self.results) == self._rows:
            self._done_at = self.now

    def _pump(self, worker: Worker, now: float) -> None:
        super()._pump(worker, now)
        assert isinstance(worker, Process)
        if not worker.demand().requests or worker.in_flight:
            worker.waits_since = None
        elif worker.waits_since is None:
            worker.waits_since = now

    def _check_idle(self, worker: Worker) -> None:
        """Take note that the worker waits for permits."""

    def _reply(self, now: float) -> Reply:
        there_s, back_s = self._host_dice.uniform(*self._network_s), self._host_dice.uniform(*self._network_s)
        reply = super()._reply(now + there_s)
        return reply._replace(at=reply.at + back_s)

    def _on_send(self, worker: Worker, window: int, reply: Reply) -> None:
        assert isinstance(worker, Process)
        if worker.waits_since is not None:
            self.longest_wait_s = max(self.longest_wait_s, self.now - worker.waits_since)
        while self._at_endpoint and self._at_endpoint[0][0] <= self.now:
            heapq.heappop(self._at_endpoint)
        heapq.heappush(self._at_endpoint, (reply.at, next(self._serial), worker))
        self.most_in_flight = max(self.most_in_flight, len(self._at_endpoint))
        self.sent_at.append(self.now)

    def _send(self, worker: Worker, now: float) -> None:
        assert isinstance(worker, Process)
        if JOB in worker.controller.stopped:
            for unsent in worker.scheduler.drop(worker):
                super()._deliver(unsent, CANCELLED)
        super()._send(worker, now)

    def _deliver(self, request: Request, last_word: Answer | RowError) -> None:
        super()._deliver(request, last_word)
        process, max_share = request.owner, self.policy.max_failure_rate
        assert isinstance(process, Process)
        if max_share is not None:
            rows = len(request.inputs)
            process.controller.count_rows(JOB, rows, rows if isinstance(last_word, RowError) else 0, max_share)

    def _settle(self, request: Request, reply: Reply, worker: Worker) -> None:
        super()._settle(request, reply, worker)
        assert isinstance(worker, Process)
        worker.ended_at = self.now

    def _check_end(self) -> None:
        """Check that all permits are back."""
        for process in self.processes:
            if process.is_dead or process.stopped_until > self.now:
                continue
            assert process.controller.in_flight == 0, "nothing is in flight"
            if isinstance(process.controller, PermitMember):
                assert process.controller.held == [], "a member holds nothing that it does not need"
            elif process is self.holder:
                assert process.controller.controller.in_flight == 0, "all permits are back"
