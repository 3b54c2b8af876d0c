"""The chat codec: what a request says, and that any bytes can come back."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS
from spark_llm.protocol.chat import Chat
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
    return json.loads(task.encode([item], model, 0).decode("utf-8"), object_pairs_hook=only_once)


def reply(body: object, status: int = 200, headers: dict[str, str] | None = None, n: int = 1) -> Outcome:
    """Read a reply with this document in it."""
    return Chat(n=n).decode(Response(status, json.dumps(body).encode(), headers or {}), 1)


def says(content: object, finish_reason: str | None = "stop", **message: object) -> dict[str, Any]:
    """Make a chat completion whose one message says this."""
    return {
        "choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish_reason}]
    }


def is_settled(outcome: Outcome, count: int) -> bool:
    """Whether an outcome is a result for each input, or a failure of a known kind."""
    if isinstance(outcome, Failure):
        return outcome.error.kind in KINDS and bool(outcome.error.message)
    return len(outcome.results) == count


@given(TEXTS, st.none() | TEXTS, st.none() | TEXTS)
def test_a_text_travels_as_the_users_message(text: str, system: str | None, model: str | None) -> None:
    """Whatever stands in a text, the request is JSON that says just that; halves of surrogate pairs are replaced."""
    instructions = [] if system is None else [{"role": "system", "content": plain(system)}]
    named = {} if model is None else {"model": plain(model)}

    assert named | {"messages": [*instructions, {"role": "user", "content": plain(text)}]} == request(
        Chat(system), text, model
    )


def test_a_request_carries_one_conversation() -> None:
    """However many inputs the user allows in a request; and a text alone has one wire form."""
    assert 1 == Chat().max_inputs(0, 64)
    assert 0 == Chat().required_features(["a"], 0)
    assert None is Chat().fallback_format(["a"], 0, None)


def test_equal_conversations_may_be_answered_alike_unless_chance_was_asked_for() -> None:
    """A temperature without a seed asks for chance; it is looked up once and changes nothing of the task."""
    task = Chat(parameters=encode_parameters({"temperature": 0.7}, None))

    assert not task.repeatable
    assert Chat(parameters=task.parameters) == task
    assert Chat().repeatable


@given(CONVERSATIONS, TEXTS)
def test_a_conversation_travels_as_it_is(conversation: list[dict[str, str]], system: str) -> None:
    """Its messages keep their order; the UDF's instructions go before them, unless it brings its own."""
    told = [{"role": message["role"], "content": plain(message["content"])} for message in conversation]
    own = any(message["role"] == "system" for message in conversation)
    instructions = [] if own else [{"role": "system", "content": plain(system)}]

    assert {"messages": told} == request(Chat(), conversation)
    assert {"messages": [*instructions, *told]} == request(Chat(system), conversation)


@given(CONVERSATIONS | TEXTS, st.none() | TEXTS.filter(str.strip))
def test_instructions_can_stand_in_the_users_message(said: Any, system: str | None) -> None:  # noqa: ANN401 -- any item
    """Without a system role no word is lost: each instruction leads the user's message that follows it, or is one."""
    task = Chat(system)
    whole, folded = (json.loads(task.encode([said], None, dialect))["messages"] for dialect in (0, FOLDED))
    words = [message["content"] for message in whole if message["content"]]

    assert "system" not in {message["role"] for message in folded}
    assert "\n\n".join(words) == "\n\n".join(message["content"] for message in folded if message["content"])
    assert [m for m in whole if m["role"] not in ("system", "user")] == [m for m in folded if m["role"] != "user"]


def test_an_instruction_with_no_users_message_behind_it_is_one() -> None:
    """So that roles alternate where they did."""
    said = [{"role": role, "content": role} for role in ("system", "assistant", "user", "system")]
    folded = json.loads(Chat().encode([said], None, FOLDED))["messages"]

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
def test_words_about_roles_lead_to_the_form_without_a_system_message(words: str) -> None:
    """Templates and services have no code for it; where there are no instructions, nothing is gained by it."""
    assert FOLDED == Chat("Be brief.").fallback_format(["a"], 0, words)
    assert FOLDED == Chat().fallback_format([[{"role": "system", "content": "a"}]], 0, words)
    assert None is Chat().fallback_format(["a"], 0, words)
    assert None is Chat("Be brief.").fallback_format(["a"], FOLDED, words)


