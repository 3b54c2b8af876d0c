"""Classification: what a prompt says of the labels, what its answers become, and how it is sent to every server."""

import hashlib
import json
from typing import Any

import pytest

from spark_llm import Endpoint, chat_udf
from spark_llm.ai.catalog import FUNCTIONS
from spark_llm.ai.labels import choice_error, label_prompt, labels_prompt
from spark_llm.ai.udf import chat_function
from spark_llm.cache.entry import Keys, decoded_answer, encoded_answer
from spark_llm.protocol.canonical import spec_digest
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.task import FOLDED, PLAIN, RESPONSES, UNSCORED
from spark_llm.protocol.values import Answer, Failure, Prompt, Response, Result, RowError

MOODS = {"angry": "the customer complains", "happy": None}
TASK = Chat(output_per_prompt=True, answer_only=True)
BODIES = ["0bb6e9dc70a5cc2a", "e4d032f617f372b8", "9a7d7781cd7d0561", "7ba6d498a92e0d09"]  # of each wire format
LOGPROBS = [
    {"token": '{"answer":"', "logprob": 0.0, "top_logprobs": []},
    {
        "token": "angry",
        "logprob": -1.0,
        "top_logprobs": [{"token": "angry", "logprob": -1.0}, {"token": "happy", "logprob": -1.0}],
    },
    {"token": '"}', "logprob": 0.0, "top_logprobs": []},
]


def prompt_of(content: str = "text", **options: Any) -> Prompt:  # noqa: ANN401 -- any option
    """Return the prompt for one label."""
    prompt = label_prompt(content, **{"labels": ["angry", "happy"], **options})
    assert isinstance(prompt, Prompt)
    return prompt


def body_of(prompt: Prompt, wire_format: int = 0, task: Chat = TASK) -> dict[str, Any]:
    """Return a request."""
    body: dict[str, Any] = json.loads(bytes(task.encode([prompt], None, wire_format)))
    return body


def result_of(prompt: Prompt, text: str, logprobs: object = None) -> Result:
    """Return what a row gets of an answer."""
    choice = {"message": {"content": text}, "finish_reason": "stop", "logprobs": logprobs}
    response = Response(200, json.dumps({"choices": [choice]}).encode())
    outcome = TASK.parse_output(TASK.decode(response, 1), [prompt], 0)
    assert isinstance(outcome, Answer)
    [result] = outcome.results
    assert result.logprobs is None
    return result


def test_without_options_all_is_as_it_was_before_there_were_any() -> None:
    """The requests, the key of the cache and the fingerprint are those of the first edition."""
    plan = chat_function("classify", chat_udf(Endpoint("https://host/v1", model="m", token="t"), temperature=0)).plan()
    task = plan.spec.task  # type: ignore[attr-defined]  # of a function
    [item] = FUNCTIONS["classify"].prompts([["It broke."], [["praise", "complaint"]]])
    bodies = [hashlib.sha256(bytes(task.encode([item], "m", each))).hexdigest()[:16] for each in range(4)]

    assert "8faea5b9ca0a8fc4" == spec_digest(plan.canonical)
    assert BODIES == bodies
    assert isinstance(item, Prompt)
    key = "8c52654b44f5fbd3e8d955c4877d92b943e86205cc14873dc3b91e6e843cb195"
    assert key == Keys(task, "https://host/v1/chat/completions", "m").of(item).hex()  # type: ignore[union-attr]  # bytes


def test_an_option_is_part_of_the_fingerprint_where_it_is_given() -> None:
    """So a further option of a later version changes none."""
    chat = chat_udf(Endpoint("https://host/v1", model="m", token="t"))
    arguments = chat_function("classify", chat, ["rationale", "examples"]).plan().canonical["arguments"]

    assert ["content", "labels", "examples", "rationale"] == arguments


@pytest.mark.parametrize("labels", [{"angry": 'it "broke"', "happy": None}, [("angry", 'it "broke"'), ("happy", "")]])
def test_labels_may_be_a_map_to_descriptions(labels: Any) -> None:  # noqa: ANN401 -- of two kinds
    """A map and its entries say the same, as do descriptions of their own; those that are null are an error."""
    given = dict(labels)
    described = {label: text for label, text in given.items() if text}
    prompt = prompt_of(labels={label: text or "" for label, text in given.items()})

    assert '"angry": "it \\"broke\\"", "happy".' in str(prompt.system)
    assert prompt == prompt_of(descriptions=described)
    assert prompt == label_prompt("text", labels) or None in given.values()


def test_instructions_and_examples_follow_the_labels() -> None:
    """Examples are mappings or pairs; braces in them have no meaning."""
    examples = [{"content": "It {broke}.", "label": "angry"}]
    system = str(prompt_of(instructions="Irony is {angry}.", examples=examples, rationale=True).system)

    assert ["Irony is {angry}.", '{"content":"It {broke}.","label":"angry"}'] == [
        line.removeprefix("Follow these instructions: ") for line in system.split("\n") if "{" in line
    ]
    assert "reason" in system
    assert prompt_of(examples=examples) == prompt_of(examples=[("It {broke}.", "angry")])


