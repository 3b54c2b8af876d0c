"""A capacity as clients see it over sockets, and its arguments."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import pytest

from spark_llm.serving import After, Capacity, Faults, Quota
from tests.support.local_client import Client

ONE = Capacity(concurrency=1)
ONE_BY_ONE = Capacity(concurrency=1, queue=True)


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (After, "give either elapsed_s or requests"),
        (lambda: After(elapsed_s=1, requests=1), "give either elapsed_s or requests"),
        (lambda: After(elapsed_s=-1), "give 0 or more"),
        (lambda: After(requests=-1), "give 0 or more"),
        (lambda: Capacity(concurrency=-1), "give 0 or more"),
        (lambda: Capacity(refuse_as="hang"), "write it as 429"),
        (lambda: Capacity(refuse_as="429*2"), "write it as 503"),
        (lambda: Capacity(steps=((After(requests=1), Capacity(steps=((After(requests=2), ONE),))),)), "into one row"),
        (Quota, "give it requests or tokens"),
        (lambda: Quota(requests=-1), "give 0 or more"),
        (lambda: Quota(tokens=-1), "give 0 or more"),
        (lambda: Quota(requests=1, window_s=0), "give more than 0"),
        (lambda: Quota(requests=1, window_s=float("nan")), "give more than 0"),
        (lambda: Quota(requests=1, refuse_as="ok"), "write it as 429"),
    ],
)
def test_invalid_capacities_raise(make: Callable[[], object], hint: str) -> None:
    """Negative numbers, faults that are not refusals, and moments with two numbers raise with a hint."""
    with pytest.raises(ValueError, match=f"Hint: .*{hint}"):
        make()


# --- Concurrency ---


def test_the_request_above_the_concurrency_is_refused_at_once(client: Client) -> None:
    """With two requests in work a third is refused at once, and counted like every refusal."""
    client.endpoints.capacity = Capacity(concurrency=2)
    client.endpoints.hold("slow")
    working = [client.chat_in_background("slow") for _ in range(2)]
    client.endpoints.wait_for(lambda stats: stats.in_work == 2)
    refused = client.chat("slow")
    client.endpoints.release("slow")

    assert (429, "REQUEST_LIMIT_EXCEEDED") == (refused.status_code, refused.json()["error_code"])
    assert [200, 200, 200] == [*(each.result().status_code for each in working), client.chat("a").status_code]
    stats = client.endpoints.stats
    assert ({200: 3, 429: 1}, 4, 3) == (stats.by_status, stats.rows_asked, stats.rows_answered)
    assert (0, 2, 2) == (stats.in_work, stats.max_in_work, stats.endpoints["chat"].max_in_work)


def test_the_refusal_sends_its_wait_in_every_way(client: Client) -> None:
    """`refuse_as` takes any refusal of a script, with a wait in seconds, milliseconds, a date or the body."""
    answers = []
    for step in ("503@1.5", "429@250ms", "429@+90", "429body@15"):
        client.endpoints.capacity = Capacity(concurrency=0, refuse_as=step)
        answers.append(client.chat("a"))
    seconds, milliseconds, date, body = answers

    assert [503, 429, 429, 429] == [answer.status_code for answer in answers]
    assert ("1.5", "250") == (seconds.headers["Retry-After"], milliseconds.headers["retry-after-ms"])
    retry_at, sent_at = (parsedate_to_datetime(date.headers[name]) for name in ("Retry-After", "Date"))
    assert 90 == pytest.approx((retry_at - sent_at).seconds, abs=2)
    assert 15.0 == body.json()["error"]["retry_after"]


def test_clients_within_the_concurrency_are_never_refused(client: Client) -> None:
    """A response frees its slot first: four clients that send one request at a time need four slots."""
    client.endpoints.capacity = Capacity(concurrency=4)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(client.chat, ["a"] * 120))

    assert {200} == {answer.status_code for answer in answers}
    assert client.endpoints.stats.max_in_work <= 4


def test_a_hanging_request_keeps_its_slot(client: Client) -> None:
    """A request that hangs stays in work; one that the script refuses frees its slot."""
    client.endpoints.capacity = ONE
    client.endpoints.faults = Faults("500 hang")
    failed, hanging = client.chat("a"), client.chat_in_background("a")
    client.endpoints.wait_for(lambda stats: stats.in_work == 1)

    assert (500, False, 429) == (failed.status_code, hanging.done(), client.chat("a").status_code)


# --- Queue ---


def test_the_queue_is_served_in_order_of_arrival(client: Client) -> None:
    """Requests above the concurrency wait, and run one by one in order of arrival."""
    started = []

    def latency_s(number: int) -> float:
        started.append(number)
        return 0.001

    client.endpoints.capacity, client.endpoints.latency_s = ONE_BY_ONE, latency_s
    client.endpoints.hold("first")
    waiting = []
    for text in ["first", *"bcdefgh"]:
        waiting.append(client.chat_in_background(text))
        stats = client.endpoints.wait_for(lambda stats: stats.rows_asked == len(waiting))
    assert (8, 1, []) == (stats.in_flight, stats.in_work, started)
    client.endpoints.release()

    assert [200] * 8 == [each.result().status_code for each in waiting]
    assert (list(range(8)), 1, 8) == (
        started,
        client.endpoints.stats.max_in_work,
        client.endpoints.stats.max_in_flight,
    )


def test_many_requests_share_a_few_slots(client: Client) -> None:
    """Under load all requests are answered, and never more than the concurrency are in work."""
    client.endpoints.capacity, client.endpoints.latency_s = Capacity(concurrency=3, queue=True), 0.002
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(client.chat, ["a"] * 80))

    assert {200} == {answer.status_code for answer in answers}
    assert 3 == client.endpoints.stats.max_in_work


@pytest.mark.waits
@pytest.mark.parametrize("capacity", [ONE, ONE_BY_ONE])
def test_a_client_that_hangs_up_frees_its_slot(capacity: Capacity, client: Client) -> None:
    """A request whose client has hung up is no longer in work."""
    client.endpoints.capacity = capacity
    client.endpoints.hold("slow")
    client.chat_and_hang_up("slow")
    stats = client.endpoints.wait_for(lambda stats: stats.disconnects == 1)

    assert (0, 200) == (stats.in_work, client.chat("a").status_code)


def test_a_client_that_hangs_up_leaves_the_queue(client: Client) -> None:
    """A queued request whose client hangs up never runs, and those behind it move up."""
    client.endpoints.capacity = ONE_BY_ONE
    client.endpoints.hold("slow")
    first = client.chat_in_background("slow")
    client.endpoints.wait_for(lambda stats: stats.in_work == 1)
    client.chat_and_hang_up("gone")
    client.endpoints.wait_for(lambda stats: stats.disconnects == 1)
    third = client.chat_in_background("a")
    client.endpoints.release()

    assert [200, 200] == [first.result().status_code, third.result().status_code]
    assert (2, 1) == (client.endpoints.stats.rows_answered, client.endpoints.stats.max_in_work)


# --- Quota ---


def test_above_the_quota_requests_are_refused(client: Client) -> None:
    """Requests above the quota get its refusal, and a reset begins a new window."""
    client.endpoints.capacity = Capacity(quota=Quota(requests=2, refuse_as="503"))
    assert [200, 200, 503] == [client.chat("a").status_code for _ in range(3)]
    client.endpoints.reset()

    assert [200, 200, 503] == [client.chat("a").status_code for _ in range(3)]


def test_the_tokens_of_answers_are_spent(client: Client) -> None:
    """Only tokens that answers report spend the quota; faults spend none."""
    client.endpoints.capacity = Capacity(quota=Quota(tokens=7))
    client.endpoints.faults = Faults("500 garbage cut")
    faulty = [client.chat_in_background("a b c") for _ in range(3)]
    client.endpoints.wait_for(lambda stats: sum(stats.by_status.values()) == 3)

    assert 1 == sum(each.exception() is not None for each in faulty)
    assert [200, 200, 429] == [client.chat("a b c").status_code for _ in range(3)]


def test_a_window_passes(client: Client) -> None:
    """A request after the window is admitted again."""
    client.endpoints.capacity = Capacity(quota=Quota(requests=1, window_s=0.05))
    client.endpoints.latency_s = 0.05

    assert [200, 200] == [client.chat("a").status_code for _ in range(2)]


# --- Steps ---


def test_a_timed_step_starts_queued_requests(client: Client) -> None:
    """A queued request starts at the time of a step, without another request to wake it."""
    open_again = (After(elapsed_s=0.05), Capacity(concurrency=1, queue=True))
    client.endpoints.capacity = Capacity(concurrency=0, queue=True, steps=(open_again,))
    answer = client.chat("a")

    assert 200 == answer.status_code
    assert answer.elapsed.total_seconds() >= 0.05


def test_a_counted_step_takes_effect_at_its_request(client: Client) -> None:
    """A step takes effect after its number of requests, and counts again after a reset."""
    client.endpoints.capacity = Capacity(steps=((After(requests=2), Capacity(concurrency=0)),))
    assert [200, 200, 429, 429] == [client.chat("a").status_code for _ in range(4)]
    client.endpoints.reset()

    assert 200 == client.chat("a").status_code


def test_a_new_capacity_starts_queued_requests(client: Client) -> None:
    """A capacity that is set while requests wait applies to them at once."""
    client.endpoints.capacity = ONE_BY_ONE
    client.endpoints.hold("slow")
    first, second = client.chat_in_background("slow"), client.chat_in_background("slow")
    client.endpoints.wait_for(lambda stats: stats.rows_asked == 2)
    client.endpoints.capacity = wider = Capacity(concurrency=2)

    assert 2 == client.endpoints.wait_for(lambda stats: stats.in_work == 2).max_in_work
    assert wider == client.endpoints.capacity
    client.endpoints.release()
    assert [200, 200] == [first.result().status_code, second.result().status_code]
