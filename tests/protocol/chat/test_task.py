"""The chat task: the requests that it writes, and its reading of any response."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.task import FOLDED
from spark_llm.protocol.values import Answer, Failure, Item, Outcome, Response, RowError, Usage
from tests.support.strategies import JSON, REPLIES, STATUSES, TEXTS, plain

ROLES = st.sampled_from(("system", "user", "assistant", "tool"))
BLANKS: list[Item] = ["", " \n", []]
CONVERSATIONS = st.lists(st.fixed_dictionaries({"role": ROLES, "content": TEXTS}), max_size=4)


def only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Read a JSON object that names no field twice."""
    assert len(pairs) == len(dict(pairs)), "each field stands once"
    return dict(pairs)


def request(task: Chat, item: Any, model: str | None = None) -> Any:  # noqa: ANN401 -- a text or a conversation; JSON
    """Write a request and read it with the standard library."""
    return json.loads(bytes(task.encode([item], model, 0)).decode("utf-8"), object_pairs_hook=only_once)


def decode(body: object, status: int = 200, headers: dict[str, str] | None = None, n: int = 1) -> Outcome:
    """Read a response with this document."""
    return Chat(n=n).decode(Response(status, json.dumps(body).encode(), headers or {}), 1)


def says(content: object, finish_reason: str | None = "stop", **message: object) -> dict[str, Any]:
    """Return a chat completion with one message of this content."""
    return {
        "choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish_reason}]
    }


def is_settled(outcome: Outcome, count: int) -> bool:
    """Return whether an outcome is a result for each input, or a failure of a known kind."""
    if isinstance(outcome, Failure):
        return outcome.error.kind in KINDS and bool(outcome.error.message)
    return len(outcome.results) == count


@given(TEXTS, st.none() | TEXTS, st.none() | TEXTS)
def test_a_text_is_sent_as_the_users_message(text: str, system: str | None, model: str | None) -> None:
    """Any text gives JSON with exactly that text; lone surrogates are replaced."""
    instructions = [] if system is None else [{"role": "system", "content": plain(system)}]
    named = {} if model is None else {"model": plain(model)}

    assert named | {"messages": [*instructions, {"role": "user", "content": plain(text)}]} == request(
        Chat(system), text, model
    )


def test_a_request_carries_one_conversation() -> None:
    """The batch size does not matter; a text alone has one wire format."""
    assert 1 == Chat().max_inputs(0, 64)
    assert 0 == Chat().required_features(["a"], 0)
    assert None is Chat().fallback_format(["a"], 0, None)


def test_conversations_are_repeatable_without_temperature_or_with_a_seed() -> None:
    """The property is cached, and leaves the task equal and hashable."""
    task = Chat(parameters=encode_parameters({"temperature": 0.7}, None))

    assert not task.repeatable
    assert Chat(parameters=task.parameters) == task
    assert Chat().repeatable


@given(CONVERSATIONS, TEXTS)
def test_a_conversation_is_sent_unchanged(conversation: list[dict[str, str]], system: str) -> None:
    """Its messages keep their order; the UDF's instructions come first, unless it has its own."""
    messages = [{"role": message["role"], "content": plain(message["content"])} for message in conversation]
    own = any(message["role"] == "system" for message in conversation)
    instructions = [] if own else [{"role": "system", "content": plain(system)}]

    assert {"messages": messages} == request(Chat(), conversation)
    assert {"messages": [*instructions, *messages]} == request(Chat(system), conversation)


@given(CONVERSATIONS | TEXTS, st.none() | TEXTS.filter(str.strip))
def test_instructions_can_be_part_of_the_users_message(content: Any, system: str | None) -> None:  # noqa: ANN401 -- any item
    """Without a system role each instruction leads the next message of the user, or is one."""
    task = Chat(system)
    whole, folded = (
        json.loads(bytes(task.encode([content], None, wire_format)))["messages"] for wire_format in (0, FOLDED)
    )
    words = [message["content"] for message in whole if message["content"]]

    assert "system" not in {message["role"] for message in folded}
    assert "\n\n".join(words) == "\n\n".join(message["content"] for message in folded if message["content"])
    assert [m for m in whole if m["role"] not in ("system", "user")] == [m for m in folded if m["role"] != "user"]


