"""The engine against an endpoint that refuses, hangs, breaks off and goes away; no Spark."""

import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spark_llm import Endpoint, Policy, Price, RowFailedError
from spark_llm.livecounts.column_count import Count
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.task import Task
from spark_llm.serving import After, Capacity, Echo, Faults, LocalEndpoints, Quota, echo_vector
from spark_llm.serving.protocol.errors import ErrorResponse, Refused
from spark_llm.serving.protocol.requests import ChatRequest
from tests.support.asking import CHAT, ask, distinct, engine, engine_at, kinds, texts
from tests.support.reply_model import ReplyModel, last_message

if TYPE_CHECKING:
    from spark_llm.protocol.values import Item, Result

ROOT = Path(__file__).parents[2]


@pytest.mark.waits
@pytest.mark.parametrize("fault", ["429", "503", "429@0.1", "500", "garbage", "cut", "html"])
def test_a_passing_fault_is_retried(endpoints: LocalEndpoints, fault: str) -> None:
    """Rate limits, cuts and garbage cost further attempts and no row; each row counts its attempts and refusals."""
    endpoints.faults = Faults(f"ok*5 {fault}*3")
    rows: list[Item | None] = [f"row {number}" for number in range(20)]
    results = ask(engine(endpoints), [rows])

    assert rows == texts(results)
    assert 23 == endpoints.stats.requests
    assert 23 == sum(result.attempts for result in results if result is not None)
    refusals = Counter(status for result in results if result is not None for status in result.refusals)
    assert {status: count for status, count in endpoints.stats.by_status.items() if status >= 400} == refusals


FEW_FILES = """
import os, resource, sys
from spark_llm import Endpoint
from tests.support.asking import ask, distinct, engine_at

url, token, taken = sys.argv[1:]
others = [open(os.devnull) for _ in range(int(taken))]
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
results = ask(engine_at(Endpoint(url, token=token)), [distinct(500)])
print(sum(result.error is None for result in results), sum(result.attempts for result in results))
"""


@pytest.mark.waits
@pytest.mark.parametrize(("taken", "most_attempts"), [(0, 500), (90, 600)])
def test_few_open_files_cost_no_row_and_few_attempts(endpoints: LocalEndpoints, taken: int, most_attempts: int) -> None:
    """With 128 files the window stays below them; where most are taken, it settles at the rest."""
    endpoints.latency_s = 0.05
    program = [sys.executable, "-c", FEW_FILES, endpoints.invocations("chat"), endpoints.token, str(taken)]
    ran = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    answered, attempts = map(int, ran.stdout.split())

    assert 500 == answered == endpoints.stats.requests
    assert attempts <= most_attempts
    assert endpoints.stats.max_in_flight <= 64


@pytest.mark.waits
def test_a_hung_request_is_cancelled_and_retried(endpoints: LocalEndpoints) -> None:
    """An attempt that is not answered within `timeout_s` is cancelled and followed by another."""
    endpoints.faults = Faults("ok hang")
    results = ask(engine(endpoints, policy=Policy(timeout_s=2)), [["a", "b", "c"]])

    assert ["a", "b", "c"] == texts(results)
    assert 4 == endpoints.stats.requests


@pytest.mark.waits
def test_a_row_that_only_meets_faults_fails_after_max_tries(endpoints: LocalEndpoints) -> None:
    """Faults spend `max_tries`; the error is the last one's."""
    endpoints.faults = Faults("500", cycle=True)
    [result] = ask(engine(endpoints, policy=Policy(max_tries=2)), [["a"]])

    assert result is not None
    assert result.error is not None
    assert ("unavailable", 500, True) == (result.error.kind, result.error.status, result.error.retryable)
    assert 2 == result.attempts == endpoints.stats.requests


@pytest.mark.waits
def test_a_flex_tier_without_room_is_waited_for_and_costs_half(endpoints: LocalEndpoints) -> None:
    """No row and no attempt is lost by it; the price is that of the tier which the answers name."""
    task = Chat(parameters=encode_parameters({"service_tier": "flex"}, None))
    asked = engine(endpoints, policy=Policy(max_tries=1), task=task)
    endpoints.latency_s = 0.02
    assert ["first"] == texts(ask(asked, [["first"]], task))
    endpoints.capacity = Capacity(flex=False, steps=((After(elapsed_s=1.5), Capacity()),))
    results = ask(asked, [distinct(200)], task)
    tally = Count.of(results).tally

    assert distinct(200) == texts(results)
    assert endpoints.stats.by_status[429] == sum(result.attempts - 1 for result in results if result is not None) > 0
    assert endpoints.stats.requests < 2 * 200  # most of them waited for the end of it
    assert {"flex"} == set(tally.tiers)
    assert pytest.approx(Price(1, 2).cost(tally) / 2) == Price(1, 2, tiers={"flex": 0.5}).cost(tally) > 0


