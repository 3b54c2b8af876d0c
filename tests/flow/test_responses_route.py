"""A refusal that names another route: all requests go there, and come back where there is nothing."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.controller import FlowController
from spark_llm.flow.negotiation import NOTHING_KNOWN, KnownFlags, WireFormatNegotiation, known_route
from spark_llm.flow.request import Request
from spark_llm.flow.scheduler import RequestScheduler
from spark_llm.policy import Policy
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.task import RESPONSES, UNATTRIBUTED
from spark_llm.protocol.values import Failure, Outcome, RowError
from tests.support.play import CHAT, NOT_FOUND, Play, Server, answer, pack, texts

NAMES_ROUTE = Failure(RowError("invalid_request", 404, "This model is only supported in v1/responses", retryable=False))
NO_PLACE = Failure(RowError("invalid_request", None, "n= has no place", retryable=False), final=True)
NO_AUDIO = Failure(RowError("invalid_request", None, "no place for audio", retryable=False))


class ResponsesOnly(Server):
    """An endpoint whose model is served at the Responses route, where it is as `Server` is."""

    def __call__(self, request: Request, now: float, dice: random.Random) -> Outcome:
        """Refuse a request of chat completions, and answer at the route."""
        return super().__call__(request, now, dice) if request.wire_format & RESPONSES else NAMES_ROUTE


def formats(play: Play) -> list[int]:
    """Return the wire formats of the requests."""
    return [sent.wire_format for sent in play.sent]


@pytest.mark.parametrize("max_in_flight", [None, 1])
def test_one_refusal_leads_all_requests_to_the_route(max_in_flight: int | None) -> None:
    """It costs one request, whatever the window."""
    play = Play(texts(40), ResponsesOnly(), Policy(max_in_flight=max_in_flight), CHAT)

    assert [0] + [RESPONSES] * 40 == formats(play)
    assert {} == play.errors
    assert play.billed == play.received


def test_a_slow_answer_there_costs_no_further_refusal() -> None:
    """The requests that its silence lets go take the route too."""
    scheduler, negotiation = RequestScheduler(FlowController(Policy()), Policy()), WireFormatNegotiation(CHAT, None)
    for number in range(20):
        scheduler.add("task", pack(number), negotiation)
    (first,) = scheduler.ready(0.0)
    scheduler.on_failure(first, NAMES_ROUTE, 0.1, lambda: 0.0)
    sent = [request.wire_format for now in (0.1, 2.2, 4.2, 6.2) for request in scheduler.ready(now)]

    assert [RESPONSES] * 8 == sent


@given(st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0, 0.2), st.integers(0, 50))
def test_faults_on_the_way_change_nothing(refused: float, broken: float, garbage: float, seed: int) -> None:
    """Refusals of quotas, broken connections and garbage at the route are what they are elsewhere."""
    server = ResponsesOnly(refused=refused, broken=broken, garbage=garbage)
    play = Play(texts(20), server, Policy(max_tries=1_000, give_up_after_s=1e6), CHAT, seed=seed)

    assert 1 == formats(play).count(0)
    assert {} == play.errors
    assert play.billed == play.received


def test_attribution_is_dropped_at_the_route() -> None:
    """Other features of the format are found out there, as ever."""
    server = ResponsesOnly(refused_formats=(RESPONSES,))
    play = Play(texts(40), server, Policy(max_in_flight=1), CHAT, attributed=True)

    assert [0] + [RESPONSES, RESPONSES | UNATTRIBUTED] * 3 + [RESPONSES | UNATTRIBUTED] * 37 == formats(play)
    assert {} == play.errors


@pytest.mark.parametrize("bad", [[0], [0, 1, 2, 3], [39]])
def test_a_refusal_that_quotes_its_row_fails_that_row_alone(bad: list[int]) -> None:
    """There is no such route: the requests come back, and the others are answered."""

    def endpoint(request: Request, _: float, __: random.Random) -> Outcome:
        if request.wire_format & RESPONSES:
            return NOT_FOUND
        return NAMES_ROUTE if request.inputs[0][0] in bad else answer(request)

    play = Play(texts(40), endpoint, Policy(), CHAT)

    assert bad == sorted(play.errors)
    assert {"invalid_request"} == {error.kind for error in play.errors.values()}
    assert formats(play).count(RESPONSES) <= len(bad)


def test_an_endpoint_without_either_route_ends_the_task() -> None:
    """Every row is refused by name, and there is nothing there: a handful of requests show it."""

    def endpoint(request: Request, _: float, __: random.Random) -> Outcome:
        return NOT_FOUND if request.wire_format & RESPONSES else NAMES_ROUTE

    play = Play(texts(200), endpoint, Policy(), CHAT)

    assert len(play.sent) <= 10
    assert 200 == len(play.errors)


def test_a_route_that_is_named_after_answers_is_taken_by_that_row_alone() -> None:
    """Behind one endpoint there may be several models; three such rows in a row decide it for all."""

    def endpoint(request: Request, _: float, __: random.Random) -> Outcome:
        odd = request.inputs[0][0] in (5, 9)
        return NAMES_ROUTE if odd and not request.wire_format & RESPONSES else answer(request)

    play = Play(texts(40), endpoint, Policy(max_in_flight=1), CHAT)

    assert [5, 9] == [sent.rows[0] for sent in play.sent if sent.wire_format == RESPONSES]
    assert {} == play.errors


def test_a_task_that_has_no_place_there_ends_after_one_refusal() -> None:
    """All of its rows have the error, and none was asked in vain."""

    def endpoint(request: Request, _: float, __: random.Random) -> Outcome:
        return NO_PLACE if request.wire_format & RESPONSES else NAMES_ROUTE

    play = Play(texts(40), endpoint, Policy(), CHAT)

    assert [0, RESPONSES] == formats(play)
    assert NO_PLACE.error == play.stopped


def test_a_row_that_has_no_place_there_is_alone() -> None:
    """It tells nothing of the others, however many there are before an answer."""

    def endpoint(request: Request, _: float, __: random.Random) -> Outcome:
        if not request.wire_format & RESPONSES:
            return NAMES_ROUTE
        return answer(request) if request.inputs[0][0] >= 20 else NO_AUDIO

    play = Play(texts(40), endpoint, Policy(), CHAT)

    assert list(range(20)) == sorted(play.errors)
    assert 41 == len(play.sent)


def test_a_set_route_is_kept() -> None:
    """The user's choice is not changed by a refusal, and nothing is found out that is known."""
    chat, responses = (WireFormatNegotiation(CHAT, None, known_route(api, [])) for api in ("chat", "responses"))
    refusal = NAMES_ROUTE.error

    assert (0, RESPONSES) == (chat.wire_format, responses.wire_format)
    assert None is chat.fallback_after_refusal(0, [(0, "row")], refusal)
    assert 0 == responses.withdraw(RESPONSES)
    assert RESPONSES == responses.wire_format


def test_other_tasks_begin_where_one_was_answered() -> None:
    """A route that was only named is not found yet."""
    named, found = (WireFormatNegotiation(CHAT, None) for _ in range(2))
    named.fallback_after_refusal(0, [(0, "row")], NAMES_ROUTE.error)
    found.fallback_after_refusal(0, [(0, "row")], NAMES_ROUTE.error)
    found.on_answer(RESPONSES, [(0, "row")], None, confirms=True)

    assert NOTHING_KNOWN == known_route(None, [named, WireFormatNegotiation(Chat(), None)])
    assert KnownFlags(RESPONSES, RESPONSES) == known_route(None, [named, found])
    assert KnownFlags(0, RESPONSES) == known_route("chat", [found])
