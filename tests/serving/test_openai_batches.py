"""The official `openai` client drives files and batches."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from spark_llm.serving import Batches, Echo, Faults, LocalEndpoints, echo_vector
from tests.support.batch_files import (
    CHAT,
    Endpoint,
    Line,
    answers,
    chat_line,
    client_of,
    ended,
    jsonl,
    line,
    reached,
    submit,
    upload,
)

TEN = [chat_line(f"r-{number}", f"word {number}") for number in range(10)]


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """The default endpoints."""
    with LocalEndpoints() as endpoints:
        yield endpoints


@pytest.fixture
def client(endpoints: LocalEndpoints) -> Iterator[openai.OpenAI]:
    """The official client at OpenAI's base."""
    with client_of(endpoints) as client:
        yield client


def test_a_batch_is_answered(endpoints: LocalEndpoints, client: openai.OpenAI) -> None:
    """Upload, create, poll, download: each request once, in an order of its own, tokens as the counters have them."""
    file = client.files.create(
        file=("a.jsonl", jsonl(TEN)), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    created = client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"job": "nightly"}
    )
    batch = ended(client, created)
    found = answers(client, batch.output_file_id)

    assert ("validating", None, file.id) == (created.status, created.model, created.input_file_id)
    assert (file.created_at + 3600, len(jsonl(TEN))) == (file.expires_at, file.bytes)
    assert ("completed", "chat", {"job": "nightly"}, None) == (
        batch.status,
        batch.model,
        batch.metadata,
        batch.error_file_id,
    )
    assert batch.request_counts is not None
    assert (10, 10, 0) == (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed)
    assert {f"r-{number}": f"word {number}" for number in range(10)} == {
        custom_id: each["response"]["body"]["choices"][0]["message"]["content"] for custom_id, each in found.items()
    }
    assert [each["custom_id"] for each in TEN] != list(found)
    assert {("default", 200, None)} == {
        (each["response"]["body"]["service_tier"], each["response"]["status_code"], each["error"])
        for each in found.values()
    }
    stats = endpoints.stats
    assert batch.usage is not None
    assert (20, 20, 40) == (batch.usage.input_tokens, batch.usage.output_tokens, batch.usage.total_tokens)
    assert (10, 10, 40, {200: 10}) == (
        stats.batch_requests,
        stats.endpoints["chat"].rows_answered,
        stats.total_tokens,
        stats.by_status,
    )
    assert dict.fromkeys(found, 1) == endpoints.answered
    assert [each["body"] for each in TEN] == sorted(
        (each.body for each in endpoints.requests), key=lambda body: str((body or {})["messages"])
    )


@pytest.mark.waits
@pytest.mark.parametrize("base", ["/v1", "/openai/v1", "azure"])
@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/chat/completions", {"model": "chat", "messages": [{"role": "user", "content": "a b"}]}),
        ("/v1/responses", {"model": "chat", "input": "a b", "service_tier": "flex"}),
        ("/v1/completions", {"model": "complete", "prompt": "a b"}),
        ("/v1/embeddings", {"model": "embed", "input": ["a", "b"]}),
    ],
)
def test_every_api_is_answered_at_every_base(
    base: str, endpoint: Endpoint, body: Line, endpoints: LocalEndpoints
) -> None:
    """A batch's answer is that of the route, but for its ids, its time and its tier."""
    azure = openai.AzureOpenAI(
        azure_endpoint=endpoints.url, api_key=endpoints.token, api_version="2024-10-21", max_retries=0
    )
    with azure if base == "azure" else openai.OpenAI(base_url=endpoints.url + base, api_key=endpoints.token) as client:
        batch = ended(client, submit(client, [line("a", body, endpoint)], endpoint))
        [answer] = answers(client, batch.output_file_id).values()
        listed = [each.id for each in client.batches.list()]

    assert [batch.id] == listed
    got, usage = answer["response"]["body"], endpoints.stats.total_tokens
    assert usage == got["usage"]["total_tokens"]
    match endpoint:
        case "/v1/chat/completions":
            assert "a b" == got["choices"][0]["message"]["content"]
        case "/v1/responses":
            assert "a b" == got["output"][0]["content"][0]["text"]
        case "/v1/completions":
            assert "a b" == got["choices"][0]["text"]
        case _:
            assert [echo_vector("a"), echo_vector("b")] == [each["embedding"] for each in got["data"]]
    assert ("default" if endpoint in ("/v1/chat/completions", "/v1/responses") else None) == got.get("service_tier")


