"""Whether a task's requests are understood at all, and in which wire form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.limiter import ConcurrencyLimiter
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.scheduler import RequestScheduler, Verdict
from spark_llm.policy import Policy
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Failure
from tests.support.play import (
    BAD_FORM,
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
EACH_REFUSAL = pytest.mark.parametrize("format_unsupported", [BAD_FORM, WRONG_COUNT], ids=["refused", "wrong count"])


def rows_and_forms(play: Play) -> list[tuple[int, int]]:
    """Return how many inputs each request carried, and in which wire form."""
    return [(len(sent.rows), sent.dialect) for sent in play.sent]


@EACH_TASK
def test_requests_go_one_by_one_until_one_is_answered(task: Task) -> None:
    """Whatever becomes of the first ones, the next waits for it; then as many go as the window lets out."""
    server = Server(outage=(0.0, 3.0))
    play = Play(texts(200), server, Policy(batch_size=4), task, latency_s=(1.0, 1.0))
    first_answer = next(at for at, sent in enumerate(play.sent) if sent.outcome is not BROKEN)

    assert {1} == {sent.out for sent in play.sent[: first_answer + 1]}
    assert 1 < max(sent.out for sent in play.sent[first_answer + 1 :])


def test_another_tasks_answers_prove_nothing_of_this_one() -> None:
    """With the window wide open, a task with other parameters begins with one request all the same."""
    schedule, form = begun(Policy())
    for number in range(100):
        schedule.add("known", pack(number), form)
    while len(schedule):
        for request in schedule.ready(1.0):
            schedule.answered(request, answer(request), 1.0, 1.0)
    new = WireFormatNegotiation(CHAT, 1)
    for number in range(9):
        schedule.add("new", pack(number), new)

    assert schedule.limit.window > 16
    assert 1 == sum(request.form is new for request in schedule.ready(2.0))


def test_silence_lets_more_out() -> None:
    """While the first request is silent, two are out after 2 s, four after 4, eight after 6, sixteen after 8."""
    play = Play(texts(40), Server(), Policy(), CHAT, latency_s=(30.0, 30.0))
    begins = [sent.at for sent in play.sent]

    assert [0.0] + [2.0] + [4.0] * 2 + [6.0] * 4 + [8.0] * 8 == begins[:16]
    assert 30.0 == begins[16]


def test_silence_opens_no_more_than_the_ceiling() -> None:
    """What the user allows holds for silent endpoints too."""
    play = Play(texts(40), Server(), Policy(max_in_flight=3), CHAT, latency_s=(30.0, 30.0))

    assert 3 == max(sent.out for sent in play.sent)


@given(st.floats(0, 1e9))
def test_the_time_that_silence_names_is_the_one_that_it_keeps(start: float) -> None:
    """At the time that it names one more may go, and never later; it names one as long as fewer than 16 are out."""
    form = WireFormatNegotiation(CHAT, 1)
    form.sent(start)
    while (opens_at := form.opens_at()) is not None:
        opened = form.opened(opens_at)

        assert opened is not None
        assert form.out < opened <= 16
        form.sent(opens_at)

    assert 16 == form.out


def test_the_silence_begins_anew_with_the_first_request_that_is_out() -> None:
    """Once nothing is out, time that passes opens nothing."""
    form = WireFormatNegotiation(CHAT, 1)
    form.sent(0.0)
    form.back()

    assert (1, None) == (form.opened(100.0), form.opens_at())
    form.sent(100.0)
    assert (1, 2) == (form.opened(101.9), form.opened(102.0))


@EACH_REFUSAL
def test_a_refused_form_is_asked_in_the_next(format_unsupported: Failure) -> None:
    """Where a server refuses base64, the same texts are asked without, and after that answer all others too."""
    play = Play(texts(40), Server(forms=(0,), format_unsupported=format_unsupported), Policy(batch_size=4))

    assert [(4, 0)] + [(4, 1)] * 10 == rows_and_forms(play)
    assert {} == play.errors


@EACH_REFUSAL
def test_prompts_that_are_not_taken_in_arrays_go_alone(format_unsupported: Failure) -> None:
    """The inputs that waited as eights are cut to what the wire form carries, and none is lost or asked twice."""
    play = Play(texts(40), Server(forms=(0,), format_unsupported=format_unsupported), Policy(max_in_flight=1), COMPLETE)

    assert [(8, 0)] + [(1, 1)] * 40 == rows_and_forms(play)
    assert [*range(8), *range(40)] == [number for sent in play.sent for number in sent.rows]
    assert {} == play.errors
    assert play.billed == play.received


@pytest.mark.parametrize("forms", [(), (0,)], ids=["arrays", "single prompts"])
def test_one_prompt_proves_nothing_of_arrays(forms: tuple[int, ...]) -> None:
    """A single prompt is written alike in both forms: its answer does not tell whether arrays are taken."""
    schedule, form = begun(Policy(), COMPLETE)
    schedule.add("task", pack(*range(1, 9)), form)
    (first,) = schedule.ready(1.0)
    schedule.failed(first, WRONG_COUNT, 1.0, lambda: 0.0) if forms else schedule.answered(first, answer(first), 1.0, 1)

    assert 8 == len(first.inputs)
    assert (1 if forms else 8) == form.max_inputs


def test_one_prompt_that_is_refused_says_nothing_of_arrays() -> None:
    """It would be refused alike in the other form, so it fails at once, and arrays are not given up."""
    schedule, form = RequestScheduler(ConcurrencyLimiter(Policy()), Policy()), WireFormatNegotiation(COMPLETE, 64)
    schedule.add("task", pack(0), form)
    (request,) = schedule.ready(0.0)

    assert isinstance(schedule.failed(request, BAD_INPUT, 0.0, lambda: 0.0), Verdict)
    assert 0 == form.dialect


def test_what_was_sent_in_the_old_form_is_asked_in_the_new_one() -> None:
    """Requests that were out when the form was found out are asked again, and count as no fault."""
    schedule, form = begun(Policy(max_tries=1), COMPLETE)
    schedule.add("task", pack(*range(1, 9)), form)
    schedule.add("task", pack(*range(9, 17)), form)
    early, late = schedule.ready(0.0)
    schedule.failed(early, WRONG_COUNT, 1.0, lambda: 0.0)
    for request in schedule.ready(1.0):
        schedule.answered(request, answer(request), 1.0, 1.0)

    assert None is schedule.failed(late, WRONG_COUNT, 2.0, lambda: 0.0)
    assert {(1, 1)} == {(request.dialect, len(request.inputs)) for request in schedule.ready(2.0)}


def test_a_late_refusal_of_the_old_form_is_nobodys_error() -> None:
    """Two texts are out in the first form, since it was silent: that it is not known costs neither of them."""
    schedule, form = RequestScheduler(ConcurrencyLimiter(Policy()), Policy()), WireFormatNegotiation(EMBED, 1)
    schedule.add("task", pack(0), form)
    schedule.add("task", pack(1), form)
    early, late = [*schedule.ready(0.0), *schedule.ready(2.0)]
    schedule.failed(early, BAD_FORM, 3.0, lambda: 0.0)
    (again,) = schedule.ready(4.0)
    schedule.answered(again, answer(again), 5.0, 1.0)

    assert None is schedule.failed(late, BAD_FORM, 6.0, lambda: 0.0)
    assert [(pack(1), 1)] == [(request.inputs, request.dialect) for request in schedule.ready(6.0)]


@pytest.mark.parametrize("task", [COMPLETE, EMBED], ids=lambda task: task.name)
@EACH_REFUSAL
@given(bad=st.sets(st.integers(0, 15), max_size=3))
def test_a_bad_row_at_the_head_does_not_hide_the_form(task: Task, format_unsupported: Failure, bad: set[int]) -> None:
    """A server that refuses the first form, and bad rows in the first request: all other rows are answered."""
    play = Play(texts(300), Server(poison=bad, forms=(0,), format_unsupported=format_unsupported), Policy(), task)

    assert bad == play.errors.keys()
    assert len(play.sent) <= (300 if task is COMPLETE else 5) + 25 * (1 + len(bad))


def test_after_the_last_form_it_is_the_input() -> None:
    """A text that is refused in both forms fails, and the texts after it are asked in the better one."""
    play = Play(texts(20), Server(poison={0}), Policy(batch_size=1))

    assert [0] == list(play.errors)
    assert {0} == {sent.dialect for sent in play.sent[2:]}


def test_a_known_form_is_not_doubted_again() -> None:
    """Once a form was answered, a refusal is the input's: it is not asked again in another form."""
    play = Play(texts(200), Server(poison={100}), Policy(batch_size=8))

    assert {0} == {sent.dialect for sent in play.sent}


def test_a_wrong_count_in_a_known_form_is_a_fault() -> None:
    """A server that takes arrays and answers one of them with too few choices is asked again, as after any fault."""
    schedule, form = begun(Policy(), EMBED)
    schedule.add("task", pack(1, 2), form)
    (request,) = schedule.ready(0.0)

    assert None is schedule.failed(request, WRONG_COUNT, 0.0, lambda: 0.0)
    assert (1, 0) == (request.tries.faults, form.dialect)


def test_a_second_table_goes_on_with_what_the_first_has_shown() -> None:
    """A form that outlives its table remembers: nothing is found out twice."""
    policy = Policy(batch_size=4)
    schedule, form = RequestScheduler(ConcurrencyLimiter(policy), policy), WireFormatNegotiation(EMBED, 4)
    schedule.add("first", pack(0, 1, 2), form)
    (request,) = schedule.ready(0.0)
    schedule.failed(request, BAD_FORM, 0.0, lambda: 0.0)
    (request,) = schedule.ready(0.0)
    schedule.answered(request, answer(request), 0.0, 1.0)
    schedule.add("second", pack(0), form)
    schedule.add("second", pack(1), form)

    assert [1, 1] == [request.dialect for request in schedule.ready(1.0)]
