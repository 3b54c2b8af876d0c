"""The files that clients uploaded and that batches wrote: in a temporary folder, which goes with its owner."""

import secrets
import shutil
import tempfile
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MONTH_S = 30 * 86_400

Document = dict[str, Any]


@dataclass
class StoredFile:
    """One file.

    Attributes:
        id: Its id in requests.
        filename: Its name, as its sender wrote it.
        purpose: "batch" for the input of a batch, "batch_output" for what one wrote.
        path: Where it is on the disk.
        bytes: Its size.
        created_at: The time of its upload.
        expires_at: The time at which it expires; None if it stays.
        requests: How often it was asked for; a script may hide it at first.
    """

    id: str
    filename: str
    purpose: str
    path: Path
    bytes: int
    created_at: float
    expires_at: float | None
    requests: int = 0

    def document(self) -> Document:
        """Return the file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": int(self.created_at),
            "expires_at": None if self.expires_at is None else int(self.expires_at),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class FileStore:
    """All files, oldest first; used on one event loop only, but for `clear`."""

    def __init__(self) -> None:
        self._files: dict[str, StoredFile] = {}
        self._folder: Path | None = None
        self._removal: weakref.finalize[..., FileStore] | None = None

    def new_path(self) -> Path:
        """Return where a new file can be written; the first call makes the folder, which goes with this object."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="spark-llm-files-"))
            self._removal = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return Path(self._folder, secrets.token_hex(12))

    def add(self, path: Path, filename: str, purpose: str, expires_after_s: int | None) -> StoredFile:
        """Keep a file that was written to a new path, and return it."""
        now = time.time()
        expires_at = None if expires_after_s is None else now + expires_after_s
        file = StoredFile(
            f"file-{secrets.token_hex(12)}", filename, purpose, path, path.stat().st_size, now, expires_at
        )
        self._files[file.id] = file
        return file

    def find(self, file_id: str) -> StoredFile | None:
        """Return a file by its id."""
        return self._files.get(file_id)

    def remove(self, file_id: str) -> None:
        """Delete a file; one that is being read can be read to its end."""
        self._files.pop(file_id).path.unlink(missing_ok=True)

    def all(self) -> list[StoredFile]:
        """Return all files, oldest first."""
        return list(self._files.values())

    def clear(self) -> None:
        """Delete all files and their folder."""
        self._files.clear()
        if self._removal is not None:
            self._removal()
        self._folder = None