def test_failed_requests_are_in_the_error_file(endpoints: LocalEndpoints, client: openai.OpenAI) -> None:
    """A poisoned and an invalid request have the response that a single one gets, and leave the others alone."""
    endpoints.faults = Faults(poison="bad", poison_as="context")
    invalid = line("invalid", {"model": "chat", "messages": []})
    batch = ended(client, submit(client, [*TEN, chat_line("poisoned", "so bad"), invalid]))
    failed = answers(client, batch.error_file_id)

    assert batch.request_counts is not None
    assert ("completed", 10, 2) == (batch.status, batch.request_counts.completed, batch.request_counts.failed)
    assert 10 == len(answers(client, batch.output_file_id))
    assert {"poisoned", "invalid"} == set(failed)
    poisoned = failed["poisoned"]
    assert (400, "context_length_exceeded", None) == (
        poisoned["response"]["status_code"],
        poisoned["response"]["body"]["error"]["code"],
        poisoned["error"],
    )
    assert {200: 10, 400: 2} == endpoints.stats.by_status


def test_only_failed_requests_leave_no_output_file(endpoints: LocalEndpoints, client: openai.OpenAI) -> None:
    """An empty file is none."""
    endpoints.faults = Faults("503*10")
    batch = ended(client, submit(client, TEN))

    assert ("completed", None, 10) == (batch.status, batch.output_file_id, len(answers(client, batch.error_file_id)))


def test_what_goes_wrong_on_a_connection_is_an_error_of_the_model(
    endpoints: LocalEndpoints, client: openai.OpenAI
) -> None:
    """Nobody can hang up on a file; an empty answer and a failed response stay what they are."""
    endpoints.faults = Faults("cut hang garbage html half errorbody empty drip")
    batch = ended(client, submit(client, TEN[:8]))
    output = answers(client, batch.output_file_id)

    assert [500] * 6 == [each["response"]["status_code"] for each in answers(client, batch.error_file_id).values()]
    assert ["length", "stop"] == [each["response"]["body"]["choices"][0]["finish_reason"] for each in output.values()]


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        (b"", "empty_file", None),
        (jsonl(TEN) + b"{\n", "invalid_json_line", 11),
        ([chat_line("a", "x", model="nobody")], "model_not_found", 1),
        ([TEN[0], TEN[0]], "duplicate_custom_id", 2),
    ],
)
def test_a_wrong_file_fails(lines: list[Line] | bytes, code: str, number: int | None, client: openai.OpenAI) -> None:
    """The batch is made, and then fails with the line that is wrong; nothing is asked."""
    batch = ended(client, submit(client, lines))

    assert batch.errors is not None
    assert [(code, number)] == [(error.code, error.line) for error in batch.errors.data or ()]
    assert ("failed", "list", None, None) == (
        batch.status,
        batch.errors.object,
        batch.output_file_id,
        batch.error_file_id,
    )
    assert batch.failed_at is not None


def test_a_batch_is_refused_at_once(client: openai.OpenAI) -> None:
    """An unknown path or window, metadata that is too long, and a file that does not exist."""
    file_id = upload(client, TEN)
    good = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}

    def refusal(**changes: object) -> tuple[int, str | None, str | None]:
        with pytest.raises(openai.APIStatusError) as error:
            client.batches.create(**{**good, **changes})  # type: ignore[arg-type]
        return error.value.status_code, error.value.param, error.value.code

    assert (400, "endpoint", "invalid_value") == refusal(endpoint="/v1/moderations")
    assert (400, "completion_window", "invalid_value") == refusal(completion_window="1h")
    assert (404, "input_file_id", None) == refusal(input_file_id="file-none")
    assert (400, "metadata.a", "invalid_type") == refusal(metadata={"a": ["b"]})
    assert (400, "metadata.a", "string_above_max_length") == refusal(metadata={"a": "b" * 513})
    assert (400, "metadata", "string_above_max_length") == refusal(metadata={"a" * 65: "b"})
    assert (400, "metadata", "object_above_max_properties") == refusal(metadata={str(n): "" for n in range(17)})
    assert (400, "output_expires_after.seconds", "integer_below_min_value") == refusal(
        output_expires_after={"anchor": "created_at", "seconds": 3599}
    )
    assert (400, "tags", "unknown_parameter") == refusal(extra_body={"tags": []})
    assert [] == list(client.batches.list())
    images = client.files.create(file=("a.png", b"x"), purpose="vision")
    assert (400, "input_file_id", "invalid_value") == refusal(input_file_id=images.id)


def test_an_output_file_expires_as_the_request_says(client: openai.OpenAI) -> None:
    """Files of a batch stay for a month, or as long as its creation asks."""
    created = client.batches.create(
        input_file_id=upload(client, TEN),
        endpoint=CHAT,
        completion_window="24h",
        output_expires_after={"anchor": "created_at", "seconds": 7200},
    )
    batch = ended(client, created)
    file = client.files.retrieve(batch.output_file_id or "")

    assert (f"{batch.id}_output.jsonl", "batch_output", 7200) == (
        file.filename,
        file.purpose,
        (file.expires_at or 0) - file.created_at,
    )


