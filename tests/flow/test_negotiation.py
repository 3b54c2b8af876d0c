"""Whether a task's requests are understood at all, and in which wire format."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.controller import FlowController
from spark_llm.flow.judge import Verdict
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.scheduler import RequestScheduler
from spark_llm.policy import Policy
from spark_llm.protocol.task import PLAIN, UNATTRIBUTED, Task
from spark_llm.protocol.values import Failure
from tests.support.play import (
    BAD_FORMAT,
    BAD_INPUT,
    BROKEN,
    CHAT,
    COMPLETE,
    EMBED,
    WRONG_COUNT,
    Play,
    Server,
    answer,
    begun,
    pack,
    texts,
)

EACH_TASK = pytest.mark.parametrize("task", [CHAT, COMPLETE, EMBED], ids=lambda task: task.name)
EACH_REFUSAL = pytest.mark.parametrize("format_unsupported", [BAD_FORMAT, WRONG_COUNT], ids=["refused", "wrong count"])


def rows_and_formats(play: Play) -> list[tuple[int, int]]:
    """Return how many inputs each request carried, and in which wire format."""
    return [(len(sent.rows), sent.wire_format) for sent in play.sent]


@EACH_TASK
def test_requests_go_one_by_one_until_one_is_answered(task: Task) -> None:
    """Each of the first requests waits for the outcome of the one before; after an answer the window decides."""
    server = Server(outage=(0.0, 3.0))
    play = Play(texts(200), server, Policy(batch_size=4), task, latency_s=(1.0, 1.0))
    first_answer = next(at for at, sent in enumerate(play.sent) if sent.outcome is not BROKEN)

    assert {1} == {sent.in_flight for sent in play.sent[: first_answer + 1]}
    assert 1 < max(sent.in_flight for sent in play.sent[first_answer + 1 :])


def test_another_tasks_answers_confirm_nothing() -> None:
    """With the window wide open, a task with other parameters still begins with one request."""
    scheduler, negotiation = begun(Policy())
    for number in range(100):
        scheduler.add("known", pack(number), negotiation)
    while len(scheduler):
        for request in scheduler.ready(1.0):
            scheduler.on_answer(request, answer(request), 1.0, 1.0)
    new = WireFormatNegotiation(CHAT, 1)
    for number in range(9):
        scheduler.add("new", pack(number), new)

    assert scheduler.controller.window > 16
    assert 1 == sum(request.negotiation is new for request in scheduler.ready(2.0))


def test_silence_lets_more_requests_go() -> None:
    """While the first request is silent, two are in flight after 2 s, four after 4, eight after 6, sixteen after 8."""
    play = Play(texts(40), Server(), Policy(), CHAT, latency_s=(30.0, 30.0))
    begins = [sent.at for sent in play.sent]

    assert [0.0] + [2.0] + [4.0] * 2 + [6.0] * 4 + [8.0] * 8 == begins[:16]
    assert 30.0 == begins[16]


def test_silence_opens_no_more_than_the_ceiling() -> None:
    """The policy's limit holds for silent endpoints too."""
    play = Play(texts(40), Server(), Policy(max_in_flight=3), CHAT, latency_s=(30.0, 30.0))

    assert 3 == max(sent.in_flight for sent in play.sent)


@given(st.floats(0, 1e9))
def test_silence_keeps_the_time_that_it_names(start: float) -> None:
    """At that time one more may go, and never later; there is one as long as fewer than 16 are in flight."""
    negotiation = WireFormatNegotiation(CHAT, 1)
    negotiation.on_send(start)
    while (opens_at := negotiation.opens_at()) is not None:
        opened = negotiation.max_in_flight(opens_at)

        assert opened is not None
        assert negotiation.in_flight < opened <= 16
        negotiation.on_send(opens_at)

    assert 16 == negotiation.in_flight


def test_the_silence_begins_with_the_first_request_in_flight() -> None:
    """Without a request in flight, time that passes lets none go."""
    negotiation = WireFormatNegotiation(CHAT, 1)
    negotiation.on_send(0.0)
    negotiation.on_return()

    assert (1, None) == (negotiation.max_in_flight(100.0), negotiation.opens_at())
    negotiation.on_send(100.0)
    assert (1, 2) == (negotiation.max_in_flight(101.9), negotiation.max_in_flight(102.0))


