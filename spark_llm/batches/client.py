"""The Batch API of a route, for the driver and for tasks: each call blocks, and is tried again as a request is."""

import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from spark_llm.batches.calls import BatchRequestError, Calls
from spark_llm.batches.settings import Batch
from spark_llm.endpoint.client import BlockingClient
from spark_llm.endpoint.route import Route
from spark_llm.errors import ConfigError
from spark_llm.flow.retry import Attempts
from spark_llm.policy import Policy
from spark_llm.protocol.batches.objects import (
    KEY,
    BatchPage,
    BatchState,
    FilePage,
    read_batch,
    read_batches,
    read_file,
    read_files,
)
from spark_llm.protocol.batches.urls import NO_BATCHES_HINT, batch_urls
from spark_llm.protocol.json_codec import NotJSONError, read_json, write_json
from spark_llm.protocol.masking import readable_excerpt
from spark_llm.protocol.values import Failure, Response
from spark_llm.transport.form import FileForm

IDLE_S = 300.0  # the longest pause of an upload or a download, and of a server that reads a whole file
_LOOK_AFTER_S = 1.0  # at least, before a batch whose creation is unclear is looked for
_NO_API_STATUSES = (404, 405, 501)
_UNCLEAR_STATUSES = (408, 409, 424, 425, 499)  # of gateways: the request may have gone through them
_TAIL_BYTES = 2**16
_MAX_PAGE_BYTES = 20_000
T = TypeVar("T")
Page = TypeVar("Page", BatchPage, FilePage)


