"""Descriptions of endpoints by a workspace: any document can be read, and problems are found."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.readiness.workspace import Description, Subject, read_descriptions, unknown_name_hint
from tests.support.strategies import JSON

HOST = "https://adb-1.2.azuredatabricks.net"
API = f"{HOST}/api/2.0/serving-endpoints"


def description(**fields: object) -> Description:
    """Return the description of a ready chat endpoint with these fields."""
    return Description.read({"name": "e", "task": "llm/v1/chat", "state": {"ready": "READY"}, **fields})


@pytest.mark.parametrize(
    ("path", "model", "expected"),
    [
        ("/serving-endpoints/e/invocations", None, ("e", None, f"{API}/e")),
        ("/serving-endpoints/e/served-models/e-2/invocations", None, ("e", "e-2", f"{API}/e")),
        ("/serving-endpoints/chat/completions", "m", ("m", None, f"{API}/m")),
        ("/serving-endpoints/completions", "m", ("m", None, f"{API}/m")),
        ("/serving-endpoints/embeddings?a=b", "a/../b", ("a/../b", None, f"{API}/a%2F..%2Fb")),
        ("/serving-endpoints/chat/completions", None, None),
        ("/7/serving-endpoints/e/invocations", None, None),
        ("/v1/chat/completions", "m", None),
        ("/ai-gateway/mlflow/v1/embeddings", "m", None),
        ("/gateway/e/invocations", None, None),
        ("/", None, None),
    ],
)
def test_a_url_leads_to_its_description(
    path: str, model: str | None, expected: tuple[str, str | None, str] | None
) -> None:
    """A workspace's URL names the endpoint in its path or as the model; other URLs have no description."""
    subject = Subject.from_url(HOST + path, model)

    assert expected == subject
    assert subject is None or subject.list_url == API


@given(JSON)
def test_any_document_is_read(document: Any) -> None:  # noqa: ANN401 -- a JSON document has any type
    """A server's document never raises; missing fields are empty and are not a problem."""
    for found in [
        Description.read(document),
        *read_descriptions(document),
        *read_descriptions({"endpoints": document}),
    ]:
        problem = found.problem("m")
        assert problem is None or all(problem)
        assert found.task in ("chat", "complete", "embed", None)
        assert found.state.startswith(("READY", "NOT_READY"))
    assert None is Description.read([document]).problem(None)


@given(JSON, st.sampled_from(["state", "config", "task", "data_plane_info", "endpoint_url", "route_optimized"]))
def test_any_field_may_be_of_another_type(value: Any, name: str) -> None:  # noqa: ANN401 -- as above
    """A field of another type leaves the others readable."""
    found = description(**{name: value})

    assert "e" == found.name
    assert name == "task" or found.task == "chat"


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("llm/v1/chat", "chat"),
        ("llm/v1/completions", "complete"),
        ("llm/v1/embeddings", "embed"),
        ("agent/v1/chat", "chat"),
        ("agent/v1/responses", "chat"),
        ("", None),
    ],
)
def test_the_workspaces_task_names(kind: str, task: str | None) -> None:
    """Agents that chat count as chat; an unknown kind has no task and no hint."""
    found = description(task=kind)

    assert task == found.task
    assert [] == [name for name in ("chat", "complete", "embed") if task is None and found.task_hint(name)]


def test_the_hint_for_another_task_names_its_udf() -> None:
    """The hint names both tasks."""
    hint = description(task="llm/v1/embeddings").task_hint("chat")

    assert hint.startswith("the endpoint e serves embed (llm/v1/embeddings), not chat: use embed_udf,")
    assert "" == description().task_hint("chat")


@pytest.mark.parametrize(
    ("state", "shown_state", "hint"),
    [
        ({"ready": "NOT_READY", "config_update": "IN_PROGRESS"}, "NOT_READY (IN_PROGRESS)", "it is being deployed"),
        (
            {"ready": "NOT_READY", "config_update": "UPDATE_FAILED"},
            "NOT_READY (UPDATE_FAILED)",
            "its last update failed",
        ),
        ({"ready": "NOT_READY", "config_update": "NOT_UPDATING"}, "NOT_READY", "start it on its page"),
    ],
)
def test_each_state_has_its_hint(state: object, shown_state: str, hint: str) -> None:
    """The message has the workspace's state, and each state has its own next step."""
    problem = description(state=state).problem(None)

    assert problem is not None
    assert f"The endpoint e is {shown_state}." == problem[0]
    assert problem[1].startswith(hint)


def test_an_endpoint_that_answers_during_an_update_is_ready() -> None:
    """The old configuration answers until the new one is deployed."""
    found = description(state={"ready": "READY", "config_update": "IN_PROGRESS"})

    assert None is found.problem(None)
    assert "READY (IN_PROGRESS)" == found.state


def test_served_models_show_that_an_endpoint_is_stopped() -> None:
    """The state of the endpoint does not show it; the states of its models do."""
    entities = [{"name": "e-1", "state": {"deployment": "DEPLOYMENT_STOPPED"}, "scale_to_zero_enabled": True}]
    found = description(state={"ready": "NOT_READY"}, config={"served_entities": entities})

    assert ("NOT_READY (stopped)", ("e-1",), True) == (found.state, found.served, found.scales_to_zero)


def test_an_unknown_served_model_is_a_problem() -> None:
    """Without a list of served models it is not."""
    found = description(config={"served_entities": [{"name": "e-1"}, {"name": "e-2"}]})

    assert None is found.problem("e-2")
    assert ("The endpoint e has no served model 'e-3'.", "name one of e-1, e-2.") == found.problem("e-3")
    assert None is description().problem("e-3")


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"route_optimized": True, "endpoint_url": "https://x/1"}, "https://x/1"),
        ({"route_optimized": True, "data_plane_info": {"query_info": {"endpoint_url": "https://x/2"}}}, "https://x/2"),
        ({"route_optimized": False, "endpoint_url": "https://x/1"}, None),
        ({"endpoint_url": "https://x/1"}, None),
    ],
)
def test_a_route_optimised_endpoint_has_a_url_of_its_own(fields: dict[str, object], url: str | None) -> None:
    """The description has it in one of two places, and only for such an endpoint."""
    found = description(**fields)

    assert url == found.own_url
    assert ("OAuth" in found.url_hint) == (url is not None)


@pytest.mark.parametrize(
    ("name", "names", "hint"),
    [
        ("lama-3", ["llama-3", "bge", "llama-4"], "did you mean 'llama-3' or 'llama-4'? "),
        ("chta", ["embed", "chat"], "did you mean 'chat'? "),
        ("x", ["embed", "chat"], "check the name; "),
        ("x", [], "check the name; "),
    ],
)
def test_an_unknown_name_has_similar_ones(name: str, names: list[str], hint: str) -> None:
    """The hint begins with the similar names and ends with the command that lists all."""
    assert f"{hint}`spark-llm endpoints` lists those of the workspace." == unknown_name_hint(name, names)


@pytest.mark.parametrize(("kind", "has_hint"), [("agent/v1/responses", True), ("agent/v1/chat", False), ("", False)])
def test_an_agent_of_the_responses_route_is_recognised(kind: str, *, has_hint: bool) -> None:
    """Its URL says nothing of it, so the hint does."""
    assert has_hint == ('api="responses"' in description(task=kind).api_hint)
