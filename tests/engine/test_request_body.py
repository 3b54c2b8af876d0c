"""The size of requests: what fits is sent, what does not is split or refused, and a refusal costs nothing."""

from itertools import pairwise
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm import Endpoint, Policy
from spark_llm.auth.credentials import Bearer
from spark_llm.endpoint.route import Route
from spark_llm.engine.request_body import BodyWriter, unsendable_error
from spark_llm.engine.request_spec import StreamJob
from spark_llm.flow.batcher import MB, Indexed
from spark_llm.flow.controller import FlowController
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.request import Request
from spark_llm.flow.scheduler import RequestScheduler
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Field, Scalar, Struct
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Answer, Item, Result
from spark_llm.serving import LocalEndpoints
from tests.support.asking import ask, engine, engine_at, kinds
from tests.support.reply_model import ReplyModel
from tests.support.strategies import TEXTS

TASKS: list[Task] = [Chat(system="Be brief."), Complete(b'{"max_tokens":8}'), Embed()]
TYPED = Chat(output=StructuredOutput("review", Struct((Field("stars", Scalar("integer")),))))


class Sent(NamedTuple):
    """The bodies that were sent, the rows that were not, and what the limits were charged."""

    bodies: list[bytes]
    refused: set[int]
    charged_requests: float


def own_size(writer: BodyWriter, item: Item) -> int:
    """Count the bytes of a request for one input alone."""
    return len(writer.write(Request(None, [(0, item)], WireFormatNegotiation(writer.task, 1))))


def send(writer: BodyWriter, batches: list[list[Indexed]], batch_size: int = 1) -> Sent:
    """Send requests to a server that answers each at once."""
    controller = FlowController(Policy(requests_per_minute=1e6))
    scheduler = RequestScheduler(controller, Policy(), unsendable_error)
    negotiation = WireFormatNegotiation(writer.task, batch_size)
    for batch in batches:
        scheduler.add(SimpleNamespace(bodies=writer), batch, negotiation)
    bodies: list[bytes] = []
    answered: list[int] = []
    while going := scheduler.ready(0.0):
        for request in going:
            bodies.append(bytes(request.body or b""))
            answered += [number for number, _ in request.inputs]
            scheduler.on_answer(request, Answer([Result(text="a") for _ in request.inputs], None), 0.0, 0.1)
    refused = {number for request, _ in scheduler.unsendable for number, _ in request.inputs}
    assert sorted(number for batch in batches for number, _ in batch) == sorted([*answered, *refused])
    assert 0 == controller.in_flight == len(scheduler)
    return Sent(bodies, refused, controller.limiter.used[0])


@given(
    task=st.sampled_from(TASKS),
    texts=st.lists(TEXTS, max_size=30),
    max_bytes=st.integers(60, 400),
    batch_size=st.integers(1, 9),
    packed=st.booleans(),
)
def test_a_body_keeps_within_the_limit_exactly(
    task: Task, texts: list[str], max_bytes: int, batch_size: int, *, packed: bool
) -> None:
    """A row is refused if and only if its own body is too large, and then costs no request; all others are sent."""
    writer = BodyWriter(task, "m", b'"client_request_id":"r"', max_bytes)
    inputs: list[Indexed] = list(enumerate(texts))
    batcher = writer.batcher(task.max_inputs(0, batch_size))
    too_large = [inputs] if isinstance(task, Embed) and inputs else [[entry] for entry in inputs]
    sent = send(writer, batcher.add(inputs) + batcher.flush() if packed else too_large, 30)

    assert all(len(body) <= max_bytes for body in sent.bodies)
    assert {number for number, text in inputs if own_size(writer, text) > max_bytes} == sent.refused
    assert len(sent.bodies) == sent.charged_requests


@given(st.sampled_from(TASKS), TEXTS)
def test_the_limit_itself_is_allowed(task: Task, text: str) -> None:
    """A body of exactly the limit is sent; with a byte less allowed it is not."""
    size = own_size(BodyWriter(task), text)
    exact = send(BodyWriter(task, max_bytes=size), [[(0, text)]])

    assert ([size], set()) == (list(map(len, exact.bodies)), exact.refused)
    assert ([], {0}, 0) == send(BodyWriter(task, max_bytes=size - 1), [[(0, text)]])


@given(st.lists(st.text("ab", max_size=20), min_size=2, max_size=30), st.integers(120, 400))
def test_packed_requests_are_full(texts: list[str], max_bytes: int) -> None:
    """No request that the batcher fills is split, and the next input would not have fitted."""
    writer = BodyWriter(Embed(), "m", b'"client_request_id":"r"', max_bytes)
    batcher = writer.batcher(30)
    batches = batcher.add(enumerate(texts)) + batcher.flush()
    sent = send(writer, batches, 30)

    assert len(batches) == len(sent.bodies)
    for batch, following in pairwise(batches):
        assert len(writer.write(Request(None, [*batch, following[0]], WireFormatNegotiation(Embed(), 30)))) > max_bytes


