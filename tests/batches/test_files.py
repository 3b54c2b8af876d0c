"""Files of lines: cut at the limits, uploaded, removed, and read back line by line."""

import json
import tempfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from spark_llm import Batch, Endpoint, Policy
from spark_llm.batches.calls import BatchRequestError
from spark_llm.batches.client import BatchClient
from spark_llm.batches.download import downloaded_lines
from spark_llm.batches.upload import UploadedFile, uploaded_files
from spark_llm.protocol.bodies import Base64, Body, RequestBody
from tests.support.scripted_server import Received, ScriptedServer, Sent, scripted_server

if TYPE_CHECKING:
    from email.message import Message

MB = 1_000_000
Requests = Iterator[tuple[str, RequestBody]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def client_of(server: ScriptedServer, **batch: float) -> BatchClient:
    """Return a client that does not wait."""
    route = Endpoint(f"{server.url}/v1/embeddings").resolve("/embeddings", {})
    return BatchClient(route, Batch(**batch), Policy(max_tries=2), sleep=lambda _: None)  # type: ignore[arg-type]  # floats


class Files:
    """A server that keeps files."""

    def __init__(self) -> None:
        """Have none yet."""
        self.names: list[str] = []
        self.contents: list[bytes] = []

    def __call__(self, request: Received) -> Sent:
        """Take a file, or send the content of one."""
        if request.method == "GET":
            return Sent(body=self.contents[int(request.line.split("/")[3])])
        form = message_from_bytes(
            b"Content-Type: " + request.headers["content-type"].encode() + b"\r\n\r\n" + request.body
        )
        purpose, file = cast("list[Message]", form.get_payload())
        assert "batch" == purpose.get_payload()
        self.names.append(str(file.get_filename()))
        self.contents.append(cast("bytes", file.get_payload(decode=True)))
        return Sent(body={"id": str(len(self.names) - 1)})


def requests(count: int, size: int = 10) -> Requests:
    """Yield requests of a size, every other one with media."""
    for number in range(count):
        text = b"x" * size
        body: RequestBody = b'{"input":"%b"}' % text
        yield f"id-{number}", body if number % 2 else Body([b'{"input":"', Base64(text), b'"}'])


def test_files_are_cut_at_the_number_of_requests(folder: Path) -> None:
    """Each has its key, which is in its name, and the ids of its lines in their order; the disk is left clean."""
    files = Files()
    with scripted_server(files) as server:
        client = client_of(server, max_requests=3)
        digits = iter(("aaaa", "bbbb", "cccc"))
        found = list(uploaded_files(client, requests(7), "run-stage-0", random_hex=lambda: next(digits)))
        back = [json.loads(line) for line in downloaded_lines(client, [file.file_id for file in found])]

    keys = ["run-stage-0-0-aaaa", "run-stage-0-1-bbbb", "run-stage-0-2-cccc"]
    assert [
        UploadedFile(keys[0], "0", ("id-0", "id-1", "id-2")),
        UploadedFile(keys[1], "1", ("id-3", "id-4", "id-5")),
        UploadedFile(keys[2], "2", ("id-6",)),
    ] == found
    assert [f"spark_llm-{key}.jsonl" for key in keys] == files.names
    assert [f"id-{number}" for number in range(7)] == [line["custom_id"] for line in back]
    assert {("POST", "/v1/embeddings")} == {(line["method"], line["url"]) for line in back}
    assert [] == list(folder.iterdir())


def test_files_are_cut_at_their_size() -> None:
    """None is larger than the limit, and none could have had the next line."""
    files = Files()
    with scripted_server(files) as server:
        found = list(uploaded_files(client_of(server, max_mb=0.001), requests(40, 100), "n"))

    sizes = [len(content) for content in files.contents]
    assert [f"id-{number}" for number in range(40)] == [custom_id for file in found for custom_id in file.custom_ids]
    assert max(sizes) <= 1_000
    assert all(
        size + len(following.split(b"\n", 1)[0]) + 1 > 1_000
        for size, following in zip(sizes, files.contents[1:], strict=False)
    )


def test_a_request_larger_than_a_file_is_reported_and_not_sent() -> None:
    """Its neighbours are in files; where there are none, there is no file."""
    large = ("large", b'{"input":"%b"}' % (b"x" * 2_000))
    files = Files()
    with scripted_server(files) as server:
        client = client_of(server, max_mb=0.001)
        [file] = uploaded_files(client, iter([*requests(1), large, *requests(1)]), "n")
        [alone] = uploaded_files(client, iter([large]), "n")
        none = list(uploaded_files(client, iter(()), "n"))

    assert ("id-0", "id-0") == file.custom_ids
    [(custom_id, message)] = file.too_large
    assert ("large", "0.0 MB, and a file of a batch 0.001 MB" in message) == (custom_id, True)
    assert ("", "", (), file.too_large) == alone
    assert [] == none
    assert 1 == len(files.names)


def test_a_failed_upload_leaves_nothing_behind(folder: Path) -> None:
    """Neither does one that its caller gives up, nor a download."""
    with scripted_server(lambda _: Sent(400, {"error": {"message": "no"}})) as server:
        client = client_of(server)
        with pytest.raises(BatchRequestError):
            list(uploaded_files(client, requests(3), "n"))
        with pytest.raises(BatchRequestError):
            list(downloaded_lines(client, ["f"]))
    with scripted_server(Files()) as server:
        given_up = uploaded_files(client_of(server, max_requests=1), requests(3), "n")
        next(given_up)
        given_up.close()  # type: ignore[attr-defined]  # a generator
    assert [] == list(folder.iterdir())


def test_lines_end_as_they_may() -> None:
    """In either line break, or none; blank lines are none."""
    with scripted_server(lambda _: Sent(body=b'{"a":1}\r\n\n{"b":2}\n  \n{"c":3}')) as server:
        assert [b'{"a":1}', b'{"b":2}', b'{"c":3}'] * 2 == list(downloaded_lines(client_of(server), ["f", "g"]))
