"""The faults of files and batches, and their forms, as clients see them over sockets."""

import time
import tracemalloc
from collections.abc import Iterator

import openai
import pytest
import requests

from spark_llm.serving import After, Batches, Faults, LocalEndpoints
from tests.support.batch_files import CHAT, ENDED, answers, chat_line, client_of, ended, jsonl, reached, submit, upload
from tests.support.local_client import Client

TEN = [chat_line(f"r-{number}", f"word {number}") for number in range(10)]
PATHS = (
    ("POST", "/files"),
    ("GET", "/files"),
    ("GET", "/files/a"),
    ("GET", "/files/a/content"),
    ("DELETE", "/files/a"),
    ("POST", "/batches"),
    ("GET", "/batches"),
    ("GET", "/batches/a"),
    ("POST", "/batches/a/cancel"),
)


@pytest.fixture
def endpoints(client: Client) -> LocalEndpoints:
    """The endpoints of the client."""
    return client.endpoints


@pytest.fixture
def official(endpoints: LocalEndpoints) -> Iterator[openai.OpenAI]:
    """The official client."""
    with client_of(endpoints) as client:
        yield client


def test_a_batch_expires(endpoints: LocalEndpoints, official: openai.OpenAI) -> None:
    """What was answered by then is in the output file, and the rest in the error file, without a response."""
    endpoints.batches = Batches(expire_after={0: 4})
    batch = ended(official, submit(official, TEN))
    output, failed = answers(official, batch.output_file_id), answers(official, batch.error_file_id)

    assert ("expired", 4, 6) == (batch.status, len(output), len(failed))
    assert batch.expired_at is not None
    assert batch.request_counts is not None
    assert (10, 4, 6) == (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed)
    assert {(None, "batch_expired")} == {(each["response"], each["error"]["code"]) for each in failed.values()}
    assert set(output) == set(endpoints.answered)
    assert not output.keys() & failed.keys()
    assert "completed" == ended(official, submit(official, TEN)).status


def test_a_batch_loses_answers(endpoints: LocalEndpoints, official: openai.OpenAI) -> None:
    """It completes, or expires, and counts them; with 0 it names no file."""
    endpoints.batches = Batches(lose_after={0: 4, 1: 0, 2: 5}, expire_after={2: 5})
    for status, kept, counted in (("completed", 4, 10), ("completed", 0, 10), ("expired", 5, 5)):
        batch = ended(official, submit(official, TEN))
        assert (status, kept) == (batch.status, len(answers(official, batch.output_file_id)))
        assert batch.request_counts is not None
        assert (counted, None) == (batch.request_counts.completed, batch.error_file_id)
        assert (kept == 0) == (batch.output_file_id is None)


def test_a_batch_stalls_until_its_release(endpoints: LocalEndpoints, official: openai.OpenAI) -> None:
    """Others go on meanwhile; a new script does not release it."""
    endpoints.batches = Batches(stall_after={0: 0})
    stalled = submit(official, TEN)
    assert "completed" == ended(official, submit(official, TEN)).status
    endpoints.batches = Batches()
    assert "completed" == ended(official, submit(official, TEN)).status
    assert "in_progress" == official.batches.retrieve(stalled.id).status
    endpoints.release_batches()

    assert "completed" == ended(official, stalled).status


def test_a_scripted_batch_fails(endpoints: LocalEndpoints, official: openai.OpenAI) -> None:
    """By its number, with its code and its line."""
    endpoints.batches = Batches(fail={1: "invalid_json_line@7"})
    first, second, third = (ended(official, submit(official, TEN)) for _ in range(3))

    assert ["completed", "failed", "completed"] == [first.status, second.status, third.status]
    assert second.errors is not None
    assert [("invalid_json_line", 7)] == [(error.code, error.line) for error in second.errors.data or ()]