def test_an_instruction_without_a_following_users_message_becomes_one() -> None:
    """The roles alternate as before."""
    content = [{"role": role, "content": role} for role in ("system", "assistant", "user", "system")]
    folded = json.loads(bytes(Chat().encode([content], None, FOLDED)))["messages"]

    assert ["user", "assistant", "user", "user"] == [message["role"] for message in folded]
    assert ["system", "assistant", "user", "system"] == [message["content"] for message in folded]


@pytest.mark.parametrize(
    "words",
    [
        "System role not supported",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "Only user and assistant roles are supported!",
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        "This model doesn't support system messages. Try again without system messages.",
        "Developer instruction is not enabled for models/gemma-3-27b-it",
        "messages.0.role: Input should be 'user' or 'assistant'",
    ],
)
def test_a_message_about_roles_leads_to_the_format_without_a_system_message(words: str) -> None:
    """Servers have no code for it; without instructions the format would change nothing."""
    assert FOLDED == Chat("Be brief.").fallback_format(["a"], 0, words)
    assert FOLDED == Chat().fallback_format([[{"role": "system", "content": "a"}]], 0, words)
    assert None is Chat().fallback_format(["a"], 0, words)
    assert None is Chat("Be brief.").fallback_format(["a"], FOLDED, words)


def test_a_500_of_a_chat_template_is_an_invalid_request() -> None:
    """llama.cpp answers 500 to roles that its template does not have; a retry would not help."""
    outcome = decode({"error": {"code": 500, "message": "System role not supported", "type": "server_error"}}, 500)

    assert isinstance(outcome, Failure)
    assert ("invalid_request", False) == (outcome.error.kind, outcome.error.retryable)


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_null_message_is_sent(system: str | None) -> None:
    """One row's mistake is left to the server, and ends no job."""
    assert None is request(Chat(system), [None, {"role": "user", "content": None}])["messages"][-2]


@given(st.dictionaries(TEXTS.map("x_{}".format), JSON, max_size=4), TEXTS)
def test_parameters_stand_beside_the_messages(extra_body: dict[str, Any], text: str) -> None:
    """They are fields of the request's top level."""
    task = Chat(parameters=encode_parameters({"max_tokens": 7, "temperature": None}, extra_body))
    sent = request(task, text, "m")
    mended = json.loads(json.dumps(extra_body), object_pairs_hook=lambda pairs: {plain(k): v for k, v in pairs})

    assert {"model", "messages", "max_tokens", *mended} == set(sent)
    assert 7 == sent["max_tokens"]


def test_the_parameters_values_are_kept() -> None:
    """Numbers, lists and nested objects are sent unchanged."""
    extra_body = {"top_k": 40, "extra_params": {"top_p": 0.9}, "logit_bias": {"50256": -100}, "flag": None}
    task = Chat(parameters=encode_parameters({"stop": ["\n", '"']}, extra_body))

    assert {"stop": ["\n", '"'], **extra_body, "messages": [{"role": "user", "content": "?"}]} == request(task, "?")


def test_missing_parameters_are_not_sent() -> None:
    """A request without parameters has its messages only."""
    assert b'{"messages":[{"role":"user","content":"?"}]}' == Chat().encode(["?"], None, 0)


def test_every_text_is_sent() -> None:
    """The instructions may give a blank text a meaning."""
    assert [False, False, False] == [Chat().skips(item) for item in BLANKS]


@given(st.binary(max_size=200), STATUSES, st.integers(1, 3))
def test_any_bytes_raise_nothing(body: bytes, status: int, n: int) -> None:
    """Bytes without an answer become a failure."""
    assert is_settled(Chat(n=n).decode(Response(status, body), 1), 1)


@given(JSON | REPLIES, STATUSES, st.integers(1, 3))
def test_any_json_raises_nothing(document: object, status: int, n: int) -> None:
    """JSON without an answer becomes a failure, even with an answer's field names."""
    assert is_settled(decode(document, status, n=n), 1)


