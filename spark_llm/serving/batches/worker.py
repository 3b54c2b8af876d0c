"""Works off batches, each in a task on the endpoints' event loop.

A batch is read, checked and answered in short slices, so that other requests are served meanwhile. Its state is kept
when the server stops, and its work goes on when the server starts again.
"""

import asyncio
import contextlib
import logging
import mmap
import random
import secrets
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import BinaryIO, Literal, NamedTuple

import msgspec

from spark_llm.serving.batches.file_store import MONTH_S, FileStore, StoredFile
from spark_llm.serving.batches.input_lines import BatchError, InputCheck, read_line
from spark_llm.serving.batches.job import BatchJob
from spark_llm.serving.models.tasks import Task
from spark_llm.serving.protocol.values import Usage
from spark_llm.serving.scenario.batches import Batches

SLICE_S = 0.005  # of work, before other requests have their turn
BURST_S = 0.1  # that a batch with a speed may catch up
MAX_BYTES = 200 * 2**20  # of an input file
BUFFER_BYTES = 2**20
BYTES_A_TOKEN = 4  # of an input file, for the quota of enqueued tokens

_EXPIRED = (
    b'null,"error":{"code":"batch_expired","message":'
    b'"This request could not be executed before the completion window expired."}'
)
_logger = logging.getLogger(__name__)


class LineAnswer(NamedTuple):
    """The response to one request of a batch."""

    status: int
    request_id: str
    body: bytes
    usage: Usage | None


