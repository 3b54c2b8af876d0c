"""Uploads the requests of a task as files of lines, each as large as a batch may be. No request stays in memory."""

import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from spark_llm.batches.client import BatchClient
from spark_llm.protocol.batches.lines import line_length, write_line
from spark_llm.protocol.bodies import RequestBody

FILE_PREFIX, FILE_SUFFIX = "spark_llm-", ".jsonl"
_MB = 1_000_000


class UploadedFile(NamedTuple):
    """A file that was uploaded, and has no batch yet.

    Attributes:
        key: Its key, which is in its name too; empty where there is no line and so no file.
        file_id: Its id.
        custom_ids: The ids of its lines, in their order.
        too_large: The ids of requests met meanwhile that were not sent, and why: each alone is larger than a file.
    """

    key: str
    file_id: str
    custom_ids: tuple[str, ...]
    too_large: tuple[tuple[str, str], ...] = ()


def uploaded_files(
    client: BatchClient,
    requests: Iterable[tuple[str, RequestBody]],
    name: str,
    *,
    url: str | None = None,
    random_hex: Callable[[], str] = lambda: secrets.token_hex(2),
) -> Iterator[UploadedFile]:
    """Write requests into files, and yield each file once it was uploaded.

    A file is in the machine's temporary folder until then, and is removed whatever happens. Only the ids of one file
    are in memory.

    Args:
        client: The client of the Batch API, whose settings have the limits of a file.
        requests: The id and the body of each request.
        name: The beginning of each key, such as "<run>-<stage>-<partition>"; the number of the file and four random
            digits follow, so that another attempt of the task has other keys.
        url: The route that the lines name, where that is not the client's own.
        random_hex: Returns those digits.

    Raises `BatchRequestError`, and `OSError` where the disk is full.
    """
    url = client.urls.line_url if url is None else url
    max_requests, max_bytes = client.settings.max_requests, int(client.settings.max_mb * _MB)
    waiting = iter(requests)
    request = next(waiting, None)
    number = 0
    while request is not None:
        custom_ids: list[str] = []
        too_large: list[tuple[str, str]] = []
        size = 0
        with tempfile.NamedTemporaryFile(prefix=FILE_PREFIX, suffix=FILE_SUFFIX) as file:
            while request is not None and len(custom_ids) < max_requests:
                custom_id, body = request
                length = line_length(custom_id, url, body)
                if length > max_bytes:
                    too_large.append((custom_id, _too_large_message(length, client.settings.max_mb)))
                elif size + length > max_bytes:
                    break
                else:
                    file.writelines(write_line(custom_id, url, body))
                    custom_ids.append(custom_id)
                    size += length
                request = next(waiting, None)
            key = file_id = ""
            if custom_ids:
                file.flush()
                key = f"{name}-{number}-{random_hex()}"
                file_id = client.upload(file.name, f"{FILE_PREFIX}{key}{FILE_SUFFIX}")
                number += 1
        yield UploadedFile(key, file_id, tuple(custom_ids), tuple(too_large))


def _too_large_message(length: int, max_mb: float) -> str:
    return f"the request has {length / _MB:.1f} MB, and a file of a batch {max_mb:g} MB at most: Batch(max_mb=…)"
