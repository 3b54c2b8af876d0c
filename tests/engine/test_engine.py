"""The engine against an endpoint that answers: order, windows, readers that go; no Spark."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.auth.tokens import TokenKeeper
from spark_llm.engine.engine import Engine
from spark_llm.engine.row_stream import NOT_YET
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.values import Item, Result
from spark_llm.serving import Echo, LocalEndpoints
from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import ChatRequest
from tests.support.asking import CHAT, ask, comes_true, distinct, engine, engine_at, kinds, started, texts
from tests.support.reply_model import ReplyModel


@pytest.mark.waits
def test_results_come_in_the_order_of_the_rows_whatever_order_the_answers_came_in(endpoints: LocalEndpoints) -> None:
    """Order in is order out, across batches, with nulls in their places."""
    endpoints.latency_s = lambda number: 0.02 * (number * 7 % 5)
    rows: list[Item | None] = [None if number % 10 == 3 else f"row {number}" for number in range(200)]

    assert rows == texts(ask(engine(endpoints), [rows[:70], [], rows[70:75], rows[75:]]))
    assert 180 == endpoints.stats.requests


@pytest.mark.waits
def test_a_slow_row_holds_one_slot_and_no_batch(endpoints: LocalEndpoints) -> None:
    """While an early row waits, rows of later batches are asked and answered; it leaves in its turn all the same."""
    endpoints.hold("slow")
    rows: list[Item | None] = [f"row {number}" for number in range(100)]
    rows[2] = "slow"
    batches = [rows[start : start + 10] for start in range(0, 100, 10)]
    results: list[Result | None] = []

    def read() -> None:
        results.extend(ask(engine(endpoints), batches))

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    endpoints.wait_for(lambda stats: stats.rows_answered == 99, timeout_s=30)
    assert 1 == endpoints.stats.in_flight
    endpoints.release()
    reading.join(timeout=30)

    assert rows == texts(results)
    assert 100 == endpoints.stats.requests


@pytest.mark.waits
def test_no_more_requests_are_in_flight_than_the_policy_allows(endpoints: LocalEndpoints) -> None:
    """`max_in_flight` divided by `tasks` is the most of one task, and it is reached."""
    endpoints.latency_s = 0.02
    ask(engine(endpoints, policy=Policy(max_in_flight=12, tasks=3)), [distinct(60)])

    assert 4 == endpoints.stats.max_in_flight


@pytest.mark.waits
def test_the_window_grows_from_one_by_itself(endpoints: LocalEndpoints) -> None:
    """Without a number the window doubles from one request while the endpoint answers."""
    endpoints.latency_s = 0.3  # 30 in flight are then 100 a second, which a busy machine can do
    ask(engine(endpoints), [distinct(300)])

    assert 16 < endpoints.stats.max_in_flight < 300


def test_a_blank_text_is_never_embedded(endpoints: LocalEndpoints) -> None:
    """Null and blank inputs of an embedding have null results and cost nothing."""
    task = Embed()

    assert [None, None, None] == ask(engine(endpoints, "embed", task=task), [[None, "", " \n"]], task)
    assert 0 == endpoints.stats.requests


def test_a_reader_that_goes_leaves_nothing_in_flight(endpoints: LocalEndpoints) -> None:
    """When the caller stops reading, requests in flight are cancelled and no more are sent."""
    endpoints.hold("held")
    stream = engine(endpoints).stream(CHAT, iter([["a", "b", *["held"] * 500]]))
    first = texts(next(stream))
    endpoints.wait_for(lambda stats: stats.in_flight > 0)
    stream.close()  # type: ignore[attr-defined]
    stats = endpoints.wait_for(lambda stats: stats.in_flight == 0)

    assert first in (["a"], ["a", "b"])
    assert stats.requests <= 28
    assert stats.requests == stats.rows_answered + stats.disconnects


@pytest.mark.parametrize("role", ["usr", "", None])
def test_a_conversation_with_a_bad_role_is_its_rows_error(role: str | None, endpoints: LocalEndpoints) -> None:
    """The server's refusal is the row's error and costs no token; its neighbours are answered."""
    rows: list[Item | None] = ["a", [{"role": role, "content": "b"}], "c"]
    results = ask(engine(endpoints), [rows])

    assert ["a", None, "c"] == texts(results)
    assert [None, "invalid_request", None] == kinds(results)
    assert {200: 2, 400: 1} == endpoints.stats.by_status


def test_input_that_breaks_leaves_nothing_in_flight(endpoints: LocalEndpoints) -> None:
    """An exception of the input passes through, after the requests in flight were cancelled."""
    endpoints.hold("held")

    def batches() -> Iterator[list[Item | None]]:
        yield ["a", "held"]
        raise LookupError("upstream")

    with pytest.raises(LookupError):
        ask(engine(endpoints), batches())
    endpoints.wait_for(lambda stats: stats.in_flight == 0)


@pytest.mark.waits
def test_input_is_read_no_further_than_the_window_needs(endpoints: LocalEndpoints) -> None:
    """Memory is bounded by the window and the span: an endless input is not read ahead of what leaves."""
    read = 0

    def endless() -> Iterator[list[Item | None]]:
        nonlocal read
        while True:
            read += 100
            yield [f"row {read}"] * 100

    endpoints.hold("row 100")
    stream = engine(endpoints).stream(CHAT, endless())
    for chunk in stream:
        assert [] == chunk
        break
    stream.close()  # type: ignore[attr-defined]

    assert 100 == read


@pytest.mark.waits
def test_the_next_task_finds_the_window_and_the_connections_of_the_last(endpoints: LocalEndpoints) -> None:
    """An engine begins the next stream with the window that it has found."""
    endpoints.latency_s = 0.02
    asked = engine(endpoints, policy=Policy(max_in_flight=8))
    ask(asked, [distinct(100)])
    endpoints.reset()
    endpoints.hold("held")
    asking = threading.Thread(target=ask, args=(asked, [[f"held {number}" for number in range(8)]]), daemon=True)
    asking.start()
    endpoints.wait_for(lambda stats: stats.in_flight == 8, timeout_s=30)
    endpoints.release()
    asking.join(timeout=30)

    assert 8 == endpoints.stats.rows_answered


def test_the_system_message_reaches_the_model(endpoints: LocalEndpoints) -> None:
    """`system` goes before the row's text."""
    task = replace(CHAT, system="Be brief.")

    assert ["Be brief.\nhello"] == texts(ask(engine(endpoints, task=task), [["hello"]], task))


