"""Images, audio and files in a chat: what `Echo` says of them, counts for them, and refuses."""

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import ChatRequest, Choice, Echo, LocalEndpoints, Model, Texts, Usage, echo_media
from tests.support.local_client import Client, connected, paths_of
from tests.support.media import FORMATS, MP3, PDF, data_url, encoded, image, image_part, wav

PNG = image()
URL = "https://example.org/a.jpg?x=1"


class TellsMedia:
    """A custom model that tells what it got."""

    name = "tells"

    async def chat(self, request: ChatRequest) -> Texts:
        """Return the kind, type and size of each medium."""
        told = [(each.kind, each.mime_type, len(each.data or b""), each.url) for each in request.messages[-1].media]
        return Texts([Choice(repr(told))], Usage(1, 1))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """An `Echo`, and a model of a test's own."""
    models: dict[str, Model] = {"chat": Echo(), "tells": TellsMedia()}
    with connected(LocalEndpoints(models)) as client:
        yield client


def audio_part(data: bytes, form: str) -> dict[str, object]:
    """Return the part for an audio clip."""
    return {"type": "input_audio", "input_audio": {"data": encoded(data), "format": form}}


def file_part(file_data: str) -> dict[str, object]:
    """Return the part for a file."""
    return {"type": "file", "file": {"filename": "a.pdf", "file_data": file_data}}


def text_part(text: str) -> dict[str, object]:
    """Return the part for a text."""
    return {"type": "text", "text": text}


def body(*parts: dict[str, object], role: str = "user", **fields: object) -> dict[str, object]:
    """Return a chat request of one message with these parts."""
    return {"messages": [{"role": role, "content": list(parts)}], **fields}


def reply(client: Client, *parts: dict[str, object]) -> str:
    """Return the text of the answer."""
    answer = client.query("chat", body(*parts))
    assert 200 == answer.status_code, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


# --- What Echo says and counts ---


def test_the_words_for_a_medium_are_fixed() -> None:
    """Type, size in pixels, number of bytes and digest stand in this form, in all versions."""
    png, clip = image("PNG", 70, 33), wav(1000)
    digest = hashlib.sha256(png).hexdigest()[:16]

    assert (f"[image/png 70x33 {len(png)} bytes sha256:{digest}]", 3 * 2) == echo_media(png)
    assert f"[image/x 70x33 {len(png)} bytes sha256:{digest}]" == echo_media(png, "image/x").text
    assert (3, 1) == (echo_media(clip).tokens, echo_media(MP3).tokens)
    assert ["[audio/wav", "[audio/mpeg", "[application/pdf", "[application/octet-stream"] == [
        echo_media(data).text.split()[0] for data in (clip, MP3, PDF, b"?")
    ]
    assert (f"[{URL}]", 85) == echo_media(URL)


@given(width=st.integers(1, 200), height=st.integers(1, 200))
def test_an_image_has_a_token_for_each_begun_square(width: int, height: int) -> None:
    """The tokens of an image are its squares of 32 pixels, and begun ones."""
    columns, rows = len(range(0, width, 32)), len(range(0, height, 32))

    assert columns * rows == echo_media(image("PNG", width, height)).tokens


@pytest.mark.parametrize("path", paths_of("chat/completions"))
def test_every_kind_of_part_is_answered_in_its_place(path: str, client: Client) -> None:
    """Each medium stands in the reply where it stood in the message, on every route."""
    parts = [
        text_part("a "),
        image_part(data_url(PNG)),
        text_part(" b "),
        audio_part(wav(), "wav"),
        audio_part(MP3, "mp3"),
        file_part(data_url(PDF, "application/pdf")),
        file_part(encoded(PDF)),
        image_part(URL),
    ]
    answer = client.post(path, body(*parts, model="chat")).json()

    said = [echo_media(each).text for each in (PNG, wav(), MP3, PDF, PDF, URL)]
    assert f"a {said[0]} b " + "".join(said[1:]) == answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_of_an_image_is_taken(form: str, client: Client) -> None:
    """PNG, JPEG, GIF and WebP are answered by their type; the scheme of a data URL ignores case."""
    data, url = image(form, 40, 50), data_url(image(form, 40, 50), FORMATS[form])

    assert (
        echo_media(data, FORMATS[form]).text
        == reply(client, image_part(url))
        == reply(client, image_part("DATA" + url[4:]))
    )


