"""Answers of the Responses route, and the refusals that name it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS
from spark_llm.protocol.chat.responses_answer import names_responses
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.task import RESPONSES
from spark_llm.protocol.values import Answer, Failure, Outcome, Response
from tests.support.strategies import JSON, REPLIES, STATUSES

NAMING = [
    "This model is only supported in v1/responses and not in v1/chat/completions.",
    "This model is only supported in v1/responses and not in /v1/chat/completions.",
    "litellm.NotFoundError: OpenAIException - This model is only supported in v1/responses.",
    (
        "Function tools with reasoning_effort are not supported for gpt-5.4 in /v1/chat/completions."
        " Please use /v1/responses instead."
    ),
    "To use function tools, use /v1/responses or set reasoning_effort to 'none'.",
    "Unsupported legacy protocol: /v1/chat/completions is not supported. Please use /v1/responses.",
    "This model is only available through the Responses API. Use the Responses API instead.",
    "This model only supports the Responses API",
    "This model supports only the `/v1/responses` endpoint.",
    "Model 'a' requires interrupts, which is only supported via the Responses API (/v1/responses).",
    "gpt-5-codex requires the Responses API",
    "codex models can only be used with the responses endpoint",
    "Did you mean to use v1/responses?",
    "Try '/openai/v1/responses'.",
]
NOT_NAMING = [
    "",
    (
        "This is not a chat model and thus not supported in the v1/chat/completions endpoint."
        " Did you mean to use v1/completions?"
    ),
    "The chatCompletion operation does not work with the specified model, gpt-5-codex.",
    "This model is not available in /v1/responses. Use /v1/chat/completions instead of /v1/responses.",
    "The model 'nemotron' does not support the '/openai/v1/responses' API",
    (
        "Unsupported parameter: 'reasoning_effort'. In the Responses API, this has moved to 'reasoning.effort'."
        " Try again with the new parameter. See https://platform.openai.com/docs/api-reference/responses/create."
    ),
    "You cannot use /v1/responses with this key",
    "Do not use the Responses API here.",
    "Please don't use /v1/responses.",
    "The responses of this model were filtered",
    "only 3 responses are supported",
    "use fewer responses",
    "a long text " * 40 + "This model is only supported in v1/responses",
]


@pytest.mark.parametrize("message", NAMING)
@pytest.mark.parametrize("case", [str, str.upper, str.lower])
def test_these_name_the_route(message: str, case: Any) -> None:  # noqa: ANN401 -- a function of texts
    """In the words of OpenAI, Azure, gateways and relays."""
    assert names_responses(case(message))


@pytest.mark.parametrize("message", NOT_NAMING)
def test_these_do_not_name_the_route(message: str) -> None:
    """They name another one, forbid it, or speak of something else; what stands far behind may quote the request."""
    assert not names_responses(message)


@pytest.mark.parametrize("status", [401, 403, 404, 405, 429, 500, 503])
def test_a_404_that_names_the_route_ends_no_task(status: int) -> None:
    """It is `invalid_request`, as a 400; another status has another reason, and at the route itself so has a 404."""
    response = Response(status, json.dumps({"error": {"message": NAMING[0]}}).encode())
    outcome, at_route = Chat().decode(response, 1), Chat().decode(response, 1, RESPONSES)

    assert isinstance(outcome, Failure)
    assert isinstance(at_route, Failure)
    assert (status == 404) == (outcome.error.kind != at_route.error.kind)
    assert (status == 404) == outcome.about_input


def decode(document: object, status: int = 200, *, tools: bool = False) -> Outcome:
    """Read a response of the route."""
    return Chat(n=3, tools=tools).decode(Response(status, json.dumps(document).encode()), 1, RESPONSES)


@given(st.binary(max_size=200), STATUSES)
def test_any_bytes_raise_nothing(body: bytes, status: int) -> None:
    """Bytes without an answer become a failure."""
    outcome = Chat().decode(Response(status, body), 1, RESPONSES)

    assert isinstance(outcome, Answer) or outcome.error.kind in KINDS


ITEMS = st.lists(
    REPLIES
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["message", "function_call", "reasoning"])},
        optional={
            "content": REPLIES
            | st.lists(
                st.fixed_dictionaries(
                    {"type": st.sampled_from(["output_text", "refusal"])},
                    optional={"text": REPLIES, "refusal": REPLIES},
                )
            ),
            "name": REPLIES,
            "arguments": REPLIES,
            "call_id": REPLIES,
        },
    ),
    max_size=3,
)


@given(
    st.fixed_dictionaries(
        {"output": ITEMS | REPLIES},
        optional={
            "status": st.sampled_from(["completed", "incomplete", "failed", "queued"]) | REPLIES,
            "incomplete_details": st.fixed_dictionaries({"reason": REPLIES}) | REPLIES,
            "error": REPLIES,
            "usage": REPLIES,
            "object": REPLIES,
        },
    ),
    st.booleans(),
)
def test_any_response_is_settled(document: dict[str, Any], tools: bool) -> None:  # noqa: FBT001 -- drawn
    """A result has a text, calls or an error, and a failure a known kind."""
    outcome = decode(document, tools=tools)

    if isinstance(outcome, Failure):
        assert outcome.error.kind in KINDS
        assert outcome.error.message
    else:
        [result] = outcome.results
        assert (result.error is None) == (result.text is not None or bool(result.tool_calls))


@given(JSON)
def test_any_json_raises_nothing(document: object) -> None:
    """It need not be an object."""
    decode(document)


@given(st.lists(st.lists(st.text(), max_size=3), min_size=1, max_size=3))
def test_the_text_is_that_of_all_messages(messages: list[list[str]]) -> None:
    """Joined in their order, with whatever stands between them."""
    items: list[dict[str, Any]] = []
    for texts in messages:
        parts = [{"type": "output_text", "text": text} for text in texts]
        items += [{"type": "reasoning", "summary": []}, {"type": "message", "content": parts}]
    outcome = decode({"output": items, "status": "completed"})
    said = [text for texts in messages for text in texts]

    assert ("".join(said) if said else None) == (outcome.results[0].text if isinstance(outcome, Answer) else None)
