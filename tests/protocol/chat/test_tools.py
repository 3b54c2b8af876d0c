"""The tools of a request: what is a tool, and what is none."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from spark_llm.errors import ConfigError
from spark_llm.protocol.chat.tools import tool_parameters
from tests.support.strategies import JSON

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": ["integer", "null"]}, "any": True},
            "required": ["city"],
        },
        "strict": False,
    },
}
NAMED = {"type": "function", "function": {"name": "now"}}


class LookUp(BaseModel):
    """Look an order up.

    By its number.
    """

    order: int = Field(description="its number")
    fields: list[str]


class Now(BaseModel):  # noqa: D101 -- a tool without a description
    pass


def function(**changed: Any) -> list[dict[str, Any]]:  # noqa: ANN401 -- right and wrong values
    """Return one tool with parts of its function changed."""
    return [{"type": "function", "function": {**WEATHER["function"], **changed}}]  # type: ignore[dict-item]  # a dict


def test_a_function_is_sent_as_it_is() -> None:
    """With all of its fields; one without parameters has none."""
    assert {"tools": [WEATHER, NAMED]} == tool_parameters([WEATHER, NAMED], None)
    assert {} == tool_parameters(None, None)


def test_a_pydantic_model_is_a_function() -> None:
    """Its name, its docstring and its fields; a model without fields takes no arguments."""
    look_up, now = tool_parameters((LookUp, Now), None)["tools"]

    assert "function" == look_up["type"]
    assert ("LookUp", "Look an order up.\n\nBy its number.") == (
        look_up["function"]["name"],
        look_up["function"]["description"],
    )
    assert {"type": "integer", "description": "its number"} == look_up["function"]["parameters"]["properties"]["order"]
    assert ["order", "fields"] == look_up["function"]["parameters"]["required"]
    assert {"name": "Now", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}} == now[
        "function"
    ]


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
def test_a_mode_is_sent_as_it_is(choice: str) -> None:
    """It is not the name of a tool."""
    assert choice == tool_parameters([WEATHER], choice)["tool_choice"]


def test_a_chosen_tool_is_named() -> None:
    """As the API has it."""
    expected = {"type": "function", "function": {"name": "now"}}

    assert expected == tool_parameters([WEATHER, NAMED], "now")["tool_choice"]


@pytest.mark.parametrize(
    ("tools", "choice", "why"),
    [
        ([], None, r"tools=\[\] is not a list of tools"),
        ("get_weather", None, "tools='get_weather' is not a list"),
        (WEATHER, None, "is not a list of tools"),
        (LookUp, None, "is not a list of tools"),
        (["get_weather"], None, r"tools\[0\] is 'get_weather', which is no function"),
        ([NAMED, None], None, r"tools\[1\] is None"),
        ([{"type": "web_search"}], None, "is no function.* extra_body"),
        ([WEATHER["function"]], None, "is no function"),
        ([{"type": "function", "name": "flat"}], None, "is no function"),
        (function(name=None), None, r"tools\[0\] has the name None"),
        (function(name="get weather"), None, "has the name 'get weather'"),
        (function(name="a" * 65), None, "has the name 'aaa"),
        (function(name="wetter_für"), None, "has the name"),
        (function(name="auto"), None, "has the name 'auto'"),
        (function(description=5), None, "description that is not a text"),
        (function(strict="yes"), None, "strict='yes'"),
        (function(parameters="a schema"), None, r"tools\[0\]'s parameters is 'a schema', which is no JSON Schema"),
        (function(parameters=None), None, "which is no JSON Schema"),
        (function(parameters={}), None, r'the JSON Schema has no type.* Hint: write "type": "object"'),
        (function(parameters={"type": "array"}), None, "has the type 'array'"),
        (function(parameters={"type": "object", "properties": ["city"]}), None, "properties is"),
        (function(parameters={"type": "object", "properties": {"city": "string"}}), None, r"parameters\.city is"),
        (function(parameters={"type": "object", "properties": {"city": {"type": "str"}}}), None, "the type 'str'"),
        (
            function(parameters={"type": "object", "properties": {"a": {"items": {"properties": 5}}}}),
            None,
            r"parameters\.a\.items: properties is 5",
        ),
        (function(parameters={"type": "object", "required": "city"}), None, "required is 'city'"),
        (function(parameters={"type": "object", "const": float("nan")}), None, "cannot be written as JSON"),
        ([NAMED, WEATHER, NAMED], None, "two tools named 'now'"),
        ([WEATHER], "get_wether", "names no tool.* did you mean 'get_weather'"),
        ([WEATHER], {"type": "function"}, "names no tool"),
        ([WEATHER], "", "names no tool"),
        (None, "auto", "without tools="),
    ],
)
def test_what_is_no_tool_raises(tools: Any, choice: Any, why: str) -> None:  # noqa: ANN401 -- anything
    """The message names the place and the value, and ends in a hint."""
    with pytest.raises(ConfigError, match=f"(?s){why}") as refused:
        tool_parameters(tools, choice)

    assert refused.value.hint.endswith((".", "?"))


def test_a_schema_that_holds_itself_raises() -> None:
    """It cannot be written."""
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    schema["properties"]["again"] = schema

    with pytest.raises(ConfigError, match="cannot be written as JSON"):
        tool_parameters(function(parameters=schema), None)


@given(st.lists(JSON, max_size=3) | JSON, JSON)
def test_any_value_is_tools_or_a_config_error(tools: Any, choice: Any) -> None:  # noqa: ANN401 -- anything
    """Nothing else is raised, and what is accepted can be written."""
    with suppress(ConfigError):
        json.dumps(tool_parameters(tools, choice))


@given(st.dictionaries(st.sampled_from(["name", "description", "parameters", "strict", "type", "properties"]), JSON))
def test_any_function_is_a_tool_or_a_config_error(changed: dict[str, Any]) -> None:
    """Also with the right names for the wrong values."""
    with suppress(ConfigError):
        json.dumps(tool_parameters(function(**changed), None))


class Add(BaseModel):  # noqa: D101 -- as above
    a: int
    b: int = 5
    c: int | None = None


def test_a_field_with_a_default_is_not_required() -> None:
    """The model may leave it out, as in pydantic's own schema."""
    [tool] = tool_parameters([Add], None)["tools"]

    assert ["a"] == tool["function"]["parameters"]["required"]
    assert {"a", "b", "c"} == set(tool["function"]["parameters"]["properties"])


def test_an_unknown_choice_names_the_tools() -> None:
    """The modes alone are no help."""
    with pytest.raises(ConfigError, match=r"names no tool\. Hint: did you mean 'Add'\? it is one of none, .*'Add'\."):
        tool_parameters([Add], "add")