def test_equal_options_share_their_instructions() -> None:
    """They are made once, and not for each row."""
    one, other = (
        prompt_of(content, labels=list(MOODS), examples=[{"content": "a", "label": "happy"}]) for content in "ab"
    )

    assert one.system is other.system
    assert one.output is other.output


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"labels": MOODS}, "the description of 'happy' is null"),
        ({"labels": ["happy"], "descriptions": MOODS}, "null"),
        ({"labels": ["happy"], "descriptions": {"sad": "low"}}, "'sad' is described and is not among the labels"),
        ({"labels": {"happy": "glad"}, "descriptions": {"happy": "gay"}}, "twice"),
        ({"labels": ["happy"], "examples": [("It broke.", "angry")]}, "'angry', which is not among the labels"),
        ({"labels": ["happy"], "examples": [{"content": None, "label": "happy"}]}, "null"),
        ({"labels": ["happy"], "examples": [None]}, "null"),
        ({"labels": {}}, "empty"),
        ({"labels": {"a": "x", " ": "y"}}, "blank"),
    ],
)
@pytest.mark.parametrize("ask", [label_prompt, labels_prompt])
def test_what_is_said_of_labels_fits_them(ask: Any, options: dict[str, Any], why: str) -> None:  # noqa: ANN401 -- a function
    """It is the row's error, and the error of constants."""
    error = ask("text", **options)

    assert isinstance(error, RowError)
    assert why in error.what
    assert error.hint
    assert error == choice_error(**options)


def test_options_are_checked_as_far_as_they_are_constants() -> None:
    """Where labels are a column, examples cannot be compared with them."""
    assert choice_error(examples=[("It broke.", "angry")], confidence=True) is None
    assert choice_error(examples=[("It broke.", None)]) is not None


def test_a_rationale_comes_before_the_label() -> None:
    """The label is the value, and the reason a field of its own."""
    prompt = prompt_of(rationale=True)
    schema = body_of(prompt)["response_format"]["json_schema"]["schema"]
    result = result_of(prompt, '{"rationale": "It says so.", "label": "happy"}')

    assert ["rationale", "label"] == list(schema["properties"])
    assert ("happy", "It says so.", None) == (result.parsed, result.rationale, result.confidence)


@pytest.mark.parametrize("rationale", [False, True])
def test_several_labels_are_in_their_own_order(rationale: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    """Each is there once, and none where none fits; another label is a mismatch."""
    prompt = labels_prompt("text", ["a", "b", "c"], rationale=rationale, examples=[("x", "a"), ("x", "b")])
    assert isinstance(prompt, Prompt)
    name = "labels" if rationale else "answer"

    def parsed(*labels: str) -> object:
        return result_of(prompt, json.dumps({"rationale": "Why.", name: labels})).parsed

    assert [["a", "c"], []] == [parsed("c", "a", "c"), parsed()]
    assert parsed("d") is None
    assert '{"content":"x","labels":["a","b"]}' in str(prompt.system)


def test_the_confidence_is_that_of_the_tokens() -> None:
    """It is none without logprobs; the user's own fields ask for them too."""
    prompt = prompt_of(confidence=True)
    body = body_of(prompt)
    own = Chat(output_per_prompt=True, parameters=b'{"logprobs":true,"top_logprobs":5}')

    assert (True, 20) == (body["logprobs"], body["top_logprobs"])
    assert 0.5 == result_of(prompt, '{"answer":"angry"}', {"content": LOGPROBS}).confidence
    assert 0.5 == result_of(prompt_of(), '{"answer":"angry"}', {"content": LOGPROBS}).confidence
    assert result_of(prompt, '{"answer":"angry"}').confidence is None
    assert 5 == body_of(prompt, task=own)["top_logprobs"]
    assert all("logprobs" not in body_of(prompt, each) for each in (UNSCORED, RESPONSES))


def test_the_cache_keeps_a_confidence() -> None:
    """An answer with logprobs has a key of its own; an entry of an older version has no confidence."""
    keys = Keys(TASK, "https://host/v1/chat/completions", "m")
    answer = Result("{}", confidence=0.25)

    assert keys.of(prompt_of(confidence=True)) != keys.of(prompt_of())
    assert 0.25 == decoded_answer(encoded_answer(answer)).confidence  # type: ignore[union-attr]  # an answer
    assert b'["{}",null,null,null,null,null]' == encoded_answer(Result("{}")).answer


@pytest.mark.parametrize(
    ("message", "flags"),
    [
        ("Unrecognized request argument supplied: logprobs", [UNSCORED, PLAIN, 0]),
        ("bad request", [UNSCORED, PLAIN, 0]),
        ("response_format is not supported", [PLAIN, 0]),
        ("System role not supported", [FOLDED, PLAIN, 0]),
    ],
)
def test_a_refusal_leads_to_a_format_without_logprobs(message: str, flags: list[int]) -> None:
    """They go first, unless the message names another feature."""
    found, wire_format = list[int](), 0
    for _ in flags:
        fallback = TASK.fallback_format([prompt_of(confidence=True)], wire_format, message)
        found.append(0 if fallback is None else fallback & ~wire_format)
        wire_format |= found[-1]

    assert flags == found


def test_a_model_that_may_not_give_logprobs_refuses_the_request_and_not_the_sender() -> None:
    """OpenAI answers 403; without a word of them a 403 is one of the credentials."""
    refused, forbidden = (
        TASK.decode(Response(403, json.dumps({"error": {"message": message}}).encode()), 1)
        for message in ("You are not allowed to request logprobs from this model", "No access")
    )

    assert isinstance(refused, Failure)
    assert isinstance(forbidden, Failure)
    assert ("invalid_request", "unauthorized") == (refused.error.kind, forbidden.error.kind)