@pytest.mark.waits
def test_rate_limiting_spends_time_and_no_attempts(endpoints: LocalEndpoints) -> None:
    """A 429 more often than `max_tries` is waited for; after `give_up_after_s` the row fails as rate_limited."""
    endpoints.faults = Faults("429*4")
    assert ["a"] == texts(ask(engine(endpoints, policy=Policy(max_tries=2)), [["a"]]))

    endpoints.faults = Faults("429", cycle=True)
    [result] = ask(engine(endpoints, policy=Policy(give_up_after_s=0.2)), [["a"]])
    assert result is not None
    assert result.error is not None
    assert ("rate_limited", 429) == (result.error.kind, result.error.status)


@pytest.mark.waits
def test_a_missing_endpoint_gets_three_requests(endpoints: LocalEndpoints) -> None:
    """A 404 of three rows stops the task, and every row says not_found."""
    results = ask(engine(endpoints, "nobody"), [distinct(500)])

    assert ["not_found"] * 500 == kinds(results)
    assert 3 == endpoints.stats.requests
    assert 3 == sum(result.attempts for result in results if result is not None)


def test_a_wrong_token_is_refused_once_a_row(endpoints: LocalEndpoints) -> None:
    """A 401 is not retried; no row's error has the token in it."""
    results = ask(engine_at(Endpoint(endpoints.invocations("chat"), token="wrong-secret")), [["a", "b", "c"]])

    assert ["unauthorized"] * 3 == kinds(results)
    assert "wrong-secret" not in repr(results)


@pytest.mark.waits
@pytest.mark.parametrize(
    ("status", "kind"), [(401, "invalid_request"), (402, "quota"), (403, "invalid_request"), (404, "invalid_request")]
)
def test_rows_that_are_refused_for_their_content_fail_alone(status: int, kind: str) -> None:
    """A provider may refuse one text by a status that mostly means all rows: the others are answered."""

    def say(request: ChatRequest) -> str:
        text = last_message(request)
        if text.startswith("bad"):
            raise Refused(ErrorResponse(status, "PERMISSION_DENIED", "This content is not allowed."))
        return text

    rows: list[Item | None] = [
        f"{'bad' if number % 20 == 14 and number < 320 else 'row'} {number}" for number in range(400)
    ]
    with LocalEndpoints({"chat": ReplyModel(say)}, latency_s=0.005) as endpoints:
        results = ask(engine(endpoints), [rows])

        failed = {number: found for number, found in enumerate(kinds(results)) if found}
        assert [14 + 20 * number for number in range(16)] == list(failed)
        assert list(failed.values()).count(kind) >= 12  # the last to be asked have nobody to judge them by
        assert {200: 384, status: 16} == endpoints.stats.by_status


def test_a_token_function_is_called_again_after_a_401(endpoints: LocalEndpoints) -> None:
    """A refused token is renewed once, and no row is lost."""
    tokens = iter(["stale", endpoints.token])
    asked = engine_at(Endpoint(endpoints.invocations("chat"), token=lambda: next(tokens)))

    assert ["a", "b", "c"] == texts(ask(asked, [["a", "b", "c"]]))
    assert [] == list(tokens)


def test_a_token_function_that_fails_is_called_once_and_stops_the_task(endpoints: LocalEndpoints) -> None:
    """Without a token every row is `unauthorized`, and no request is sent."""
    calls = []

    def broken() -> str:
        calls.append(1)
        raise LookupError("no vault")

    results = ask(engine_at(Endpoint(endpoints.invocations("chat"), token=broken)), [["a"] * 100])

    assert ["unauthorized"] * 100 == kinds(results)
    assert (1, 0) == (len(calls), endpoints.stats.requests)


