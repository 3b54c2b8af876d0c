"""The endpoints as they are described, stopped and asked model by model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import Echo, LocalEndpoints, Model, ServingEndpoint
from spark_llm.serving.catalog import Deployment
from spark_llm.serving.models.tasks import TASKS
from tests.support.local_client import POST_PATHS, Client, connected, conversation

API = "/api/2.0/serving-endpoints"
CHAT = conversation("hello")


def test_an_endpoint_is_described_as_documented(shared: Client) -> None:
    """The description has the documented fields: its task, its state, what it serves and where the traffic goes."""
    document = shared.get(f"{API}/complete").json()
    [entity] = document["config"]["served_entities"]

    expected = {
        "name": "complete",
        "creator": "local",
        "task": "llm/v1/completions",
        "endpoint_type": "FOUNDATION_MODEL_API",
        "state": {"ready": "READY", "config_update": "NOT_UPDATING"},
        "route_optimized": False,
        "permission_level": "CAN_MANAGE",
    }
    assert expected == {name: document[name] for name in expected}
    assert ("complete-1", "echo", "echo") == (entity["name"], entity["entity_name"], entity["foundation_model"]["name"])
    assert {"deployment": "DEPLOYMENT_READY", "deployment_state_message": ""} == entity["state"]
    [route] = document["config"]["traffic_config"]["routes"]
    assert ("complete-1", 100) == (route["served_model_name"], route["traffic_percentage"])
    assert len(document["id"]) == 32
    assert document["id"] == shared.get(f"{API}/complete").json()["id"] != shared.get(f"{API}/chat").json()["id"]


@pytest.mark.parametrize("path", [API, f"{API}/"])
def test_all_endpoints_are_listed(path: str, shared: Client) -> None:
    """The list has each endpoint in short, with a slash at the end of its path and without."""
    listed = shared.get(path).json()["endpoints"]

    assert {"chat": "llm/v1/chat", "complete": "llm/v1/completions", "embed": "llm/v1/embeddings"} == {
        each["name"]: each["task"] for each in listed
    }
    for each in listed:
        whole = shared.get(f"{API}/{each['name']}").json()
        assert {name: each[name] for name in each if name != "config"} == {
            name: whole[name] for name in each if name != "config"
        }


def test_an_endpoint_that_is_not_there_is_not_described(shared: Client) -> None:
    """Its 404 has the documented words, and the request's id both in the body and in a header."""
    for path in (f"{API}/nobody", f"{API}/nobody/openapi"):
        response = shared.get(path)
        [info] = response.json().pop("details")

        assert (404, "RESOURCE_DOES_NOT_EXIST") == (response.status_code, response.json()["error_code"])
        assert "Endpoint with name 'nobody' does not exist." == response.json()["message"]
        assert response.headers["x-request-id"] == info["request_id"]
        assert "type.googleapis.com/google.rpc.RequestInfo" == info["@type"]


def test_a_description_wants_the_token(shared: Client) -> None:
    """What tells of the endpoints is for who has the token; what a client reads before that is for all."""
    wrong = {"Authorization": "Bearer wrong"}
    guarded = [API, f"{API}/", f"{API}/chat", f"{API}/nobody", f"{API}/chat/openapi", "/v1/models", "/stats"]
    free = [
        "/health",
        "/openapi.json",
        "/.well-known/databricks-config",
        "/oidc/.well-known/oauth-authorization-server",
    ]

    assert [401] * len(guarded) == [shared.get(path, wrong).status_code for path in guarded]
    assert [200] * len(free) == [shared.get(path, wrong).status_code for path in free]


# --- Stopped ---


@pytest.mark.parametrize("path", POST_PATHS)
def test_a_stopped_endpoint_refuses_what_it_is_asked(path: str) -> None:
    """It is described as not ready and refuses every request, until it is started again; others go on."""
    with connected(LocalEndpoints({"chat": Echo(), "other": Echo()})) as client:
        client.endpoints.set_ready("chat", ready=False)
        refused = client.post(path, {"model": "chat", **CHAT, "prompt": "a", "input": "a"})
        told = refused.json().get("error") or refused.json()
        document = client.get(f"{API}/chat").json()

        words = "The given endpoint is stopped, please retry after starting the endpoint."
        assert (400, words) == (refused.status_code, told["message"])
        assert ("NOT_READY", "Stopped") == (
            document["state"]["ready"],
            document["config"]["served_entities"][0]["state"]["deployment_state_message"],
        )
        assert 200 == client.ask("other", CHAT).status_code
        assert {400: 1} == client.endpoints.stats.endpoints["chat"].by_status
        client.endpoints.set_ready("chat", True)
        assert 200 == client.ask("chat", CHAT).status_code


