"""A capacity as clients meet it over sockets, and how it is written."""

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
def test_a_limit_that_means_nothing_is_refused(make: Callable[[], object], hint: str) -> None:
    """Numbers below nothing, words that refuse nothing and moments told twice say what to write."""
    with pytest.raises(ValueError, match=f"Hint: .*{hint}"):
        make()


# --- At once ---


def test_the_request_above_the_concurrency_is_refused_at_once(client: Client) -> None:
    """With two in work a third is refused, without waiting for what it asks, and counted like every refusal."""
    client.endpoints.capacity = Capacity(concurrency=2)
    client.endpoints.hold("slow")
    working = [client.later("slow") for _ in range(2)]
    client.endpoints.wait_for(lambda stats: stats.in_work == 2)
    refused = client.say("slow")
    client.endpoints.release("slow")

    assert (429, "REQUEST_LIMIT_EXCEEDED") == (refused.status_code, refused.json()["error_code"])
    assert [200, 200, 200] == [*(each.result().status_code for each in working), client.say("a").status_code]
    stats = client.endpoints.stats
    assert ({200: 3, 429: 1}, 4, 3) == (stats.by_status, stats.rows_asked, stats.rows_answered)
    assert (0, 2, 2) == (stats.in_work, stats.max_in_work, stats.endpoints["chat"].max_in_work)


def test_the_refusal_tells_its_wait_in_every_way(client: Client) -> None:
    """The refusal is any of a script's, with a wait in seconds, in milliseconds, as a date, or in the body."""
    answers = []
    for word in ("503@1.5", "429@250ms", "429@+90", "429body@15"):
        client.endpoints.capacity = Capacity(concurrency=0, refuse_as=word)
        answers.append(client.say("a"))
    seconds, milliseconds, date, body = answers

    assert [503, 429, 429, 429] == [answer.status_code for answer in answers]
    assert ("1.5", "250") == (seconds.headers["Retry-After"], milliseconds.headers["retry-after-ms"])
    told, sent = (parsedate_to_datetime(date.headers[name]) for name in ("Retry-After", "Date"))
    assert 90 == pytest.approx((told - sent).seconds, abs=2)
    assert 15.0 == body.json()["error"]["retry_after"]


def test_who_keeps_to_the_concurrency_is_never_refused(client: Client) -> None:
    """Whoever has an answer has its place back: four clients that ask one after another need no more than four."""
    client.endpoints.capacity = Capacity(concurrency=4)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(client.say, ["a"] * 120))

    assert {200} == {answer.status_code for answer in answers}
    assert client.endpoints.stats.max_in_work <= 4


def test_a_place_is_kept_by_what_goes_wrong_in_it(client: Client) -> None:
    """A request that hangs or drips is in work; one that its script refuses is not any more."""
    client.endpoints.capacity = ONE
    client.endpoints.faults = Faults("500 hang")
    failed, hanging = client.say("a"), client.later("a")
    client.endpoints.wait_for(lambda stats: stats.in_work == 1)

    assert (500, False, 429) == (failed.status_code, hanging.done(), client.say("a").status_code)


# --- In line ---


def test_the_line_is_served_in_the_order_of_arrival(client: Client) -> None:
    """Requests above the concurrency wait, and are worked on one by one as they came."""
    worked_on = []

    def latency_s(number: int) -> float:
        worked_on.append(number)
        return 0.001

    client.endpoints.capacity, client.endpoints.latency_s = ONE_BY_ONE, latency_s
    client.endpoints.hold("first")
    waiting = []
    for text in ["first", *"bcdefgh"]:
        waiting.append(client.later(text))
        stats = client.endpoints.wait_for(lambda stats: stats.rows_asked == len(waiting))
    assert (8, 1, []) == (stats.in_flight, stats.in_work, worked_on)
    client.endpoints.release()

    assert [200] * 8 == [each.result().status_code for each in waiting]
    assert (list(range(8)), 1, 8) == (
        worked_on,
        client.endpoints.stats.max_in_work,
        client.endpoints.stats.max_in_flight,
    )


def test_many_are_served_a_few_at_a_time(client: Client) -> None:
    """Under load all are answered, and never more than the concurrency are in work."""
    client.endpoints.capacity, client.endpoints.latency_s = Capacity(concurrency=3, queue=True), 0.002
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(client.say, ["a"] * 80))

    assert {200} == {answer.status_code for answer in answers}
    assert 3 == client.endpoints.stats.max_in_work


