"""Batches: create, list, get, cancel."""

from aiohttp import web

from spark_llm.serving.batches.file_store import MONTH_S
from spark_llm.serving.batches.job import BatchJob
from spark_llm.serving.batches.worker import BatchWorker
from spark_llm.serving.http.files import FileHandlers, json_response
from spark_llm.serving.http.invocations import read_body
from spark_llm.serving.http.responses import PendingResponse
from spark_llm.serving.models.tasks import TASKS
from spark_llm.serving.protocol.batch_requests import batch_not_found, cannot_cancel, list_document, read_creation
from spark_llm.serving.protocol.errors import Dialect, Refused
from spark_llm.serving.protocol.requests import parse_object

DEFAULT_LISTED, MAX_LISTED = 20, 100

_OPENAI = {f"/v1/{task.path}": task for task in TASKS if task.path}
_AZURE = {**_OPENAI, **{f"/{task.path}": task for task in TASKS if task.path}}


class BatchHandlers:
    """The handlers of batches."""

    def __init__(self, worker: BatchWorker, files: FileHandlers) -> None:
        """Handle the batches of `worker`; `files` has the files of their requests."""
        self._worker = worker
        self._files = files

    async def create(self, request: web.Request, dialect: Dialect) -> PendingResponse:
        """Create a batch, and return its object; the same `Idempotency-Key` returns the batch of its first request."""
        tasks = _AZURE if dialect == "azure" else _OPENAI
        creation = read_creation(parse_object(await read_body(request)), list(tasks))
        file = self._files.visible(creation.input_file_id, "input_file_id")
        if file.purpose != "batch":
            message = f"Invalid value: '{file.purpose}'. The purpose of the input file must be 'batch'."
            raise Refused.bad_request(message, param="input_file_id", code="invalid_value")
        expiry = creation.output_expires_after_s
        job = self._worker.create(
            file,
            creation.endpoint,
            tasks[creation.endpoint],
            is_azure=dialect == "azure",
            metadata=creation.metadata,
            output_expires_after_s=MONTH_S if expiry is None else expiry,
            key=request.headers.get("Idempotency-Key"),
        )
        return json_response(job.document())

    async def list(self, request: web.Request, _dialect: Dialect) -> PendingResponse:
        """Return a page of the batches, newest first."""
        jobs = list(reversed(self._worker.jobs.values()))
        return json_response(list_document(jobs, request.query, default=DEFAULT_LISTED, maximum=MAX_LISTED))

    async def get(self, request: web.Request, _dialect: Dialect) -> PendingResponse:
        """Return the object of a batch."""
        return json_response(self._find(request).document())

    async def cancel(self, request: web.Request, _dialect: Dialect) -> PendingResponse:
        """Cancel a batch; one that was cancelled before stays as it is."""
        job = self._find(request)
        if job.status in ("completed", "failed", "expired"):
            raise cannot_cancel(job.status)
        if not job.has_ended:
            self._worker.cancel(job)
        return json_response(job.document())

    def _find(self, request: web.Request) -> BatchJob:
        job = self._worker.jobs.get(request.match_info["id"])
        if job is None:
            raise batch_not_found(request.match_info["id"])
        return job
