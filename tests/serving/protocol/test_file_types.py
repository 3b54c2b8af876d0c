"""The readers of first bytes, against images that Pillow writes."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spark_llm.serving.protocol.file_types import ImageHeader, image_header, mime_type_of
from tests.support.media import FORMATS, MP3, PDF, image, wav

SIZES = st.integers(1, 300)
OPTIONS: dict[str, list[dict[str, object]]] = {
    "PNG": [{}, {"interlace": 1}],
    "JPEG": [{}, {"progressive": True}, {"comment": b"x" * 300}, {"exif": b"Exif\x00\x00" + b"x" * 40}],
    "GIF": [{}],
    "WEBP": [{}, {"lossless": True}, {"exif": b"Exif\x00\x00MM"}],
}


@given(form=st.sampled_from([*FORMATS]), width=SIZES, height=SIZES, data=st.data())
def test_type_and_size_of_an_image_are_those_it_was_made_with(
    form: str, width: int, height: int, data: st.DataObject
) -> None:
    """Every kind of file that Pillow writes is read."""
    options = data.draw(st.sampled_from(OPTIONS[form]))

    assert ImageHeader(FORMATS[form], width, height) == image_header(image(form, width, height, **options))


def test_an_animation_has_the_size_of_its_canvas() -> None:
    """A GIF and a WebP of several frames are read as one image."""
    frames = [Image.new("RGB", (70, 30), color) for color in ("red", "blue")]
    for form in ("GIF", "WEBP"):
        file = io.BytesIO()
        frames[0].save(file, form, save_all=True, append_images=frames[1:])
        assert ImageHeader(FORMATS[form], 70, 30) == image_header(file.getvalue())


@given(form=st.sampled_from([*FORMATS]), data=st.data())
def test_a_part_of_an_image_is_read_or_not(form: str, data: st.DataObject) -> None:
    """An image that breaks off has its size or no header, never another one."""
    whole = image(form, 33, 44)
    at = data.draw(st.integers(0, len(whole)))

    assert image_header(whole[:at]) in (None, ImageHeader(FORMATS[form], 33, 44))
    assert image_header(whole) is not None


@given(
    st.binary(max_size=60), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF1234WEBP"])
)
def test_any_bytes_are_read(data: bytes, head: bytes) -> None:
    """No bytes raise, whatever they begin with."""
    image_header(head + data)
    mime_type_of(head + data)


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (PDF, "application/pdf"),
        (wav(), "audio/wav"),
        (MP3, "audio/mpeg"),
        (b"ID3\x04\x00", "audio/mpeg"),
        (b"RIFF1234AVI ", None),
        (b"\xff\xd8", None),
        (b"\xff", None),
        (b"", None),
        (b"text", None),
        *((image(form), mime_type) for form, mime_type in FORMATS.items()),
    ],
)
def test_first_bytes_tell_the_type(data: bytes, mime_type: str | None) -> None:
    """A PDF, a WAV and an MP3 are known by their first bytes, as images are; others have no type."""
    assert mime_type == mime_type_of(data)