def test_a_template_that_breaks_the_server_is_a_refusal() -> None:
    """llama.cpp answers 500 to roles that its template does not take: tried again, it would be the same."""
    outcome = reply({"error": {"code": 500, "message": "System role not supported", "type": "server_error"}}, 500)

    assert isinstance(outcome, Failure)
    assert ("invalid_request", False) == (outcome.error.kind, outcome.error.retryable)


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_null_among_the_messages_is_the_servers_to_refuse(system: str | None) -> None:
    """A conversation with a hole in it is one row's mistake: it is asked as it is, and ends no job."""
    assert None is request(Chat(system), [None, {"role": "user", "content": None}])["messages"][-2]


@given(st.dictionaries(TEXTS.map("x_{}".format), JSON, max_size=4), TEXTS)
def test_parameters_travel_beside_the_messages(extra_body: dict[str, Any], text: str) -> None:
    """What the user set is in the request's top level, next to the messages."""
    task = Chat(parameters=encode_parameters({"max_tokens": 7, "temperature": None}, extra_body))
    sent = request(task, text, "m")
    mended = json.loads(json.dumps(extra_body), object_pairs_hook=lambda pairs: {plain(k): v for k, v in pairs})

    assert {"model", "messages", "max_tokens", *mended} == set(sent)
    assert 7 == sent["max_tokens"]


def test_the_parameters_values_are_kept() -> None:
    """Numbers, lists and nested objects arrive as they were given."""
    extra_body = {"top_k": 40, "extra_params": {"top_p": 0.9}, "logit_bias": {"50256": -100}, "flag": None}
    task = Chat(parameters=encode_parameters({"stop": ["\n", '"']}, extra_body))

    assert {"stop": ["\n", '"'], **extra_body, "messages": [{"role": "user", "content": "?"}]} == request(task, "?")


def test_what_was_not_given_is_not_sent() -> None:
    """A request without parameters holds its messages and nothing else."""
    assert b'{"messages":[{"role":"user","content":"?"}]}' == Chat().encode(["?"], None, 0)


def test_every_text_is_asked() -> None:
    """A blank prompt costs a request too: its meaning is the instructions'."""
    assert [False, False, False] == [Chat().skips(item) for item in BLANKS]


@given(st.binary(max_size=200), STATUSES, st.integers(1, 3))
def test_any_bytes_are_read(body: bytes, status: int, n: int) -> None:
    """Bytes that are no answer become a failure, never an exception."""
    assert is_settled(Chat(n=n).decode(Response(status, body), 1), 1)


@given(JSON | REPLIES, STATUSES, st.integers(1, 3))
def test_any_json_is_read(document: object, status: int, n: int) -> None:
    """So does JSON that is no answer, also when it uses an answer's words."""
    assert is_settled(reply(document, status, n=n), 1)


@given(st.lists(REPLIES, max_size=3), st.integers(1, 3))
def test_any_choices_are_read(choices: list[object], n: int) -> None:
    """And choices that are none."""
    assert is_settled(reply({"choices": choices}, n=n), 1)


@given(REPLIES, REPLIES, REPLIES)
def test_any_message_is_read(content: object, finish_reason: object, usage: object) -> None:
    """And messages, reasons and tokens of every type; text stands only where there is no error."""
    document = {"choices": [{"message": {"content": content}, "finish_reason": finish_reason}], "usage": usage}
    outcome = reply(document)

    assert is_settled(outcome, 1)
    if isinstance(outcome, Answer):
        assert (outcome.results[0].text is None) == (outcome.results[0].error is not None)


@given(st.text())
def test_the_answer_is_the_text(text: str) -> None:
    """The text arrives letter for letter, however JSON escapes it."""
    outcome = reply(says(text))

    assert isinstance(outcome, Answer)
    assert text == outcome.results[0].text


