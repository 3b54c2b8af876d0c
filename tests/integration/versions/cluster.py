"""A real cluster on this machine: Spark's own master and two workers, and jobs that are submitted to it."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from spark_llm.coordination.place import FOLDER_VARIABLE
from tests.integration.clients.program import Program
from tests.integration.kills.driver import Driver
from tests.integration.versions.environments import SparkEnvironment

WORKERS = 2
_JOB_S = 300


class JobFailedError(Exception):
    """A job ended without an answer."""


class Job:
    """A job that runs on a cluster: a driver of its own, told what to do in one line, and heard in another."""

    def __init__(
        self, python: Path, environment: Mapping[str, str], told: Mapping[str, object], log: Path, folder: Path
    ) -> None:
        """Start the driver."""
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [str(python), "-m", "tests.integration.versions.jobs", json.dumps(told)],
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )

    def answer(self) -> Any:  # noqa: ANN401 -- what JSON holds
        """Wait for the end of the job, and return what it answered."""
        try:
            said, _ = self._process.communicate(timeout=_JOB_S)
        except subprocess.TimeoutExpired:
            self.stop()
            raise
        if self._process.returncode or not said:
            raise JobFailedError(self._log.read_text(encoding="utf-8", errors="replace")[-5_000:])
        return json.loads(said.splitlines()[-1])

    def stop(self) -> None:
        """End the driver, if it has not ended."""
        self._process.kill()
        self._process.communicate()


class Cluster:
    """A master and two workers with a core and a gigabyte each, on loopback, each a host of its own."""

    def __init__(self, environment: SparkEnvironment, folder: Path) -> None:
        """Describe the cluster; `folder` is its home, and has its logs."""
        self._environment = environment
        self._folder = folder
        self._programs = ExitStack()
        self._workers: list[str] = []  # as they name themselves
        self._jobs = 0
        self.url = ""

    def __enter__(self) -> "Cluster":  # noqa: PYI034 -- typing.Self came with Python 3.11
        with ExitStack() as stack:
            self._programs = stack
            master = stack.enter_context(self._daemon("master.Master", r"Starting Spark master at (spark://\S+)"))
            self.url = master.matches[0][1]
            limits = ("--cores", "1", "--memory", "1g")
            for number in range(WORKERS):
                place = ("--work-dir", str(self._folder / f"worker-{number}"), self.url)
                host = {FOLDER_VARIABLE: self._limits_folder(number)}
                says = (r"Starting Spark worker (127\.0\.0\.1:\d+)", "Successfully registered with master")
                worker = stack.enter_context(self._daemon("worker.Worker", *says, arguments=(*limits, *place), **host))
                self._workers.append(worker.matches[0][1])
            self._programs = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._programs.close()

    def start(self, **told: object) -> Job:
        """Start a job, which `tests.integration.versions.jobs` knows how to do."""
        self._jobs += 1
        job = Job(
            self._environment.python(),
            self._surroundings(),
            {"master": self.url, "cores": WORKERS, **told},
            self._folder / f"job-{self._jobs}.log",
            self._folder,
        )
        self._programs.callback(job.stop)
        return job

    def drive(self, **told: object) -> Driver:
        """Start a job that a test listens to while it runs, and ends: use it as a context manager."""
        command = [str(self._environment.python()), "-m", "tests.integration.versions.jobs"]
        command.append(json.dumps({"master": self.url, "cores": WORKERS, **told}))
        return Driver(command, self._folder, self._surroundings())

    def kill_executor(self) -> None:
        """Kill the executor that the first worker runs for the last job, as a machine kills one: without a word."""
        listed = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True)  # noqa: S607 -- Spark's own scripts want it on the PATH too
        pattern = (
            rf"^ *(\d+) .*CoarseGrainedExecutorBackend .*--app-id (\S+) .*Worker@{re.escape(self._workers[0])}(?!\d)"
        )
        executors = re.findall(pattern, listed.stdout, re.MULTILINE)  # an earlier job's may be about to end
        number, _ = max(executors, key=lambda executor: str(executor[1]))
        os.kill(int(number), signal.SIGKILL)

    def _limits_folder(self, number: int) -> str:
        """Return a folder of its own for a worker's executors, so that they share their limits as one host."""
        folder = Path(tempfile.mkdtemp(prefix=f"host-{number}-", dir="/tmp"))  # short enough for a socket
        self._programs.callback(shutil.rmtree, folder)
        return str(folder)

    def _daemon(self, name: str, *ready: str, arguments: tuple[str, ...] = (), **own: str) -> Program:
        command = [str(self._environment.spark_home() / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}"]
        command += ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0", *arguments]
        return Program(command, ready=ready, folder=self._folder, environment={**self._surroundings(), **own})

    def _surroundings(self) -> dict[str, str]:
        options = "-Dspark.master.rest.enabled=false"  # it would take a port of its own, the same every time
        return self._environment.surroundings(self._folder, SPARK_DAEMON_JAVA_OPTS=options)
