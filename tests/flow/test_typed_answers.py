"""How a typed answer is asked for and taken, as rules: the two wire formats, and what follows an answer."""

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.controller import FlowController
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.scheduler import RequestScheduler
from spark_llm.policy import Policy
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Field, Scalar, Struct
from spark_llm.protocol.values import Answer, Item, Prompt, Response, Result, RowError, Usage
from tests.support.strategies import TEXTS

if TYPE_CHECKING:
    from spark_llm.flow.request import Request

REPLY = StructuredOutput("answer", Struct((Field("stars", Scalar("long")),)))
TRY = Usage(5, 2, 7)
SAID = st.one_of(
    TEXTS,
    st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.none() | TEXTS}),
        min_size=1,
        max_size=4,
    ),
)


def body_of(task: Chat, item: Item, wire_format: int) -> Any:  # noqa: ANN401 -- what JSON holds
    """Return a request's body, read again."""
    return json.loads(bytes(task.encode([item], "m", wire_format)))


def answer(text: str | None, finish_reason: str = "stop", error: RowError | None = None) -> Answer:
    """Return what a codec makes of a response with this text."""
    return Answer([Result(text=text, finish_reason=finish_reason, error=error)], TRY)


@given(SAID, st.none() | st.just("Be brief."))
def test_the_first_format_adds_a_field_and_nothing_else(said: Item, system: str | None) -> None:
    """The messages are those of a text; the second format has no such field."""
    plain = body_of(Chat(system, b'{"max_tokens":5}'), said, 0)
    first = body_of(Chat(system, b'{"max_tokens":5}', output=REPLY), said, 0)
    second = body_of(Chat(system, b'{"max_tokens":5}', output=REPLY), said, 1)

    assert json.loads(REPLY.schema) == first.pop("response_format")["json_schema"]["schema"]
    assert plain == first
    assert plain | {"messages": second["messages"]} == second


@given(SAID, st.none() | st.just("Be brief."))
def test_the_second_format_adds_to_the_instructions(said: Item, system: str | None) -> None:
    """To those of the conversation, or the task's, or as the only ones; nothing else changes."""
    plain = body_of(Chat(system), said, 0)["messages"]
    worded = body_of(Chat(system, output=REPLY), said, 1)["messages"]
    place = next((place for place, message in enumerate(worded) if message["role"] == "system"), None)
    assert place is not None
    [own] = [message["content"] or "" for message in plain[place : place + 1] if message["role"] == "system"] or [""]
    rest = worded[:place] + worded[place + 1 :]

    assert own + "\n\n" * bool(own) + REPLY.instructions == worded[place]["content"]
    assert rest == (plain[:place] + plain[place + 1 :] if len(plain) == len(worded) else plain)


@given(SAID)
def test_reask_continues_the_conversation(said: Item) -> None:
    """The next prompt has the content, the answer and its mismatch; a prompt keeps its own type."""
    task = Chat("Be brief.", output=REPLY)
    result = Result(text='{"stars": "many"}')
    again = task.reask(said, result)
    before, after = (body_of(task, item, 0)["messages"] for item in (said, again))

    assert before == after[:-2]
    assert {"role": "assistant", "content": '{"stars": "many"}'} == after[-2]
    assert "`$.stars`" in after[-1]["content"]
    assert REPLY.instructions in after[-1]["content"]
    expected = Prompt(again, "Be kind.", REPLY)  # type: ignore[arg-type]  # both are contents
    prompt = Prompt(said, "Be kind.", REPLY)  # type: ignore[arg-type]  # both are contents
    assert expected == Chat(output_per_prompt=True).reask(prompt, result)