def test_files_are_listed_in_pages_and_deleted(endpoints: LocalEndpoints, client: openai.OpenAI) -> None:
    """The client's own paging finds all, newest first or oldest first, and a deleted file is not found."""
    ids = [upload(client, TEN, f"{number}.jsonl") for number in range(5)]
    image = client.files.create(file=("a.png", b"x"), purpose="vision")

    assert [image.id, *reversed(ids)] == [file.id for file in client.files.list(limit=2)]
    assert ids == [file.id for file in client.files.list(purpose="batch", order="asc", limit=1)]
    assert jsonl(TEN) == client.files.content(ids[0]).content
    assert image.expires_at is None
    deleted = client.files.delete(ids[0])
    assert (ids[0], True) == (deleted.id, deleted.deleted)
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            call(ids[0])
    assert ["1.jsonl", "2.jsonl", "3.jsonl", "4.jsonl", "a.png"] == endpoints.files


def test_batches_are_listed_in_pages(client: openai.OpenAI) -> None:
    """Newest first, over pages; a page after an unknown batch, or of no length, is refused."""
    ids = [submit(client, TEN).id for _ in range(5)]

    assert list(reversed(ids)) == [batch.id for batch in client.batches.list(limit=2)]
    assert [ids[1], ids[0]] == [batch.id for batch in client.batches.list(after=ids[2])]
    with pytest.raises(openai.BadRequestError):
        client.batches.list(after="batch_none")
    with pytest.raises(openai.BadRequestError, match="below minimum"):
        client.batches.list(limit=0)
    with pytest.raises(openai.NotFoundError, match="No batch found"):
        client.batches.retrieve("batch_none")


def test_the_same_key_is_the_same_batch(client: openai.OpenAI) -> None:
    """A creation with an `Idempotency-Key` that was used before returns the batch of then."""
    file_id = upload(client, TEN)

    def create(key: str) -> str:
        return client.batches.create(
            input_file_id=file_id, endpoint=CHAT, completion_window="24h", extra_headers={"Idempotency-Key": key}
        ).id

    first = create("a")
    assert (first, True) == (create("a"), first != create("b"))


def test_a_cancelled_batch_has_what_was_answered(endpoints: LocalEndpoints, client: openai.OpenAI) -> None:
    """It is cancelling, then cancelled, with an output file of the answers by then, and cannot go on."""
    endpoints.batches = Batches(stall_after={0: 4, 1: 0})
    batch = reached(client, submit(client, TEN), "in_progress", answered=4)
    cancelling = client.batches.cancel(batch.id)
    cancelled = ended(client, batch)
    none = reached(client, submit(client, TEN), "in_progress")
    client.batches.cancel(none.id)

    assert ("cancelling", None) == (cancelling.status, cancelling.output_file_id)
    assert cancelled.request_counts is not None
    assert ("cancelled", 10, 4, 0) == (
        cancelled.status,
        cancelled.request_counts.total,
        cancelled.request_counts.completed,
        cancelled.request_counts.failed,
    )
    assert set(endpoints.answered) == set(answers(client, cancelled.output_file_id))
    assert (4, None) == (len(endpoints.answered), cancelled.error_file_id)
    assert cancelled.status == client.batches.cancel(batch.id).status
    assert ("cancelled", None) == ((last := ended(client, none)).status, last.output_file_id)
    done = ended(client, submit(client, TEN))
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        client.batches.cancel(done.id)


def test_work_goes_on_after_an_outage(endpoints: LocalEndpoints, client: openai.OpenAI) -> None:
    """Files and batches are there again, and no request that was answered is answered again."""
    endpoints.batches = Batches(stall_after={0: 4})
    batch = reached(client, submit(client, TEN), "in_progress", answered=4)
    endpoints.stop()
    with pytest.raises(openai.APIConnectionError):
        client.batches.retrieve(batch.id)
    endpoints.start()
    endpoints.release_batches()

    assert 10 == len(answers(client, ended(client, batch).output_file_id))
    assert {1} == set(endpoints.answered.values())


def test_files_go_with_their_endpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the context manager deletes the folder, and forgets what was in it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with LocalEndpoints({"chat": Echo()}) as endpoints, client_of(endpoints) as client:
        ended(client, submit(client, TEN))
        [folder] = tmp_path.iterdir()
        assert 2 == len(list(folder.iterdir()))

    assert ([], []) == (list(tmp_path.iterdir()), endpoints.files)


def test_a_file_comes_back_as_it_went(client: openai.OpenAI) -> None:
    """Any bytes, in pieces: ends of lines, boundaries, and nothing are content."""
    contents = [b"", b"\r\n", b"--boundary\r\n\r\n", bytes(range(256)) * 5_000]
    files = [client.files.create(file=('a "b".bin', each), purpose="user_data") for each in contents]

    assert [hashlib.sha256(each).digest() for each in contents] == [
        hashlib.sha256(client.files.content(file.id).content).digest() for file in files
    ]
    assert [len(each) for each in contents] == [file.bytes for file in files]