@pytest.mark.waits
def test_a_refused_connection_is_the_rows_error() -> None:
    """It is tried `max_tries` times and shows in the row with its kind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    [result] = ask(engine_at(Endpoint(f"http://127.0.0.1:{port}/v1", model="m"), Policy(max_tries=2)), [["a"]])

    assert ["connection"] == kinds([result])
    assert result is not None
    assert 2 == result.attempts


def test_an_unknown_host_is_the_rows_error() -> None:
    """A host that DNS does not know shows in the row with its kind."""
    asked = engine_at(Endpoint("https://nobody.invalid/v1", model="m"), Policy(max_tries=1))

    assert ["connection"] == kinds(ask(asked, [["a"]]))


def test_a_bad_row_fails_alone(endpoints: LocalEndpoints) -> None:
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


def test_a_server_that_refuses_base64_gets_requests_for_numbers() -> None:
    """The first 400 over `encoding_format` costs one request; all rows are answered and none is lost."""
    task = Embed()
    with LocalEndpoints({"embed": Echo(refuse_fields=("encoding_format",))}) as endpoints:
        results = ask(engine(endpoints, "embed", Policy(batch_size=4), task), [distinct(20)], task)
        assert [None] * 20 == kinds(results)
        assert 6 == endpoints.stats.requests


@pytest.mark.waits
def test_usage_adds_up_over_attempts_splits_and_batches(endpoints: LocalEndpoints) -> None:
    """The rows' tokens sum to the endpoint's own counters, refused and halved batches included."""
    endpoints.faults = Faults("ok 429 cut 503", poison="poison")
    task = Embed()
    rows: list[Item | None] = [f"word{' more' * (number % 9)}" for number in range(300)]
    rows[120] = "poison"
    results = ask(engine(endpoints, "embed", Policy(batch_size=16), task), [rows], task)

    usages = [result.usage for result in results if result is not None and result.usage is not None]
    assert endpoints.stats.total_tokens == sum(usage.total_tokens or 0 for usage in usages)
    assert endpoints.stats.prompt_tokens == sum(usage.prompt_tokens or 0 for usage in usages)


def test_a_failed_row_raises_when_the_policy_says_so(endpoints: LocalEndpoints) -> None:
    """`on_error="raise"` ends the task at the first failed row, with a hint."""
    endpoints.faults = Faults(poison="poison")
    with pytest.raises(RowFailedError, match=r"invalid_request.*Hint: "):
        ask(engine(endpoints, policy=Policy(on_error="raise")), [["a", "poison", "b"]])


def test_an_answer_that_spent_its_tokens_is_truncated(endpoints: LocalEndpoints) -> None:
    """A 200 with an empty text and finish_reason "length" is an error of the row, and is not retried."""
    endpoints.faults = Faults("ok empty")
    results = ask(engine(endpoints, policy=Policy(max_in_flight=1)), [["a", "b", "c"]])

    assert [None, "truncated", None] == kinds(results)
    assert 3 == endpoints.stats.requests


@pytest.mark.waits
def test_one_bad_row_in_ten_thousand_costs_at_most_fourteen_requests(endpoints: LocalEndpoints) -> None:
    """9,999 vectors and one typed error: halving its batch finds the bad row."""
    endpoints.faults = Faults(poison="poison")
    rows = distinct(10_000)
    rows[4_321] = "poison"
    task = Embed()
    results = ask(engine(endpoints, "embed", task=task), [rows], task)

    assert {4_321: "invalid_request"} == {number: kind for number, kind in enumerate(kinds(results)) if kind}
    assert endpoints.stats.requests <= -(-10_000 // 64) + 14


@pytest.mark.waits
@pytest.mark.parametrize(("name", "task"), [("chat", CHAT), ("complete", Complete()), ("embed", Embed())])
def test_a_request_that_is_refused_as_a_whole_is_not_sent_for_every_row(
    endpoints: LocalEndpoints, name: str, task: Task
) -> None:
    """Without any answer ten requests are enough: rows that no request carried can be sent again, and say why."""
    endpoints.faults = Faults("400", cycle=True)
    results = ask(engine(endpoints, name, task=task), [distinct(5_000)], task)
    refused = [result.attempts for result in results if result and result.error and not result.error.retryable]

    assert {"invalid_request": len(refused), "cancelled": 5_000 - len(refused)} == Counter(kinds(results))
    assert 0 not in refused
    assert endpoints.stats.requests <= 10
    assert "invalid_request: " in str(results[2_500])
    assert "none succeeded" in str(results[2_500])


def test_a_bad_beginning_does_not_stop_the_task(endpoints: LocalEndpoints) -> None:
    """Refused rows, the first of all among them, leave the others answered."""
    endpoints.faults = Faults(poison="poison")
    rows: list[Item | None] = [
        f"poison {number}" if number in (0, 1, 2, 70, 150) else f"row {number}" for number in range(300)
    ]
    task = Embed()
    results = ask(engine(endpoints, "embed", task=task), [rows], task)

    assert [0, 1, 2, 70, 150] == [number for number, kind in enumerate(kinds(results)) if kind]


@pytest.mark.waits
def test_equal_rows_are_sent_once(endpoints: LocalEndpoints) -> None:
    """As many requests as distinct rows, also while they are in flight, and the tokens add up to the bill."""
    endpoints.latency_s = 0.02
    rows: list[Item | None] = [f"row {number * 7 % 60}" for number in range(100)]
    results = ask(engine(endpoints), [rows[:10], rows[10:]])

    assert rows == texts(results)
    assert 60 == endpoints.stats.requests
    assert endpoints.stats.total_tokens == sum(r.usage.total_tokens or 0 for r in results if r and r.usage)


def test_equal_rows_are_all_sent_with_a_temperature(endpoints: LocalEndpoints) -> None:
    """A temperature without a seed wants different answers; `dedupe` overrides it."""
    task = type(CHAT)(parameters=b'{"temperature":0.7}')
    ask(engine(endpoints, task=task), [["same"] * 10], task)
    assert 10 == endpoints.stats.requests

    endpoints.reset()
    ask(engine(endpoints, policy=Policy(dedupe=True), task=task), [["same"] * 10], task)
    assert 1 == endpoints.stats.requests


@pytest.mark.waits
def test_the_duplicates_of_a_failed_row_are_sent(endpoints: LocalEndpoints) -> None:
    """The failure of one row is not its duplicates'."""
    endpoints.faults = Faults("ok 500*2")
    asked = engine(endpoints, policy=Policy(max_in_flight=1, max_tries=2))
    ask(asked, [["hello"]])
    results = ask(asked, [["same", "same", "same"]])

    assert ["unavailable", None, None] == kinds(results)


