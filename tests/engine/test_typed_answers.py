"""Typed answers through the engine: asked for, read, asked again, and in words where the server knows no other way."""

from collections import Counter
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from spark_llm import Policy
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Enumeration, Field, Nullable, Scalar, Struct
from spark_llm.protocol.values import Prompt, Result, RowError, Usage
from spark_llm.serving import Faults, LocalEndpoints
from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import ChatRequest
from tests.support.asking import ask, distinct, engine, kinds, texts
from tests.support.reply_model import COMPLETION_TOKENS, PROMPT_TOKENS, ReplyModel, last_message

REVIEW = Struct((Field("stars", Scalar("integer")), Field("why", Nullable(Scalar("string")))))
STARS = StructuredOutput("review", REVIEW)
TYPED = Chat("Judge.", output=STARS)
FIT = '{"stars": 3, "why": null}'
TRY = Usage(PROMPT_TOKENS, COMPLETION_TOKENS, PROMPT_TOKENS + COMPLETION_TOKENS)


def asked(
    model: ReplyModel, rows: Sequence[Any], policy: Policy = Policy(), task: Chat = TYPED
) -> tuple[list[Result], Any]:
    """Return the results, and the endpoints that were asked."""
    with LocalEndpoints({"chat": model}) as endpoints:
        results = ask(engine(endpoints, policy=policy, task=task), [rows], task)
        return [result or Result() for result in results], endpoints


def bodies(endpoints: LocalEndpoints) -> list[Any]:
    """Return the bodies of all requests."""
    return [recorded.body for recorded in endpoints.requests]


def usage_of(tries: int) -> Usage:
    """Return what so many answers cost."""
    return reduce(Usage.plus, [TRY] * tries)


def test_an_answer_that_fits_is_parsed(endpoints: LocalEndpoints) -> None:
    """The request carries the schema, `text` is what came and `parsed` what it says; one request a row."""
    rows = [f'{{"stars": {number}, "why": "row {number}"}}' for number in range(20)]
    results = ask(engine(endpoints, task=TYPED), [rows], Chat(output=STARS))

    assert rows == texts(results)
    assert [{"stars": number, "why": f"row {number}"} for number in range(20)] == [r and r.parsed for r in results]
    assert 20 == endpoints.stats.requests
    assert {"type", "json_schema"} == set(bodies(endpoints)[0]["response_format"])


def test_an_answer_that_does_not_fit_is_reasked() -> None:
    """Once, in the same conversation, with the mismatch; both answers are in `usage`."""

    def say(request: ChatRequest) -> str:
        return FIT if len(request.messages) > 2 else '{"stars": "three", "why": null}'

    [result], endpoints = asked(ReplyModel(say), ["row"])
    first, second = bodies(endpoints)

    assert ({"stars": 3, "why": None}, None, 2, usage_of(2)) == (
        result.parsed,
        result.error,
        result.attempts,
        result.usage,
    )
    assert first["messages"] == second["messages"][:2]
    assert {"role": "assistant", "content": '{"stars": "three", "why": null}'} == second["messages"][2]
    assert "Expected `int`, got `str` - at `$.stars`" in second["messages"][3]["content"]


@pytest.mark.parametrize("reask", [0, 1, 3])
def test_it_is_reasked_as_often_as_the_policy_allows(reask: int) -> None:
    """Then the row is `schema_mismatch`, keeps the last answer, and carries the cost of all."""
    results, endpoints = asked(ReplyModel(lambda _: '{"stars": 1.5}'), distinct(3), Policy(reask=reask))

    assert ["schema_mismatch"] * 3 == kinds(results)
    assert ['{"stars": 1.5}'] * 3 == texts(results)
    assert 3 * (reask + 1) == endpoints.stats.requests
    assert [usage_of(reask + 1)] * 3 == [result.usage for result in results]
    assert {None} == {result.parsed for result in results}
    assert all(result.error and result.error.retryable and "float" in result.error.message for result in results)


def test_a_server_without_the_field_gets_the_schema_in_the_instructions() -> None:
    """Three rows show it, each refused once: from then on the schema stands in the instructions."""
    results, endpoints = asked(ReplyModel(lambda _: f"Here it is:\n```json\n{FIT}\n```", formats=False), distinct(50))

    assert [{"stars": 3, "why": None}] * 50 == [result.parsed for result in results]
    assert {400: 3, 200: 50} == endpoints.stats.by_status
    assert {None} == {body.get("response_format") for body in bodies(endpoints)[5:]}
    assert bodies(endpoints)[1]["messages"][0]["content"].startswith("Judge.\n\nAnswer with one JSON object")
    assert '"stars"' in bodies(endpoints)[1]["messages"][0]["content"]


def test_a_server_that_ignores_the_field_gets_the_schema_in_the_instructions() -> None:
    """Three answers that are not JSON show it; they are paid, and are no reasks."""

    def say(request: ChatRequest) -> str:
        return FIT if "JSON schema" in request.messages[0].text else "Three stars, I would say."

    results, endpoints = asked(ReplyModel(say), distinct(50), Policy(reask=0))

    assert [{"stars": 3, "why": None}] * 50 == [result.parsed for result in results]
    assert 53 == endpoints.stats.requests
    assert {usage_of(1): 47, usage_of(2): 3} == Counter(result.usage for result in results)


