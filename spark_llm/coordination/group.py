"""The workers of a host that share one flow controller, as one of them sees it: the broker, a member, or alone.

The worker that gets the lock of the place is the broker; the others are its members. When the broker ends, another
takes its place within milliseconds, and goes on with what was known. A broker that stands still for two seconds loses
its place. Everything here runs on the engine's event loop.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakSet

from spark_llm.coordination.broker import PermitBroker
from spark_llm.coordination.broker_side import BEAT_S, LEASE_S, BrokerSide, Predecessor
from spark_llm.coordination.fairness import SILENT_S
from spark_llm.coordination.flow_reporter import FlowReporter
from spark_llm.coordination.host_limits import HostLimits
from spark_llm.coordination.job_failures import JobFailures
from spark_llm.coordination.member import PermitMember
from spark_llm.coordination.member_side import GRACE_S, MemberSide
from spark_llm.coordination.place import FOLDER_VARIABLE, LockId, Place
from spark_llm.coordination.worker import Worker
from spark_llm.flow.controller import FlowController
from spark_llm.livecounts.counts import Address
from spark_llm.policy import Policy

RETRY_S = 0.01  # between two looks for a broker
ALONE_S = 5.0  # after which a worker that finds no broker goes on alone
YIELD_S = 0.5  # for which a worker that hands the place over leaves it to others
_RETRY_ALONE_S = 30.0
_RECENT_S = 3.0  # a state that is older is of a group that had ended
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)

_logger = logging.getLogger("spark_llm.flow")


class Group:
    """One worker's place in its group."""

    def __init__(
        self, policy: Policy, worker: Worker, use: Callable[[PermitBroker | PermitMember], None], label: str
    ) -> None:
        """Begin alone; `use` is called with each controller that the worker's scheduler has to ask from then on."""
        self._policy = policy
        self._worker = worker
        self._use = use
        self._label = label
        self._place: Place | None = None
        self._side: BrokerSide | MemberSide | None = None
        self._seeking = worker.alarm(self._seek)
        self._lock: LockId | None = None  # the broker's
        self._silent_lock: LockId | None = None  # of a broker that stands still
        self._lock_since = 0.0  # since when nothing was heard of the process with this lock
        self._alone_at: float | None = None  # when to go on alone
        self._was_member = False  # of the last broker
        self._was_broker = False  # itself the last one
        self._has_warned = False
        self._yields_until = 0.0  # after it handed the place over
        self._driver: Address | None = None
        self._driver_side: Sequence[HostLimits | FlowReporter] = ()  # of a broker
        self.controller: PermitBroker | PermitMember = self._new_broker(FlowController(policy))

    def join(self, key: Iterable[object]) -> None:
        """Look for the others with the same key; stay alone where this host has no place for a group."""
        try:
            self._place = Place(key)
        except OSError as error:
            self._warn(error)
            return
        _GROUPS.add(self)
        if self._place.needs_sweep:
            threading.Thread(target=self._place.sweep, name="spark_llm sweep", daemon=True).start()
        self._seek()

    def set_driver(self, driver: Address | None) -> None:
        """Have this driver allot the host's part of the policy's limits, and tell it how the host's requests flow.

        Without a driver `Policy.tasks` decides, and nobody is told.
        """
        self._driver = driver
        if isinstance(self.controller, PermitBroker):
            if not self._driver_side:
                host = f"{socket.gethostname()} {os.getpid() if self._place is None else self._place.folder_id}"
                parts = self._worker, self.controller, self._policy, host, self._label
                self._driver_side = HostLimits(*parts), FlowReporter(*parts)
            for each in self._driver_side:
                each.set_driver(driver)

    def leave(self) -> None:
        """Give up the place, and all permits."""
        _GROUPS.discard(self)
        self._seeking.close()
        self._leave_driver()
        if self._side is not None:
            self._side.close()
        self._side = None
        if self._place is not None:
            self._place.unlock()

    async def close(self) -> None:
        """Give up the place, and wait until its connections have ended."""
        tasks = [] if self._side is None else self._side.tasks
        self.leave()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # in which transports close their sockets

    @property
    def descriptors(self) -> list[int]:
        """The open files and sockets, which a child process must not keep."""
        sockets = [] if self._side is None else self._side.descriptors
        return [*sockets, *(() if self._place is None else self._place.descriptors)]

    def _seek(self) -> None:
        """Become the broker where there is none, or where it stands still; else connect to it."""
        place = self._place
        if place is None:
            return
        now = self._worker.now()
        if self._alone_at is None:
            self._alone_at = now + ALONE_S
        try:
            if now >= self._yields_until and place.lock():
                self._become_broker(place, stood_still=False)
            elif self._silent_lock is not None and place.replace_lock(self._silent_lock):
                self._become_broker(place, stood_still=True)
            else:
                self._become_member(place)
        except OSError as error:  # the folder was removed, say
            place.unlock()
            self._seek_again(now, error)

    def _seek_again(self, now: float, error: OSError) -> None:
        if self._alone_at is None or now < self._alone_at:
            self._seeking.set(now + RETRY_S)
            return
        self._warn(error)
        self._seeking.set(now + _RETRY_ALONE_S)
        if isinstance(self.controller, PermitMember):
            alone = self._new_broker(FlowController(self._policy))
            alone.adopt(self.controller.in_flight, now)
            self._change(alone)

    def _become_broker(self, place: Place, *, stood_still: bool) -> None:
        now = self._worker.now()
        before = self.controller
        controller, state, age_s = self._restored(place, now)
        broker = self._new_broker(controller)
        broker.adopt(before.in_flight, now)
        if state:
            broker.failures = state["failures"]
        awaited, predecessor = Counter[int](), None
        if state and (stood_still or age_s < _RECENT_S):
            awaited = Counter(state["pids"]) - Counter([os.getpid()] if self._was_member else [])
            if awaited:  # of one that was replaced by mistake they come when it finds out
                broker.hand_over.held_until = now + (2 * BEAT_S if stood_still else GRACE_S)
            if stood_still:
                broker.hand_over.reserve(state["own"], now)
                predecessor = Predecessor(state["pid"], now + 2 * (controller.limiter.latency_s or 0.0))
        elif self._was_member or self._was_broker:  # the files were removed, and the broker does not know it yet
            broker.hand_over.held_until = now + LEASE_S
        side = BrokerSide(
            self._worker,
            broker,
            place,
            self._on_lock_lost,
            self._on_idle,
            awaited=awaited.elements(),
            predecessor=predecessor,
        )
        self._side, self._silent_lock, self._alone_at = side, None, None
        self._was_member = self._was_broker = False
        _logger.info("%s: this worker holds the limits of its host", self._label)
        self._change(broker)
        side.start()

    def _restored(self, place: Place, now: float) -> tuple[FlowController, Mapping[str, Any], float]:
        """Return a controller, the state of an earlier broker that it goes on from, and the age of that in seconds."""
        found, controller = place.read_state(), FlowController(replace(self._policy, tasks=1))
        if found is not None:
            try:
                state = json.loads(found[0])
                failures = JobFailures(state["failures"])
                own, pids = min(int(state["own"]), self._worker.connections), [int(pid) for pid in state["pids"]]
                controller.restore(state["controller"], found[1], now)
                return controller, {"pid": int(state["pid"]), "own": own, "pids": pids, "failures": failures}, found[1]
            except _MALFORMED:
                controller = FlowController(replace(self._policy, tasks=1))
        return controller, {}, 0.0

    def _become_member(self, place: Place) -> None:
        lock = place.lock_id()
        if lock is None:
            raise FileNotFoundError("the lock was removed")
        if lock != self._lock:
            self._lock, self._lock_since = lock, self._worker.now()
        member = self.controller
        if not isinstance(member, PermitMember):
            member = PermitMember(self._worker.demand)
            member.adopt(self.controller.in_flight)
        path = place.socket_path(lock)
        self._side = MemberSide(self._worker, member, path, lambda: place.lock_id() == lock, self._on_broker_end)
        self._change(member)

    def _on_broker_end(self, *, was_heard: bool, stands_still: bool) -> None:
        """Look for another broker, or become it."""
        now = self._worker.now()
        self._side, self._silent_lock = None, None
        if was_heard:
            self._alone_at, self._lock_since = None, now
            self._was_member, self._was_broker = True, False
        if stands_still or now - self._lock_since > SILENT_S:
            self._silent_lock = self._lock
        if stands_still:
            self._seek()
        else:
            self._seek_again(now, ConnectionRefusedError("no worker answers that holds them"))

    def _on_lock_lost(self) -> None:
        """Become a member: another worker took the place, since this one stood still, or its files were removed."""
        if self._place is not None and self._side is not None:
            _logger.info("%s: another worker holds the limits of this host now", self._label)
            self._side.close()
            self._side = None
            self._place.unlock()
            self._was_broker = True
            self._seek()

    def _on_idle(self) -> None:
        """Become a member: this worker's task has ended, and only one that works knows the driver of its job."""
        self._yields_until = self._worker.now() + YIELD_S
        self._on_lock_lost()

    def _new_broker(self, controller: FlowController) -> PermitBroker:
        return PermitBroker(controller, self._worker.demand, random.random, self._worker.connections)

    def _change(self, controller: PermitBroker | PermitMember) -> None:
        if controller is not self.controller:
            self._leave_driver()
            self.controller = controller
            self._use(controller)
            self.set_driver(self._driver)
            self._worker.pump()

    def _leave_driver(self) -> None:
        for each in self._driver_side:
            each.close()
        self._driver_side = ()

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            tasks = self._policy.tasks
            _logger.warning(
                "%s: this worker cannot share its limits with others (%s), so it uses %s. Hint: set Policy(tasks=…) to "
                "the number of tasks that run at once%s.",
                self._label,
                error,
                "the whole of them" if tasks == 1 else f"1/{tasks} of them",
                f", or name another folder in {FOLDER_VARIABLE}" if os.environ.get(FOLDER_VARIABLE) else "",
            )


_GROUPS: WeakSet[Group] = WeakSet()  # of this process


def _close_in_child() -> None:
    """Close what a process that was forked has of its parent's groups: else it keeps the parent's place there.

    Each number stays taken by the null device. The child's own files never get it, so no object of the parent's can
    close one of them; nor does the parent's event loop notice, whose selector the child shares.
    """
    forked = list(_GROUPS)
    _GROUPS.clear()
    if forked:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (descriptor for group in forked for descriptor in group.descriptors):
            with contextlib.suppress(OSError):
                os.dup2(null, descriptor, inheritable=False)
        os.close(null)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_close_in_child)
