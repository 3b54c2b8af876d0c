"""The engine against an endpoint that answers, refuses, hangs and goes away; no Spark."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from spark_llm import Endpoint, Policy, RowFailedError
from spark_llm._engine import Engine
from spark_llm._tasks import Task
from spark_llm._tasks.chat import Chat
from spark_llm._tasks.embed import Embed
from spark_llm._values import Item, Result
from spark_llm.serving import Echo, Faults, LocalEndpoints, echo_vector

CHAT = Chat()


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """Echo endpoints with nothing wrong yet."""
    with LocalEndpoints() as started:
        yield started


_engines: list[Engine] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close a test's engines when it is over."""
    yield
    while _engines:
        _engines.pop().close()


def engine_at(endpoint: Endpoint, policy: Policy = Policy(), task: Task = CHAT) -> Engine:
    """Return a new engine."""
    _engines.append(Engine(endpoint.resolve(task.route, {}), policy, task))
    return _engines[-1]


def engine(endpoints: LocalEndpoints, name: str = "chat", policy: Policy = Policy(), task: Task = CHAT) -> Engine:
    """Return a new engine for one of the local endpoints."""
    return engine_at(Endpoint(endpoints.invocations(name), token=endpoints.token), policy, task)


def ask(asked: Engine, batches: Sequence[Sequence[Item | None]], task: Task = CHAT) -> list[Result | None]:
    """Return the results of all rows."""
    return [result for chunk in asked.stream(task, iter(batches)) for result in chunk]


def texts(results: Sequence[Result | None]) -> list[str | None]:
    """Return the results' texts."""
    return [None if result is None else result.text for result in results]


def kinds(results: Sequence[Result | None]) -> list[str | None]:
    """Return the kinds of the results' errors."""
    return [None if result is None or result.error is None else result.error.kind for result in results]


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


def test_no_more_requests_are_in_flight_than_the_policy_allows(endpoints: LocalEndpoints) -> None:
    """`max_in_flight` shared by `tasks` is the most that one task has out, and it is reached."""
    endpoints.latency_s = 0.02
    ask(engine(endpoints, policy=Policy(max_in_flight=12, tasks=3)), [[f"row {number}" for number in range(60)]])

    assert 4 == endpoints.stats.max_in_flight


def test_the_window_grows_from_one_by_itself(endpoints: LocalEndpoints) -> None:
    """Without a number the window doubles from one request while the endpoint answers."""
    endpoints.latency_s = 0.02
    ask(engine(endpoints), [[f"row {number}" for number in range(300)]])

    assert 30 < endpoints.stats.max_in_flight < 300


@pytest.mark.parametrize("fault", ["429", "503", "429@0.1", "500", "garbage", "cut", "html"])
def test_what_goes_wrong_once_is_asked_again(endpoints: LocalEndpoints, fault: str) -> None:
    """Refusals, cuts and garbage cost further tries and no row; each row says how many tries it took."""
    endpoints.faults = Faults(f"ok*5 {fault}*3")
    rows: list[Item | None] = [f"row {number}" for number in range(20)]
    results = ask(engine(endpoints), [rows])

    assert rows == texts(results)
    assert 23 == endpoints.stats.requests
    assert 23 == sum(result.attempts for result in results if result is not None)


@pytest.mark.waits
def test_a_hung_request_is_given_up_after_its_time_and_asked_again(endpoints: LocalEndpoints) -> None:
    """A try that is not answered within `timeout_s` is called off and followed by another."""
    endpoints.faults = Faults("ok hang")
    results = ask(engine(endpoints, policy=Policy(timeout_s=2)), [["a", "b", "c"]])

    assert ["a", "b", "c"] == texts(results)
    assert 4 == endpoints.stats.requests


def test_a_row_that_only_meets_faults_fails_after_max_tries(endpoints: LocalEndpoints) -> None:
    """Real faults spend `max_tries`; the error says what the last one was."""
    endpoints.faults = Faults("500", cycle=True)
    [result] = ask(engine(endpoints, policy=Policy(max_tries=2)), [["a"]])

    assert result is not None
    assert result.error is not None
    assert ("unavailable", 500, True) == (result.error.kind, result.error.status, result.error.retryable)
    assert 2 == result.attempts == endpoints.stats.requests


