"""Media in a message: an image, a PDF or audio, as bytes or as the address that the server gets it from."""

from dataclasses import dataclass, field
from typing import Literal

MediaKind = Literal["image", "file", "audio"]


@dataclass(slots=True, frozen=True)
class Media:
    """One content part that is no text: its kind, and its bytes with their MIME type, or its URL.

    The content of a message is a text, or a list of parts; each part is a text (`str`) or a `Media`.
    """

    kind: MediaKind
    mime_type: str | None = None  # of the bytes
    data: bytes | None = field(default=None, repr=False)
    url: str | None = None