def test_tokens_of_media_are_part_of_the_prompt(client: Client) -> None:
    """Usage counts images and audio within the prompt, files only there, and the counters keep the sums."""
    client.endpoints.reset()
    large, clip = image("JPEG", 320, 64), wav(2000)
    media = body(
        text_part("one two"), image_part(data_url(large, "image/jpeg")), image_part(URL), audio_part(clip, "wav")
    )
    usage = client.query("chat", media).json()["usage"]
    with_file = client.query("chat", body(file_part(encoded(PDF + bytes(2500))))).json()["usage"]
    client.query("chat", body(text_part("one")))
    stats = client.endpoints.stats

    assert {"image_tokens": 20 + 85, "audio_tokens": 5} == usage["prompt_tokens_details"]
    assert 2 + 20 + 85 + 5 == usage["prompt_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert (3, False) == (with_file["prompt_tokens"], "prompt_tokens_details" in with_file)
    assert (105, 5, 2 + 110 + 3 + 1) == (stats.image_tokens, stats.audio_tokens, stats.prompt_tokens)
    assert 105 == stats.endpoints["chat"].image_tokens == client.get("/stats").json()["image_tokens"]


def test_media_of_earlier_messages_count_too(client: Client) -> None:
    """The reply is the last message, and the tokens are those of the whole conversation."""
    first = {"role": "user", "content": [image_part(data_url(PNG))]}
    messages = [first, {"role": "assistant", "content": "A red square."}, {"role": "user", "content": "sure"}]
    answer = client.query("chat", {"messages": messages}).json()

    assert "sure" == answer["choices"][0]["message"]["content"]
    assert (1 + 4, {"image_tokens": 1}) == (
        answer["usage"]["prompt_tokens"],
        answer["usage"]["prompt_tokens_details"],
    )


def test_a_model_gets_the_bytes(client: Client) -> None:
    """A model of a test's own reads the kind, the type and the bytes of each medium."""
    answer = client.query("tells", body(image_part(data_url(PNG)), image_part(URL), file_part(encoded(PDF)))).json()

    told = [("image", "image/png", len(PNG), None), ("image", "", 0, URL), ("file", "application/pdf", len(PDF), None)]
    assert repr(told) == answer["choices"][0]["message"]["content"]


# --- Refusals ---

NO_IMAGE = "You uploaded an unsupported image."


@pytest.mark.parametrize(
    ("part", "message", "param"),
    [
        (
            {"type": "video", "video": "x"},
            "Invalid value: 'video'. Supported values are: 'text', 'image_url',",
            ".type",
        ),
        ({"type": "input_text", "text": "x"}, "Invalid value: 'input_text'. Supported values are", ".type"),
        (image_part("data:image/png;base64,!!!"), "but got an invalid base64-encoded value.", ".image_url.url"),
        (image_part("data:image/png;base64," + encoded(PNG)[:-3]), "an invalid base64-encoded", ".image_url.url"),
        (image_part("data:image/png;base64,"), "but got empty base64-encoded bytes.", ".image_url.url"),
        (image_part("data:image/png,abc"), "without the 'base64' encoding.", ".image_url.url"),
        (image_part(data_url(PDF, "application/pdf")), "unsupported MIME type 'application/pdf'.", ".image_url.url"),
        (
            image_part(data_url(PNG, "image/jpeg")),
            "says image/jpeg, but the image appears to be image/png",
            ".image_url.url",
        ),
        (image_part(data_url(b"no image")), NO_IMAGE, None),
        (image_part(data_url(image("JPEG")[:100], "image/jpeg")), NO_IMAGE, None),
        (image_part("https://example.org/a b.png"), "Expected a valid URL", ".image_url.url"),
        (image_part("ftp://example.org/a.png"), "Expected a valid URL", ".image_url.url"),
        (image_part("https://"), "Expected a valid URL", ".image_url.url"),
        (image_part(""), "Expected a valid URL", ".image_url.url"),
        (audio_part(MP3, "wav"), "The audio data is not a valid wav file.", ".input_audio.data"),
        (
            {"type": "input_audio", "input_audio": {"data": "?", "format": "wav"}},
            "Invalid audio data",
            ".input_audio.data",
        ),
        (file_part(data_url(b"text", "text/plain")), "but got unsupported MIME type 'text/plain'.", ".file.file_data"),
        (file_part(encoded(b"text")), "The file data is not a valid PDF.", ".file.file_data"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "No such File object: file-1", None),
        ({"type": "file", "file": {}}, "A file needs `file_data`.", None),
    ],
)
def test_a_part_that_cannot_be_read_is_named(
    part: dict[str, object], message: str, param: str | None, client: Client
) -> None:
    """A part of an unknown type, broken base64, and bytes of another type get a 400 in the service's words."""
    openai = client.post("/v1/chat/completions", body(part, model="chat"))
    databricks = client.query("chat", body(part))
    error = openai.json()["error"]

    assert (400, 400, "BAD_REQUEST") == (openai.status_code, databricks.status_code, databricks.json()["error_code"])
    assert message in error["message"]
    assert error["message"] == databricks.json()["message"]
    assert error["param"] == (param and f"messages[0].content[0]{param}")
    assert error["code"] in ("invalid_value", "invalid_image_format")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "image_url"}, "missing required field `image_url`"),
        ({"type": "image_url", "image_url": "x"}, "Expected `object`, got `str`"),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "ogg"}}, "Invalid enum value 'ogg'"),
        ({"type": "text"}, "missing required field `text`"),
        ({"text": "x"}, "missing required field `type`"),
    ],
)
def test_a_part_without_its_field_is_named(part: dict[str, object], message: str, client: Client) -> None:
    """A part that lacks what its type needs gets a 400 that names it."""
    answer = client.query("chat", body(part))

    assert (400, True) == (answer.status_code, message in answer.json()["message"])


@pytest.mark.parametrize("role", ["system", "developer", "assistant", "tool"])
def test_media_are_a_users(role: str, client: Client) -> None:
    """Media in a message of another role get a 400."""
    messages = [{"role": role, "content": [image_part(URL)]}, {"role": "user", "content": "hi"}]
    answer = client.post("/v1/chat/completions", {"model": "chat", "messages": messages}).json()

    assert "are only allowed for messages with role 'user'" in answer["error"]["message"]
    assert "messages[0]" == answer["error"]["param"]


@given(
    texts=st.lists(
        st.text(max_size=20) | st.sampled_from([data_url(PNG), data_url(PDF), encoded(PNG), URL]),
        min_size=1,
        max_size=3,
    )
)
def test_any_text_in_a_part_is_answered_or_refused(texts: list[str], client: Client) -> None:
    """Whatever stands where a medium should be, the server answers or says what is wrong."""
    for part in (image_part, file_part):
        assert client.query("chat", body(*map(part, texts))).status_code in (200, 400)