class BatchClient:
    """The files and batches beside a route. It is built where it is used: a `Route` travels, a client does not.

    Every call raises `BatchRequestError` where the server refuses it for good, or when the policy's limits are spent.

    Attributes:
        settings: The limits of a file, and the window of a batch.
        urls: The addresses of the API, and the URL that lines name.
    """

    def __init__(
        self,
        route: Route,
        settings: Batch,
        policy: Policy = Policy(),
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """Send nothing yet. Raises `ConfigError` for a route that has no Batch API beside it.

        The policy has the time-out of each request and the limits of further attempts; `now`, `sleep` and `dice` are
        the clock and the random draws of the waits between them.
        """
        self.urls = batch_urls(route.url)
        self.settings = settings
        self._route = route
        self._timeout_s = policy.attempt_s
        self._client = BlockingClient(route)
        self._calls = Calls(self._client, policy, now, sleep, dice)

    def check(self) -> None:
        """Ask for one batch; raise `ConfigError` where the server has no Batch API, or none for this key."""
        url = self.urls.batches_page(limit=1)
        try:
            problem = self._calls.call(self._request("GET", url), _no_list, url)
        except BatchRequestError as failed:
            if failed.error.kind == "unauthorized":
                raise ConfigError(failed.what, failed.hint) from None
            if failed.error.status not in _NO_API_STATUSES:
                raise
            problem = f"{failed.error.status} {failed.error.what}"
        if problem:
            raise ConfigError(f"{self._route.shown} has no Batch API ({problem.rstrip('. ')}).", NO_BATCHES_HINT)

    def upload(self, path: str, name: str) -> str:
        """Upload a file of lines under a name, and return its id. A failed attempt may leave a file of that name."""
        form = FileForm({"purpose": "batch"}, path, name, boundary=uuid.uuid4().hex)
        upload = partial(self._client.upload, self.urls.files, form, IDLE_S)
        return self._calls.call(upload, _reader(read_file), self.urls.files).id

    def create(self, file_id: str, key: str, *, endpoint: str | None = None) -> BatchState:
        """Create the batch of a file and return it; never a second one with the same key.

        After an attempt whose outcome is unclear, the batch is looked for by its key, or by its file where the server
        keeps no metadata, and created only where there is none. A file that is not there yet is waited for.

        Args:
            file_id: The file of its lines.
            key: A key of this batch alone, in its metadata and in the header `Idempotency-Key`.
            endpoint: The route that its lines name, where that is not the client's own.

        Raises `BatchRequestError`; its `unclear` says that the batch may be there nevertheless.
        """
        url, fields = self.urls.batches, {"input_file_id": file_id, "endpoint": endpoint or self.urls.endpoint}
        body = write_json({**fields, "completion_window": self.settings.window, "metadata": {KEY: key}})
        send = partial(self._client.send, "POST", url, body, self._timeout_s, {"Idempotency-Key": key})
        attempts, unclear = Attempts(), False
        while True:
            if unclear and (found := self._find(file_id, key)) is not None:
                return found
            outcome = self._calls.attempt(send, _reader(read_batch))
            if not isinstance(outcome, Failure):
                return outcome
            unclear = unclear or _may_have_arrived(outcome)
            try:
                least_s = _LOOK_AFTER_S if unclear else 0.0
                self._calls.wait(outcome, attempts, url, may_be_missing=True, least_s=least_s)
            except BatchRequestError as failed:
                failed.unclear = unclear
                if unclear:
                    with suppress(BatchRequestError):
                        if (found := self._find(file_id, key)) is not None:
                            return found
                raise

    def _find(self, file_id: str, key: str) -> BatchState | None:
        """Return the batch with this key, or else one of this file without any key; None where there is none.

        An earlier batch of the file, which found no room, is another one.
        """
        of_file = None
        try:
            for batch in self.list():
                if batch.key == key:
                    return batch
                if batch.input_file_id == file_id and batch.key is None and not batch.is_quota:
                    of_file = of_file or batch
        except BatchRequestError as failed:
            failed.unclear = True
            raise
        return of_file

    def get(self, batch_id: str) -> BatchState | None:
        """Return a batch as it is now; None where it is gone, and did not appear in a moment either."""
        url = self.urls.batch(batch_id)
        try:
            return self._calls.call(self._request("GET", url), _reader(read_batch), url, may_be_missing=True)
        except BatchRequestError as failed:
            if failed.error.status != 404:
                raise
            return None

    def list(self) -> Iterator[BatchState]:
        """Yield every batch, the newest first as a rule."""
        for page in self._pages(self.urls.batches_page, _reader(read_batches)):
            yield from page.batches

    def cancel(self, batch_id: str) -> BatchState:
        """Cancel a batch, and return it; one that has ended already is returned as it is."""
        url = self.urls.cancel(batch_id)
        try:
            return self._calls.call(self._request("POST", url), _reader(read_batch), url)
        except BatchRequestError:
            batch = self.get(batch_id)
            if batch is not None and (batch.ended or batch.status == "cancelling"):
                return batch
            raise

    def download(self, file_id: str, path: str) -> None:
        """Write the lines of a file to a path, in constant memory.

        A file whose last line is not whole is fetched again, whatever length the server told: replies cost money.
        Raises `OSError` where the file cannot be written.
        """
        url = self.urls.content(file_id)
        download = partial(self._client.download, url, path, IDLE_S)
        self._calls.call(download, lambda _: _ends_whole(Path(path)) or None, url, may_be_missing=True)

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield the id and the name of every input file of batches."""
        for page in self._pages(self.urls.files_page, _reader(read_files)):
            yield from ((file.id, file.name) for file in page.files)

    def delete(self, file_id: str) -> None:
        """Delete a file; one that is gone already is fine."""
        url = self.urls.file(file_id)
        try:
            self._calls.call(self._request("DELETE", url), lambda _: True, url)
        except BatchRequestError as failed:
            if failed.error.kind != "not_found":
                raise

    def _request(self, method: str, url: str) -> Callable[[], Response]:
        return partial(self._client.send, method, url, None, self._timeout_s)

    def _pages(self, page_url: Callable[[str | None], str], read: Callable[[Response], Page | None]) -> Iterator[Page]:
        """Yield every page of a list, up to one that ends where an earlier one did."""
        after: str | None = None
        seen = set[str | None]([None])
        while True:
            url = page_url(after)
            page = self._calls.call(self._request("GET", url), read, url)
            yield page
            after = page.last_id
            if not page.has_more or after in seen:
                return
            seen.add(after)


def _reader(read: "Callable[[bytes], T | None]") -> "Callable[[Response], T | None]":
    """Return a function that reads the body of a response."""
    return lambda response: read(response.body)


def _no_list(response: Response) -> str:
    """Return what a successful answer is instead of a list of batches; empty where it is one."""
    if read_batches(response.body) is not None:
        return ""
    page = response.body[:_MAX_PAGE_BYTES].decode("utf-8", "replace")
    return f"the answer is not a list: {readable_excerpt(page, secrets=response.secrets)}"


def _ends_whole(path: Path) -> bool:
    """Return whether the last line of a file, if it has any, is a JSON document."""
    end = path.stat().st_size
    tail = b""
    with path.open("rb") as file:
        while end > 0 and b"\n" not in tail.rstrip():
            start = max(0, end - max(_TAIL_BYTES, len(tail)))  # twice as much each time
            file.seek(start)
            tail, end = file.read(end - start) + tail, start
    line = tail.rstrip().rpartition(b"\n")[2]
    try:
        return not line or read_json(line) is not None
    except NotJSONError:
        return False


def _may_have_arrived(failure: Failure) -> bool:
    """Return whether the server may have carried out a request that failed so."""
    status = failure.error.status
    if failure.never_sent:
        return False
    return status is None or status < 300 or status >= 500 or status in _UNCLEAR_STATUSES