@given(st.lists(REPLIES, max_size=3), st.integers(1, 3))
def test_any_choices_raise_nothing(choices: list[object], n: int) -> None:
    """The choices may hold anything."""
    assert is_settled(decode({"choices": choices}, n=n), 1)


@given(REPLIES, REPLIES, REPLIES)
def test_any_message_raises_nothing(content: object, finish_reason: object, usage: object) -> None:
    """Messages, reasons and tokens may have any type; a result has either a text or an error."""
    document = {"choices": [{"message": {"content": content}, "finish_reason": finish_reason}], "usage": usage}
    outcome = decode(document)

    assert is_settled(outcome, 1)
    if isinstance(outcome, Answer):
        assert (outcome.results[0].text is None) == (outcome.results[0].error is not None)


@given(st.text())
def test_the_answer_is_the_text(text: str) -> None:
    """Every character stays, however JSON escapes it."""
    outcome = decode(says(text))

    assert isinstance(outcome, Answer)
    assert text == outcome.results[0].text


@given(st.lists(st.text() | st.none()))
def test_the_text_of_parts_is_joined(parts: list[str | None]) -> None:
    """Parts of type "text" are the answer; reasoning is not."""
    content = [
        {"type": "reasoning", "text": "Hm.", "summary": [{"type": "summary_text", "text": "Hm."}]}
        if part is None
        else {"type": "text", "text": part}
        for part in parts
    ]
    outcome = decode(says(content))
    texts = [part for part in parts if part is not None]

    assert ("".join(texts) if texts else None) == (outcome.results[0].text if isinstance(outcome, Answer) else None)


def test_bytes_outside_utf8_are_replaced() -> None:
    """They cost one character and not the answer."""
    outcome = Chat().decode(Response(200, b'{"choices":[{"message":{"content":"a\xffb"}}]}'), 1)

    assert isinstance(outcome, Answer)
    assert "a\N{REPLACEMENT CHARACTER}b" == outcome.results[0].text


@pytest.mark.parametrize("name", ["x-request-id", "served-model-name"])
def test_bytes_outside_utf8_in_a_header_are_replaced(name: str) -> None:
    """They arrive as lone surrogates, which no column can hold."""
    outcome = decode(says("Hi"), headers={name: "a\udcffb"})

    assert isinstance(outcome, Answer)
    assert "a\N{REPLACEMENT CHARACTER}b" in (outcome.results[0].request_id, outcome.results[0].model)


def test_an_empty_text_is_an_answer() -> None:
    """A model may stop at once."""
    outcome = decode(says(""))

    assert isinstance(outcome, Answer)
    assert ("", None) == (outcome.results[0].text, outcome.results[0].error)


@pytest.mark.parametrize(("content", "kind"), [("", "truncated"), (None, "truncated"), ([], "truncated"), ("a", None)])
def test_an_answer_that_never_began_is_truncated(content: object, kind: str | None) -> None:
    """No text with `finish_reason` "length" is an error of its row; half a text is a text."""
    outcome = decode(says(content, "length"))

    assert isinstance(outcome, Answer)
    assert (kind, "length") == (
        None if outcome.results[0].error is None else outcome.results[0].error.kind,
        outcome.results[0].finish_reason,
    )


ENDINGS = [
    ("stop", None, None),
    ("end_turn", None, None),
    ("eos_token", None, None),
    ("COMPLETE", None, None),
    ("length", "truncated", None),
    ("max_tokens", "truncated", None),
    ("FinishReason.MAX_TOKENS", "truncated", None),
    ("model_length", "truncated", None),
    ("model_context_window_exceeded", "truncated", None),
    ("content-filter", "content_filter", "content_filter"),
    ("content_filter: RECITATION", "content_filter", "content_filter"),
    ("FINISH_REASON_SAFETY", "content_filter", "content_filter"),
    ("refusal", "content_filter", "content_filter"),
    ("guardrail_intervened", "content_filter", "content_filter"),
    ("tool_use", "invalid_response", None),
    ("function_call", "invalid_response", None),
    ("error", "invalid_response", "invalid_response"),
    ("aborted", "invalid_response", "invalid_response"),
    ("network_error", "invalid_response", "invalid_response"),
    ("load", "invalid_response", None),
    ("a word that nobody knows", "invalid_response", None),
]  # a reason, and the error of an empty text and of half a text beside it


