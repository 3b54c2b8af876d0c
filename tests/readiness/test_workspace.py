"""A workspace's word about its endpoints: any document is read, and what it says is judged."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.readiness.workspace import Description, Subject, read_descriptions, unknown_name_hint
from tests.support.strategies import JSON

HOST = "https://adb-1.2.azuredatabricks.net"
API = f"{HOST}/api/2.0/serving-endpoints"


def described(**fields: object) -> Description:
    """Read a description of a chat endpoint that is ready, with these fields in place of its own."""
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
def test_what_is_asked_says_where_it_is_described(
    path: str, model: str | None, expected: tuple[str, str | None, str] | None
) -> None:
    """A workspace's URLs name an endpoint in the path or as the model; no other URL is described."""
    subject = Subject.from_url(HOST + path, model)

    assert expected == subject
    assert subject is None or subject.list_url == API


@given(JSON)
def test_any_document_is_read(document: Any) -> None:  # noqa: ANN401 -- a JSON document has any type
    """What a server sends never raises; what it does not say is empty, and no reason to refuse."""
    for found in [
        Description.read(document),
        *read_descriptions(document),
        *read_descriptions({"endpoints": document}),
    ]:
        wrong = found.problem("m")
        assert wrong is None or all(wrong)
        assert found.task in ("chat", "complete", "embed", None)
        assert found.state.startswith(("READY", "NOT_READY"))
    assert None is Description.read([document]).problem(None)


@given(JSON, st.sampled_from(["state", "config", "task", "data_plane_info", "endpoint_url", "route_optimized"]))
def test_any_field_may_be_of_another_type(value: Any, name: str) -> None:  # noqa: ANN401 -- as above
    """One field that is not as documented spoils none of the others."""
    found = described(**{name: value})

    assert "e" == found.name
    assert name == "task" or found.task == "chat"


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("llm/v1/chat", "chat"),
        ("llm/v1/completions", "complete"),
        ("llm/v1/embeddings", "embed"),
        ("agent/v1/chat", "chat"),
        ("agent/v1/responses", None),
        ("", None),
    ],
)
def test_kinds_are_tasks(kind: str, task: str | None) -> None:
    """Agents that chat are asked like models that chat; what is of no known kind is not judged."""
    found = described(task=kind)

    assert task == found.task
    assert [] == [name for name in ("chat", "complete", "embed") if task is None and found.task_hint(name)]


def test_another_task_is_named_with_the_udf_for_it() -> None:
    """Both tasks are named, and what to do."""
    hint = described(task="llm/v1/embeddings").task_hint("chat")

    assert hint.startswith("the endpoint e serves embed (llm/v1/embeddings), not chat: use embed_udf,")
    assert "" == described().task_hint("chat")


@pytest.mark.parametrize(
    ("state", "told", "hint"),
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
def test_an_endpoint_that_is_not_ready_says_what_it_waits_for(state: object, told: str, hint: str) -> None:
    """The state is told as it is, and each has its own next step."""
    wrong = described(state=state).problem(None)

    assert wrong is not None
    assert f"The endpoint e is {told}." == wrong[0]
    assert wrong[1].startswith(hint)


def test_an_endpoint_that_is_updated_while_it_answers_is_ready() -> None:
    """What runs goes on while a new configuration is deployed."""
    found = described(state={"ready": "READY", "config_update": "IN_PROGRESS"})

    assert None is found.problem(None)
    assert "READY (IN_PROGRESS)" == found.state


def test_a_stopped_endpoint_is_told_by_its_models() -> None:
    """The state of the endpoint has no word for it; those of its models have."""
    entities = [{"name": "e-1", "state": {"deployment": "DEPLOYMENT_STOPPED"}, "scale_to_zero_enabled": True}]
    found = described(state={"ready": "NOT_READY"}, config={"served_entities": entities})

    assert ("NOT_READY (stopped)", ("e-1",), True) == (found.state, found.served, found.scales_to_zero)


def test_a_served_model_is_looked_for() -> None:
    """One that is not there is wrong; where none is named, there is no telling."""
    found = described(config={"served_entities": [{"name": "e-1"}, {"name": "e-2"}]})

    assert None is found.problem("e-2")
    assert ("The endpoint e has no served model 'e-3'.", "name one of e-1, e-2.") == found.problem("e-3")
    assert None is described().problem("e-3")


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
    """It is told in one of two places, and only such an endpoint is asked there."""
    found = described(**fields)

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
def test_a_name_that_is_not_there_has_near_ones(name: str, names: list[str], hint: str) -> None:
    """The nearest are named first, and how to see them all last."""
    assert f"{hint}`spark-llm endpoints` lists those of the workspace." == unknown_name_hint(name, names)