@pytest.mark.parametrize(
    ("given_answer", "wire_format", "kind", "parsed", "format_unsupported"),
    [
        (answer('{"stars": 3}'), 0, None, {"stars": 3}, False),
        (answer('{"stars": 3}', "length"), 0, None, {"stars": 3}, False),
        (answer('{"stars": "3"}'), 0, "schema_mismatch", None, False),
        (answer("Three."), 0, "schema_mismatch", None, True),
        (answer("Three."), 1, "schema_mismatch", None, False),
        (answer(""), 0, "schema_mismatch", None, True),
        (answer('{"stars": ', "length"), 0, "truncated", None, False),
        (answer('{"stars": ', "MAX_TOKENS"), 0, "truncated", None, False),
        (answer('{"stars": ', "model_length"), 0, "truncated", None, False),
        (answer('{"stars": "3"}', "length"), 0, "schema_mismatch", None, False),
    ],
)
def test_an_answer_fits_or_says_why_not(
    given_answer: Answer,
    wire_format: int,
    kind: str | None,
    parsed: object,
    format_unsupported: bool,  # noqa: FBT001 -- a table
) -> None:
    """What is no JSON, although it was asked for by the field, is about the form; the text is always kept."""
    text = given_answer.results[0].text
    read = Chat(output=REPLY).parse_output(given_answer, ["row"], wire_format)
    assert isinstance(read, Answer)
    [result] = read.results

    assert (kind, parsed, text) == (result.error and result.error.kind, result.parsed, result.text)
    assert format_unsupported == read.format_unsupported


def test_json_cut_by_a_filter_is_not_reasked() -> None:
    """It is the filter's error and no mismatch, so it is not paid for twice."""
    choice = {"message": {"content": '{"stars": '}, "finish_reason": "SAFETY"}
    task = Chat(output=REPLY)
    read = task.parse_output(task.decode(Response(200, json.dumps({"choices": [choice]}).encode()), 1), ["row"], 0)

    assert isinstance(read, Answer)
    [result] = read.results
    assert result.error is not None
    assert ("content_filter", False, None, "SAFETY") == (
        result.error.kind,
        result.error.retryable,
        result.text,
        result.finish_reason,
    )


def test_an_answer_that_is_an_error_already_stays_one() -> None:
    """A refusal has no text to parse."""
    error = RowError("content_filter", 200, "no", retryable=False)
    read = Chat(output=REPLY).parse_output(answer(None, error=error), ["row"], 0)

    assert isinstance(read, Answer)
    assert error is read.results[0].error


class SimulatedSender:
    """One row on its way through a scheduler, whose answers are given by hand."""

    def __init__(self, reask: int) -> None:
        """Put the row in the queue."""
        policy = Policy(reask=reask)
        self.scheduler = RequestScheduler(FlowController(policy), policy)
        self.negotiation = WireFormatNegotiation(Chat(output=REPLY), 1)
        self.scheduler.add(None, [(0, "row")], self.negotiation)
        self.dialects: list[int] = []
        self.request: Request | None = None

    def answered(self, text: str) -> bool:
        """Send the row, and give it an answer; return whether that settles it."""
        [self.request] = self.scheduler.ready(now=float(len(self.dialects)))
        self.dialects.append(self.request.wire_format)
        read = self.negotiation.task.parse_output(answer(text), [self.request.inputs[0][1]], self.request.wire_format)
        assert isinstance(read, Answer)
        return self.scheduler.on_answer(self.request, read, now=float(len(self.dialects)), latency_s=0.1)


@pytest.mark.parametrize("reask", [0, 1, 2])
def test_a_mismatch_is_reasked_as_often_as_allowed(reask: int) -> None:
    """Then the last answer settles it; the row carries the cost of those before."""
    asking = SimulatedSender(reask)

    assert [False] * reask + [True] == [asking.answered("{}") for _ in range(reask + 1)]
    assert asking.request is not None
    assert (reask + 1, reask) == (asking.request.attempts.sent, asking.request.reasks)
    assert (TRY.total_tokens or 0) * reask == ((asking.request.wasted_usage or Usage(total_tokens=0)).total_tokens or 0)


def test_a_server_without_the_field_gets_the_schema_in_words() -> None:
    """That is not a reask: a later mismatch still has its own."""
    asking = SimulatedSender(reask=1)

    assert [False, False, True] == [asking.answered(text) for text in ("Three.", "Three, I say.", '{"stars": 3}')]
    assert [0, 1, 1] == asking.dialects


def test_a_failure_after_a_mismatch_ends_with_the_mismatch() -> None:
    """The row has its text, its mismatch and its cost."""
    asking = SimulatedSender(reask=1)
    asking.answered("{}")
    [request] = asking.scheduler.ready(now=2.0)
    [(_, result)] = request.results(RowError("timeout", None, "slow", retryable=True), None)

    assert result.text == "{}"
    assert result.error
    assert ("schema_mismatch", TRY, 2) == (result.error.kind, result.usage, result.attempts)