@given(st.lists(st.text() | st.none()))
def test_the_text_of_parts_is_joined(parts: list[str | None]) -> None:
    """Of a content in parts, those of type "text" are the answer, and reasoning is not."""
    content = [
        {"type": "reasoning", "text": "Hm.", "summary": [{"type": "summary_text", "text": "Hm."}]}
        if part is None
        else {"type": "text", "text": part}
        for part in parts
    ]
    outcome = reply(says(content))
    texts = [part for part in parts if part is not None]

    assert ("".join(texts) if texts else None) == (outcome.results[0].text if isinstance(outcome, Answer) else None)


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    """A server's broken letter costs that letter and not the answer."""
    outcome = Chat().decode(Response(200, b'{"choices":[{"message":{"content":"a\xffb"}}]}'), 1)

    assert isinstance(outcome, Answer)
    assert "a\N{REPLACEMENT CHARACTER}b" == outcome.results[0].text


@pytest.mark.parametrize("name", ["x-request-id", "served-model-name"])
def test_a_header_that_is_no_utf8_is_replaced(name: str) -> None:
    """Bytes that a header may not hold come as halves of pairs, which no column can hold."""
    outcome = reply(says("Hi"), headers={name: "a\udcffb"})

    assert isinstance(outcome, Answer)
    assert "a\N{REPLACEMENT CHARACTER}b" in (outcome.results[0].request_id, outcome.results[0].model)


def test_an_empty_answer_is_an_answer() -> None:
    """A model that stops at once has said nothing, and that is what the row gets."""
    outcome = reply(says(""))

    assert isinstance(outcome, Answer)
    assert ("", None) == (outcome.results[0].text, outcome.results[0].error)


@pytest.mark.parametrize(("content", "kind"), [("", "truncated"), (None, "truncated"), ([], "truncated"), ("a", None)])
def test_an_answer_that_never_began_is_truncated(content: object, kind: str | None) -> None:
    """No text and `finish_reason` "length" is an error of its row; half a text is a text."""
    outcome = reply(says(content, "length"))

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
def test_how_an_answer_ended_is_read_before_its_text(
    reason: str, empty: str | None, half: str | None, case: Callable[[str], str]
) -> None:
    """In any provider's word, whatever its case; chat and completions alike; the word stays as it came."""
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
def test_what_another_try_may_mend_is_tried_again(reason: str) -> None:
    """A server that broke off and a word that nobody knows; no filter, no limit and no tool."""
    outcome = reply(says("", reason))
    error = outcome.error if isinstance(outcome, Failure) else outcome.results[0].error

    assert (reason in ("error", "load")) == isinstance(outcome, Failure) == bool(error and error.retryable)


ERRORS = [{"code": 502, "message": "Disconnected"}, {"code": "502"}, {"metadata": {"error": {"code": 503}}}]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("finish_reason", ["stop", "error", None, "a word that nobody knows"])
@pytest.mark.parametrize("text", ["", "ha", None])
def test_an_error_in_a_choice_is_no_answer(
    error: dict[str, object], finish_reason: str | None, text: str | None
) -> None:
    """Whatever reason and text stand beside it, it is read as an error body is, and its tokens count."""
    document = says(text, finish_reason)
    outcome = reply({"choices": [{**document["choices"][0], "error": error}], "usage": {"total_tokens": 7}})

    assert isinstance(outcome, Failure)
    assert ("unavailable", 200, True) == (outcome.error.kind, outcome.error.status, outcome.error.retryable)
    assert Usage(total_tokens=7) == outcome.usage