@EACH_REFUSAL
def test_a_refused_format_is_followed_by_the_next(format_unsupported: Failure) -> None:
    """Where a server refuses base64, the same texts are sent without it, and after that answer all others too."""
    play = Play(texts(40), Server(refused_formats=(0,), format_failure=format_unsupported), Policy(batch_size=4))

    assert [(4, 0)] + [(4, 1)] * 10 == rows_and_formats(play)
    assert {} == play.errors


@EACH_REFUSAL
def test_prompts_go_alone_where_arrays_are_refused(format_unsupported: Failure) -> None:
    """Queued batches of eight are split into what the wire format carries, and none is lost or sent twice."""
    play = Play(
        texts(40), Server(refused_formats=(0,), format_failure=format_unsupported), Policy(max_in_flight=1), COMPLETE
    )

    assert [(8, 0)] + [(1, 1)] * 40 == rows_and_formats(play)
    assert [*range(8), *range(40)] == [number for sent in play.sent for number in sent.rows]
    assert {} == play.errors
    assert play.billed == play.received


@pytest.mark.parametrize("forms", [(), (0,)], ids=["arrays", "single prompts"])
def test_one_prompt_confirms_nothing_about_arrays(forms: tuple[int, ...]) -> None:
    """A single prompt is encoded alike in both formats: its answer does not show whether arrays are accepted."""
    scheduler, negotiation = begun(Policy(), COMPLETE)
    scheduler.add("task", pack(*range(1, 9)), negotiation)
    (first,) = scheduler.ready(1.0)
    scheduler.on_failure(first, WRONG_COUNT, 1.0, lambda: 0.0) if forms else scheduler.on_answer(
        first, answer(first), 1.0, 1
    )

    assert 8 == len(first.inputs)
    assert (1 if forms else 8) == negotiation.max_inputs


def test_one_refused_prompt_says_nothing_about_arrays() -> None:
    """The other format would be refused alike, so the prompt fails at once, and arrays stay."""
    scheduler, negotiation = (
        RequestScheduler(FlowController(Policy()), Policy()),
        WireFormatNegotiation(COMPLETE, 64),
    )
    scheduler.add("task", pack(0), negotiation)
    (request,) = scheduler.ready(0.0)

    assert isinstance(scheduler.on_failure(request, BAD_INPUT, 0.0, lambda: 0.0), Verdict)
    assert 0 == negotiation.wire_format


def test_requests_in_the_old_format_are_sent_in_the_new_one() -> None:
    """Requests in flight when the format is found are sent again, and count as no fault."""
    scheduler, negotiation = begun(Policy(max_tries=1), COMPLETE)
    scheduler.add("task", pack(*range(1, 9)), negotiation)
    scheduler.add("task", pack(*range(9, 17)), negotiation)
    early, late = scheduler.ready(0.0)
    scheduler.on_failure(early, WRONG_COUNT, 1.0, lambda: 0.0)
    for request in scheduler.ready(1.0):
        scheduler.on_answer(request, answer(request), 1.0, 1.0)

    assert None is scheduler.on_failure(late, WRONG_COUNT, 2.0, lambda: 0.0)
    assert {(1, 1)} == {(request.wire_format, len(request.inputs)) for request in scheduler.ready(2.0)}


def test_a_late_refusal_of_the_old_format_is_no_error() -> None:
    """Two texts are in flight in the first format, since it was silent: neither fails because it is unknown."""
    scheduler, negotiation = RequestScheduler(FlowController(Policy()), Policy()), WireFormatNegotiation(EMBED, 1)
    scheduler.add("task", pack(0), negotiation)
    scheduler.add("task", pack(1), negotiation)
    early, late = [*scheduler.ready(0.0), *scheduler.ready(2.0)]
    scheduler.on_failure(early, BAD_FORMAT, 3.0, lambda: 0.0)
    (again,) = scheduler.ready(4.0)
    scheduler.on_answer(again, answer(again), 5.0, 1.0)

    assert None is scheduler.on_failure(late, BAD_FORMAT, 6.0, lambda: 0.0)
    assert [(pack(1), 1)] == [(request.inputs, request.wire_format) for request in scheduler.ready(6.0)]


@pytest.mark.parametrize("task", [COMPLETE, EMBED], ids=lambda task: task.name)
@EACH_REFUSAL
@given(bad=st.sets(st.integers(0, 15), max_size=3))
def test_a_bad_row_at_the_head_does_not_hide_the_format(task: Task, format_unsupported: Failure, bad: set[int]) -> None:
    """A server that refuses the first format, and bad rows in the first request: all other rows are answered."""
    play = Play(
        texts(300), Server(bad_rows=bad, refused_formats=(0,), format_failure=format_unsupported), Policy(), task
    )

    assert bad == play.errors.keys()
    assert len(play.sent) <= (300 if task is COMPLETE else 5) + 25 * (1 + len(bad))


