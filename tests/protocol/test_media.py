"""Media: the first bytes tell what they are, and a URL can be got or not."""

import base64
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spark_llm.protocol.bodies import Body
from spark_llm.protocol.media import Media, MediaError, media_at, media_of
from tests.support.media import MP3
from tests.support.parts import FILES, JPEG, UNKNOWN

KINDS = {"image": "image", "application": "file", "audio": "audio"}


@pytest.mark.parametrize("mime_type", FILES)
def test_the_first_bytes_tell_the_type(mime_type: str) -> None:
    """Files as programs write them; where the file is cut, the server judges."""
    file = FILES[mime_type]

    for data in (file, file[:20]):
        assert Media(KINDS[mime_type.partition("/")[0]], mime_type, data) == media_of(data)  # type: ignore[arg-type]  # a kind


@pytest.mark.parametrize("version", ["FFFB90", "FFFA90", "FFF390", "FFF290", "FFE390", "FFE290"])
def test_an_mp3_needs_no_tag(version: str) -> None:
    """A frame of layer III is audio: of MPEG-1, 2 and 2.5, with and without a checksum."""
    assert "audio/mpeg" == media_of(bytes.fromhex(version) + bytes(50)).mime_type


@pytest.mark.parametrize(
    "data",
    [
        UNKNOWN,
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"RIFF\x24\0\0\0AVI LIST",
        b"RIFF",
        b"\xff",
        b"\xff\xfe<\0h\0t\0m\0l\0",  # a text in UTF-16
        b"\xff\xf1\x50\x80",  # AAC
        b"\xff\xeb\x90\x64",  # a reserved version
        b"\xff\xfb\xf0\x64",  # no bit rate
        b"\xff\xfb\x9c\x64",  # a reserved frequency
    ],
)
def test_bytes_of_another_type_are_no_media(data: bytes) -> None:
    """The message shows how they begin, and says what to do."""
    with pytest.raises(MediaError, match=rf"^is none of PNG, .*: it begins with the bytes {data[0]:02X}.* Hint: "):
        media_of(data)


def test_no_bytes_are_no_media() -> None:
    """An empty value is no null."""
    with pytest.raises(MediaError, match=r"^has no bytes\. Hint: "):
        media_of(b"")


@given(st.binary(max_size=40) | st.binary(max_size=9).map(lambda end: b"\xff" + end))
@example(MP3)
def test_any_bytes_are_media_or_raise(data: bytes) -> None:
    """No other exception comes, and media have the bytes unchanged."""
    try:
        media = media_of(data)
    except MediaError:
        return
    assert data == media.data
    assert len(data) == media.size


@pytest.mark.parametrize(
    "url", ["http://a/b", "https://a.example/b.png?c=d%20e#f", "HTTPS://A", "data:image/png;base64,iVBORw0KGgo="]
)
def test_a_server_can_get_these_urls(url: str) -> None:
    """Of the Web, or with the bytes inside."""
    assert Media("image", url=url) == media_at(url)
    assert len(url) == media_at(url, "file").size


@pytest.mark.parametrize(
    "url",
    ["", "https://a.example/b c.png", "https://a/\n", "s3://bucket/key", "/dbfs/a.png", "https://", "data:"],
)
def test_a_server_cannot_get_these_urls(url: str) -> None:
    """One has a space, another's scheme is not of the Web."""
    with pytest.raises(MediaError, match=r"^is no URL that a server can get\. Hint: "):
        media_at(url)


@given(st.binary())
def test_a_data_url_has_the_bytes(data: bytes) -> None:
    """Its pieces are one JSON string."""
    text = bytes(Body(Media("image", "image/gif", data).data_url)).decode()

    assert f'"data:image/gif;base64,{base64.b64encode(data).decode()}"' == text


@given(st.binary(), st.binary())
def test_a_digest_stands_for_the_bytes(one: bytes, other: bytes) -> None:
    """Equal media have equal ones, and a URL is its own."""
    first, second = Media("image", "image/png", one), Media("image", "image/png", other)

    assert (one == other) == (first.digested == second.digested)
    assert first.digested != replace(first, mime_type="image/gif").digested
    assert 32 == first.digested.size
    assert media_at("https://a/b") == media_at("https://a/b").digested


def test_media_show_no_bytes() -> None:
    """They print their type alone: a URL may be signed."""
    media = media_of(JPEG)

    assert "Media(kind='image', mime_type='image/jpeg')" == repr(media)
    assert "Media(kind='image', mime_type=None)" == repr(media_at("https://a.example/b?signature=s3cret"))
    assert hash(media) == hash(media_of(JPEG))