def test_only_what_is_there_can_be_stopped(client: Client) -> None:
    """A name that is not served says which are."""
    with pytest.raises(ValueError, match="Hint: these are served: chat, complete, embed"):
        client.endpoints.set_ready("chta", False)


# --- Several models, and what they are for ---


def test_each_model_of_an_endpoint_can_be_asked_by_its_name() -> None:
    """The first one has all traffic; the others answer who names them; and each says who it was."""
    models = {"ours": Echo(name="a"), "theirs": Echo(name="b")}
    with connected(LocalEndpoints({"chat": ServingEndpoint(models)})) as client:
        paths = ["/invocations", "/served-models/ours/invocations", "/served-models/theirs/invocations"]
        answers = [client.post(f"/serving-endpoints/chat{path}", CHAT) for path in paths]
        config = client.get(f"{API}/chat").json()["config"]

    assert ["a", "a", "b"] == [answer.json()["model"] for answer in answers]
    assert ["ours", "ours", "theirs"] == [answer.headers["served-model-name"] for answer in answers]
    assert {"ours": 100, "theirs": 0} == {
        route["served_model_name"]: route["traffic_percentage"] for route in config["traffic_config"]["routes"]
    }


def test_an_endpoint_is_for_what_it_is_told_to_be_for() -> None:
    """An `Echo` can do all, and refuses what its endpoint is not for; the first task is the one it is described by."""
    models: dict[str, Model | ServingEndpoint] = {
        "all": Echo(),
        "two": ServingEndpoint(Echo(), tasks=["embeddings", "completions"]),
    }
    with connected(LocalEndpoints(models)) as client:
        bodies = [CHAT, {"prompt": "a"}, {"input": "a"}]
        assert [200, 200, 200] == [client.ask("all", body).status_code for body in bodies]
        assert [400, 200, 200] == [client.ask("two", body).status_code for body in bodies]
        assert ["llm/v1/chat", "llm/v1/completions"] == [
            client.get(f"{API}/{name}").json()["task"] for name in ("all", "two")
        ]


class Deaf:
    """A model that serves nothing."""

    name = "deaf"


class Talker(Deaf):
    """A model that only chats."""

    chat = Echo.chat


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: ServingEndpoint({}), "give it one"),
        (lambda: ServingEndpoint(Echo(), tasks=[]), "give a list of these: chat, completions, embeddings"),
        (lambda: ServingEndpoint(Echo(), tasks=["talk"]), "give a list of these"),  # type: ignore[list-item]
        (lambda: LocalEndpoints({"x": Deaf()}), "give them the methods for it"),  # type: ignore[dict-item]
        (lambda: LocalEndpoints({"x": ServingEndpoint(Talker(), tasks=["embeddings"])}), "give them the methods"),
    ],
)
def test_an_endpoint_that_serves_nothing_is_a_mistake(make: object, hint: str) -> None:
    """No models, no tasks, or models that cannot do them: it is said when the endpoints are made."""
    assert callable(make)
    with pytest.raises(ValueError, match=f"Hint: .*{hint}"):
        make()


@given(name=st.text(min_size=1), wanted=st.none() | st.sets(st.sampled_from([task.name for task in TASKS]), min_size=1))
def test_a_deployment_keeps_the_order_of_the_tasks(name: str, wanted: set[str] | None) -> None:
    """Chat comes before completions and these before embeddings, however they are named; the name makes the id."""
    deployment = Deployment.of(name, ServingEndpoint(Echo(), tasks=wanted))  # type: ignore[arg-type]

    assert [task for task in TASKS if wanted is None or task.name in wanted] == list(deployment.tasks)
    assert [f"{name}-1"] == list(deployment.entities)
    assert deployment.id == Deployment.of(name, ServingEndpoint(Echo())).id