@pytest.mark.parametrize("capacity", [ONE, ONE_BY_ONE])
def test_a_client_that_goes_away_gives_its_place_back(capacity: Capacity, client: Client) -> None:
    """A request that nobody waits for any more is in work no longer."""
    client.endpoints.capacity = capacity
    client.endpoints.hold("slow")
    client.give_up("slow")
    stats = client.endpoints.wait_for(lambda stats: stats.disconnects == 1)

    assert (0, 200) == (stats.in_work, client.say("a").status_code)


def test_a_client_that_goes_away_leaves_the_line(client: Client) -> None:
    """A request whose client hangs up in line is never worked on, and those behind it move up."""
    client.endpoints.capacity = ONE_BY_ONE
    client.endpoints.hold("slow")
    first = client.later("slow")
    client.endpoints.wait_for(lambda stats: stats.in_work == 1)
    client.give_up("gone")
    client.endpoints.wait_for(lambda stats: stats.disconnects == 1)
    third = client.later("a")
    client.endpoints.release()

    assert [200, 200] == [first.result().status_code, third.result().status_code]
    assert (2, 1) == (client.endpoints.stats.rows_answered, client.endpoints.stats.max_in_work)


# --- In a window ---


def test_above_the_quota_requests_are_refused(client: Client) -> None:
    """The quota's own refusal comes after its requests, and a reset begins a new window."""
    client.endpoints.capacity = Capacity(quota=Quota(requests=2, refuse_as="503"))
    assert [200, 200, 503] == [client.say("a").status_code for _ in range(3)]
    client.endpoints.reset()

    assert [200, 200, 503] == [client.say("a").status_code for _ in range(3)]


def test_the_tokens_of_answers_are_spent(client: Client) -> None:
    """A quota of tokens is spent by what answers report, and by nothing that goes wrong."""
    client.endpoints.capacity = Capacity(quota=Quota(tokens=7))
    client.endpoints.faults = Faults("500 garbage cut")
    wrong = [client.later("a b c") for _ in range(3)]
    client.endpoints.wait_for(lambda stats: sum(stats.by_status.values()) == 3)

    assert 1 == sum(each.exception() is not None for each in wrong)
    assert [200, 200, 429] == [client.say("a b c").status_code for _ in range(3)]


def test_a_window_passes(client: Client) -> None:
    """A request that comes when the window has passed is admitted again."""
    client.endpoints.capacity = Capacity(quota=Quota(requests=1, window_s=0.05))
    client.endpoints.latency_s = 0.05

    assert [200, 200] == [client.say("a").status_code for _ in range(2)]


# --- Changes ---


def test_a_step_in_time_moves_the_line(client: Client) -> None:
    """Who waits for a capacity that grows is served when its time has come, with no other request to wake it."""
    open_again = (After(elapsed_s=0.05), Capacity(concurrency=1, queue=True))
    client.endpoints.capacity = Capacity(concurrency=0, queue=True, steps=(open_again,))
    answer = client.say("a")

    assert 200 == answer.status_code
    assert answer.elapsed.total_seconds() >= 0.05


def test_a_step_comes_with_its_request(client: Client) -> None:
    """The numbers change at a request, and begin again with a reset."""
    client.endpoints.capacity = Capacity(steps=((After(requests=2), Capacity(concurrency=0)),))
    assert [200, 200, 429, 429] == [client.say("a").status_code for _ in range(4)]
    client.endpoints.reset()

    assert 200 == client.say("a").status_code


def test_a_new_capacity_moves_the_line(client: Client) -> None:
    """A capacity that is set while requests wait holds for them at once."""
    client.endpoints.capacity = ONE_BY_ONE
    client.endpoints.hold("slow")
    first, second = client.later("slow"), client.later("slow")
    client.endpoints.wait_for(lambda stats: stats.rows_asked == 2)
    client.endpoints.capacity = wider = Capacity(concurrency=2)

    assert 2 == client.endpoints.wait_for(lambda stats: stats.in_work == 2).max_in_work
    assert wider == client.endpoints.capacity
    client.endpoints.release()
    assert [200, 200] == [first.result().status_code, second.result().status_code]