def test_after_the_last_format_the_input_is_refused() -> None:
    """A text that is refused in both formats fails, and later texts are sent in the better one."""
    play = Play(texts(20), Server(bad_rows={0}), Policy(batch_size=1))

    assert [0] == list(play.errors)
    assert {0} == {sent.wire_format for sent in play.sent[2:]}


def test_a_confirmed_format_is_not_doubted() -> None:
    """Once a format was answered, a refusal is the input's: it is not sent in another format."""
    play = Play(texts(200), Server(bad_rows={100}), Policy(batch_size=8))

    assert {0} == {sent.wire_format for sent in play.sent}


def test_a_wrong_count_in_a_confirmed_format_is_a_fault() -> None:
    """A server that accepts arrays and sends too few choices for one gets a retry, as after any fault."""
    scheduler, negotiation = begun(Policy(), EMBED)
    scheduler.add("task", pack(1, 2), negotiation)
    (request,) = scheduler.ready(0.0)

    assert None is scheduler.on_failure(request, WRONG_COUNT, 0.0, lambda: 0.0)
    assert (1, 0) == (request.attempts.faults, negotiation.wire_format)


def test_a_second_table_uses_the_format_of_the_first() -> None:
    """A negotiation outlives its table: nothing is found out twice."""
    policy = Policy(batch_size=4)
    scheduler, negotiation = RequestScheduler(FlowController(policy), policy), WireFormatNegotiation(EMBED, 4)
    scheduler.add("first", pack(0, 1, 2), negotiation)
    (request,) = scheduler.ready(0.0)
    scheduler.on_failure(request, BAD_FORMAT, 0.0, lambda: 0.0)
    (request,) = scheduler.ready(0.0)
    scheduler.on_answer(request, answer(request), 0.0, 1.0)
    scheduler.add("second", pack(0), negotiation)
    scheduler.add("second", pack(1), negotiation)

    assert [1, 1] == [request.wire_format for request in scheduler.ready(1.0)]


NAMES_NOTHING = BAD_FORMAT
NAMES_A_FIELD = Failure(BAD_FORMAT.error._replace(message='unknown field "usage_context"'))
EACH_MESSAGE = pytest.mark.parametrize(
    "refusal", [NAMES_NOTHING, NAMES_A_FIELD], ids=["names nothing", "names a field"]
)


@EACH_MESSAGE
def test_attribution_is_dropped_where_it_is_refused(refusal: Failure) -> None:
    """Three rows that are answered only without the fields decide it for all others, and no row fails."""
    server = Server(refused_formats=(0,), format_failure=refusal)
    play = Play(texts(40), server, Policy(max_in_flight=1), CHAT, attributed=True)

    assert [(1, 0), (1, UNATTRIBUTED)] * 3 + [(1, UNATTRIBUTED)] * 37 == rows_and_formats(play)
    assert {} == play.errors


def test_base64_stays_where_only_attribution_is_refused() -> None:
    """A message that names a field drops that field, and no other feature."""
    server = Server(refused_formats=(0, PLAIN), format_failure=NAMES_A_FIELD)
    play = Play(texts(40), server, Policy(batch_size=4), attributed=True)

    assert [(4, 0)] + [(4, UNATTRIBUTED)] * 10 == rows_and_formats(play)


def test_an_answer_confirms_attribution() -> None:
    """A row that is refused later is not sent again without the fields, unless it is another server's first."""
    play = Play(texts(40), Server(bad_rows=(7, 8)), Policy(max_in_flight=1), CHAT, attributed=True)

    assert [(1, 0)] * 40 == rows_and_formats(play)
    assert [7, 8] == sorted(play.errors)


@EACH_TASK
@EACH_MESSAGE
def test_a_request_that_is_refused_as_a_whole_is_sent_ten_times_at_most(task: Task, refusal: Failure) -> None:
    """With attribution too: its formats are few, and the more there are the fewer inputs try them."""
    play = Play(texts(200), lambda *_: refusal, Policy(batch_size=1), task, attributed=True)

    assert len(play.sent) <= 10
    assert 200 == len(play.errors)