@pytest.mark.waits
def test_being_told_to_wait_spends_time_and_no_tries(endpoints: LocalEndpoints) -> None:
    """A 429 more often than `max_tries` is waited out; past `give_up_after_s` the row fails as rate_limited."""
    endpoints.faults = Faults("429*4")
    assert ["a"] == texts(ask(engine(endpoints, policy=Policy(max_tries=2)), [["a"]]))

    endpoints.faults = Faults("429", cycle=True)
    [result] = ask(engine(endpoints, policy=Policy(give_up_after_s=0.2)), [["a"]])
    assert result is not None
    assert result.error is not None
    assert ("rate_limited", 429) == (result.error.kind, result.error.status)


def test_an_endpoint_that_is_not_there_is_asked_once(endpoints: LocalEndpoints) -> None:
    """A 404 stops the task: one request, and every row says not_found."""
    results = ask(engine(endpoints, "nobody"), [[f"row {number}" for number in range(500)]])

    assert ["not_found"] * 500 == kinds(results)
    assert 1 == endpoints.stats.requests
    assert [1, *[0] * 499] == [result.attempts for result in results if result is not None]


def test_a_wrong_token_is_tried_once(endpoints: LocalEndpoints) -> None:
    """A 401 stops the task after one request; no row's error has the token in it."""
    results = ask(engine_at(Endpoint(endpoints.invocations("chat"), token="wrong-secret")), [["a", "b", "c"]])

    assert ["unauthorized"] * 3 == kinds(results)
    assert "wrong-secret" not in repr(results)


def test_a_token_that_is_a_function_is_asked_for_again_after_a_401(endpoints: LocalEndpoints) -> None:
    """A refused token is renewed once, and no row is lost."""
    tokens = iter(["stale", endpoints.token])
    asked = engine_at(Endpoint(endpoints.invocations("chat"), token=lambda: next(tokens)))

    assert ["a", "b", "c"] == texts(ask(asked, [["a", "b", "c"]]))
    assert [] == list(tokens)


def test_a_token_function_that_fails_is_called_once_and_stops_the_task(endpoints: LocalEndpoints) -> None:
    """When no token can be had every row is `unauthorized`, and the endpoint is not asked."""
    calls = []

    def broken() -> str:
        calls.append(1)
        raise LookupError("no vault")

    results = ask(engine_at(Endpoint(endpoints.invocations("chat"), token=broken)), [["a"] * 100])

    assert ["unauthorized"] * 100 == kinds(results)
    assert (1, 0) == (len(calls), endpoints.stats.requests)