@pytest.mark.waits
def test_prompts_travel_together_where_the_endpoint_takes_them(endpoints: LocalEndpoints) -> None:
    """Completions send eight prompts in a request, and each row has its own answer."""
    task = Complete()
    results = ask(engine(endpoints, "complete", task=task), [distinct(80)], task)

    assert [None] * 80 == kinds(results)
    assert len(set(texts(results))) == 80
    assert endpoints.stats.requests <= 12


@pytest.mark.waits
@pytest.mark.parametrize("fault", ["half", "errorbody", "drip"])
def test_an_unreadable_answer_is_retried(endpoints: LocalEndpoints, fault: str) -> None:
    """A 200 that a proxy cut or that holds an error is retried; a slow one is an answer."""
    endpoints.faults = Faults(f"ok*3 {fault}", drip_s=0.2)
    results = ask(engine(endpoints), [distinct(10)])

    assert distinct(10) == texts(results)
    assert (10 if fault == "drip" else 11) == endpoints.stats.requests


@pytest.mark.slow
@pytest.mark.waits
def test_an_outage_ends_with_every_row_answered(endpoints: LocalEndpoints) -> None:
    """The endpoint goes away in mid-job and comes back: no row fails, and hardly a request more is sent."""
    endpoints.latency_s = 0.02
    results: list[Result | None] = []
    asked = engine(endpoints, policy=Policy(max_in_flight=16))
    asking = threading.Thread(target=lambda: results.extend(ask(asked, [distinct(2_000)])), daemon=True)
    asking.start()
    endpoints.wait_for(lambda stats: stats.rows_answered >= 500)
    endpoints.stop()
    asking.join(timeout=3)
    assert asking.is_alive()
    endpoints.start()
    asking.join(timeout=60)

    assert distinct(2_000) == texts(results)
    assert endpoints.stats.requests <= 2_200
    assert sum(result.attempts for result in results if result) <= 2_200