class BatchWorker:
    """All batches, oldest first; used on one event loop only.

    Attributes:
        store: The files.
        script: The speed and the faults.
        jobs: The batches, by their ids.
        answered: How often each `custom_id` was answered.
    """

    def __init__(
        self,
        store: FileStore,
        answer: Callable[[BatchJob, bytes], Awaitable[LineAnswer]],
        is_served: Callable[[str], bool],
        script: Batches,
    ) -> None:
        """Work with these files; `answer` answers the body of a request, `is_served` knows the names of models."""
        self.store = store
        self.script = script
        self.jobs: dict[str, BatchJob] = {}
        self.answered: Counter[str] = Counter()
        self._answer = answer
        self._is_served = is_served
        self._count = 0
        self._keys: dict[str, BatchJob] = {}
        self._changes: dict[str, asyncio.Event] = {}
        self._released: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def set_script(self, script: Batches) -> None:
        """Set the script; batches count from 0 again."""
        self.script = script
        self._count = 0

    def resume(self) -> None:
        """Go on with every batch that has not ended, on a new event loop."""
        for job in self.jobs.values():
            if not job.has_ended:
                self._start(job)

    def clear(self) -> None:
        """Forget all batches, and delete all files."""
        self.jobs.clear()
        self._keys.clear()
        self.store.clear()

    def create(
        self,
        file: StoredFile,
        endpoint: str,
        task: Task,
        *,
        is_azure: bool = False,
        metadata: Mapping[str, str] | None = None,
        output_expires_after_s: int = MONTH_S,
        key: str | None = None,
    ) -> BatchJob:
        """Start a batch and return it; with a `key` that was used before, return the batch of then."""
        if key is not None and key in self._keys:
            return self._keys[key]
        job = BatchJob(
            id=f"batch_{secrets.token_hex(16)}",
            number=self._count,
            endpoint=endpoint,
            task=task,
            is_azure=is_azure,
            input_file_id=file.id,
            input_path=file.path,
            metadata=None if metadata is None else dict(metadata),
            output_expires_after_s=output_expires_after_s,
            created_at=time.time(),
            plan=self.script,
        )
        self._count += 1
        self.jobs[job.id] = job
        if key is not None:
            self._keys[key] = job
        self._start(job)
        return job

    def cancel(self, job: BatchJob) -> None:
        """Cancel a batch that has not ended; what was answered by then stays."""
        if job.status != "cancelling":
            job.set_status("cancelling", time.time())
            self._changes[job.id].set()

    def release(self) -> None:
        """Let every batch that stalls go on."""
        for job in self.jobs.values():
            if not job.has_ended:
                self._released.add(job.id)
                self._changes[job.id].set()

    def _start(self, job: BatchJob) -> None:
        self._changes[job.id] = asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, job: BatchJob) -> None:
        try:
            if job.status == "validating":
                await self._pause(job, job.created_at + job.plan.start_after_s - time.time())
            if job.status == "validating" and not await self._validate(job):
                job.set_status("failed", time.time())
                return
            if job.status == "in_progress":
                await self._answer_lines(job)
            self._end(job)
        except Exception:
            _logger.exception("A batch failed")
            job.errors = [BatchError("server_error", "The server had an error while processing the batch.")]
            job.set_status("failed", time.time())
        finally:
            if job.has_ended:
                del self._changes[job.id]

    async def _pause(self, job: BatchJob, seconds: float | None) -> None:
        """Wait until the time has passed, or until the batch is cancelled or released."""
        if seconds is None or seconds > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changes[job.id].wait(), seconds)
                self._changes[job.id].clear()

    async def _validate(self, job: BatchJob) -> bool:
        """Read the input file; return whether the batch can begin, or was cancelled meanwhile."""
        check = InputCheck(job.endpoint, self._is_served, job.plan.max_requests, job.is_azure)
        size = job.input_path.stat().st_size
        if size > MAX_BYTES:
            message = (
                f"The batch input file is larger than the {MAX_BYTES} maximum. Please try again with a smaller batch."
            )
            job.errors = [BatchError("file_too_large", message)]
            return False
        with job.input_path.open("rb") as file:
            slice_end, start = time.perf_counter() + SLICE_S, 0
            for raw in file:
                check.add(raw, start)
                start += len(raw)
                if check.is_over:
                    break
                if time.perf_counter() > slice_end:
                    await asyncio.sleep(0)
                    slice_end = time.perf_counter() + SLICE_S
        if job.status != "validating":
            return True
        job.errors = self._scripted_errors(job) or check.end() or self._quota_errors(check.model or "", size)
        if job.errors:
            return False
        order = list(check.starts)
        random.Random(f"{job.plan.seed}:{job.number}").shuffle(order)
        job.model = check.model
        job.lines = array("Q", order)
        job.enqueued_tokens = _tokens(size)
        job.set_status("in_progress", time.time())
        return True

    def _scripted_errors(self, job: BatchJob) -> list[BatchError]:
        failure = job.plan.failure(job.number)
        return [] if failure is None else [BatchError(failure[0], "The script fails this batch.", None, failure[1])]

    def _quota_errors(self, model: str, size: int) -> list[BatchError]:
        limit = self.script.enqueued_tokens
        running = (each for each in self.jobs.values() if each.model == model and not each.has_ended)
        if limit is None or sum(each.enqueued_tokens for each in running) + _tokens(size) <= limit:
            return []
        message = (
            f"Enqueued token limit reached for {model} in organization org-local. Limit: {limit:,} enqueued tokens. "
            "Please try again once some in_progress batches have been completed."
        )
        return [BatchError("token_limit_exceeded", message)]

    async def _answer_lines(self, job: BatchJob) -> None:
        """Answer the requests until all are answered, or the batch expires or is cancelled."""
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(job.input_path.open("rb"))
            data = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            outputs = {kind: stack.enter_context(self._open(job, kind)) for kind in ("output", "error")}
            due, slice_end = time.monotonic(), time.perf_counter() + SLICE_S
            while job.position < len(job.lines) and job.status == "in_progress":
                if job.position == job.plan.stall_after.get(job.number) and job.id not in self._released:
                    await self._pause(job, None)
                    continue
                if job.position == job.plan.expire_after.get(job.number):
                    self._expire(job, data, outputs["error"])
                    return
                if (rate := self.script.requests_per_s) is not None:
                    now = time.monotonic()
                    due = max(due, now - BURST_S)
                    if due > now:
                        await self._pause(job, due - now)
                        continue
                    due += 1 / rate
                data.seek(job.lines[job.position])
                await self._answer_line(job, data.readline(), outputs)
                if time.perf_counter() > slice_end:
                    await asyncio.sleep(0)
                    slice_end = time.perf_counter() + SLICE_S

    async def _answer_line(self, job: BatchJob, raw: bytes, outputs: Mapping[str, BinaryIO]) -> None:
        line = read_line(raw)
        answer = await self._answer(job, bytes(line.body))
        request_id, is_error = answer.request_id.encode(), answer.status >= 400
        if not job.loses_lines:
            outputs["error" if is_error else "output"].write(
                b'{"id":"batch_req_%s","custom_id":%s,"response":{"status_code":%d,"request_id":"%s","body":%s},'
                b'"error":null}\n'
                % (request_id, msgspec.json.encode(line.custom_id), answer.status, request_id, answer.body)
            )
        job.position += 1
        job.completed += not is_error
        job.failed += is_error
        job.add_usage(answer.usage)
        self.answered[line.custom_id] += 1

    def _expire(self, job: BatchJob, data: mmap.mmap, output: BinaryIO) -> None:
        for start in job.lines[job.position :]:
            data.seek(start)
            custom_id = msgspec.json.encode(read_line(data.readline()).custom_id)
            request_id = secrets.token_hex(12).encode()
            if not job.loses_lines:
                output.write(
                    b'{"id":"batch_req_%s","custom_id":%s,"response":%s}\n' % (request_id, custom_id, _EXPIRED)
                )
            job.failed += 1
        job.is_expired = True

    @contextlib.contextmanager
    def _open(self, job: BatchJob, kind: Literal["output", "error"]) -> Iterator[BinaryIO]:
        path = job.paths.setdefault(kind, self.store.new_path())
        with path.open("ab", BUFFER_BYTES) as file:
            yield file

    def _end(self, job: BatchJob) -> None:
        """Keep the files that are not empty, and go to the last state."""
        is_cancelled = job.status == "cancelling"
        if not is_cancelled:
            job.set_status("finalizing", time.time())
        for kind, path in job.paths.items():
            if path.stat().st_size:
                name = f"{job.id}_{kind}.jsonl"
                job.file_ids[kind] = self.store.add(path, name, "batch_output", job.output_expires_after_s).id
            else:
                path.unlink()
        job.set_status("cancelled" if is_cancelled else "expired" if job.is_expired else "completed", time.time())


def _tokens(size: int) -> int:
    return -(-size // BYTES_A_TOKEN)
