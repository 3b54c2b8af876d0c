"""What follows from the replies to a row's requests: its result, or its next request."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.batches.replay import NextTry, replay, unbilled
from spark_llm.policy import Policy
from spark_llm.protocol.batches.lines import CANCELLED, EXPIRED, LEFT_OUT, Reply, read_line, replyless_line
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Field, Scalar, Struct
from spark_llm.protocol.task import FOLDED, PLAIN
from spark_llm.protocol.values import Result

MOOD = StructuredOutput("answer", Struct((Field("mood", Scalar("string")),)))
TYPED, PLAINEST, ADVISED = Chat(output=MOOD), Chat(), Chat(system="Be brief.")
LOST = read_line(replyless_line("c", LEFT_OUT))
EXPIRES, CANCELS = Reply("c", None, EXPIRED, "too late"), Reply("c", None, CANCELLED, "by you")


def reply(body: object, status: int = 200) -> Reply:
    """Return the reply of an output file with this body."""
    line = {"custom_id": "c", "response": {"status_code": status, "request_id": "r", "body": body}, "error": None}
    found = read_line(json.dumps(line))
    assert found is not None
    return found


def said(text: str, tokens: int = 3, finish_reason: str = "stop") -> Reply:
    """Return the reply to a chat."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 1, "completion_tokens": tokens - 1, "total_tokens": tokens}
    return reply({"choices": [choice], "usage": usage, "model": "m", "service_tier": "default"})


def refused(status: int, message: str = "no") -> Reply:
    """Return a refusal."""
    return reply({"error": {"message": message, "type": "invalid_request_error"}}, status)


def settled(task: Chat | Embed, replies: Sequence[Reply], **policy: Any) -> Result:  # noqa: ANN401 -- of a policy
    """Return the result, which there is."""
    result = replay(task, "Why?", replies, Policy(**policy))
    assert isinstance(result, Result)
    return result


def waiting(task: Chat | Embed, replies: Sequence[Reply], **policy: Any) -> NextTry:  # noqa: ANN401 -- of a policy
    """Return the next request, which there is."""
    state = replay(task, "Why?", replies, Policy(**policy))
    assert isinstance(state, NextTry)
    return state


def test_an_answer_settles_a_row() -> None:
    """Its tokens have the tier of batches, whatever the server calls it; there is no latency."""
    result = settled(PLAINEST, [said("So.", 5)])
    assert ("So.", 1, 1, None, "r") == (
        *(result.text, result.attempts, result.requests, result.latency_ms, result.request_id),
    )
    assert result.usage is not None
    assert (5, "batch") == (result.usage.total_tokens, result.usage.service_tier)


def test_without_replies_the_row_is_asked_as_it_is() -> None:
    """It is the first request."""
    assert NextTry("Why?", 0) == waiting(PLAINEST, [])


def test_what_may_pass_is_tried_again_up_to_max_tries() -> None:
    """A rate limit, an error of the server, and an expired batch are such; the last one is the row's error."""
    assert LOST is not None
    for one in (refused(429), refused(503), EXPIRES, LOST):
        assert 2 == waiting(PLAINEST, [one, one], max_tries=3).tries
        result = settled(PLAINEST, [one, one, one], max_tries=3)
        assert result.error is not None
        assert (3, True) == (result.attempts, result.error.retryable)
    error = settled(PLAINEST, [EXPIRES], max_tries=1).error
    assert error is not None
    assert ("timeout", "too late") == (error.kind, error.message)


def test_a_refusal_of_the_input_is_the_rows_error() -> None:
    """It is not sent again."""
    error = settled(PLAINEST, [refused(400, "This model's maximum context length is 8 tokens.")]).error
    assert error is not None
    assert ("context_length", False) == (error.kind, error.retryable)
    unsent = settled(PLAINEST, [Reply("c", None, "spark_llm_unsendable", "it is too large")]).error
    assert unsent is not None
    assert ("invalid_request", "it is too large") == (unsent.kind, unsent.message)


def test_a_cancelled_request_was_not_tried() -> None:
    """It is sent again as if it had never been."""
    assert NextTry("Why?", 0) == waiting(PLAINEST, [CANCELS, CANCELS])


def test_an_answer_of_another_type_is_asked_again() -> None:
    """The next request has the answer and the correction; the row has the tokens of both."""
    odd, good = said("Fine.", 5), said('{"mood": "fine"}', 7)
    state = waiting(TYPED, [said("{}", 5)])
    assert "mood" in json.dumps(state.item)
    result = settled(TYPED, [said("{}", 5), good])
    assert ({"mood": "fine"}, 2, 12) == (result.parsed, result.attempts, result.usage and result.usage.total_tokens)
    final = settled(TYPED, [said("{}", 5), said('{"mood": 1}', 5)])
    assert final.error is not None
    assert "schema_mismatch" == final.error.kind
    assert PLAIN == waiting(TYPED, [odd]).wire_format  # a text without JSON: the server ignored the field


