"""Endpoints: their descriptions, their state, their models and tasks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import Echo, LocalEndpoints, Model, ServingEndpoint
from spark_llm.serving.catalog import Deployment
from spark_llm.serving.models.tasks import PREDICTIONS, TASKS
from tests.support.local_client import POST_PATHS, Client, chat_body, connected

API = "/api/2.0/serving-endpoints"
CHAT = chat_body("hello")


def test_an_endpoint_is_described_as_documented(shared: Client) -> None:
    """The description has the documented fields: task, state, served entities and traffic."""
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
    """The list has a summary of each endpoint, with and without a slash at the end of its path."""
    listed = shared.get(path).json()["endpoints"]

    assert {"chat": "llm/v1/chat", "complete": "llm/v1/completions", "embed": "llm/v1/embeddings"} == {
        each["name"]: each["task"] for each in listed
    }
    for each in listed:
        whole = shared.get(f"{API}/{each['name']}").json()
        assert {name: each[name] for name in each if name != "config"} == {
            name: whole[name] for name in each if name != "config"
        }


def test_an_unknown_endpoint_has_no_description(shared: Client) -> None:
    """The 404 of an unknown endpoint has the documented message, and the request's id in body and header."""
    for path in (f"{API}/nobody", f"{API}/nobody/openapi"):
        response = shared.get(path)
        [info] = response.json().pop("details")

        assert (404, "RESOURCE_DOES_NOT_EXIST") == (response.status_code, response.json()["error_code"])
        assert "Endpoint with name 'nobody' does not exist." == response.json()["message"]
        assert response.headers["x-request-id"] == info["request_id"]
        assert "type.googleapis.com/google.rpc.RequestInfo" == info["@type"]


def test_a_description_needs_the_token(shared: Client) -> None:
    """Documents about endpoints need the token; those that a client reads before signing in do not."""
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
def test_a_stopped_endpoint_refuses_every_request(path: str) -> None:
    """A stopped endpoint is NOT_READY and refuses every request until its start; other endpoints go on."""
    with connected(LocalEndpoints({"chat": Echo(), "other": Echo()})) as client:
        client.endpoints.set_ready("chat", ready=False)
        refused = client.post(path, {"model": "chat", **CHAT, "prompt": "a", "input": "a"})
        error = refused.json().get("error") or refused.json()
        document = client.get(f"{API}/chat").json()

        message = "The given endpoint is stopped, please retry after starting the endpoint."
        assert (400, message) == (refused.status_code, error["message"])
        assert ("NOT_READY", "Stopped") == (
            document["state"]["ready"],
            document["config"]["served_entities"][0]["state"]["deployment_state_message"],
        )
        assert 200 == client.query("other", CHAT).status_code
        assert {400: 1} == client.endpoints.stats.endpoints["chat"].by_status
        client.endpoints.set_ready("chat", True)
        assert 200 == client.query("chat", CHAT).status_code


def test_stopping_an_unknown_endpoint_raises(client: Client) -> None:
    """An unknown name raises with the served names."""
    with pytest.raises(ValueError, match="Hint: these are served: chat, complete, embed"):
        client.endpoints.set_ready("chta", False)


# --- Several models and tasks ---


def test_each_model_of_an_endpoint_can_be_asked_by_its_name() -> None:
    """The first model has all traffic, the others serve requests by name, and a header names the model."""
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


def test_an_endpoint_serves_its_tasks_only() -> None:
    """An endpoint refuses other tasks than its own, and its description names the first."""
    models: dict[str, Model | ServingEndpoint] = {
        "all": Echo(),
        "two": ServingEndpoint(Echo(), tasks=["embeddings", "completions"]),
    }
    with connected(LocalEndpoints(models)) as client:
        bodies = [CHAT, {"prompt": "a"}, {"input": "a"}]
        assert [200, 200, 200] == [client.query("all", body).status_code for body in bodies]
        assert [400, 200, 200] == [client.query("two", body).status_code for body in bodies]
        assert ["llm/v1/chat", "llm/v1/completions"] == [
            client.get(f"{API}/{name}").json()["task"] for name in ("all", "two")
        ]


