"""What a refused input costs, and what a refused request: against a simulated endpoint that is asked to the end."""

import json
import math
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spark_llm.errors import Kind
from spark_llm.flow.controller import FlowController
from spark_llm.flow.request import Request
from spark_llm.policy import Policy
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.failures import failure_of
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Failure, Outcome, Response, RowError
from tests.support.play import BAD_INPUT, CHAT, COMPLETE, EMBED, WRONG_COUNT, Play, Server, answer, texts

ROWS = 10_000
BATCHES = 157  # of 64
WITH_FORMS = pytest.mark.parametrize(("forms", "trials"), [((), 0), ((0,), 2)], ids=["knows base64", "refuses base64"])
CAUSES = ("embed", EMBED), ("complete", COMPLETE), ("chat", CHAT)
EACH_TASK = pytest.mark.parametrize("task", [task for _, task in CAUSES], ids=[name for name, _ in CAUSES])


def refuses_all(request: Request, now: float, dice: random.Random) -> Outcome:
    """Refuse every request with the same message, as for a parameter that the server does not take."""
    return BAD_INPUT


def refuses_each(request: Request, now: float, dice: random.Random) -> Outcome:
    """Refuse every request with a message that names its first input."""
    why = f"row {request.inputs[0][0]} is not allowed"
    return Failure(RowError("invalid_request", 400, why, retryable=False))