def test_enqueued_tokens_have_a_limit(endpoints: LocalEndpoints, official: openai.OpenAI) -> None:
    """A batch that would exceed it fails while another of its model runs, and is taken after that one."""
    tokens = -(-len(jsonl(TEN)) // 4)
    endpoints.batches = Batches(enqueued_tokens=2 * tokens - 1, stall_after={0: 0})
    first = reached(official, submit(official, TEN), "in_progress")
    refused = ended(official, submit(official, TEN))
    endpoints.release_batches()
    ended(official, first)

    assert refused.errors is not None
    assert [("token_limit_exceeded", None)] == [(error.code, error.line) for error in refused.errors.data or ()]
    assert "Enqueued token limit reached for chat in organization" in str(refused.errors.data)
    assert "completed" == ended(official, submit(official, TEN)).status


def test_a_batch_has_a_speed(endpoints: LocalEndpoints, official: openai.OpenAI) -> None:
    """It waits to begin, answers so many requests in a second, and takes a new speed while it runs."""
    endpoints.batches = Batches(start_after_s=0.2, requests_per_s=20)
    started = time.monotonic()
    batch = submit(official, TEN)
    assert "validating" == batch.status
    ended(official, batch)
    assert 0.2 + 9 / 20 <= time.monotonic() - started
    endpoints.batches = Batches(requests_per_s=0.001)
    slow = reached(official, submit(official, TEN), "in_progress", answered=1)
    assert slow.request_counts is not None
    assert 1 == slow.request_counts.completed
    official.batches.cancel(slow.id)

    assert "cancelled" == ended(official, slow).status


@pytest.mark.parametrize("visible", [After(requests=2), After(elapsed_s=600)])
def test_an_upload_is_hidden_for_a_moment(visible: After, endpoints: LocalEndpoints, official: openai.OpenAI) -> None:
    """It is not found by requests for it, and then it is; files that batches wrote are found at once."""
    endpoints.batches = Batches(file_visible=visible)
    file_id = upload(official, TEN)
    for _ in range(2):
        with pytest.raises(openai.NotFoundError):
            official.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    endpoints.batches = Batches(file_visible=After(requests=visible.requests or 0))
    batch = official.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")

    assert 10 == len(answers(official, ended(official, batch).output_file_id))


@pytest.mark.parametrize("fault", ["cut", "half", "garbage", "html"])
def test_a_creation_whose_answer_is_lost(fault: str, endpoints: LocalEndpoints, official: openai.OpenAI) -> None:
    """The batch exists, and the client cannot know but by the list; the key of the first request finds it too."""
    file_id = upload(official, TEN)
    endpoints.batches = Batches(on_create=Faults(fault))
    body = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", "metadata": {"key": "a"}}
    headers = {"Authorization": f"Bearer {endpoints.token}", "Idempotency-Key": "k"}

    def create() -> str:
        response = requests.post(f"{endpoints.openai_url}/batches", json=body, headers=headers, timeout=10)
        return str(response.json()["id"])

    with pytest.raises(requests.RequestException):  # a body that is no JSON is one too
        create()
    [batch] = official.batches.list()
    assert {"key": "a"} == batch.metadata
    assert batch.id == create()
    assert [batch.id] == [each.id for each in official.batches.list()]


def test_a_creation_without_an_answer(endpoints: LocalEndpoints, official: openai.OpenAI) -> None:
    """The batch exists when the client gives up."""
    file_id = upload(official, TEN)
    endpoints.batches = Batches(on_create=Faults("hang"))
    with pytest.raises(openai.APITimeoutError):
        official.with_options(timeout=0.2).batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")

    assert 1 == len(list(official.batches.list()))


@pytest.mark.parametrize(("fault", "status"), [("500", 500), ("429@1.5", 429), ("503", 503)])
def test_a_refused_creation_makes_no_batch(
    fault: str, status: int, endpoints: LocalEndpoints, official: openai.OpenAI
) -> None:
    """It is refused before, with its wait; the next one is not."""
    file_id = upload(official, TEN)
    endpoints.batches = Batches(on_create=Faults(fault))
    with pytest.raises(openai.APIStatusError) as error:
        official.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")

    assert status == error.value.status_code
    assert ("1.5" if "@" in fault else None) == error.value.response.headers.get("Retry-After")
    assert [] == list(official.batches.list())
    official.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")


def test_every_request_has_its_faults(endpoints: LocalEndpoints, official: openai.OpenAI) -> None:
    """Uploads, looks, downloads, cancellations and deletions fail by scripts of their own, each once here."""
    once = Faults("503")
    endpoints.batches = Batches(
        on_upload=once, on_read=once, on_download=Faults("503 cut half garbage"), on_cancel=once, on_delete=once
    )
    for call in (
        lambda: upload(official, TEN),
        lambda: official.files.retrieve("a"),
        lambda: official.files.content("a"),
        lambda: official.batches.cancel("a"),
        lambda: official.files.delete("a"),
    ):
        with pytest.raises(openai.InternalServerError):
            call()
    assert [] == endpoints.files
    file_id = upload(official, TEN)
    with pytest.raises(openai.APIConnectionError):
        official.files.content(file_id)
    content = jsonl(TEN)
    assert content[: len(content) // 2] == official.files.content(file_id).content
    assert b"\x00\xff{not json" == official.files.content(file_id).content
    assert content == official.files.content(file_id).content


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("base", ["/v1", "/openai/v1", "/openai"])
def test_every_route_needs_a_token(base: str, method: str, path: str, endpoints: LocalEndpoints) -> None:
    """Without one it is a 401; Azure's routes take it as a key, and its older ones need the version."""
    url = f"{endpoints.url}{base}{path}"
    key = {"api-key": endpoints.token}

    assert 401 == requests.request(method, url, timeout=10).status_code
    with_key = requests.request(method, url, headers=key, timeout=10).status_code
    versioned = requests.request(method, url, headers=key, params={"api-version": "1"}, timeout=10).status_code
    assert (401 == with_key) == (base == "/v1")
    assert base != "/openai" or with_key == 404
    assert base == "/v1" or versioned in (200, 400, 404)
    assert base == "/v1" or (versioned == 404) == (path not in ("/files", "/batches"))


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_a_server_without_the_routes(method: str, path: str, client: Client) -> None:
    """Each is an unknown path, with a token and without."""
    client.endpoints.batches = Batches(enabled=False)
    url = f"{client.endpoints.openai_url}{path}"
    with_token = requests.request(
        method, url, headers={"Authorization": f"Bearer {client.endpoints.token}"}, timeout=10
    )

    assert (404, "unknown_url") == (with_token.status_code, with_token.json()["error"]["code"])
    assert with_token.json() == requests.request(method, url, timeout=10).json()


@pytest.mark.parametrize(
    ("content_type", "body", "param"),
    [
        ("application/json", b"{}", None),
        ("multipart/form-data", b"", None),
        ("multipart/form-data; boundary=x", b"nonsense", None),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nab", None),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="\x0f"\r\n\r\n\r\n--x--',
            None,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--',
            "purpose",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--',
            "file",
        ),
    ],
)
def test_a_form_that_is_none_is_refused(content_type: str, body: bytes, param: str | None, client: Client) -> None:
    """With the field that is missing, or in words; nothing is kept."""
    response = client.post("/v1/files", data=body, headers={"Content-Type": content_type})

    assert (400, param) == (response.status_code, response.json()["error"]["param"])
    assert [] == client.endpoints.files


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "nothing"}, "purpose"),
        (
            {"purpose": "batch", "expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
            "expires_after.anchor",
        ),
        ({"purpose": "batch", "expires_after[seconds]": "3600"}, "expires_after.anchor"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at"}, "expires_after.seconds"),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "1"},
            "expires_after.seconds",
        ),
    ],
)
def test_a_wrong_field_of_an_upload_is_refused(fields: dict[str, str], param: str, client: Client) -> None:
    """With its name."""
    response = requests.post(
        f"{client.endpoints.openai_url}/files",
        data=fields,
        files={"file": ("a.jsonl", b"{}")},
        headers={"Authorization": f"Bearer {client.endpoints.token}"},
        timeout=10,
    )

    assert (400, param) == (response.status_code, response.json()["error"]["param"])
    assert [] == client.endpoints.files


