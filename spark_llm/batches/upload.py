"""Uploads the requests of a task as files of lines, each as large as a batch may be. No request stays in memory."""

import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from spark_llm.batches.client import BatchClient
from spark_llm.batches.settings import Batch
from spark_llm.protocol.batches.lines import line_length, write_line
from spark_llm.protocol.bodies import RequestBody

_MB = 1_000_000
FILE_PREFIX, FILE_SUFFIX = "spark_llm-", ".jsonl"


class Line(NamedTuple):
    """A request for a batch: its id, its body, and how many inputs of embeddings that has."""

    custom_id: str
    body: RequestBody
    inputs: int = 1


class UploadedFile(NamedTuple):
    """A file that was uploaded: its key, its id, and the ids of its lines in their order; no batch has it yet."""

    key: str
    file_id: str
    custom_ids: tuple[str, ...]


class OversizedLine(NamedTuple):
    """A request that was not sent, since its line alone is larger than a file may be: `size` bytes."""

    custom_id: str
    size: int


class LineFiles:
    """Writes lines into files, and uploads each when it is full."""

    def __init__(
        self,
        client: BatchClient,
        batch: Batch,
        name: str,
        *,
        url: str | None = None,
        random_hex: Callable[[], str] = lambda: secrets.token_hex(2),
    ) -> None:
        """Write nothing yet.

        Args:
            client: The client of the Batch API.
            batch: The limits of a file.
            name: The beginning of each file's key, such as "<run>-<stage>-<partition>"; its number and four random
                digits follow, so that another attempt of the task has other keys.
            url: The route that the lines name, where that is not the client's own.
            random_hex: Returns those digits.
        """
        self._client = client
        self._max_requests = batch.max_requests
        self._max_bytes = int(batch.max_mb * _MB)
        self._name = name
        self._url = client.urls.line_url if url is None else url
        self._random_hex = random_hex
        self._files = 0

    def upload(self, lines: Iterable[Line]) -> Iterator[UploadedFile | OversizedLine]:
        """Yield each file when it was uploaded, and each line that fits no file when it is met.

        A file is written to the machine's temporary folder, and removed whatever happens. Raises `BatchRequestError`,
        and `OSError` where the disk is full.
        """
        waiting = iter(lines)
        line = next(waiting, None)
        while line is not None:
            with tempfile.NamedTemporaryFile(prefix=FILE_PREFIX, suffix=FILE_SUFFIX) as file:
                ids: list[str] = []
                inputs = size = 0
                while line is not None:
                    length = line_length(line.custom_id, self._url, line.body)
                    if length > self._max_bytes:
                        yield OversizedLine(line.custom_id, length)
                    elif ids and (inputs + line.inputs > self._max_requests or size + length > self._max_bytes):
                        break
                    else:
                        file.writelines(write_line(line.custom_id, self._url, line.body))
                        ids.append(line.custom_id)
                        inputs, size = inputs + line.inputs, size + length
                    line = next(waiting, None)
                if ids:
                    yield self._uploaded(file, ids)

    def _uploaded(self, file: "tempfile._TemporaryFileWrapper[bytes]", ids: list[str]) -> UploadedFile:
        file.flush()
        key = f"{self._name}-{self._files}-{self._random_hex()}"
        self._files += 1
        return UploadedFile(key, self._client.upload(file.name, f"{FILE_PREFIX}{key}{FILE_SUFFIX}"), tuple(ids))