# --- Model services ---


def test_a_name_of_three_parts_is_a_model_service() -> None:
    """The gateway serves it, on every route; Databricks' other routes and descriptions do not know it."""
    name = "system.ai.some-model"
    with connected(LocalEndpoints({name: Echo(), "plain": Echo()})) as client:
        gateway = "/ai-gateway/mlflow/v1"
        bodies: dict[str, dict[str, object]] = {
            "chat/completions": CHAT,
            "completions": {"prompt": "a"},
            "embeddings": {"input": "a"},
            "responses": {"input": "a"},
        }
        answers = [client.post(f"{gateway}/{route}", {**body, "model": name}) for route, body in bodies.items()]
        elsewhere = [
            client.query(name, CHAT),
            client.post(f"/serving-endpoints/{name}/served-models/{name}-1/invocations", CHAT),
            client.post("/serving-endpoints/chat/completions", {**CHAT, "model": name}),
            client.get(f"{API}/{name}"),
            client.get(f"{API}/{name}/openapi"),
        ]
        service = client.get(f"/api/2.1/unity-catalog/model-services/{name}").json()
        listed = [each["name"] for each in client.get(API).json()["endpoints"]]
        unknown = [client.get(f"/api/2.1/unity-catalog/model-services/{each}") for each in ("plain", "a.b.c")]
        plain = client.post(f"{gateway}/chat/completions", {**CHAT, "model": "plain"})
        openai = client.post("/v1/chat/completions", {**CHAT, "model": name})

    assert [200] * 4 == [answer.status_code for answer in answers]
    assert [404] * 5 == [answer.status_code for answer in elsewhere]
    assert (["plain"], 200, 200) == (listed, plain.status_code, openai.status_code)
    assert f"model-services/{name}" == service["name"]
    assert [f"mlflow/v1/{route}" for route in bodies] == service["supported_api_types"]
    assert [(404, "RESOURCE_DOES_NOT_EXIST")] * 2 == [
        (answer.status_code, answer.json()["error_code"]) for answer in unknown
    ]


class NoTaskModel:
    """A model without a task."""

    name = "none"


class ChatOnlyModel(NoTaskModel):
    """A model that serves chat only."""

    chat = Echo.chat


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: ServingEndpoint({}), "give it one"),
        (lambda: ServingEndpoint(Echo(), tasks=[]), "give a list of these: chat, completions, embeddings"),
        (lambda: ServingEndpoint(Echo(), tasks=["talk"]), "give a list of these"),  # type: ignore[list-item]
        (lambda: LocalEndpoints({"x": NoTaskModel()}), "give them the methods for it"),  # type: ignore[dict-item]
        (
            lambda: LocalEndpoints({"x": ServingEndpoint(ChatOnlyModel(), tasks=["embeddings"])}),
            "give them the methods",
        ),
    ],
)
def test_an_endpoint_without_models_or_tasks_raises(make: object, hint: str) -> None:
    """No models, no tasks, or models that cannot serve them raise at construction."""
    assert callable(make)
    with pytest.raises(ValueError, match=f"Hint: .*{hint}"):
        make()


ECHOED = [task for task in TASKS if task != PREDICTIONS]


@given(
    name=st.text(min_size=1), wanted=st.none() | st.sets(st.sampled_from([task.name for task in ECHOED]), min_size=1)
)
def test_a_deployment_keeps_the_order_of_the_tasks(name: str, wanted: set[str] | None) -> None:
    """Tasks are in the order chat, completions, embeddings, and the id depends on the name alone."""
    deployment = Deployment.of(name, ServingEndpoint(Echo(), tasks=wanted))  # type: ignore[arg-type]

    assert [task for task in ECHOED if wanted is None or task.name in wanted] == list(deployment.tasks)
    assert [f"{name}-1"] == list(deployment.entities)
    assert deployment.id == Deployment.of(name, ServingEndpoint(Echo())).id