@pytest.mark.parametrize("finish_reason", ["stop", "length", "error", None])
def test_an_error_beside_the_choices_counts_unless_they_ended_as_they_should(finish_reason: str | None) -> None:
    """A text that stopped by itself is believed before a note beside it."""
    outcome = reply(says("ha", finish_reason) | {"error": {"code": 429, "message": "slower"}})

    assert (finish_reason in ("error", None)) == isinstance(outcome, Failure)
    assert not isinstance(outcome, Failure) or outcome.throttled


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206, 299])
def test_every_success_is_one(status: int) -> None:
    """A whole answer was paid for, whichever 2xx it comes by; an error says which."""
    outcome, empty = reply(says("Hi"), status), reply(says("", "length"), status)

    assert isinstance(outcome, Answer)
    assert isinstance(empty, Answer)
    assert "Hi" == outcome.results[0].text
    assert empty.results[0].error is not None
    assert status == empty.results[0].error.status


@given(st.text(max_size=20))
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_document_in_another_encoding_is_read(encoding: str, text: str) -> None:
    """With a byte order mark or without one: JSON begins with ASCII, which tells."""
    body = json.dumps(says(text), ensure_ascii=False).encode(encoding, "replace")
    outcome = Chat().decode(Response(200, body), 1)

    assert isinstance(outcome, Answer)
    assert text == outcome.results[0].text


@given(
    st.sampled_from(["data: ", "data:", ": waiting\n\ndata: ", "id: 1\r\nevent: message\r\ndata: ", "\n\n"]),
    st.text(max_size=9),
)
def test_what_is_around_a_document_is_passed_over(before: str, text: str) -> None:
    """Lines that keep a connection alive, and the frame of one event; a text that looks like a frame is a text."""
    body = f"{before}{json.dumps(says(text))}\r\n\r\n" + ("data: [DONE]\n\n" if "data" in before else "")
    outcome = Chat().decode(Response(200, body.encode()), 1)

    assert isinstance(outcome, Answer)
    assert text == outcome.results[0].text


@pytest.mark.parametrize("content", [None, ""])
@pytest.mark.parametrize("finish_reason", ["tool_calls", "stop", None])
def test_a_call_of_a_tool_is_no_answer(content: str | None, finish_reason: str | None) -> None:
    """Whatever reason the server gives, a message that only calls a tool is not an empty text."""
    outcome = reply(says(content, finish_reason, tool_calls=[{"id": "call_1"}]))

    assert isinstance(outcome, Answer)
    assert isinstance(outcome.results[0].error, RowError)
    assert (None, "invalid_response") == (outcome.results[0].text, outcome.results[0].error.kind)


@pytest.mark.parametrize("content", [None, ""])
def test_a_refusal_is_no_answer(content: str | None) -> None:
    """The model's refusal is the row's error, in the model's words."""
    outcome = reply(says(content, refusal="I can't help with that."))

    assert isinstance(outcome, Answer)
    assert RowError("content_filter", 200, "I can't help with that.", retryable=False) == outcome.results[0].error


def test_several_answers_are_choices() -> None:
    """With n > 1 all texts are `choices`, in the server's order of index, and the first is `text`."""
    choices = [{"index": index, "message": {"content": f"text {index}"}} for index in (2, 0, 1)]
    outcome = reply({"choices": choices}, n=3)

    assert isinstance(outcome, Answer)
    assert "text 0" == outcome.results[0].text
    assert ["text 0", "text 1", "text 2"] == outcome.results[0].choices


def test_the_first_choice_that_is_an_answer_is_the_text() -> None:
    """What was paid for is kept: a choice that is no answer is null, and so is one that did not come."""
    choices = [
        {"index": 0, "message": {"content": "ha"}, "finish_reason": "content_filter"},
        {"index": 1, "message": {"content": "text 1"}, "finish_reason": "length"},
        {"index": 2, "message": {"content": "ha"}, "finish_reason": "error"},
    ]
    outcome = reply({"choices": choices}, n=4)

    assert isinstance(outcome, Answer)
    [result] = outcome.results
    assert ("text 1", [None, "text 1", None, None], "length", None) == (
        result.text,
        result.choices,
        result.finish_reason,
        result.error,
    )


def test_one_answer_has_no_choices() -> None:
    """Where one answer was asked for, there is no list of them."""
    outcome = reply(says("Hi"))

    assert isinstance(outcome, Answer)
    assert None is outcome.results[0].choices