@pytest.mark.waits
@pytest.mark.parametrize("fails", [False, True])
def test_requests_go_on_while_a_token_is_renewed_early(endpoints: LocalEndpoints, *, fails: bool) -> None:
    """The old token is valid: all rows are answered with it while the token function hangs."""
    entered, gate = threading.Event(), threading.Event()
    calls = []

    def slow() -> str:
        calls.append(threading.current_thread())
        if len(calls) > 1:
            entered.set()
            assert gate.wait(30)
            if fails:
                raise OSError("sealed")
        return endpoints.token

    route = Endpoint(endpoints.invocations("chat"), token=slow).resolve(CHAT.route, {})
    keeper = TokenKeeper(route.credential)
    keeper.renew_if_needed()
    keeper._token = keeper._token._replace(renew_at=0.0)  # noqa: SLF001 -- as if the time to renew had come
    asked = Engine(route, Policy(), keeper)
    started.append(asked)
    results = ask(asked, [distinct(200)])

    assert distinct(200) == texts(results)
    assert entered.wait(30)
    gate.set()
    assert distinct(20) == texts(ask(asked, [distinct(20)]))
    assert 2 == len(calls)
    assert comes_true(lambda: not keeper.needs_renewal(time.time()))


def test_an_expired_token_holds_requests_back(endpoints: LocalEndpoints) -> None:
    """No request goes before there is a new token: none is spent on a 401."""
    gate = threading.Event()
    asked = engine_at(Endpoint(endpoints.invocations("chat"), token=lambda: endpoints.token if gate.wait(30) else ""))
    with ThreadPoolExecutor(1) as threads:
        results = threads.submit(ask, asked, [distinct(20)])
        assert 0 == endpoints.stats.requests
        gate.set()

        assert distinct(20) == texts(results.result(30))
    assert {200: 20} == endpoints.stats.by_status


def test_a_model_without_a_system_role_has_its_instructions_in_the_users_message() -> None:
    """Three rows show it, each refused once, whose message it is: the UDF's or one of the conversation's own."""
    task = replace(CHAT, system="Be brief.")
    with LocalEndpoints({"chat": Echo(refuse_roles=("system",))}) as served:
        results = ask(engine(served, task=task), [distinct(50)], task)
        own = [[{"role": "system", "content": f"Be kind {n}."}, {"role": "user", "content": "a"}] for n in range(9)]
        conversations = ask(engine(served), [own])

        assert [f"Be brief.\n\nrow {row}" for row in range(50)] == texts(results)
        assert [f"Be kind {number}.\n\na" for number in range(9)] == texts(conversations)
        assert {400: 6, 200: 59} == served.stats.by_status


def test_one_conversation_with_bad_roles_changes_nothing_for_the_others() -> None:
    """It may pass without its system message; the others keep theirs."""

    def say(request: ChatRequest) -> str:
        roles = [message.role for message in request.messages]
        if roles == ["system", "assistant"]:
            raise Refused.bad_request("Conversation roles must alternate user/assistant/user/assistant/...")
        return " ".join(roles)

    odd: Item = [{"role": "assistant", "content": "Hello."}]
    task = replace(CHAT, system="Be brief.")
    with LocalEndpoints({"chat": ReplyModel(say)}) as served:
        results = ask(engine(served, task=task), [[odd, *distinct(20)]], task)

    assert ["user assistant", *["system user"] * 20] == texts(results)


@pytest.mark.waits
def test_waiting_costs_no_processor_time(endpoints: LocalEndpoints) -> None:
    """While answers are on their way Spark's thread sleeps."""
    endpoints.latency_s = 0.1
    asked = engine(endpoints, policy=Policy(max_in_flight=16))
    began = time.thread_time()
    ask(asked, [distinct(100)] * 3)

    assert time.thread_time() - began < 0.5


@pytest.mark.waits
def test_rows_may_depend_on_results(endpoints: LocalEndpoints) -> None:
    """A source that waits for results gets them as they come, without a deadlock and without a busy loop."""
    endpoints.latency_s = 0.05
    results: list[Result | None] = []
    asked_for = 0

    def rows() -> Iterator[list[Item | None]]:
        nonlocal asked_for
        for generation in range(3):
            yield [f"{generation} {number}" for number in range(5)]
            while len(results) < 5 * (generation + 1):
                asked_for += 1
                yield NOT_YET  # type: ignore[misc]  # rows of no kind

    for chunk in engine(endpoints).stream(CHAT, rows()):
        results += chunk

    assert [f"{generation} {number}" for generation in range(3) for number in range(5)] == texts(results)
    assert 15 == endpoints.stats.requests
    assert asked_for < 60
