"""The client of a Batch API against servers that fail by script: it never creates two batches, and shows no secret."""

import asyncio
import itertools
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_llm import Batch, Endpoint, Policy
from spark_llm.batches.calls import BatchRequestError
from spark_llm.batches.client import BatchClient
from spark_llm.errors import ConfigError, JobFailedError
from spark_llm.protocol.batches.objects import KEY
from tests.support.scripted_server import CUT, Received, Respond, ScriptedServer, Sent, scripted_server

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "s3cret-of-the-account"
UNAVAILABLE = Sent(503, {"error": {"message": "no healthy upstream"}})


class Clock:
    """A clock that a sleep moves on."""

    def __init__(self) -> None:
        """Begin at 0."""
        self.waits: list[float] = []

    def now(self) -> float:
        """Return the seconds that were slept."""
        return sum(self.waits)

    def sleep(self, seconds: float) -> None:
        """Sleep at once."""
        self.waits.append(seconds)


def client_of(server: ScriptedServer, clock: Clock | None = None, **policy: Any) -> BatchClient:  # noqa: ANN401 -- of Policy
    """Return a client of a server, on a clock of its own."""
    clock = clock or Clock()
    endpoint = Endpoint(f"{server.url}/v1/chat/completions?sig={SECRET}", token=SECRET)
    route = endpoint.resolve("/chat/completions", {})
    return BatchClient(route, Batch(), Policy(**policy), now=clock.now, sleep=clock.sleep, dice=lambda: 0.5)


class Provider:
    """A Batch API that keeps batches; `faults` say how the next requests to create one end, and whether it is made."""

    def __init__(self, *faults: tuple[Sent, bool], metadata: bool = True) -> None:
        """Have no batch yet."""
        self.faults = iter(faults)
        self.metadata = metadata
        self.batches: list[dict[str, Any]] = []

    def __call__(self, request: Received) -> Sent:
        """Answer a request."""
        if request.line == "GET /v1/batches":
            return Sent(body={"object": "list", "data": self.batches[::-1], "has_more": False})
        assert "POST /v1/batches" == request.line
        fault, made = next(self.faults, (None, True))
        if made:
            self.batches.append(self.batch(**request.json))
        return Sent(body=self.batches[-1]) if fault is None else fault

    def batch(self, input_file_id: str, metadata: dict[str, str], **_: object) -> dict[str, Any]:
        """Return a batch as it is described."""
        return {
            "id": f"batch_{len(self.batches)}",
            "status": "validating",
            "input_file_id": input_file_id,
            "metadata": metadata if self.metadata else None,
        }


def answers(*sent: Sent) -> Respond:
    """Return a script that answers one request after the other, and the last for ever."""
    script = itertools.chain(sent, itertools.repeat(sent[-1]))
    return lambda _: next(script)


def test_a_batch_is_created_of_a_file_with_a_key() -> None:
    """The key is in its metadata and in a header; the window and the route are those of the settings and the lines."""
    with scripted_server(Provider()) as server:
        batch = client_of(server).create("file-1", "k1")

    [request] = server.requests
    assert ("batch_0", "validating", False, "file-1", "k1") == (
        batch.id,
        batch.status,
        batch.ended,
        batch.input_file_id,
        batch.key,
    )
    assert {
        "input_file_id": "file-1",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {KEY: "k1"},
    } == request.json
    assert ("k1", f"Bearer {SECRET}", f"/v1/batches?sig={SECRET}") == (
        request.headers["idempotency-key"],
        request.headers["authorization"],
        request.path,
    )


FAULTS = {
    "cut": CUT,
    "500": Sent(500, {"error": {"message": "internal"}}),
    "502": Sent(502, b"<html><title>Bad gateway</title></html>"),
    "503": UNAVAILABLE,
    "504": Sent(504, b"timeout"),
    "409": Sent(409, {"error": {"message": "a request with this key is running"}}),
    "half an answer": Sent(200, {"id": "batch_0", "status": "validating"}, cut=5),
    "a page": Sent(200, b"<html>hello</html>"),
}