@pytest.mark.parametrize(("reason", "empty", "half"), ENDINGS)
@pytest.mark.parametrize("case", [str, str.upper, str.lower, str.title])
def test_the_finish_reason_is_read_before_the_text(
    reason: str, empty: str | None, half: str | None, case: Callable[[str], str]
) -> None:
    """All providers' values count, whatever their case, for chat and completions; the result keeps the value."""
    for text, kind in (("", empty), ("ha", half)):
        choice = {"finish_reason": case(reason), "message": {"content": text}, "text": text}
        response = Response(200, json.dumps({"choices": [choice], "usage": {"total_tokens": 7}}).encode())
        for outcome in (Chat().decode(response, 1), Complete().decode(response, 1)):
            error = outcome.error if isinstance(outcome, Failure) else outcome.results[0].error

            assert kind == (error and error.kind)
            assert outcome.usage == Usage(total_tokens=7)
            if isinstance(outcome, Answer):
                assert (None if kind else text, case(reason)) == (
                    outcome.results[0].text,
                    outcome.results[0].finish_reason,
                )


@pytest.mark.parametrize("reason", ["tool_use", "content_filter", "stop", "max_tokens", "error", "load"])
def test_endings_that_may_pass_are_retryable(reason: str) -> None:
    """These are aborts and unknown values, and not filters, limits or tool calls."""
    outcome = decode(says("", reason))
    error = outcome.error if isinstance(outcome, Failure) else outcome.results[0].error

    assert (reason in ("error", "load")) == isinstance(outcome, Failure) == bool(error and error.retryable)


ERRORS = [{"code": 502, "message": "Disconnected"}, {"code": "502"}, {"metadata": {"error": {"code": 503}}}]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("finish_reason", ["stop", "error", None, "a word that nobody knows"])
@pytest.mark.parametrize("text", ["", "ha", None])
def test_an_error_in_a_choice_is_a_failure(
    error: dict[str, object], finish_reason: str | None, text: str | None
) -> None:
    """It is read as an error body, whatever reason and text stand beside it, and its tokens count."""
    document = says(text, finish_reason)
    outcome = decode({"choices": [{**document["choices"][0], "error": error}], "usage": {"total_tokens": 7}})

    assert isinstance(outcome, Failure)
    assert ("unavailable", 200, True) == (outcome.error.kind, outcome.error.status, outcome.error.retryable)
    assert Usage(total_tokens=7) == outcome.usage


@pytest.mark.parametrize("finish_reason", ["stop", "length", "error", None])
def test_an_error_beside_the_choices_counts_unless_they_are_complete(finish_reason: str | None) -> None:
    """A text that stopped normally counts as an answer."""
    outcome = decode(says("ha", finish_reason) | {"error": {"code": 429, "message": "slower"}})

    assert (finish_reason in ("error", None)) == isinstance(outcome, Failure)
    assert not isinstance(outcome, Failure) or outcome.throttled


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206, 299])
def test_every_2xx_may_hold_an_answer(status: int) -> None:
    """The answer was paid for; an error keeps the status."""
    outcome, empty = decode(says("Hi"), status), decode(says("", "length"), status)

    assert isinstance(outcome, Answer)
    assert isinstance(empty, Answer)
    assert "Hi" == outcome.results[0].text
    assert empty.results[0].error is not None
    assert status == empty.results[0].error.status


@given(st.text(max_size=20))
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_and_utf32_are_read(encoding: str, text: str) -> None:
    """A byte order mark is optional, since JSON begins with ASCII."""
    body = json.dumps(says(text), ensure_ascii=False).encode(encoding, "replace")
    outcome = Chat().decode(Response(200, body), 1)

    assert isinstance(outcome, Answer)
    assert text == outcome.results[0].text