@pytest.mark.waits
@WITH_FORMS
@settings(max_examples=settings().max_examples // 5)  # of 10,000 rows each
@given(at=st.integers(0, ROWS - 1) | st.integers(0, 64))
@example(at=0)
@example(at=63)
@example(at=64)
@example(at=ROWS - 1)
def test_one_bad_row_costs_its_halvings(forms: tuple[int, ...], trials: int, at: int) -> None:
    """One bad row in 10,000 embeddings fails alone, for at most 14 more requests, wherever it is."""
    play = Play(texts(ROWS), Server(bad_rows={at}, refused_formats=forms), Policy())

    assert {at: BAD_INPUT.error} == play.errors
    assert len(play.sent) - BATCHES <= 14 + trials
    assert play.billed == play.received


@WITH_FORMS
@given(bad_rows=st.sets(st.integers(0, 499), min_size=1, max_size=24))
def test_many_bad_rows_cost_their_halvings(forms: tuple[int, ...], trials: int, bad_rows: set[int]) -> None:
    """Each of two dozen bad rows fails alone, for at most 1 + 2 log2 n requests."""
    sound = max(bad_rows) + 1  # the first row of all is answered, so the table is not taken for a wrong request
    play = Play(texts(1_000), Server(bad_rows={sound - at for at in bad_rows}, refused_formats=forms), Policy())

    assert {sound - at for at in bad_rows} == play.errors.keys()
    assert len(play.sent) - 16 <= len(bad_rows) * (1 + 2 * math.log2(64)) + trials + 1


@given(bad_rows=st.sets(st.integers(1, 199), max_size=24), forms=st.sampled_from([(), (0,)]))
def test_a_bad_prompt_fails_alone(bad_rows: set[int], forms: tuple[int, ...]) -> None:
    """Prompts in arrays of eight are halved as well, and sent one by one where the server takes no arrays."""
    play = Play(
        texts(200), Server(bad_rows=bad_rows, refused_formats=forms, format_failure=WRONG_COUNT), Policy(), COMPLETE
    )

    assert bad_rows == play.errors.keys()
    assert {BAD_INPUT.error} >= set(play.errors.values())


@pytest.mark.waits
def test_a_bad_prompt_does_not_end_the_arrays() -> None:
    """Where it was a prompt that was refused and not the array, the others go on by eights."""
    sent = [len(Play(texts(800), Server(bad_rows={at}), Policy(), COMPLETE).sent) for at in range(8)]

    assert max(sent) <= 100 + 32


@EACH_TASK
def test_a_request_that_is_wrong_as_a_whole_is_sent_ten_times(task: Task) -> None:
    """Where every request is refused with one message, the other rows get the error without a request."""
    play = Play(texts(1_000), refuses_all, Policy(), task)

    assert len(play.sent) <= 10
    assert 1_000 == len(play.errors)
    assert {"invalid_request"} == {error.kind for error in play.errors.values()}
    assert " different inputs got this error and none succeeded, so the rest were not sent)" in play.errors[500].message
    assert (0, None) == (play.results[500].attempts, play.results[500].usage)


@EACH_TASK
@given(bad=st.integers(0, 7))
def test_a_table_with_a_bad_head_is_read_to_its_end(task: Task, bad: int) -> None:
    """Up to seven bad rows at the head of a table stop nothing, even with one message."""
    play = Play(texts(200), Server(bad_rows=range(bad)), Policy(), task)

    assert list(range(bad)) == sorted(play.errors)


@EACH_TASK
@given(bad=st.integers(8, 130))
def test_a_table_sorted_by_its_worst_rows_is_read_to_its_end(task: Task, bad: int) -> None:
    """However many inputs at its head are refused alike, those at its end are tried as well."""
    play = Play(texts(200), Server(bad_rows=range(bad)), Policy(), task)

    assert list(range(bad)) == sorted(play.errors)


@EACH_TASK
def test_nothing_is_stopped_once_anything_was_answered(task: Task) -> None:
    """After one answer a request is known to be right, and any number of bad rows are theirs alone."""
    play = Play(texts(200), Server(bad_rows=range(1, 200)), Policy(), task)

    assert list(range(1, 200)) == sorted(play.errors)
    assert {BAD_INPUT.error} == set(play.errors.values())


def test_equal_inputs_count_once() -> None:
    """One text that is refused a hundred times counts once: the next row is still sent."""
    play = Play(["a"] * 100 + ["b"], Server(bad_rows=range(100)), Policy(), CHAT)

    assert list(range(100)) == sorted(play.errors)


def test_different_messages_are_not_alike() -> None:
    """Refusals that each name their own row are the rows' own: all rows are sent."""
    play = Play(texts(50), refuses_each, Policy(), CHAT)

    assert [1] * 50 == [result.attempts for result in play.results.values()]
    assert "row 49 is not allowed" == play.errors[49].message


@pytest.mark.parametrize("kind", ["context_length", "content_filter"])
def test_a_long_or_filtered_prompt_never_stops_the_task(kind: Kind) -> None:
    """A prompt that is too long or filtered ends its row alone: no other wire format is tried."""
    error = RowError(kind, 400, "no", retryable=False)
    play = Play(texts(20), lambda request, now, dice: Failure(error), Policy())

    assert {error} == set(play.errors.values())
    assert {0} == {sent.wire_format for sent in play.sent}


@EACH_TASK
def test_unreadable_answers_stop_the_task(task: Task) -> None:
    """A server that never sends a readable answer gets six requests, not one for every row."""
    garbage = Failure(RowError("invalid_response", 200, "the answer is no JSON", retryable=True))
    play = Play(texts(1_000), lambda request, now, dice: garbage, Policy(), task)

    assert 6 == len(play.sent)
    assert {"invalid_response"} == {error.kind for error in play.errors.values()}


def test_halves_are_tried_before_new_rows() -> None:
    """A refused batch of four: two halves, two single rows, and then the next batch; each row counts its attempts."""
    play = Play(texts(12), Server(bad_rows={4}), Policy(batch_size=4, max_in_flight=1))

    assert [[4, 5, 6, 7], [4, 5], [6, 7], [4], [5], [8, 9, 10, 11]] == [sent.rows for sent in play.sent[1:]]
    assert [1, 1, 1, 1, 3, 3, 2, 2, 1, 1, 1, 1] == [play.results[number].attempts for number in range(12)]
    assert [1, 0, 0, 0, 3, 1, 1, 0, 1, 0, 0, 0] == [play.results[number].requests for number in range(12)]


LIMIT = 3_000


def limited_by_the_minute(request: Request, now: float, dice: random.Random) -> Outcome:
    """Refuse what alone is more than a minute allows, in OpenAI's words."""
    if request.characters <= LIMIT:
        return answer(request)
    words = f"Request too large for m on tokens per min (TPM): Limit {LIMIT}, Requested {request.characters}."
    document = {"error": {"message": words, "type": "tokens", "code": "rate_limit_exceeded"}}
    return failure_of(Response(429, json.dumps(document).encode(), {"retry-after": "60"}))


@EACH_TASK
@given(long=st.sets(st.integers(1, 199), max_size=3))
def test_a_request_too_large_for_a_minute_costs_its_row_alone(task: Task, long: set[int]) -> None:
    """It ends at once, whatever the status and its Retry-After; a batch is halved, and no other row waits."""
    rows = [row + "x" * LIMIT if number in long else row for number, row in enumerate(texts(200))]
    play = Play(rows, limited_by_the_minute, Policy(), task)
    halvings = 1 + 2 * math.log2(64)

    assert dict.fromkeys(long, "context_length") == {number: error.kind for number, error in play.errors.items()}
    assert [1] * len(long) == [play.results[number].attempts for number in long if task is CHAT] or task is not CHAT
    assert len(play.sent) <= 200 / task.max_inputs(0, 64) + 1 + len(long) * halvings
    assert play.controller.window >= FlowController(Policy()).window


def test_dimensions_that_a_server_ignores_are_paid_for_by_a_few_requests() -> None:
    """Eight requests show that it is so for all; the other rows are not sent, and no row is sent twice."""
    task = Embed(encode_parameters({"dimensions": 2}, None))

    def ignores(request: Request, now: float, dice: random.Random) -> Outcome:
        data = [{"embedding": [1.0, 2.0, 3.0]}] * len(request.inputs)
        return task.decode(Response(200, json.dumps({"data": data}).encode()), len(request.inputs))

    play = Play(texts(10_000), ignores, Policy(), task)

    assert len(play.sent) <= 8
    assert {("invalid_response", False)} == {(error.kind, error.retryable) for error in play.errors.values()}
    assert {0, 1} == {result.attempts for result in play.results.values()}
    assert 10_000 == len(play.errors)
