"""Images, a PDF and audio for tests: small files of each type, and strategies of what messages hold."""

import io
import struct
import wave

from hypothesis import strategies as st
from PIL import Image

from spark_llm.protocol.media import Media, media_of
from tests.support.strategies import TEXTS


def picture(image_format: str = "PNG", size: tuple[int, int] = (3, 2), color: str = "red") -> bytes:
    """Return the file of an image of one color."""
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, image_format)
    return file.getvalue()


def sound() -> bytes:
    """Return a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writing:
        writing.setparams((1, 2, 8_000, 0, "NONE", ""))
        writing.writeframes(bytes(800))
    return file.getvalue()


PNG, JPEG, WEBP, GIF = (picture(name) for name in ("PNG", "JPEG", "WEBP", "GIF"))
PDF = b"%PDF-1.7\n1 0 obj <</Type /Catalog>> endobj\n%%EOF\n"
WAV = sound()
MP3 = struct.pack(">I", 0xFFFB9064) + bytes(413)  # a frame of MPEG-1, layer III, 128 kbit/s, 44.1 kHz
TAGGED_MP3 = b"ID3\x04\0\0\0\0\0\0" + MP3
FILES = {
    "image/png": PNG,
    "image/jpeg": JPEG,
    "image/webp": WEBP,
    "image/gif": GIF,
    "application/pdf": PDF,
    "audio/wav": WAV,
    "audio/mpeg": TAGGED_MP3,
}
UNKNOWN = b"BM\x1e\0\0\0\0\0\0\0"  # a bitmap of Windows

MEDIA = st.sampled_from([media_of(file) for file in FILES.values()]) | st.builds(
    Media, st.just("image"), url=st.sampled_from(["https://a.example/b.png", "data:image/png;base64,iVBORw0KGgo="])
)
PARTS = st.lists(TEXTS | MEDIA, min_size=1, max_size=4)
CONVERSATIONS_WITH_PARTS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS | PARTS}),
    min_size=1,
    max_size=4,
)