@given(
    st.sampled_from(["data: ", "data:", ": waiting\n\ndata: ", "id: 1\r\nevent: message\r\ndata: ", "\n\n"]),
    st.text(max_size=9),
)
def test_text_around_a_document_is_ignored(before: str, text: str) -> None:
    """These are keep-alive lines and the frame of one event; an answer may look like a frame."""
    body = f"{before}{json.dumps(says(text))}\r\n\r\n" + ("data: [DONE]\n\n" if "data" in before else "")
    outcome = Chat().decode(Response(200, body.encode()), 1)

    assert isinstance(outcome, Answer)
    assert text == outcome.results[0].text


@pytest.mark.parametrize("content", [None, ""])
@pytest.mark.parametrize("finish_reason", ["tool_calls", "stop", None])
def test_a_tool_call_is_an_error(content: str | None, finish_reason: str | None) -> None:
    """Whatever the finish reason is, it is not an empty text."""
    outcome = decode(says(content, finish_reason, tool_calls=[{"id": "call_1"}]))

    assert isinstance(outcome, Answer)
    assert isinstance(outcome.results[0].error, RowError)
    assert (None, "invalid_response") == (outcome.results[0].text, outcome.results[0].error.kind)


@pytest.mark.parametrize("content", [None, ""])
def test_a_refusal_is_an_error(content: str | None) -> None:
    """It has the model's message."""
    outcome = decode(says(content, refusal="I can't help with that."))

    assert isinstance(outcome, Answer)
    assert RowError("content_filter", 200, "I can't help with that.", retryable=False) == outcome.results[0].error


def test_several_answers_are_choices() -> None:
    """With n > 1 all texts are in `choices`, in the order of their index, and the first is `text`."""
    choices = [{"index": index, "message": {"content": f"text {index}"}} for index in (2, 0, 1)]
    outcome = decode({"choices": choices}, n=3)

    assert isinstance(outcome, Answer)
    assert "text 0" == outcome.results[0].text
    assert ["text 0", "text 1", "text 2"] == outcome.results[0].choices


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ([4, 3, 2, 1, 0], ["4", "3", "2"]),
        ([0, 2], ["0", None, "1"]),
        ([2], [None, None, "0"]),
        ([0, 2, 3, 4], ["0", None, "1"]),
        ([1, 2, 3], ["0", "1", "2"]),
        ([0, 0, 0, 0], ["0", "1", "2"]),
        ([None, None], ["0", "1", None]),
        ([0, None], ["0", "1", None]),
        ([7, 8], ["0", "1", None]),
        ([7, 8, 9, 10], ["0", "1", "2"]),
    ],
)
def test_each_choice_has_the_place_of_its_index(indexes: list[int | None], expected: list[str | None]) -> None:
    """There are `n` places, however many choices come; where the indexes are no places, the positions count."""
    choices = [
        {"message": {"content": str(position)}} | ({} if index is None else {"index": index})
        for position, index in enumerate(indexes)
    ]
    outcome = decode({"choices": choices}, n=3)

    assert isinstance(outcome, Answer)
    assert expected == outcome.results[0].choices
    assert next(filter(None, expected)) == outcome.results[0].text


def test_the_first_choice_that_is_an_answer_is_the_text() -> None:
    """A missing choice and one without an answer are null, and the others are kept."""
    choices = [
        {"index": 0, "message": {"content": "ha"}, "finish_reason": "content_filter"},
        {"index": 1, "message": {"content": "text 1"}, "finish_reason": "length"},
        {"index": 2, "message": {"content": "ha"}, "finish_reason": "error"},
    ]
    outcome = decode({"choices": choices}, n=4)

    assert isinstance(outcome, Answer)
    [result] = outcome.results
    assert ("text 1", [None, "text 1", None, None], "length", None) == (
        result.text,
        result.choices,
        result.finish_reason,
        result.error,
    )


def test_one_answer_has_no_choices() -> None:
    """With n = 1 `choices` is null."""
    outcome = decode(says("Hi"))

    assert isinstance(outcome, Answer)
    assert None is outcome.results[0].choices
