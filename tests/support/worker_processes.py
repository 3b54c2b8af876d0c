"""Worker processes of one host, each with an engine of its own, as a Spark executor has them."""

import ctypes
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from spark_llm import Endpoint, Policy
from spark_llm.coordination.place import FOLDER_VARIABLE
from spark_llm.engine.engine import Engine
from spark_llm.engine.request_spec import StreamJob
from spark_llm.serving import LocalEndpoints
from tests.support.asking import CHAT, comes_true

PATIENCE_S = 120.0
_PROCESSES = multiprocessing.get_context("forkserver")  # its server has imported everything, as pyspark.daemon has
_PROCESSES.set_forkserver_preload(["pytest", "uvloop", "aiohttp", __name__])


class Report(NamedTuple):
    """What became of a worker's rows."""

    answered: int
    errors: list[str]
    requests: int
    seconds: float
    log: list[str]


class Job(NamedTuple):
    """What a worker has to know."""

    url: str
    token: str
    policy: Policy
    group: str
    folder: str
    loop: str


class WorkerProcess:
    """One worker."""

    def __init__(self, job: Job) -> None:
        """Start its process."""
        self._commands, theirs = _PROCESSES.Pipe()
        self.process = _PROCESSES.Process(target=_work, args=(theirs, job), daemon=True)
        self.process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process.pid is not None
        return self.process.pid

    def hear(self) -> Any:  # noqa: ANN401 -- whatever it says next
        """Return what it says next; fail where it says nothing for long."""
        assert self._commands.poll(PATIENCE_S), f"worker {self.pid} says nothing"
        return self._commands.recv()

    def tell(self, *command: object) -> None:
        """Have it do something beside its rows: the name of a function below, and its arguments."""
        self._commands.send(command)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it by `kill -9`."""
        self.process.kill()
        self.process.join(PATIENCE_S)

    def close(self) -> None:
        """End it, and what belongs to it."""
        self.kill()
        self._commands.close()
        self.process.close()


class WorkerProcesses:
    """Workers that ask one endpoint, and the folder where they find each other."""

    def __init__(
        self,
        endpoints: LocalEndpoints,
        policy: Policy,
        workers: int,
        *,
        group: str = "group",
        loop: str = "uvloop",
        beside: "WorkerProcesses | None" = None,
    ) -> None:
        """Start them, with one folder of their own or that of others."""
        self._owns_folder = beside is None
        self.folder: str = tempfile.mkdtemp(prefix="w-", dir="/tmp") if beside is None else beside.folder
        self._job = Job(endpoints.invocations("chat"), endpoints.token, policy, group, self.folder, loop)
        self.all: list[WorkerProcess] = []
        self.add(workers)

    def add(self, workers: int) -> None:
        """Start more."""
        new = [WorkerProcess(self._job) for _ in range(workers)]
        self.all += new
        for worker in new:
            assert worker.hear() == "ready"

    def __enter__(self) -> "WorkerProcesses":  # noqa: PYI034 -- typing.Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End them all."""
        for worker in self.all:
            worker.close()
        if self._owns_folder:
            shutil.rmtree(self.folder)

    def ask(self, rows: int, workers: Sequence[WorkerProcess] | None = None, *, stage: int = 0) -> None:
        """Have each ask so many rows, in a stage of Spark."""
        for worker in self.all if workers is None else workers:
            worker.tell("ask", rows, stage)

    def reports(self, workers: Sequence[WorkerProcess] | None = None) -> list[Report]:
        """Return what became of the rows of each, when all is over."""
        return [Report(*worker.hear()) for worker in (self.all if workers is None else workers)]

    @property
    def broker(self) -> WorkerProcess | None:
        """The worker that last said that it is the broker."""
        pids: set[int] = set()
        for path in Path(self.folder).glob("*/*.state"):
            with suppress(ValueError):
                pids.add(json.loads(path.read_bytes().partition(b"\n")[0])["pid"])
        return next((worker for worker in self.all if worker.pid in pids), None)

    def wait_for_broker(self, is_it: Callable[[WorkerProcess], bool] = lambda _: True) -> WorkerProcess:
        """Return the broker as soon as it is such a one."""
        assert comes_true(lambda: (broker := self.broker) is not None and is_it(broker), PATIENCE_S)
        broker = self.broker
        assert broker is not None
        return broker


def _work(commands: Connection, job: Job) -> None:
    """Do what the test says, until it has gone."""
    os.environ[FOLDER_VARIABLE] = job.folder
    if job.loop == "asyncio":
        sys.modules["uvloop"] = None  # type: ignore[assignment]  # as if it were not installed
    log = _Log()
    logging.getLogger("spark_llm").addHandler(log)
    engine = Engine(Endpoint(job.url, token=job.token).resolve(CHAT.route, {}), job.policy, None, (job.group,))
    commands.send("ready")
    with suppress(EOFError):
        while True:
            name, *arguments = commands.recv()
            threading.Thread(
                target=_COMMANDS[name], args=(engine, commands, log.lines, *arguments), daemon=True
            ).start()
    os._exit(0)


def _ask(engine: Engine, commands: Connection, log: list[str], rows: int, stage: int) -> None:
    begin = time.monotonic()
    texts = [f"{os.getpid()} row {row}" for row in range(rows)]
    chunks = engine.stream(CHAT, iter([texts]), StreamJob(stage=stage))
    results = [result for chunk in chunks for result in chunk if result is not None]
    errors: list[str] = [result.error.kind for result in results if result.error is not None]
    requests = sum(result.requests for result in results)
    commands.send(Report(len(results) - len(errors), errors, round(requests), time.monotonic() - begin, log))


def _hold_gil(engine: Engine, commands: Connection, log: list[str], seconds: int) -> None:
    ctypes.PyDLL(None).sleep(seconds)


def _fork(engine: Engine, commands: Connection, log: list[str], seconds: float) -> None:
    """Fork a process that lives on; say what it has of its parent's sockets."""
    if pid := os.fork():
        commands.send(pid)
        return
    time.sleep(seconds)
    os._exit(0)


def _close(engine: Engine, commands: Connection, log: list[str]) -> None:
    engine.close()
    commands.send(log)


def _count(engine: Engine, commands: Connection, log: list[str]) -> None:
    commands.send(
        ([thread.name for thread in threading.enumerate()], sorted(str(path.readlink()) for path in _open_files()))
    )


def _open_files() -> list[Path]:
    return [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]


_COMMANDS: dict[str, Callable[..., None]] = {
    "ask": _ask,
    "close": _close,
    "count": _count,
    "fork": _fork,
    "hold_gil": _hold_gil,
}


class _Log(logging.Handler):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
