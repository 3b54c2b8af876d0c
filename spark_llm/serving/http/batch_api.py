"""The routes of the Batch API, at OpenAI's base and at Azure's two, each behind its token and the script of faults."""

import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from aiohttp import web

from spark_llm.serving.auth.tokens import TokenStore
from spark_llm.serving.batches.worker import BatchWorker
from spark_llm.serving.http.batches import BatchHandlers
from spark_llm.serving.http.files import FileHandlers, send_file
from spark_llm.serving.http.invocations import presented_token
from spark_llm.serving.http.responses import (
    CORRUPTING_FAULTS,
    REPLACING_FAULTS,
    PendingResponse,
    drip,
    error_response,
    send,
)
from spark_llm.serving.protocol.errors import AZURE_NOT_FOUND, Dialect, Refused, route_not_found
from spark_llm.serving.scenario.batches import Batches
from spark_llm.serving.scenario.faults import Fault, Faults


class Base(NamedTuple):
    """The path before `/files` and `/batches`; `needs_version` is Azure's older one."""

    path: str
    dialect: Dialect
    needs_version: bool = False


BASES = (Base("/v1", "openai"), Base("/openai/v1", "azure"), Base("/openai", "azure", needs_version=True))


class BatchApi:
    """Serves files and batches; used on one event loop only."""

    def __init__(self, tokens: TokenStore, worker: BatchWorker) -> None:
        """Serve the files and batches of `worker`."""
        self._tokens = tokens
        self._worker = worker
        self._files = FileHandlers(worker)
        self._batches = BatchHandlers(worker, self._files)
        self._numbers: Counter[str] = Counter()

    def set_script(self, script: Batches) -> None:
        """Set the speed and the faults; requests and batches count from 0 again."""
        self._worker.set_script(script)
        self._numbers.clear()

    def routes(self) -> list[tuple[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]]]:
        """Return the methods, the paths and their handlers."""
        files, batches = self._files, self._batches
        table = (
            ("POST", "/files", "on_upload", files.upload),
            ("GET", "/files", "on_read", files.list),
            ("GET", "/files/{id}", "on_read", files.get),
            ("GET", "/files/{id}/content", "on_download", files.get),
            ("DELETE", "/files/{id}", "on_delete", files.delete),
            ("POST", "/batches", "on_create", batches.create),
            ("GET", "/batches", "on_read", batches.list),
            ("GET", "/batches/{id}", "on_read", batches.get),
            ("POST", "/batches/{id}/cancel", "on_cancel", batches.cancel),
        )
        return [
            (method, base.path + path, partial(self._serve, base=base, faults=faults, handler=handler))
            for base in BASES
            for method, path, faults, handler in table
        ]

    async def _serve(
        self,
        request: web.Request,
        *,
        base: Base,
        faults: str,
        handler: Callable[[web.Request, Dialect], Awaitable[PendingResponse]],
    ) -> web.StreamResponse:
        """Return the response to a request: that of `handler`, or the fault of its number."""
        dialect, request_id = base.dialect, secrets.token_hex(12)
        try:
            fault = await self._admit(request, base, faults)
            if faults == "on_download" and fault.kind not in REPLACING_FAULTS:
                return await send_file(request, self._files.visible(request.match_info["id"]), fault.kind, request_id)
            response = await handler(request, dialect)
            if fault.kind in REPLACING_FAULTS:
                response = await REPLACING_FAULTS[fault.kind](dialect)
            elif fault.kind in CORRUPTING_FAULTS:
                response = CORRUPTING_FAULTS[fault.kind](response)
            elif fault.kind == "drip":
                response = await drip(request, response, request_id, self._script_of(faults).drip_s)
        except Refused as refused:
            response = error_response(refused, dialect)
        return await send(request, response, request_id)

    async def _admit(self, request: web.Request, base: Base, faults: str) -> Fault:
        """Return the fault of a request that is let in; raises `Refused` for any other."""
        if not self._worker.script.enabled:
            raise Refused(route_not_found(request.method, request.path))
        self._authorize(request, base)
        fault = self._script_of(faults).at(self._numbers[faults])
        self._numbers[faults] += 1
        if fault.refusal is not None:
            async for _ in request.content.iter_any():  # so that its sender reads the response
                pass
            raise Refused(fault.refusal, retry_after=fault.retry_after)
        return fault

    def _script_of(self, faults: str) -> Faults:
        script: Faults = getattr(self._worker.script, faults)
        return script

    def _authorize(self, request: web.Request, base: Base) -> None:
        """Raise `Refused` unless the request brings a token of the workspace, and the version that its path needs."""
        refusal = self._tokens.authorize(presented_token(request, base.dialect), time.monotonic())
        if refusal is not None:
            raise Refused(refusal)
        if base.needs_version and not request.query.get("api-version"):
            raise Refused(AZURE_NOT_FOUND)
