"""What `Echo` says of an image, an audio clip or a file, and the tokens that it counts for it."""

import hashlib
from typing import NamedTuple

from spark_llm.serving.protocol.content import Media
from spark_llm.serving.protocol.file_types import image_header, mime_type_of

PATCH = 32  # pixels: a token stands for a square of an image
BYTES_PER_TOKEN = 1_000  # of audio and of files
TOKENS_AT_URL = 85  # for what is not fetched


class EchoMedia(NamedTuple):
    """The words of `Echo` for a medium, and the medium's tokens."""

    text: str
    tokens: int


def echo_media(data: bytes | str, mime_type: str | None = None) -> EchoMedia:
    """Return what `Echo` says of a medium, by its bytes or its URL, and the medium's tokens.

    The text has the type, the size in pixels of an image, the number of bytes, and the first 16 digits of their
    SHA-256. An image has a token for each square of 32 by 32 pixels, begun ones too; other media have one for each
    1,000 bytes, and what came as a URL has 85.

    >>> echo_media(png)
    EchoMedia(text='[image/png 640x480 91234 bytes sha256:0123456789abcdef]', tokens=300)
    >>> echo_media("https://example.org/a.jpg")
    EchoMedia(text='[https://example.org/a.jpg]', tokens=85)

    Args:
        data: The bytes, or the URL.
        mime_type: The type that the request tells. Default: that of the bytes.
    """
    if isinstance(data, str):
        return EchoMedia(f"[{data}]", TOKENS_AT_URL)
    mime_type = mime_type or mime_type_of(data) or "application/octet-stream"
    image = image_header(data)
    size = f" {image.width}x{image.height}" if image else ""
    digest = hashlib.sha256(data).hexdigest()[:16]
    tokens = _patches(image.width) * _patches(image.height) if image else -(-len(data) // BYTES_PER_TOKEN)
    return EchoMedia(f"[{mime_type}{size} {len(data)} bytes sha256:{digest}]", tokens)


def say_of(media: Media) -> EchoMedia:
    """Return what `Echo` says of a medium of a request."""
    return echo_media(media.url or media.data or b"", media.mime_type)


def _patches(pixels: int) -> int:
    return -(-pixels // PATCH)
