"""The factories: which task and which column their parameters make, and what they refuse; no session is needed."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from spark_llm import ConfigError, Endpoint, Policy, chat_udf, schemas
from spark_llm.ai.query import query_of
from spark_llm.ai.udf import chat_function, known_endpoints
from spark_llm.protocol import task as wire
from spark_llm.protocol.chat.task import Chat
from spark_llm.udf.model_udf import ModelUDF

URL = "http://127.0.0.1:9/v1/chat/completions"
TOOL = {"type": "function", "function": {"name": "look_up"}}


class LookUp(BaseModel):
    """Look an order up."""

    order: int


def body(udf: ModelUDF) -> dict[str, Any]:
    """Return a request of a chat."""
    found: dict[str, Any] = json.loads(bytes(udf.codec.encode(["?"], None, 0)))
    return found


def test_tools_add_a_field_and_parameters() -> None:
    """The column has `tool_calls` after `choices`; without tools everything is as before."""
    udf = chat_udf(URL, tools=[LookUp, TOOL], tool_choice="LookUp", n=2)

    assert [*schemas.CHAT.names, "choices", "tool_calls"] == udf.returnType.names
    assert ["LookUp", "look_up"] == [tool["function"]["name"] for tool in body(udf)["tools"]]
    assert {"type": "function", "function": {"name": "LookUp"}} == body(udf)["tool_choice"]
    assert isinstance(udf.codec, Chat)
    assert udf.codec.tools
    assert schemas.CHAT == chat_udf(URL).returnType
    assert {"messages"} == body(chat_udf(URL)).keys()


def test_tools_go_with_a_type() -> None:
    """`parsed` is the last field."""
    names = chat_udf(URL, tools=[TOOL], returns=LookUp).returnType.names

    assert ["tool_calls", "parsed"] == names[-2:]


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max", "a-new_level2"])
def test_levels_are_parameters(effort: str) -> None:
    """Those that are not known yet are left to the server."""
    sent = body(chat_udf(URL, reasoning_effort=effort, verbosity="low"))

    assert (effort, "low") == (sent["reasoning_effort"], sent["verbosity"])


@pytest.mark.parametrize(
    ("name", "known"), [("reasoning_effort", "low, "), ("verbosity", "low, "), ("service_tier", "flex, ")]
)
@pytest.mark.parametrize("value", ["", "High", "very high", 3, True, "x" * 40, ["low"]])
def test_what_is_no_level_raises(name: str, known: str, value: Any) -> None:  # noqa: ANN401 -- anything
    """The hint has the levels that servers know."""
    with pytest.raises(ConfigError, match=f"{name}=.* is no level.* Hint: servers know .*{known}"):
        chat_udf(URL, **{name: value})


@pytest.mark.parametrize("tier", ["auto", "default", "flex", "priority", "scale", "fast", "on_demand", "standard_only"])
def test_a_service_tier_is_a_parameter_at_both_routes(tier: str) -> None:
    """One that is not known here is left to the server; without one nothing is sent."""
    responses = Endpoint("http://127.0.0.1:9/v1", model="m", api="responses")
    udf = chat_udf(responses, service_tier=tier)

    assert tier == body(chat_udf(URL, service_tier=tier))["service_tier"]
    assert tier == json.loads(bytes(udf.codec.encode(["?"], None, wire.RESPONSES)))["service_tier"]
    assert "service_tier" not in body(chat_udf(URL))


def test_the_flex_tier_brings_its_time_out() -> None:
    """Also from extra_body, and into the functions that take the UDF; the user's own time-out stays."""
    flex = chat_udf(URL, service_tier="flex")

    assert (
        900 == flex.request_spec.policy.attempt_s == chat_udf(URL, extra_body={"service_tier": "flex"}).policy.attempt_s
    )
    assert 120 == chat_udf(URL).policy.attempt_s == chat_udf(URL, service_tier="priority").policy.attempt_s
    assert 120 == chat_udf(URL, service_tier="flex", policy=Policy(timeout_s=120)).request_spec.policy.attempt_s
    assert 900 == query_of(chat_udf(URL), parameters={"service_tier": "flex"}).udf.policy.attempt_s
    with pytest.raises(ConfigError, match="'service_tier' is given as a parameter and in extra_body"):
        chat_udf(URL, service_tier="flex", extra_body={"service_tier": "auto"})


@pytest.mark.parametrize(
    "given",
    [
        {"tools": "look_up"},
        {"tools": []},
        {"tools": [TOOL, TOOL]},
        {"tools": [TOOL], "tool_choice": "look"},
        {"tool_choice": "auto"},
        {"tools": [TOOL], "extra_body": {"tools": []}},
        {"reasoning_effort": "low", "extra_body": {"reasoning_effort": "low"}},
    ],
)
def test_wrong_tools_raise_when_the_udf_is_built(given: dict[str, Any]) -> None:
    """The message ends in a hint."""
    with pytest.raises(ConfigError, match=r" Hint: .+[.?]$"):
        chat_udf(URL, **given)


RESPONSES = [
    Endpoint("http://127.0.0.1:9/v1", model="m", api="responses"),
    Endpoint("http://127.0.0.1:9/v1/responses", model="m"),
    Endpoint("https://host/invocations", api="responses"),
    "https://host/v1/responses",
]


@pytest.mark.parametrize("endpoint", RESPONSES, ids=repr)
@pytest.mark.parametrize(
    "given",
    [
        {"n": 2},
        {"stop": "x"},
        {"seed": 0},
        {"max_tokens": 15},
        {"max_completion_tokens": 1},
        {"extra_body": {"stop": "x"}},
    ],
    ids=repr,
)
def test_what_the_responses_route_lacks_raises_when_the_udf_is_built(endpoint: Any, given: dict[str, Any]) -> None:  # noqa: ANN401 -- a URL or an endpoint
    """Where the route is known; elsewhere the server may take it."""
    with pytest.raises(ConfigError, match=r" Hint: .+\.$"):
        chat_udf(endpoint, **given)

    assert "chat" == chat_udf(endpoint, n=1, max_tokens=16, tools=[TOOL], reasoning_effort="low").task
    assert "chat" == chat_udf(URL, **given).task


def test_ai_functions_take_no_udf_with_tools() -> None:
    """They set what the model is asked, and return texts."""
    udf = chat_udf(URL, tools=[TOOL])
    with pytest.raises(ConfigError, match="tools="):
        chat_function("gen", udf)
    with pytest.raises(ConfigError, match="is a UDF with tools"):
        known_endpoints({"a": udf})
