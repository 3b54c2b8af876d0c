"""Files: upload, list, get, download, delete. A file goes to the disk in pieces, and comes from there in pieces."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.multipart import BodyPartReader

from spark_llm.serving.batches.file_store import MONTH_S, StoredFile
from spark_llm.serving.batches.worker import BatchWorker
from spark_llm.serving.http.responses import PendingResponse, send_headers
from spark_llm.serving.protocol.batch_requests import (
    ORDERS,
    PURPOSES,
    file_not_found,
    list_document,
    read_expiry,
)
from spark_llm.serving.protocol.errors import Dialect, ErrorResponse, Refused, unknown_value
from spark_llm.serving.protocol.responses_request import missing

MAX_LISTED = 10_000
MAX_UPLOAD_BYTES = 512 * 2**20
PIECE_BYTES = 2**18
OCTETS = "application/octet-stream"

_FORM_ERRORS = (ValueError, LookupError, RuntimeError, AssertionError, web.RequestPayloadError)
_TOO_LARGE = ErrorResponse(
    413, "REQUEST_ENTITY_TOO_LARGE", f"The file is larger than the {MAX_UPLOAD_BYTES} bytes that are allowed."
)


class FileHandlers:
    """The handlers of files."""

    def __init__(self, worker: BatchWorker) -> None:
        """Handle the files of `worker`."""
        self._worker = worker
        self._store = worker.store

    async def upload(self, request: web.Request, _dialect: Dialect) -> PendingResponse:
        """Keep the uploaded file, and return its object."""
        path = self._store.new_path()
        try:
            filename, purpose, expires_after_s = _read_upload(*await _read_form(request, path))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return json_response(self._store.add(path, filename, purpose, expires_after_s).document())

    async def list(self, request: web.Request, _dialect: Dialect) -> PendingResponse:
        """Return a page of the files, newest first unless the request says otherwise."""
        order, purpose = request.query.get("order", "desc"), request.query.get("purpose")
        if order not in ORDERS:
            raise unknown_value(order, ORDERS, "order")
        files = [file for file in self._store.all() if purpose in (None, file.purpose) and not self._is_hidden(file)]
        if order == "desc":
            files.reverse()
        return json_response(list_document(files, request.query, default=MAX_LISTED, maximum=MAX_LISTED))

    async def get(self, request: web.Request, _dialect: Dialect) -> PendingResponse:
        """Return the object of a file."""
        return json_response(self.visible(request.match_info["id"]).document())

    async def delete(self, request: web.Request, _dialect: Dialect) -> PendingResponse:
        """Delete a file."""
        file = self.visible(request.match_info["id"])
        self._store.remove(file.id)
        return json_response({"id": file.id, "object": "file", "deleted": True})

    def visible(self, file_id: str, param: str = "id") -> StoredFile:
        """Return a file; raises `Refused` for one that does not exist, or not yet."""
        file = self._store.find(file_id)
        if file is None:
            raise file_not_found(file_id, param)
        is_hidden = self._is_hidden(file)
        file.requests += 1
        if is_hidden:
            raise file_not_found(file_id, param)
        return file

    def _is_hidden(self, file: StoredFile) -> bool:
        visible = self._worker.script.file_visible
        elapsed_s = time.time() - file.created_at
        return (
            visible is not None
            and file.purpose == "batch"
            and not visible.reached(elapsed_s=elapsed_s, requests=file.requests)
        )


def json_response(document: dict[str, Any]) -> PendingResponse:
    """Return a document as a response."""
    return PendingResponse(msgspec.json.encode(document))


async def send_file(request: web.Request, file: StoredFile, fault: str, request_id: str) -> web.StreamResponse:
    """Send a file; half of it for the fault "cut", which breaks the connection, and for "half", which does not."""
    disposition = 'attachment; filename="{}"'.format(file.filename.translate({34: "_", 92: "_", 10: "_", 13: "_"}))
    left = file.bytes // 2 if fault in ("cut", "half") else file.bytes
    headers = {"Content-Disposition": disposition} if disposition.isascii() else {}
    head = PendingResponse(b"", content_type=OCTETS, headers=headers)
    with file.path.open("rb") as data, contextlib.suppress(ConnectionResetError):
        response = await send_headers(request, head, request_id, length=left if fault == "half" else file.bytes)
        while left > 0 and (piece := data.read(min(left, PIECE_BYTES))):
            await response.write(piece)
            left -= len(piece)
        if fault == "cut" and request.transport is not None:
            request.transport.close()
    return response


async def _read_form(request: web.Request, path: Path) -> tuple[dict[str, str], str | None]:
    """Write the uploaded file to `path`; return the other fields and its name. Raises `Refused` for a wrong form."""
    fields: dict[str, str] = {}
    filename = None
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if not isinstance(part, BodyPartReader):
                await part.release()
            elif part.name == "file":
                filename = part.filename or "upload"
                await _write(part, path)
            else:
                fields[part.name or ""] = bytes(await part.read()).decode("utf-8", "replace")
    except web.HTTPRequestEntityTooLarge:
        raise Refused(_TOO_LARGE) from None
    except Exception as error:
        # aiohttp's own errors of a part's headers have no public name.
        if isinstance(error, _FORM_ERRORS) or type(error).__module__ == "aiohttp.http_exceptions":
            raise Refused.bad_request(f"We could not parse your multipart form data: {error}.") from None
        raise
    return fields, filename


async def _write(part: BodyPartReader, path: Path) -> None:
    with path.open("wb") as file:
        while piece := await part.read_chunk(PIECE_BYTES):
            file.write(piece)
            if file.tell() > MAX_UPLOAD_BYTES:
                raise Refused(_TOO_LARGE)


def _read_upload(fields: Mapping[str, str], filename: str | None) -> tuple[str, str, int | None]:
    """Return the name of an uploaded file, its purpose, and the seconds that it stays; raises `Refused`."""
    if "purpose" not in fields:
        raise missing("purpose")
    if filename is None:
        raise missing("file")
    purpose = fields["purpose"]
    if purpose not in PURPOSES:
        raise unknown_value(purpose, PURPOSES, "purpose")
    expiry = {name: fields[key] for name in ("anchor", "seconds") if (key := f"expires_after[{name}]") in fields}
    if expiry:
        return filename, purpose, read_expiry(expiry, "expires_after")
    return filename, purpose, MONTH_S if purpose == "batch" else None