def test_nobody_listening_is_a_connection_error_in_the_row() -> None:
    """A refused connection is tried `max_tries` times and shows in the row with its kind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    [result] = ask(engine_at(Endpoint(f"http://127.0.0.1:{port}/v1", model="m"), Policy(max_tries=2)), [["a"]])

    assert ["connection"] == kinds([result])
    assert result is not None
    assert 2 == result.attempts


def test_a_name_that_does_not_resolve_is_a_connection_error_in_the_row() -> None:
    """A host that DNS does not know shows in the row with its kind."""
    asked = engine_at(Endpoint("http://nobody.invalid/v1", model="m"), Policy(max_tries=1))

    assert ["connection"] == kinds(ask(asked, [["a"]]))


def test_a_poisoned_row_fails_alone(endpoints: LocalEndpoints) -> None:
    """One bad input in a batch is found by halving: its neighbours are answered, within 1 + 2·log2 n requests."""
    endpoints.faults = Faults(poison="poison")
    rows: list[Item | None] = [f"row {number}" for number in range(64)]
    rows[41] = "poison"
    task = Embed()
    asked = engine(endpoints, "embed", task=task)
    ask(asked, [["warm"]], task)  # the form of the vectors is agreed on
    results = ask(asked, [rows], task)

    assert [None if row == "poison" else echo_vector(str(row)) for row in rows] == [
        None if result is None or result.embedding is None else list(memoryview(result.embedding).cast("f"))
        for result in results
    ]
    assert {41: "invalid_request"} == {number: kind for number, kind in enumerate(kinds(results)) if kind}
    assert endpoints.stats.requests - 1 <= 1 + 2 * 6


def test_a_server_that_refuses_base64_is_asked_for_numbers() -> None:
    """The first 400 over `encoding_format` costs one request; all rows are answered and none is lost."""
    task = Embed()
    with LocalEndpoints({"embed": Echo(refuse_fields=("encoding_format",))}) as endpoints:
        results = ask(
            engine(endpoints, "embed", Policy(batch_size=4), task), [[f"row {number}" for number in range(20)]], task
        )
        assert [None] * 20 == kinds(results)
        assert 6 == endpoints.stats.requests


def test_a_blank_text_is_never_embedded(endpoints: LocalEndpoints) -> None:
    """Null and blank inputs of an embedding have null results and cost nothing."""
    task = Embed()

    assert [None, None, None] == ask(engine(endpoints, "embed", task=task), [[None, "", " \n"]], task)
    assert 0 == endpoints.stats.requests


@pytest.mark.waits
def test_usage_adds_up_over_tries_splits_and_batches(endpoints: LocalEndpoints) -> None:
    """The rows' tokens sum to the endpoint's own counters, refused and halved batches included."""
    endpoints.faults = Faults("ok 429 cut 503", poison="poison")
    task = Embed()
    rows: list[Item | None] = [f"word{' more' * (number % 9)}" for number in range(300)]
    rows[120] = "poison"
    results = ask(engine(endpoints, "embed", Policy(batch_size=16), task), [rows], task)

    usages = [result.usage for result in results if result is not None and result.usage is not None]
    assert endpoints.stats.total_tokens == sum(usage.total_tokens or 0 for usage in usages)
    assert endpoints.stats.prompt_tokens == sum(usage.prompt_tokens or 0 for usage in usages)


def test_a_reader_that_goes_leaves_nothing_in_flight(endpoints: LocalEndpoints) -> None:
    """When the caller stops reading, what is out is called off and nothing more is sent."""
    endpoints.hold("held")
    stream = engine(endpoints).stream(CHAT, iter([["a", "b", *["held"] * 500]]))
    assert ["a"] == texts(next(stream))
    endpoints.wait_for(lambda stats: stats.in_flight > 0)
    stream.close()  # type: ignore[attr-defined]
    stats = endpoints.wait_for(lambda stats: stats.in_flight == 0)

    assert stats.requests <= 28
    assert stats.requests == stats.rows_answered + stats.disconnects


def test_input_that_breaks_leaves_nothing_in_flight(endpoints: LocalEndpoints) -> None:
    """An exception from upstream passes through, after what is out was called off."""
    endpoints.hold("held")

    def batches() -> Iterator[list[Item | None]]:
        yield ["a", "held"]
        raise LookupError("upstream")

    with pytest.raises(LookupError):
        ask(engine(endpoints), batches())  # type: ignore[arg-type]
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


def test_the_next_task_finds_the_window_and_the_connections_of_the_last(endpoints: LocalEndpoints) -> None:
    """What an engine learned serves the next stream: it begins wider than one."""
    endpoints.latency_s = 0.02
    asked = engine(endpoints, policy=Policy(max_in_flight=8))
    ask(asked, [[f"row {number}" for number in range(100)]])
    endpoints.reset()
    endpoints.hold("held")
    asking = threading.Thread(target=ask, args=(asked, [["held"] * 8]), daemon=True)
    asking.start()
    endpoints.wait_for(lambda stats: stats.in_flight == 8, timeout_s=30)
    endpoints.release()
    asking.join(timeout=30)

    assert 8 == endpoints.stats.rows_answered


def test_a_failed_row_raises_when_the_policy_says_so(endpoints: LocalEndpoints) -> None:
    """`on_error="raise"` ends the task at the first failed row, with a hint."""
    endpoints.faults = Faults(poison="poison")
    with pytest.raises(RowFailedError, match=r"invalid_request.*Hint: "):
        ask(engine(endpoints, policy=Policy(on_error="raise")), [["a", "poison", "b"]])


def test_an_answer_that_spent_its_tokens_is_truncated(endpoints: LocalEndpoints) -> None:
    """A 200 with an empty text and finish_reason "length" is an error of the row, and is not asked again."""
    endpoints.faults = Faults("ok empty")
    results = ask(engine(endpoints, policy=Policy(max_in_flight=1)), [["a", "b", "c"]])

    assert [None, "truncated", None] == kinds(results)
    assert 3 == endpoints.stats.requests


def test_the_system_message_reaches_the_model(endpoints: LocalEndpoints) -> None:
    """`system` goes before the row's text."""
    task = replace(CHAT, system="Be brief.")

    assert ["Be brief.\nhello"] == texts(ask(engine(endpoints, task=task), [["hello"]], task))


@pytest.mark.waits
def test_waiting_costs_no_processor_time(endpoints: LocalEndpoints) -> None:
    """While answers are on their way Spark's thread sleeps, in the opening, in the middle and after the last row."""
    endpoints.latency_s = 0.1
    asked = engine(endpoints, policy=Policy(max_in_flight=16))
    began = time.thread_time()
    ask(asked, [[f"row {number}" for number in range(100)]] * 3)

    assert time.thread_time() - began < 0.5
