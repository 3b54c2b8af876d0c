"""The canonical form of request specs: equal specs have equal digests in every version, and different ones differ.

The golden digests are a promise to existing tables: where one changes, every row is sent again.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spark_llm.protocol.canonical import (
    canonical_function,
    canonical_json,
    canonical_model,
    canonical_shape,
    spec_digest,
)
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.chat.tools import tool_parameters
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.predictions.task import Predict
from spark_llm.protocol.rerank import Rerank
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Array, Enumeration, Field, Map, Nullable, Number, Scalar, Shape, Struct
from spark_llm.protocol.template import PromptBuilder
from tests.support.shapes import STRUCTS
from tests.support.strategies import JSON, TEXTS

if TYPE_CHECKING:
    from spark_llm.protocol.task import Task

URL = "https://models.example/v1/chat/completions"
WORKSPACE = "https://host.example/serving-endpoints/any/invocations"
REVIEW = Struct(
    (
        Field("mood", Enumeration(("good", "bad")), "how the writer feels"),
        Field("stars", Nullable(Scalar("integer", (("ge", 1), ("le", 5))))),
        Field("price", Number(10, 2, (("gt", "0.5"),))),
        Field("topics", Array(Scalar("string"), (("max_length", 3),))),
        Field("counts", Map(Nullable(Scalar("long")))),
        Field("place", Struct((Field("city", Scalar("string")),))),
    )
)
BRIEF = PromptBuilder.parse("Summarise {title}: {body}", "Answer in {language}.", allows_conversations=True)
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
DRAWN: dict[str, Any] = {"temperature": 0.7, "seed": 7, "stop": ["\n", "END"]}


def chat(
    *, system: str | None = None, prompt: PromptBuilder | None = None, shape: Shape | None = None, **parameters: object
) -> dict[str, Any]:
    """Return the canonical form of a chat spec at `URL`."""
    extra_body = parameters.pop("extra_body", None)
    assert extra_body is None or isinstance(extra_body, Mapping)
    output = None if shape is None else StructuredOutput("answer", shape)
    task = Chat(system, encode_parameters(parameters, extra_body), output=output)
    return canonical_model(URL, None, task, prompt)


GOLDEN: dict[str, tuple[Any, str]] = {
    "nothing but an endpoint": (chat(), "817f0cb527aae856"),
    "instructions": (chat(system="Answer in one word: é, \U0001f642 or \x00."), "5f8e278aabcfc810"),
    "parameters": (chat(**DRAWN, max_tokens=8, n=3), "a98b0aa90a0e46a3"),
    "further fields": (
        chat(extra_body={"top_k": 40, "extra_params": {"b": [1.5, None, True], "a": {}}}),
        "af0600ec8ba060db",
    ),
    "tools": (chat(**tool_parameters([TOOL], "look_up")), "155cfc94f029028f"),
    "how much to think and to say": (chat(reasoning_effort="low", verbosity="high"), "54e462fbb61995dc"),
    "a service tier": (chat(service_tier="flex"), "56a0572dfec9182a"),
    "a template": (chat(prompt=BRIEF), "e0a6b57ad0a22bcc"),
    "a type of answers": (chat(shape=REVIEW), "6fcca663af0a621a"),
    "a model by name": (canonical_model(URL, "small-7b", Chat(), None), "9ed4790941b2ed9c"),
    "a completion": (
        canonical_model(URL, None, Complete(encode_parameters({"max_tokens": 32}, None)), None),
        "8625c9358c0f396d",
    ),
    "a prediction": (canonical_model(URL, None, Predict(Nullable(Scalar("double"))), None), "ee30a3aebe5da2cf"),
    "a prediction of columns": (canonical_model(URL, None, Predict(REVIEW, "inputs"), None), "cccb0bd33ad1fd7e"),
    "a reranking": (canonical_model(URL, "bge", Rerank(b'{"truncate":true}', 3), None), "4bad124a7592fdec"),
    "an embedding": (
        canonical_model(URL, "e5", Embed(encode_parameters({"dimensions": 256, "instruction": "find"}, None)), None),
        "a23c380427e8eee1",
    ),
    "an AI function": (
        canonical_function("ai_classify", ["content", "labels"], chat(temperature=0.0)),
        "8c6f211891df8dbe",
    ),
    "ai_query": (
        canonical_function(
            "ai_query", ["endpoint", "request"], {"endpoints": {"small": chat(), "large": chat(n=2)}, "workspace": None}
        ),
        "eea7893bf64b741a",
    ),
    "ai_similarity": (
        canonical_function("ai_similarity", ["expr1", "expr2"], canonical_model(URL, None, Embed(), None)),
        "fac8cbe8420b0db5",
    ),
}


@pytest.mark.parametrize("spec", GOLDEN)
def test_each_spec_keeps_its_digest(spec: str) -> None:
    """Tables were written with these digests."""
    words, digest = GOLDEN[spec]
    assert digest == spec_digest(words)


def test_the_canonical_form_has_the_declared_values() -> None:
    """Missing values are left out."""
    assert {
        "task": "chat",
        "endpoint": URL,
        "template": "Summarise {title}: {body}",
        "instructions": "Answer in {language}.",
        "parameters": {"temperature": 0.7, "seed": 7, "stop": ["\n", "END"]},
        "returns": {
            "fields": [
                {"name": "stars", "type": {"or_null": {"is": "integer", "rules": {"ge": 1}}}, "about": "one to five"}
            ]
        },
    } == chat(
        prompt=BRIEF,
        shape=Struct((Field("stars", Nullable(Scalar("integer", (("ge", 1),))), "one to five"),)),
        **DRAWN,
    )


def test_the_route_of_a_chat_is_how_a_request_travels() -> None:
    """A table whose model moves to the Responses route keeps its answers."""
    routes = ["chat/completions", "responses"]
    one, other = (canonical_model(f"https://host/v1/{route}?a=b", "m", Chat(), None) for route in routes)

    assert one == other
    assert "https://host/v1/chat/completions?a=b" == one["endpoint"]


OTHERS: dict[str, Callable[[], Any]] = {
    "the task": lambda: canonical_model(URL, None, Complete(), None),
    "the endpoint": lambda: canonical_model(URL + "?api-version=2", None, Chat(), None),
    "the model": lambda: canonical_model(URL, "small-7b", Chat(), None),
    "the instructions": lambda: chat(system="Be brief."),
    "other instructions": lambda: chat(system="Be brief. "),
    "the template": lambda: chat(prompt=PromptBuilder.parse("{body}")),
    "a blank in the template": lambda: chat(prompt=PromptBuilder.parse("{body} ")),
    "instructions to the template": lambda: chat(prompt=PromptBuilder.parse("{body}", "Be brief.")),
    "a parameter": lambda: chat(max_tokens=8),
    "the same under another name": lambda: chat(max_completion_tokens=8),
    "its value": lambda: chat(max_tokens=9),
    "how many answers": lambda: chat(n=2),
    "a further field": lambda: chat(extra_body={"top_k": 8}),
    "a tool": lambda: chat(**tool_parameters([TOOL], None)),
    "the choice of a tool": lambda: chat(**tool_parameters([TOOL], "none")),
    "a tool's name": lambda: chat(**tool_parameters([{"type": "function", "function": {"name": "find"}}], None)),
    "how much to think": lambda: chat(reasoning_effort="low"),
    "how much to say": lambda: chat(verbosity="low"),
    "a service tier": lambda: chat(service_tier="flex"),
    "another service tier": lambda: chat(service_tier="priority"),
    "a field in a field": lambda: chat(extra_body={"extra_params": {"top_k": 8}}),
    "an order in a list": lambda: chat(stop=["a", "b"]),
    "another order in a list": lambda: chat(stop=["b", "a"]),
    "a type": lambda: chat(shape=Struct((Field("a", Scalar("integer")),))),
    "a kind": lambda: chat(shape=Struct((Field("a", Scalar("long")),))),
    "a name": lambda: chat(shape=Struct((Field("b", Scalar("long")),))),
    "a null": lambda: chat(shape=Struct((Field("a", Nullable(Scalar("long"))),))),
    "a description": lambda: chat(shape=Struct((Field("a", Scalar("long"), "how many"),))),
    "a bound": lambda: chat(shape=Struct((Field("a", Scalar("long", (("ge", 0),))),))),
    "the kind of a bound": lambda: chat(shape=Struct((Field("a", Scalar("long", (("gt", 0),))),))),
    "values": lambda: chat(shape=Struct((Field("a", Enumeration((1, 2))),))),
    "texts for values": lambda: chat(shape=Struct((Field("a", Enumeration(("1", "2"))),))),
    "one more field": lambda: chat(shape=Struct((Field("a", Scalar("long")), Field("b", Scalar("long"))))),
    "the fields' order": lambda: chat(shape=Struct((Field("b", Scalar("long")), Field("a", Scalar("long"))))),
    "a list": lambda: chat(shape=Struct((Field("a", Array(Scalar("long"))),))),
    "a map": lambda: chat(shape=Struct((Field("a", Map(Scalar("long"))),))),
    "digits": lambda: chat(shape=Struct((Field("a", Number(10, 2)),))),
    "other digits": lambda: chat(shape=Struct((Field("a", Number(10, 3)),))),
    "a function": lambda: canonical_function("ai_gen", ["prompt"], chat()),
    "another function": lambda: canonical_function("ai_mask", ["prompt"], chat()),
    "an argument": lambda: canonical_function("ai_gen", ["prompt", "labels"], chat()),
}


def test_each_declared_value_changes_the_digest() -> None:
    """Specs that differ in one value have different digests."""
    digests = {spec_digest(other()): name for name, other in OTHERS.items()} | {spec_digest(chat()): "nothing"}

    assert {*OTHERS, "nothing"} == set(digests.values())


def test_internal_names_do_not_change_the_digest() -> None:
    """The name of an output type in the request, and whether prompts have their own types, are left out."""
    task = Chat(output=StructuredOutput("answer", REVIEW))

    assert canonical_model(URL, None, task, None) == canonical_model(
        URL, None, replace(task, output=StructuredOutput("StructuredOutput", REVIEW)), None
    )
    assert canonical_model(URL, None, Chat(), None) == canonical_model(URL, None, Chat(output_per_prompt=True), None)


def test_instructions_of_a_template_count_once() -> None:
    """Instructions without fields belong to the template, however the task has them too."""
    prompt = PromptBuilder.parse("{body}", "Be {{brief}}.")

    assert canonical_model(URL, None, Chat(prompt.instructions), prompt) == canonical_model(URL, None, Chat(), prompt)


def test_a_task_without_a_canonical_form_is_refused() -> None:
    """An incomplete digest would keep wrong answers."""
    with pytest.raises(NotImplementedError, match="rank"):
        canonical_model(URL, None, cast("Task", SimpleNamespace(name="rank")), None)


@given(JSON, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(value: Any, dice: Any) -> None:  # noqa: ANN401 -- JSON, and a Random
    """Equal values have equal digests."""
    assert spec_digest(value) == spec_digest(shuffled(value, dice.shuffle))


def shuffled(value: Any, shuffle: Callable[[list[Any]], None]) -> Any:  # noqa: ANN401 -- JSON
    """Return an equal value with the keys of its mappings in another order."""
    if isinstance(value, list):
        return [shuffled(part, shuffle) for part in value]
    if isinstance(value, dict):
        names = list(value)
        shuffle(names)
        return {name: shuffled(value[name], shuffle) for name in names}
    return value


@given(JSON, JSON)
def test_different_values_have_different_json(one: Any, other: Any) -> None:  # noqa: ANN401 -- JSON
    """Canonical JSON is parsed back as an equal value."""
    assert one == json.loads(canonical_json(one))
    assert (typed(one) == typed(other)) == (canonical_json(one) == canonical_json(other))


def typed(value: Any) -> Any:  # noqa: ANN401 -- JSON
    """Return a value in which True differs from 1."""
    match value:
        case bool():
            return ("bool", value)
        case list():
            return [typed(part) for part in value]
        case dict():
            return {name: typed(part) for name, part in value.items()}
    return value


@pytest.mark.parametrize(("one", "other"), [(0, 0.0), (0, -0.0), (1, 1.0), (10**16, 1e16), ([2], (2.0,))])
def test_equal_numbers_have_equal_json(one: Any, other: Any) -> None:  # noqa: ANN401 -- JSON
    """1 and 1.0 mean the same in a request."""
    assert canonical_json(one) == canonical_json(other)


@given(STRUCTS, STRUCTS)
def test_different_types_have_different_json(one: Struct, other: Struct) -> None:
    """Two output types have equal JSON exactly when they are equal."""
    assert (one == other) == (canonical_json(canonical_shape(one)) == canonical_json(canonical_shape(other)))


@given(STRUCTS, st.data())
def test_a_changed_field_changes_the_json(shape: Struct, data: st.DataObject) -> None:
    """Its name, its description or its nullability may change."""
    place = data.draw(st.integers(0, len(shape.fields) - 1))
    field = shape.fields[place]
    inner = field.shape
    changed = data.draw(
        st.sampled_from(
            [
                field._replace(name=field.name + "_"),
                field._replace(description=f"{field.description}, and more"),
                field._replace(shape=inner.shape if isinstance(inner, Nullable) else Nullable(inner)),
            ]
        )
    )
    other = Struct((*shape.fields[:place], changed, *shape.fields[place + 1 :]))

    assert canonical_json(canonical_shape(shape)) != canonical_json(canonical_shape(other))


@given(TEXTS, TEXTS)
def test_different_instructions_have_different_digests(one: str, other: str) -> None:
    """This holds for all characters."""
    assume(one != other)
    assert spec_digest(chat(system=one)) != spec_digest(chat(system=other))
