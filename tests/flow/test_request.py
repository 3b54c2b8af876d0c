"""One request: the inputs it carries, and the cost of its attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.controller import FlowController
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.request import Request
from spark_llm.flow.retry import Attempts
from spark_llm.flow.scheduler import RequestScheduler
from spark_llm.policy import Policy
from spark_llm.protocol.media import Media
from spark_llm.protocol.values import Answer, Item, Prompt, Result, RowError, Usage
from tests.support.play import BAD_INPUT, CHAT, EMBED, total
from tests.support.strategies import usages

ERROR = RowError("invalid_request", 400, "not allowed", retryable=False)
TEXTS = st.lists(st.text(max_size=9), min_size=1, max_size=12)
TOKENS = st.none() | st.integers(0, 10_000)
USAGES = st.none() | usages(TOKENS)


def request_of(texts: list[str], wasted: Usage | None = None, sent: int = 1) -> Request:
    """Make a request for these texts, numbered from 10 on."""
    negotiation, attempts = WireFormatNegotiation(EMBED, 64), Attempts(sent=sent, faults=1)
    return Request("task", [*enumerate(texts, 10)], negotiation, wire_format=1, attempts=attempts, wasted_usage=wasted)


@given(TEXTS, USAGES, USAGES)
def test_the_rows_carry_the_cost_of_all_attempts(texts: list[str], wasted: Usage | None, last: Usage | None) -> None:
    """The tokens of the answer and of the attempts before it are shared out, and none is lost."""
    request = request_of(texts, wasted)
    results = [Result(text=text) for text in texts]
    settled = dict(request.results(Answer(results, last), 0.25))

    assert texts == [settled[number].text for number, _ in request.inputs]
    assert total([wasted, last]) == total(result.usage for result in settled.values())


@given(TEXTS, USAGES)
def test_rows_that_fail_carry_it_too(texts: list[str], wasted: Usage | None) -> None:
    """Failed rows carry the tokens that were billed for no answer; each has the error."""
    settled = dict(request_of(texts, wasted).results(ERROR, None))

    assert {ERROR} == {result.error for result in settled.values()}
    assert total([wasted]) == total(result.usage for result in settled.values())


def test_a_row_has_its_part_of_the_tokens_by_length() -> None:
    """Three characters of four are three quarters of the tokens."""
    request = request_of(["abc", "d"])
    settled = request.results(Answer([Result(), Result()], Usage(100, None, 8)), None)

    assert [Usage(75, None, 6), Usage(25, None, 2)] == [result.usage for _, result in settled]


def test_a_row_knows_its_attempts_and_its_latency() -> None:
    """The attempts are counted over all requests that it was in; the latency is the last one's, in milliseconds."""
    ((_, answered), (_, failed)) = (
        next(request_of(["a"], sent=3).results(outcome, latency_s))
        for outcome, latency_s in ((Answer([Result()], None), 0.25), (ERROR, None))
    )

    assert (3, 250.0) == (answered.attempts, answered.latency_ms)
    assert (3, None) == (failed.attempts, failed.latency_ms)


@given(TEXTS, st.integers(0, 9), st.booleans())
def test_the_first_row_accounts_for_the_requests(texts: list[str], sent: int, answered: bool) -> None:  # noqa: FBT001 -- drawn
    """A request that carried many rows was one request: over the rows they sum up to what was sent, and was refused."""
    request = request_of(texts)
    request.http_requests, request.refusals = sent, (429,) * sent
    outcome = Answer([Result() for _ in texts], None) if answered else ERROR
    settled = [(result.requests, result.refusals) for _, result in request.results(outcome, None)]

    assert [(sent, (429,) * sent), *[(0, ())] * (len(texts) - 1)] == settled


@given(TEXTS, st.integers(0, 9), st.integers(1, 11))
def test_parts_account_for_the_requests_once(texts: list[str], sent: int, at: int) -> None:
    """What the whole was sent for is counted by one of its parts, wherever it is cut."""
    request = request_of([*texts, "and one more"])
    request.http_requests, request.refusals = sent, (503,) * sent
    parts = request.split(min(at, len(texts)))

    assert [(sent, (503,) * sent), (0, ())] == [(part.http_requests, part.refusals) for part in parts]


@given(TEXTS, USAGES, st.integers(0, 12))
def test_parts_hold_the_same_inputs_in_their_order(texts: list[str], wasted: Usage | None, at: int) -> None:
    """No input is lost and none is doubled, wherever it is cut; and the wasted tokens are shared out whole."""
    request = request_of(texts, wasted, sent=2)
    before, after = request.split(at)

    assert request.inputs == before.inputs + after.inputs
    assert min(at, len(texts)) == len(before.inputs)
    assert total([wasted]) == total([before.wasted_usage, after.wasted_usage])


def test_a_part_goes_on_where_the_whole_was() -> None:
    """It has the same owner and wire format; its attempts go on, and its faults begin at zero."""
    request = request_of(["a", "b", "c"], sent=2)
    parts = request.split(1)

    assert {("task", request.negotiation, 1)} == {(part.owner, part.negotiation, part.wire_format) for part in parts}
    assert [Attempts(sent=2)] * 2 == [part.attempts for part in parts]
    assert parts[0].attempts is not parts[1].attempts


@pytest.mark.parametrize(
    ("item", "characters"),
    [
        ("", 0),
        ("four", 4),
        ([{"role": "system", "content": "be brief"}, {"role": "user", "content": "four"}], 12),
        ([{"role": "user", "content": ["four", "four"]}, {"role": "assistant"}, None], 8),
        (Prompt("four", "be brief"), 12),
        ([{"role": "user", "content": ["four", Media("image", "image/png", b"large" * 10_000)]}], 4_004),
        ([{"role": "user", "content": [Media("image", url="https://a.example/b.png")]}], 4_000),
        ([{"role": "user", "content": [Media("file", "application/pdf", bytes(50_000))]}], 4_000),
        ([{"role": "user", "content": [Media("audio", "audio/wav", bytes(16_000))]}], 40),
        ([], 0),
    ],
)
def test_characters_are_those_of_the_texts_and_of_the_tokens_of_media(item: Item, characters: int) -> None:
    """A conversation is as long as its messages' texts; anything else in it weighs nothing."""
    assert characters == Request("task", [(0, item)], WireFormatNegotiation(CHAT, 1)).characters


def test_a_request_that_was_never_sent_has_no_outcome() -> None:
    """A mistake of the caller raises, and frees no slot twice."""
    scheduler = RequestScheduler(FlowController(Policy()), Policy())

    with pytest.raises(ValueError, match="not in flight"):
        scheduler.on_failure(request_of(["a"]), BAD_INPUT, 0.0, lambda: 0.0)
