"""Files and batches from the first line to the last reply, on the local endpoint's Batch API."""

from collections.abc import Callable
from pathlib import Path

import pytest

from spark_llm import Batch, Endpoint, Policy, preflight
from spark_llm.batches.calls import BatchRequestError
from spark_llm.batches.client import BatchClient
from spark_llm.batches.download import downloaded_lines
from spark_llm.batches.upload import UploadedFile, uploaded_files
from spark_llm.errors import ConfigError
from spark_llm.protocol.batches.lines import Reply, read_line
from spark_llm.protocol.batches.objects import BatchState
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.values import Answer
from spark_llm.readiness.report import Report
from spark_llm.serving import After, Batches, Faults, LocalEndpoints

ROUTES = {
    "openai": "/v1/chat/completions",
    "responses": "/v1/responses",
    "azure": "/openai/v1/chat/completions",
    "azure of old": "/openai/deployments/chat/chat/completions?api-version=2024-10-21",
}
CHAT = Chat(system="Answer.")


def client_of(endpoints: LocalEndpoints, path: str = ROUTES["openai"]) -> BatchClient:
    """Return a client of a route that waits a moment between attempts."""
    route = Endpoint(endpoints.url + path, model="chat", token=endpoints.token).resolve(
        "/responses" if path.endswith("/responses") else "/chat/completions", {}
    )
    return BatchClient(route, Batch(max_requests=10), Policy(max_tries=3, give_up_after_s=1), sleep=lambda _: None)


def upload(client: BatchClient, count: int, wire_format: int = 0) -> list[UploadedFile]:
    """Upload chats that are numbered."""
    requests = ((f"id-{number}", CHAT.encode([f"row {number}"], "chat", wire_format)) for number in range(count))
    return list(uploaded_files(client, requests, "run-stage-0"))


def ended(
    client: BatchClient, batch_id: str, done: Callable[[BatchState], bool] = lambda batch: batch.ended
) -> BatchState:
    """Look at a batch until it has ended."""
    for _ in range(1_000):
        batch = client.get(batch_id)
        assert batch is not None
        if done(batch):
            return batch
    raise AssertionError(batch)


def replies(client: BatchClient, batch: BatchState) -> dict[str, Reply]:
    """Return the replies of a batch, by the id of the request."""
    files = filter(None, (batch.output_file_id, batch.error_file_id))
    found = [read_line(line) for line in downloaded_lines(client, files)]
    return {reply.custom_id: reply for reply in found if reply is not None}


def named(report: Report) -> list[tuple[str, str]]:
    """Return the name and the outcome of each check."""
    return [(check.name, check.outcome) for check in report.checks]


@pytest.mark.parametrize("path", ROUTES.values(), ids=ROUTES)
def test_each_request_is_answered_once(endpoints: LocalEndpoints, path: str) -> None:
    """On each route; the answers are those of single requests, in any order."""
    client = client_of(endpoints, path)
    wire_format = 8 if path.endswith("/responses") else 0
    client.check()
    files = upload(client, 25, wire_format)
    batches = [ended(client, client.create(file.file_id, file.key).id) for file in files]
    answers = {name: reply for batch in batches for name, reply in replies(client, batch).items()}
    listed = {batch.id: batch for batch in client.list()}

    assert [10, 10, 5] == [batch.completed for batch in batches] == [len(file.custom_ids) for file in files]
    assert {batch.id for batch in batches} == set(listed)
    assert {(file.file_id, f"spark_llm-{file.key}.jsonl") for file in files} <= set(client.files())
    assert {f"id-{number}" for number in range(25)} == set(answers)
    for number in range(25):
        response = answers[f"id-{number}"].response
        assert response is not None
        outcome = CHAT.decode(response, 1, wire_format)
        assert isinstance(outcome, Answer)
        assert f"row {number}" in (outcome.results[0].text or "")
    for file in files:
        client.delete(file.file_id)
        client.delete(file.file_id)


@pytest.mark.parametrize("fault", ["cut", "500", "garbage", "503", "429@0.001"])
def test_one_batch_is_created_whatever_the_first_answer_is(endpoints: LocalEndpoints, fault: str) -> None:
    """Also where the file is not found at once."""
    endpoints.batches = Batches(on_create=Faults(fault), file_visible=After(requests=1))
    client = client_of(endpoints)
    [file] = upload(client, 1)
    batch = client.create(file.file_id, file.key)

    assert [(batch.id, file.key)] == [(each.id, each.key) for each in client.list()]


