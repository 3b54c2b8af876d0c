"""Media in a message: an image, a PDF or audio, as bytes or as the address that the server gets it from.

The first bytes tell the MIME type. Sources: the MIME Sniffing Standard (images, WAV, MP3 with a tag, PDF), ISO 11172-3
(the header of an MP3 frame).
"""

import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from spark_llm.errors import HINT
from spark_llm.protocol.bodies import Base64, Piece

MediaKind = Literal["image", "file", "audio"]

IMAGE_TOKENS = 1_000  # of a photo: models count 250 to 2,000, by its pixels, which only the server sees
_FILE_TOKEN_BYTES = 50  # of a PDF for each token: a page of text has 50 KB and 1,000 tokens; a scanned one has more KB
_AUDIO_TOKEN_BYTES = 1_600  # of audio for each token: MP3 of 128 kbit/s, at 10 tokens a second

_PREFIXES: tuple[tuple[bytes, MediaKind, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image", "image/png"),
    (b"\xff\xd8\xff", "image", "image/jpeg"),
    (b"GIF87a", "image", "image/gif"),
    (b"GIF89a", "image", "image/gif"),
    (b"%PDF-", "file", "application/pdf"),
    (b"ID3", "audio", "audio/mpeg"),
)
_RIFF: dict[bytes, tuple[MediaKind, str]] = {b"WEBP": ("image", "image/webp"), b"WAVE": ("audio", "audio/wav")}
_KNOWN = "PNG, JPEG, WebP, GIF, PDF, WAV and MP3"
_URL = re.compile(r"(https?://|data:)[^\s\x00-\x1f\x7f]+", re.IGNORECASE)


class MediaError(ValueError):
    """Why a value is no media that a request can carry: the end of a sentence about it, and a hint."""


@dataclass(frozen=True)
class Media:
    """One content part that is no text: its kind, and its bytes with their MIME type, or its URL.

    The content of a message is a text, or a list of parts; each part is a text (`str`) or a `Media`.
    """

    kind: MediaKind
    mime_type: str | None = None  # of the bytes
    data: bytes | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)  # which may be signed

    @property
    def size(self) -> int:
        """How many bytes it has, or its URL."""
        return len(self.url or "") if self.data is None else len(self.data)

    @property
    def estimated_tokens(self) -> int:
        """About how many tokens a model counts: `IMAGE_TOKENS` for an image, by the bytes for a PDF or audio."""
        if self.kind == "image" or self.data is None:
            return IMAGE_TOKENS
        return len(self.data) // (_FILE_TOKEN_BYTES if self.kind == "file" else _AUDIO_TOKEN_BYTES)

    @property
    def base64(self) -> Base64:
        """The bytes in base64."""
        return Base64(self.data or b"")

    @property
    def data_url(self) -> tuple[Piece, ...]:
        """The bytes as a data URL, in pieces of a JSON string."""
        return f'"data:{self.mime_type};base64,'.encode(), self.base64, b'"'

    @cached_property
    def digested(self) -> "Media":
        """The same with the SHA-256 of the bytes in their place: equal for equal media, and small."""
        return self if self.data is None else replace(self, data=hashlib.sha256(self.data).digest())


def media_of(data: bytes) -> Media:
    """Return media of these bytes; raises `MediaError` where there are none, or none of a known type."""
    if not data:
        raise MediaError(f"has no bytes.{HINT}make such rows null, which costs nothing.")
    found = _type_of(data)
    if found is None:
        start = data[:8].hex(" ").upper()
        raise MediaError(f"is none of {_KNOWN}: it begins with the bytes {start}.{HINT}convert it to one of these.")
    return Media(*found, data)


def media_at(url: str, kind: MediaKind = "image") -> Media:
    """Return media that the server gets from a URL; raises `MediaError` for a URL that it cannot get."""
    if not _URL.fullmatch(url):
        hint = "begin it with https:// or data:, and write a space as %20."
        raise MediaError(f"is no URL that a server can get.{HINT}{hint}")
    return Media(kind, url=url)


def _type_of(data: bytes) -> tuple[MediaKind, str] | None:
    """Return the kind and the MIME type of bytes, by the first of them; None for any other type."""
    for prefix, kind, mime_type in _PREFIXES:
        if data.startswith(prefix):
            return kind, mime_type
    if data.startswith(b"RIFF"):
        return _RIFF.get(data[8:12])
    return ("audio", "audio/mpeg") if _is_mp3_frame(data[:4]) else None


def _is_mp3_frame(header: bytes) -> bool:
    """Return whether four bytes begin a frame of layer III: they have the sync bits, and no reserved value."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return False
    version, layer, bit_rate, frequency = header[1] >> 3 & 3, header[1] >> 1 & 3, header[2] >> 4, header[2] >> 2 & 3
    return version != 1 and layer == 1 and bit_rate != 15 and frequency != 3
