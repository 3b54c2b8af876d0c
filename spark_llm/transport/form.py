"""Forms with a file: bodies of `multipart/form-data`, whose file is read from the disk while it is sent."""

from collections.abc import Iterator, Mapping
from pathlib import Path

_PIECE_BYTES = 2**17
_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})  # as browsers write names


class FileForm:
    """A form of some fields and one file; it may be sent as often as it takes, and never stands in memory."""

    def __init__(self, fields: Mapping[str, str], path: str, name: str, boundary: str) -> None:
        """Keep the fields, the path of the file and its name for the server; `boundary` is in no part."""
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field.translate(_ESCAPES)}"\r\n\r\n{value}\r\n'
            for field, value in fields.items()
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name.translate(_ESCAPES)}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        self._path = Path(path)
        self._head = "".join(parts).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._file_bytes = self._path.stat().st_size
        self.content_type = f"multipart/form-data; boundary={boundary}"

    def __len__(self) -> int:
        """Return how many bytes it has."""
        return len(self._head) + self._file_bytes + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        """Yield its bytes."""
        yield self._head
        with self._path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
        yield self._tail