@pytest.mark.parametrize("metadata", [True, False], ids=["metadata", "no metadata"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_batch_that_was_created_before_the_answer_was_lost_is_found(fault: Sent, metadata: bool) -> None:  # noqa: FBT001 -- a table
    """By its key, or by its file where the server keeps no metadata; no second one is created."""
    provider = Provider((fault, True), metadata=metadata)
    provider.batches = [provider.batch("file-0", {KEY: "k0"}), provider.batch("file-9", {KEY: "k9"})]
    clock = Clock()
    with scripted_server(provider) as server:
        batch = client_of(server, clock).create("file-1", "k1")

    assert ("file-1", "batch_2", 3) == (batch.input_file_id, batch.id, len(provider.batches))
    assert ["POST /v1/batches", "GET /v1/batches"] == server.lines
    assert min(clock.waits) >= 1.0


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_batch_that_was_not_created_is_created_once(fault: Sent) -> None:
    """After the list has shown that there is none."""
    provider = Provider((fault, False), (fault, False), (fault, True))
    with scripted_server(provider) as server:
        client_of(server).create("file-1", "k1")

    assert 1 == len(provider.batches)
    assert ["POST /v1/batches", "GET /v1/batches"] * 3 == server.lines


REFUSED = [Sent(429, {"error": {"message": "slow down"}}), Sent(400, {"error": {"message": "no"}}), Sent(401, {})]
ENDS = st.tuples(st.sampled_from(list(FAULTS.values())), st.booleans()) | st.sampled_from(
    [(end, False) for end in REFUSED]
)


@pytest.mark.waits
@settings(max_examples=40)
@given(st.lists(ENDS, max_size=6), st.booleans())
def test_there_are_never_two_batches(ends: list[tuple[Sent, bool]], metadata: bool) -> None:  # noqa: FBT001 -- drawn
    """Whatever ends the attempts; where an error is not unclear, there is none."""
    provider = Provider(*ends, metadata=metadata)
    unclear = False
    created: list[str] = []
    with scripted_server(provider) as server:
        try:
            created.append(client_of(server).create("file-1", "k1").id)
        except BatchRequestError as error:
            unclear = error.unclear
    made = [batch["id"] for batch in provider.batches]

    assert len(made) <= 1
    assert made == created or (unclear and not created)


def test_the_last_attempt_is_looked_for_too() -> None:
    """Though no attempt is left."""
    provider = Provider((CUT, False), (CUT, True))
    with scripted_server(provider) as server:
        assert "batch_0" == client_of(server, max_tries=2).create("file-1", "k1").id


def test_nothing_is_created_where_the_list_fails() -> None:
    """The error says that the batch may be there."""

    def respond(request: Received) -> Sent:
        return CUT if request.method == "POST" else UNAVAILABLE

    with scripted_server(respond) as server, pytest.raises(BatchRequestError) as error:
        client_of(server, give_up_after_s=5).create("file-1", "k1")

    assert 1 == server.lines.count("POST /v1/batches")
    assert error.value.unclear


def test_an_earlier_batch_of_the_file_that_found_no_room_is_another_one() -> None:
    """Where a server keeps no metadata, the file is all that is known of it."""
    provider = Provider((CUT, False), metadata=False)
    full = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    provider.batches = [{**provider.batch("file-1", {}), "status": "failed", "errors": {"data": [full]}}]
    with scripted_server(provider) as server:
        assert "batch_1" == client_of(server).create("file-1", "k2").id


def test_a_refused_request_is_not_looked_for() -> None:
    """A 429 created nothing: its Retry-After is waited for, and the request is sent again."""
    provider = Provider((Sent(429, {"error": {"message": "slow down"}}, {"Retry-After": "7"}), False))
    clock = Clock()
    with scripted_server(provider) as server:
        client_of(server, clock).create("file-1", "k1")

    assert ["POST /v1/batches"] * 2 == server.lines
    assert [7.125] == clock.waits


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """For a batch, by the status or by the message, and for its content."""
    missing = Sent(404, {"error": {"message": "No such File object: file-1"}})
    not_ready = Sent(400, {"error": {"message": "The file file-1 is not yet processed.", "code": "invalid_payload"}})
    batch = Sent(body={"id": "b", "status": "validating"})
    clock = Clock()
    with scripted_server(answers(missing, not_ready, batch)) as server:
        assert "b" == client_of(server, clock).create("file-1", "k1").id
    with scripted_server(answers(missing, Sent(body=b"{}\n"))) as server:
        client_of(server, clock).download("file-1", str(tmp_path / "f"))

    assert b"{}\n" == (tmp_path / "f").read_bytes()
    assert [1.0, 1.0, 1.0] == clock.waits


def test_a_file_that_never_comes_ends_with_the_servers_message() -> None:
    """After as many attempts as the policy has."""
    with (
        scripted_server(answers(Sent(404, {"error": {"message": "No such File object: file-1"}}))) as server,
        pytest.raises(BatchRequestError, match=r"No such File object: file-1 \(after 4 attempts\) \(at .*/batches"),
    ):
        client_of(server).create("file-1", "k1")
    assert ["POST /v1/batches"] * 4 == server.lines


@pytest.mark.parametrize(
    ("sent", "is_quota", "kind"),
    [
        (
            Sent(400, {"error": {"code": "token_limit_exceeded", "message": "token_limit_exceeded: too many"}}),
            True,
            None,
        ),
        (Sent(429, {"error": {"message": "Enqueued token limit reached for m"}}), True, None),
        (Sent(429, {"error": {"message": "slow down"}}), True, "rate_limited"),
        (
            Sent(429, {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}),
            False,
            "quota",
        ),
        (Sent(400, {"error": {"message": "Invalid endpoint"}}), False, "invalid_request"),
    ],
)
def test_an_error_says_whether_the_same_request_passes_later(sent: Sent, is_quota: bool, kind: str | None) -> None:  # noqa: FBT001 -- a table
    """What waits for room is the caller's to wait for."""
    with scripted_server(answers(sent)) as server, pytest.raises(JobFailedError) as caught:
        client_of(server, give_up_after_s=1).create("file-1", "k1")

    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 -- its own
    assert isinstance(error, BatchRequestError)
    assert (is_quota, False) == (error.is_quota, error.unclear)
    assert kind in (None, error.error.kind)
    assert " Hint: " in str(error)


def test_no_secret_is_in_an_error() -> None:
    """Neither the token that a server repeats nor the query of the URL."""

    def respond(request: Received) -> Sent:
        return Sent(401, {"error": {"message": f"Incorrect API key provided: {SECRET} at {request.path}"}})

    with scripted_server(respond) as server:
        client = client_of(server)
        calls: list[Callable[[], object]] = [
            lambda: client.create("file-1", "k1"),
            lambda: client.get("b"),
            lambda: list(client.list()),
            lambda: list(client.files()),
            lambda: client.delete("f"),
            lambda: client.upload(__file__, "n"),
            lambda: client.download("f", "/dev/null"),
        ]
        for call in calls:
            with pytest.raises(BatchRequestError) as error:
                call()
            assert SECRET not in str(error.value)
            assert "the token" in error.value.hint
        with pytest.raises(ConfigError, match="the token") as refused:
            client.check()
        assert SECRET not in str(refused.value)


def pages(entries: list[dict[str, Any]], size: int, *, stuck: bool = False) -> Respond:
    """Return a script that answers lists in pages; one that is stuck has more for ever."""

    def respond(request: Received) -> Sent:
        after = request.path.partition("after=")[2].partition("&")[0]
        ids = [entry["id"] for entry in entries]
        start = ids.index(after) + 1 if after in ids and not stuck else 0
        page = entries[start : start + size]
        more = stuck or start + size < len(entries)
        return Sent(body={"data": page, "has_more": more, "last_id": page[-1]["id"] if page else None})

    return respond


def test_every_page_of_a_list_is_read() -> None:
    """Of batches and of files; a server that ignores `after` is not asked for ever."""
    batches = [{"id": f"b{n}", "status": "completed", "filename": f"n{n}"} for n in range(7)]
    with scripted_server(pages(batches, 3)) as server:
        assert [f"b{n}" for n in range(7)] == [batch.id for batch in client_of(server).list()]
        assert [(f"b{n}", f"n{n}") for n in range(7)] == list(client_of(server).files())
    assert 6 == len(server.requests)
    with scripted_server(pages(batches, 3, stuck=True)) as server:
        assert ["b0", "b1", "b2"] * 2 == [batch.id for batch in client_of(server).list()]


def test_a_batch_that_is_gone_is_none() -> None:
    """After some attempts, since it may be new."""
    with scripted_server(answers(Sent(404, {"error": {"message": "No batch found"}}))) as server:
        assert client_of(server, max_tries=2).get("b") is None
    assert 2 == len(server.requests)


def test_a_batch_that_has_ended_is_cancelled_already() -> None:
    """It is returned as it is; any other refusal is an error."""

    def respond(request: Received) -> Sent:
        refused = Sent(400, {"error": {"message": "Cannot cancel a batch with status 'completed'."}})
        return refused if request.method == "POST" else Sent(body={"id": "b", "status": status})

    with scripted_server(respond) as server:
        status = "completed"
        assert client_of(server).cancel("b").ended
        status = "in_progress"
        with pytest.raises(BatchRequestError, match="Cannot cancel"):
            client_of(server).cancel("b")


def test_a_file_that_is_gone_is_deleted() -> None:
    """Any other refusal is an error."""
    with scripted_server(answers(Sent(404, {}), Sent(400, {"error": {"message": "no"}}))) as server:
        client_of(server).delete("f/1")
        with pytest.raises(BatchRequestError):
            client_of(server).delete("f")
    assert "DELETE /v1/files/f%2F1" == server.lines[0]


@pytest.mark.parametrize(
    "sent",
    [
        Sent(404, {"detail": "Not Found"}),
        Sent(405, {"detail": "Method Not Allowed"}),
        Sent(200, b"<html><title>Sign in</title></html>"),
        Sent(200, {"message": "hello"}),
        Sent(501, {"error": {"message": "not implemented"}}),
    ],
)
def test_a_server_without_the_routes_has_one_clear_error(sent: Sent) -> None:
    """It names the endpoint, what it answered and what to do, after one request."""
    with (
        scripted_server(answers(sent)) as server,
        pytest.raises(ConfigError, match=r"/v1/chat/completions\S* has no Batch API \(.+\)\. Hint: leave batch= out"),
    ):
        client_of(server).check()
    assert ["GET /v1/batches"] == server.lines


def test_a_server_with_the_routes_passes() -> None:
    """Also one that has no batch yet, after an error that passes."""
    with scripted_server(answers(UNAVAILABLE, Sent(body={"object": "list", "data": []}))) as server:
        client_of(server).check()


def test_a_file_is_uploaded_as_a_form(tmp_path: Path) -> None:
    """After a fault it is sent again, whole."""
    path = tmp_path / "lines"
    path.write_bytes(b'{"custom_id":"a"}\n')
    with scripted_server(answers(UNAVAILABLE, CUT, Sent(body={"id": "file-1"}))) as server:
        assert "file-1" == client_of(server).upload(str(path), 'spark_llm-"k".jsonl')

    for request in server.requests:
        assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
        assert b'name="purpose"\r\n\r\nbatch\r\n' in request.body
        assert b'name="file"; filename="spark_llm-%22k%22.jsonl"\r\n' in request.body
        assert b'\r\n\r\n{"custom_id":"a"}\n\r\n--' in request.body


def test_a_broken_download_begins_anew(tmp_path: Path) -> None:
    """Nothing of the first attempt stays."""
    content = b"x" * 1_000_000
    with scripted_server(answers(Sent(body=content, cut=500_000), CUT, Sent(body=b"{}\n"))) as server:
        client_of(server).download("f", str(tmp_path / "f"))

    assert b"{}\n" == (tmp_path / "f").read_bytes()
    assert ["GET /v1/files/f/content"] * 3 == server.lines


@pytest.mark.parametrize("size", [0, 10, 65_530, 65_536, 200_000])
def test_a_file_whose_last_line_is_not_whole_is_fetched_again(tmp_path: Path, size: int) -> None:
    """However long the line is, and whether or not it has a line break; a file of nothing is whole."""
    line = json.dumps({"text": "x" * size}).encode()
    path = tmp_path / "f"
    for whole in (line, line + b"\n", b"{}\n" + line, line + b"\r\n" + line + b"\n\n", b"", b"\n"):
        with scripted_server(answers(Sent(body=b"{}\n" + line[:-1]), Sent(body=whole))) as server:
            client_of(server).download("f", str(path))

        assert whole == path.read_bytes()
        assert 2 == len(server.requests)


def test_a_full_disk_is_no_fault_of_the_server() -> None:
    """It is raised, and nothing is tried again."""
    with scripted_server(answers(Sent(body=b"x" * 100_000))) as server, pytest.raises(OSError, match="space"):
        client_of(server).download("f", "/dev/full")
    assert 1 == len(server.requests)


def test_it_works_within_an_event_loop() -> None:
    """As in a notebook."""

    async def cell(client: BatchClient) -> list[str]:
        return [batch.id for batch in client.list()]

    with scripted_server(pages([{"id": "b"}], 1)) as server:
        assert ["b"] == asyncio.run(cell(client_of(server)))
