"""What the first bytes of a file say: its type, and an image's size in pixels."""

import struct
from collections.abc import Callable
from typing import NamedTuple

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the segments that hold a size
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # the segments without a length


class ImageHeader(NamedTuple):
    """The type and the size of an image."""

    mime_type: str
    width: int
    height: int


def image_header(data: bytes) -> ImageHeader | None:
    """Return the header of a PNG, JPEG, GIF or WebP; None for other bytes, and where the size is cut off."""
    for is_type, mime_type, read_size in _IMAGES:
        if is_type(data):
            try:
                return ImageHeader(mime_type, *read_size(data))
            except (struct.error, IndexError, ValueError):
                return None
    return None


def mime_type_of(data: bytes) -> str | None:
    """Return the type that the first bytes tell: an image's, or that of a PDF, a WAV or an MP3; else None."""
    if (image := image_header(data)) is not None:
        return image.mime_type
    if data.startswith(b"%PDF-"):
        return "application/pdf"
    if data.startswith(b"RIFF") and data[8:12] == b"WAVE":
        return "audio/wav"
    # An MP3 begins with a tag, or with a frame: eleven bits that are set, and a layer.
    is_frame = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and data[1] & 0x06 != 0
    return "audio/mpeg" if data.startswith(b"ID3") or is_frame else None


def _png_size(data: bytes) -> tuple[int, ...]:
    return struct.unpack_from(">II", data, 16)


def _gif_size(data: bytes) -> tuple[int, ...]:
    return struct.unpack_from("<HH", data, 6)


def _webp_size(data: bytes) -> tuple[int, ...]:
    kind = data[12:16]
    if kind == b"VP8X":  # 24 bits each, less one
        width, height = struct.unpack_from("<I", data, 24)[0], struct.unpack_from("<I", data, 26)[0] >> 8
        return (width & 0xFFFFFF) + 1, height + 1
    if kind == b"VP8L":  # 14 bits each, less one
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind != b"VP8 ":
        raise ValueError("no chunk with a size")
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_size(data: bytes) -> tuple[int, ...]:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _JPEG_ALONE:
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    raise ValueError("no segment with a size")


_IMAGES: tuple[tuple[Callable[[bytes], bool], str, Callable[[bytes], tuple[int, ...]]], ...] = (
    (lambda data: data.startswith(b"\x89PNG\r\n\x1a\n"), "image/png", _png_size),
    (lambda data: data.startswith(b"\xff\xd8\xff"), "image/jpeg", _jpeg_size),
    (lambda data: data.startswith((b"GIF87a", b"GIF89a")), "image/gif", _gif_size),
    (lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP", "image/webp", _webp_size),
)
