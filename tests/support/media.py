"""Small images, audio clips and files, made by third-party writers where there are some."""

import base64
import io
import wave

from PIL import Image

FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
MP3 = b"\xff\xfb\x90\x64" + bytes(413)  # one silent frame
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


def image(form: str = "PNG", width: int = 3, height: int = 2, **options: object) -> bytes:
    """Return an image of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, form, **options)
    return file.getvalue()


def wav(frames: int = 8) -> bytes:
    """Return a silent clip."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(bytes(2 * frames))
    return file.getvalue()


def encoded(data: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(data).decode()


def data_url(data: bytes, mime_type: str = "image/png") -> str:
    """Return bytes as a data URL."""
    return f"data:{mime_type};base64,{encoded(data)}"


def image_part(url: str) -> dict[str, object]:
    """Return the part of a chat request for an image."""
    return {"type": "image_url", "image_url": {"url": url}}
