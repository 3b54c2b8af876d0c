"""Downloads the lines of files of replies, by way of the disk."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from spark_llm.batches.client import BatchClient


def downloaded_lines(client: BatchClient, file_ids: Iterable[str]) -> Iterator[bytes]:
    """Yield each line of some files without its line break, in constant memory; blank lines are left out.

    Each file is written to the machine's temporary folder as a whole, before its first line, and removed whatever
    happens. Raises `BatchRequestError`, and `OSError` where the disk is full.
    """
    for file_id in file_ids:
        with tempfile.TemporaryDirectory(prefix="spark_llm-") as folder:
            path = Path(folder, "replies.jsonl")
            client.download(file_id, str(path))
            with path.open("rb") as file:
                yield from filter(None, map(bytes.strip, file))