@pytest.mark.waits
def test_an_unreachable_endpoint_ends_the_task(endpoints: LocalEndpoints) -> None:
    """Without any answer the first row's attempts, and one of each of two others, are enough."""
    endpoints.stop()
    results = ask(engine(endpoints, policy=Policy(max_tries=2)), [distinct(1_000)])

    assert {"connection": 3, "cancelled": 997} == Counter(kinds(results))
    assert [2, 1, 1] == [result.attempts for result in results if result is not None and result.attempts]


@pytest.mark.waits
def test_a_slow_first_answer_does_not_hold_the_others(endpoints: LocalEndpoints) -> None:
    """Silence opens the window by and by: one request that hangs does not cost its whole time."""
    endpoints.faults = Faults("hang")
    began = time.monotonic()
    results = ask(engine(endpoints, policy=Policy(timeout_s=4)), [distinct(20)])

    assert distinct(20) == texts(results)
    assert 21 == endpoints.stats.requests
    assert time.monotonic() - began < 8


def test_a_token_that_expires_is_renewed_in_mid_job(endpoints: LocalEndpoints) -> None:
    """Each time the token expires the function is called once."""
    tokens: list[str] = []

    def token() -> str:
        tokens.append(f"token-{len(tokens)}")
        endpoints.token = tokens[-1]
        return tokens[-1]

    endpoints.token_expires = After(requests=30)
    endpoint = Endpoint(endpoints.invocations("chat"), token=token)
    results = ask(engine_at(endpoint, Policy(max_in_flight=8)), [distinct(100)])

    assert distinct(100) == texts(results)
    assert 4 == len(tokens)


@pytest.mark.slow
@pytest.mark.waits
def test_a_hidden_capacity_is_found_and_kept(endpoints: LocalEndpoints) -> None:
    """Few requests are refused, those are retried, and no row is lost."""
    endpoints.latency_s = 0.05
    endpoints.capacity = Capacity(concurrency=10)
    results = ask(engine(endpoints), [distinct(800)])

    assert distinct(800) == texts(results)
    assert endpoints.stats.max_in_work <= 10
    assert endpoints.stats.requests <= 1.15 * 800


@pytest.mark.slow
@pytest.mark.waits
def test_a_quota_where_refusals_count_is_kept(endpoints: LocalEndpoints) -> None:
    """Only slower sending helps, and the limiter finds that rate."""
    endpoints.latency_s = 0.02
    endpoints.capacity = Capacity(quota=Quota(requests=50, window_s=1.0, refusals_count=True))
    results = ask(engine(endpoints), [distinct(200)])

    assert distinct(200) == texts(results)
    assert (
        endpoints.stats.requests <= 1.6 * 200
    )  # 1.1 to 1.2, and in one of many runs 1.45; who asks on needs five times


@pytest.mark.slow
@pytest.mark.waits
def test_a_server_that_queues_is_not_flooded(endpoints: LocalEndpoints) -> None:
    """A server that never refuses is kept busy by a window of its own width, not by hundreds in its queue."""
    endpoints.latency_s = 0.02
    endpoints.capacity = Capacity(concurrency=4, queue=True)
    asked = engine(endpoints)
    ask(asked, [distinct(1_000)])
    endpoints.reset()
    results = ask(asked, [[f"again {number}" for number in range(400)]])

    assert [None] * 400 == kinds(results)
    assert endpoints.stats.max_in_flight <= 40


@pytest.mark.waits
def test_requests_a_minute_follow_the_policy(endpoints: LocalEndpoints) -> None:
    """In any time at most the minute's share is sent, and a second's worth at once."""
    began = time.monotonic()
    ask(engine(endpoints, policy=Policy(requests_per_minute=1_200, tasks=2)), [distinct(50)])

    assert 50 <= 10 + 10 * (time.monotonic() - began)


@pytest.mark.waits
def test_too_many_failures_stop_the_task(endpoints: LocalEndpoints) -> None:
    """After `max_failure_rate` the other rows are not sent: cancelled, and retryable."""
    endpoints.faults = Faults(poison="bad")
    rows: list[Item | None] = [f"row {number}" if number < 100 else f"bad {number}" for number in range(5_000)]
    results = ask(engine(endpoints, policy=Policy(max_failure_rate=0.2)), [rows])

    assert endpoints.stats.requests < 1_000
    assert [None] * 100 == kinds(results)[:100]
    assert {"invalid_request", "cancelled"} == set(kinds(results)[100:])
    assert "max_failure_rate" in str(results[-1])