@pytest.mark.parametrize(
    ("url", "max_mb"),
    [
        ("https://adb-1.2.azuredatabricks.net/serving-endpoints/e/invocations", 4),
        ("http://127.0.0.1:1/serving-endpoints/e/invocations", 4),  # what stands in front of a workspace
        ("https://dbc-1.cloud.databricks.com/ai-gateway/mlflow/v1/chat/completions", 4),
        ("https://api.openai.com/v1/chat/completions", None),
        ("http://127.0.0.1:1/v1/chat/completions", None),
    ],
)
def test_the_limit_is_that_of_the_service(url: str, max_mb: int | None) -> None:
    """Databricks takes 4 MB; others take what they take; a policy's own limit comes first."""
    route = Route(url, None, Bearer())

    assert (None if max_mb is None else max_mb * MB) == BodyWriter.of(Chat(), Policy(), route, b"").max_bytes
    assert MB // 2 == BodyWriter.of(Chat(), Policy(max_request_mb=0.5), route, b"").max_bytes


def test_a_row_that_is_too_large_is_an_error_without_a_request(endpoints: LocalEndpoints) -> None:
    """The row says how large it is, and what to do; its neighbours are answered."""
    rows: list[Item | None] = ["a", "b" * 2 * MB, None, "c", "b" * 2 * MB]
    results = ask(engine(endpoints, policy=Policy(max_request_mb=1)), [rows])
    [first, second] = [result for result in results if result is not None and result.error is not None]

    assert [None, "invalid_request", None, None, "invalid_request"] == kinds(results)
    assert (0, 0, None) == (first.attempts, first.requests, first.latency_ms)
    assert first.error == second.error
    assert first.error is not None
    assert (None, False) == (first.error.status, first.error.retryable)
    assert "2 MB (2,0" in first.error.message
    assert "the limit is 1 MB (1,048,576 bytes). Hint: " in first.error.message
    assert "Policy(max_request_mb=…)" in first.error.message
    assert 2 == endpoints.stats.requests


@pytest.mark.parametrize("rows", [["x" * 5 * MB], ["x" * 5 * MB, "a"], ["a", "x" * 5 * MB]])
def test_the_default_limit_at_databricks_is_4_mb(endpoints: LocalEndpoints, rows: list[Item | None]) -> None:
    """A row of 5 MB is never sent, first or last, alone or not; no other row waits for it."""
    task = Embed()
    results = ask(engine(endpoints, "embed", task=task), [rows], task)

    assert ["invalid_request" if len(str(row)) > 1 else None for row in rows] == kinds(results)
    assert min(1, len(rows) - 1) == endpoints.stats.requests


def test_the_gateway_has_the_limit_of_databricks() -> None:
    """It stands at the workspace's host, whatever name that has."""
    assert 4 == Chat().max_request_mb("http://127.0.0.1:8/ai-gateway/mlflow/v1/chat/completions")


def test_a_body_that_is_refused_for_its_size_is_sent_once(endpoints: LocalEndpoints) -> None:
    """No other format of the request is smaller, nor is it without the fields that name the job."""
    allowed = engine(endpoints, "chat", Policy(max_request_mb=50))
    job = StreamJob(attribution=b'"usage_context":{"job":"a"}')
    results = [result for chunk in allowed.stream(Chat(), iter([["x" * 5 * MB]]), job) for result in chunk]

    assert ["invalid_request"] == kinds(results)
    assert {413: 1} == endpoints.stats.by_status


def test_elsewhere_any_size_is_sent(endpoints: LocalEndpoints) -> None:
    """An OpenAI-style base URL gets the same row."""
    asked = engine_at(Endpoint(endpoints.openai_url, model="chat", token=endpoints.token))

    assert [None] == kinds(ask(asked, [["x" * 5 * MB]]))
    assert 1 == endpoints.stats.requests


def test_rows_are_packed_within_the_limit(endpoints: LocalEndpoints) -> None:
    """200 texts of 100 bytes in requests of a kilobyte: 9 in each, and none is larger."""
    task = Embed()
    rows: list[Item | None] = [f"{number:0100}" for number in range(200)]
    results = ask(engine(endpoints, "embed", Policy(max_request_mb=0.001), task), [rows], task)

    assert [None] * 200 == kinds(results)
    assert max(int(request.headers["content-length"]) for request in endpoints.requests) <= 0.001 * MB
    assert 23 <= endpoints.stats.requests <= 26


def test_a_reask_that_grows_too_large_keeps_its_answer() -> None:
    """The answer that did not fit is the row's, with its error, where no room is left to ask again."""
    reply = '{"stars": "' + "three" * 100 + '"}'
    with LocalEndpoints({"chat": ReplyModel(lambda request: reply)}) as endpoints:
        [result] = ask(engine(endpoints, policy=Policy(max_request_mb=0.001), task=TYPED), [["a"]], TYPED)
        counted = endpoints.stats.requests

    assert ["schema_mismatch"] == kinds([result])
    assert result is not None
    assert (reply, 1, 1) == (result.text, result.requests, counted)