def test_an_expired_batch_has_a_reply_for_every_request(endpoints: LocalEndpoints) -> None:
    """Those that were not answered have a code."""
    endpoints.batches = Batches(expire_after={0: 3})
    client = client_of(endpoints)
    [file] = upload(client, 8)
    batch = ended(client, client.create(file.file_id, file.key).id)
    codes = sorted(reply.code for reply in replies(client, batch).values())

    assert ("expired", [""] * 3 + ["batch_expired"] * 5) == (batch.status, codes)


def test_a_batch_without_room_says_so(endpoints: LocalEndpoints) -> None:
    """It is a quota, and no fault of a line."""
    endpoints.batches = Batches(enqueued_tokens=1)
    client = client_of(endpoints)
    [file] = upload(client, 2)

    assert ended(client, client.create(file.file_id, file.key).id).is_quota

    endpoints.batches = Batches(fail={0: "invalid_json_line@2"})
    batch = ended(client, client.create(file.file_id, f"{file.key}-2").id)

    assert ("failed", False, 2) == (batch.status, batch.is_quota, batch.problems[0].line)


def test_a_stalled_batch_is_cancelled_with_what_was_answered(endpoints: LocalEndpoints) -> None:
    """One that has ended stays as it is."""
    endpoints.batches = Batches(stall_after={0: 2})
    client = client_of(endpoints)
    [file] = upload(client, 4)
    batch_id = client.create(file.file_id, file.key).id
    ended(client, batch_id, lambda batch: batch.completed == 2)
    client.cancel(batch_id)
    batch = ended(client, batch_id)

    assert "cancelled" == batch.status == client.cancel(batch_id).status
    assert 2 == sum(reply.response is not None for reply in replies(client, batch).values())


def test_a_broken_download_and_a_refused_upload_are_tried_again(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """Until the attempts are spent."""
    endpoints.batches = Batches(on_download=Faults("cut half 500"), on_upload=Faults("503 cut"))
    client = client_of(endpoints)
    [file] = upload(client, 3)
    with pytest.raises(BatchRequestError):
        client.download(file.file_id, str(tmp_path / "f"))
    client.download(file.file_id, str(tmp_path / "f"))

    assert 3 == (tmp_path / "f").read_bytes().count(b"\n")


def test_preflight_looks_for_the_routes(endpoints: LocalEndpoints) -> None:
    """By GET alone: it uploads nothing; without the routes it says what to do."""
    endpoint = Endpoint(f"{endpoints.url}/v1", model="chat", token=endpoints.token)
    with_routes = preflight(endpoint, task="chat", batch=True)
    endpoints.batches = Batches(enabled=False)
    without = preflight(endpoint, task="chat", batch=True)
    databricks = preflight(Endpoint(endpoints.invocations("chat"), token=endpoints.token), task="chat", batch=True)
    wrong_token = preflight(Endpoint(f"{endpoints.url}/v1", model="chat", token="wrong"), task="chat", batch=True)

    assert ("batches", "passed") == named(with_routes)[-1]
    assert with_routes.ok
    for report in (without, databricks):
        [failed] = report.failed
        assert "batches" == failed.name
        assert "has no Batch API" in failed.message
        assert "leave batch= out" in failed.hint
    assert [("request", "failed"), ("batches", "skipped")] == named(wrong_token)[-2:]
    endpoints.batches = Batches()
    assert [] == list(client_of(endpoints).files())


def test_preflight_sends_no_single_request_to_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its deployments for batches answer none; here a proxy that is not there ends the look for the routes."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    endpoint = Endpoint(f"https://x.openai.azure.com{ROUTES['azure of old']}", token="key")
    names = [("address", "passed"), ("credentials", "passed"), ("description", "skipped"), ("request", "skipped")]

    assert [*names, ("batches", "failed")] == named(preflight(endpoint, batch=True))


def test_a_wrong_value_of_batch_is_an_error(endpoints: LocalEndpoints) -> None:
    """It is a flag: the settings of a job are another thing."""
    with pytest.raises(ConfigError, match="batch"):
        preflight(endpoints.invocations("chat"), batch=Batch())  # type: ignore[arg-type]  # the test