def test_a_format_that_is_refused_is_followed_by_the_next() -> None:
    """As in single requests: without the field, and without the system role."""
    assert PLAIN == waiting(TYPED, [refused(400, "response_format is not supported")]).wire_format
    assert FOLDED == waiting(ADVISED, [refused(400, "System role not supported")]).wire_format
    assert settled(ADVISED, [refused(400, "System role not supported"), said("So.")]).text == "So."
    numbers = reply({"data": [{"index": 0, "embedding": [1.0, 2.0]}], "usage": {"prompt_tokens": 2, "total_tokens": 2}})
    assert 8 == len(settled(Embed(), [numbers]).embedding or b"")


def test_a_shared_request_is_billed_once() -> None:
    """The other rows have its answer, or its error, and neither tokens nor tries."""
    copy = unbilled(settled(PLAINEST, [refused(503), said("So.", 5)]))
    assert ("So.", 0, 0, 0) == (copy.text, copy.attempts, copy.requests, copy.usage and copy.usage.total_tokens)
    failed = unbilled(settled(PLAINEST, [refused(403, "no access")]))
    assert failed.error is not None
    assert failed.usage is None


def test_a_single_request_adds_to_what_the_batches_cost() -> None:
    """Its own tokens and tries, and those of all replies before it."""
    state = waiting(TYPED, [said("{}", 5)])
    result = state.plus(settled(TYPED, [said('{"mood": "fine"}', 7)]))
    assert (12, 2, 2) == (result.usage and result.usage.total_tokens, result.attempts, result.requests)


@pytest.mark.parametrize("tier", [None, "default"])
def test_a_row_that_a_single_request_answered_has_that_ones_tier(tier: str | None) -> None:
    """So its cost is not halved, also where the server names no tier. Without an answer of its own that is "batch"."""
    single = settled(TYPED, [said('{"mood": "fine"}', 7)])
    assert single.usage is not None
    single.usage = single.usage._replace(service_tier=tier)
    result = waiting(TYPED, [said("{}", 5)]).plus(single)
    assert (12, tier) == (result.usage and result.usage.total_tokens, result.usage and result.usage.service_tier)
    unanswered = waiting(TYPED, [said("{}", 5)]).plus(Result()).usage
    assert (5, "batch") == (unanswered and unanswered.total_tokens, unanswered and unanswered.service_tier)


REPLIES = st.lists(
    st.one_of(
        st.builds(said, st.sampled_from(["", "So.", "{}", '{"mood": "fine"}', '{"mood"']), st.integers(2, 99)),
        st.builds(refused, st.sampled_from([400, 401, 403, 404, 408, 413, 429, 500, 503])),
        st.sampled_from([EXPIRES, CANCELS, reply(None), reply([], 200), reply({"choices": []}), reply({}, 502)]),
    ),
    max_size=8,
)


def billed(replies: Sequence[Reply]) -> int:
    """Return the tokens that the replies report."""
    bodies = [json.loads(each.response.body) for each in replies if each.response is not None]
    return sum(body["usage"]["total_tokens"] for body in bodies if isinstance(body, dict) and "usage" in body)


@given(REPLIES, st.sampled_from([TYPED, PLAINEST, ADVISED]), st.integers(1, 4), st.integers(0, 2))
def test_every_token_and_every_try_is_the_rows(replies: list[Reply], task: Chat, max_tries: int, reask: int) -> None:
    """A row is settled by its first replies or by all; tokens and tries are those of as many; more change nothing."""
    policy = Policy(max_tries=max_tries, reask=reask)
    read = next(
        (n for n in range(len(replies) + 1) if isinstance(replay(task, "Why?", replies[:n], policy), Result)), None
    )
    state = replay(task, "Why?", replies, policy)
    used = replies if read is None else replies[:read]
    tries = sum(each.code != CANCELLED for each in used)
    if isinstance(state, NextTry):
        assert read is None
        assert tries == state.tries
    else:
        assert read is not None
        assert tries == state.attempts == state.requests
        assert state.error is None or state.text is None or task is TYPED
    assert billed(used) == ((state.usage and state.usage.total_tokens) or 0)
    assert tries <= max_tries + reask + 3  # two further formats, and the first