@pytest.mark.parametrize("formats", [True, False], ids=["field", "words"])
def test_a_typed_answer_of_a_model_without_a_system_role(formats: bool) -> None:  # noqa: FBT001 -- a table
    """Its instructions stand in the user's message, and the schema as well where the server lacks the field."""

    def say(request: ChatRequest) -> str:
        if request.messages[0].role == "system":
            raise Refused.bad_request("System role not supported")
        return FIT if request.messages[0].text.startswith("Judge.") else "What?"

    results, endpoints = asked(ReplyModel(say, formats=formats), distinct(50))

    assert [{"stars": 3, "why": None}] * 50 == [result.parsed for result in results]
    assert {400: 3 if formats else 6, 200: 50} == endpoints.stats.by_status
    assert formats == ("response_format" in bodies(endpoints)[-1])
    assert ["user"] == [message["role"] for message in bodies(endpoints)[-1]["messages"]]


@pytest.mark.parametrize("cut", ["Three.", '{"stars": 3, "wh', ""], ids=["no JSON", "cut", "empty"])
def test_one_first_answer_that_is_no_json_changes_nothing_for_the_others(cut: str) -> None:
    """It takes three: the first row is asked in words, and all others by the field, as the server knows it."""

    def say(request: ChatRequest) -> str:
        return cut if last_message(request) == "row 0" and request.response_format is not None else FIT

    results, endpoints = asked(ReplyModel(say), distinct(9), Policy(reask=0))

    assert [{"stars": 3, "why": None}] * 9 == [result.parsed for result in results]
    assert [True, False, *[True] * 8] == ["response_format" in body for body in bodies(endpoints)]


def test_one_answer_that_is_no_json_changes_nothing_for_the_others() -> None:
    """Where answers have come as asked, the server knows the field: that row alone is asked again."""

    def say(request: ChatRequest) -> str:
        return "What?" if last_message(request) == "row 30" else FIT

    results, endpoints = asked(ReplyModel(say), distinct(50), Policy(max_in_flight=4))

    assert 51 == endpoints.stats.requests
    assert [None] * 50 == kinds(results)
    assert all("response_format" in body for body in bodies(endpoints))


def test_an_answer_that_ran_out_of_tokens_is_truncated() -> None:
    """It is not reasked, which would end the same, and its text is kept."""
    [result], endpoints = asked(ReplyModel(lambda _: ('{"stars": 3, "why": "becau', "length")), ["row"])

    assert (["truncated"], '{"stars": 3, "why": "becau') == (kinds([result]), result.text)
    assert result.error
    assert "raise max_tokens" in result.error.message
    assert 1 == endpoints.stats.requests


def test_a_failure_after_an_answer_that_did_not_fit_keeps_the_answer() -> None:
    """The row has the paid answer, with its mismatch."""
    with LocalEndpoints({"chat": ReplyModel(lambda _: "{}")}, faults=Faults("ok 400 400 400")) as endpoints:
        [result] = ask(engine(endpoints, task=TYPED), [["row"]], TYPED)

    assert result is not None
    assert ("{}", ["schema_mismatch"], 2, usage_of(1)) == (result.text, kinds([result]), result.attempts, result.usage)


def test_equal_rows_share_a_typed_answer() -> None:
    """Equal rows are sent once, and one that did not fit is reasked once for all of them."""

    def say(request: ChatRequest) -> str:
        return FIT if len(request.messages) > 2 else "{}"

    results, endpoints = asked(ReplyModel(say), ["row"] * 10)

    assert [{"stars": 3, "why": None}] * 10 == [result.parsed for result in results]
    assert 2 == endpoints.stats.requests
    assert [2] + [0] * 9 == [result.attempts for result in results]


def test_a_cached_answer_is_parsed_again(tmp_path: Path) -> None:
    """What the cache keeps is the text; a type that changes is another request."""
    policy = Policy(cache=tmp_path)
    stars = Chat("Judge.", output=StructuredOutput("review", Struct((Field("stars", Scalar("long")),))))
    with LocalEndpoints({"chat": ReplyModel(lambda _: FIT)}) as endpoints:
        for task in (TYPED, TYPED, stars):
            results = ask(engine(endpoints, policy=policy, task=task), [distinct(5)], task)

            assert [3] * 5 == [result.parsed["stars"] for result in results if result]
    assert 10 == endpoints.stats.requests


def test_each_prompt_may_have_its_own_type() -> None:
    """Rows of one task, each with its labels; an answer outside of a row's own is refused."""
    task = Chat(output_per_prompt=True)
    labels = [("a", "b"), ("b", "c"), ("a", "b")]
    rows = [Prompt("row", None, StructuredOutput("label", Enumeration(each))) for each in labels]
    results, endpoints = asked(ReplyModel(lambda _: '{"answer": "a"}'), [*rows, "no type"], task=task)

    assert ["a", None, "a", None] == [result.parsed for result in results]
    assert [None, "schema_mismatch", None, None] == kinds(results)
    assert {"a", "b"} == set(
        bodies(endpoints)[0]["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"]
    )
    assert "response_format" not in next(b for b in bodies(endpoints) if b["messages"][-1]["content"] == "no type")
    assert 4 == endpoints.stats.requests  # one for the first and its duplicate, two for the second, one for the last


def test_a_row_without_a_prompt_has_its_error(endpoints: LocalEndpoints) -> None:
    """It stands in its place among the others, and costs nothing."""
    wrong = RowError("invalid_request", None, "No labels. Hint: name some.", retryable=False)
    results = ask(engine(endpoints, task=TYPED), [["a", wrong, None, "b"]], Chat())

    assert ["a", None, None, "b"] == texts(results)
    assert [None, "invalid_request", None, None] == kinds(results)
    assert 2 == endpoints.stats.requests