def test_other_requests_are_answered_while_a_batch_runs(client: Client, official: openai.OpenAI) -> None:
    """A batch of thousands leaves the loop to others between its requests."""
    client.endpoints.reset()
    batch = submit(official, [chat_line(str(number), "a b") for number in range(3_000)])
    seen = set()
    while (status := official.batches.retrieve(batch.id).status) not in ENDED:
        assert 200 == client.chat("hello").status_code
        seen.add(status)

    assert "in_progress" in seen
    assert 3_000 == client.endpoints.stats.batch_requests


@pytest.mark.waits
def test_a_large_file_goes_through_little_memory(endpoints: LocalEndpoints, official: openai.OpenAI) -> None:
    """An upload of 64 MB and its download take a few megabytes of the server."""

    class Zeros:
        """A file without end marks that needs no memory."""

        left = 64 * 2**20

        def read(self, size: int = -1) -> bytes:
            """Return the next bytes."""
            count = min(self.left, size if size > 0 else 2**16, 2**16)
            self.left -= count
            return bytes(count)

    def parts() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        zeros = Zeros()
        while piece := zeros.read():
            yield piece
        yield b"\r\n--x--\r\n"

    headers = {"Authorization": f"Bearer {endpoints.token}", "Content-Type": "multipart/form-data; boundary=x"}
    tracemalloc.start()
    try:
        file = requests.post(f"{endpoints.openai_url}/files", data=parts(), headers=headers, timeout=60).json()
        with official.files.with_streaming_response.content(file["id"]) as response:
            size = sum(len(piece) for piece in response.iter_bytes(2**16))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (Zeros.left, Zeros.left) == (file["bytes"], size)
    assert peak < 16 * 2**20
