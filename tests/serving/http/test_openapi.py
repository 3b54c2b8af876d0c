"""The OpenAPI description matches the routes and the responses."""

import math
import re
from typing import Any

import pytest

from spark_llm.serving import Batches, Echo, LocalEndpoints, ServingEndpoint
from spark_llm.serving.auth.oauth import TokenEndpoint
from spark_llm.serving.auth.tokens import Token, TokenStore
from spark_llm.serving.batches.file_store import FileStore
from spark_llm.serving.batches.worker import BatchWorker
from spark_llm.serving.catalog import deploy
from spark_llm.serving.http.app import Application
from spark_llm.serving.http.batch_api import BatchApi
from spark_llm.serving.http.invocations import InvocationHandler
from spark_llm.serving.http.lines import LineHandler
from spark_llm.serving.scenario.capacity import Capacity
from spark_llm.serving.scenario.faults import Faults
from tests.support.local_client import (
    ENDPOINTS,
    RERANK_PATHS,
    RESPONSES_PATHS,
    SCORE_PATHS,
    Client,
    chat_body,
    connected,
    paths_of,
)
from tests.support.media import PDF, data_url, encoded, image, wav

jsonschema = pytest.importorskip("jsonschema")
CHAT = chat_body("hello", n=2)
BODIES: dict[str, dict[str, object]] = {
    "chat/completions": CHAT,
    "completions": {"prompt": ["a", "b"]},
    "embeddings": {"input": ["a", "b"]},
}

RERANKS: list[tuple[dict[str, object], tuple[str, ...]]] = [
    ({"query": "a b", "documents": ["c", {"text": "b"}], "top_n": 1}, RERANK_PATHS),
    ({"text_1": "a b", "text_2": ["c", "b"]}, SCORE_PATHS),
]


@pytest.fixture(scope="module")
def document(shared: Client) -> dict[str, Any]:
    """The description of the whole server."""
    response: dict[str, Any] = shared.get("/openapi.json").json()
    return response


def routes() -> set[tuple[str, str]]:
    """Return the methods and paths of the application."""
    tokens = TokenStore(Token("x", expires=None, now=0), issued_expire=None)
    catalog = deploy({"chat": Echo()})
    invocations = InvocationHandler(catalog, tokens, faults=Faults(), latency_s=0, capacity=Capacity())
    lines = LineHandler(invocations)
    batch_api = BatchApi(tokens, BatchWorker(FileStore(), lines.answer, lines.is_served, Batches()))
    app = Application(catalog, tokens, invocations, TokenEndpoint({"me": "x"}, tokens, {}), batch_api).build()
    return {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}


def path_item(document: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the description of a path as a client writes it."""
    plain = path.split("?", maxsplit=1)[0]
    matches = [each for each in document["paths"] if re.fullmatch(re.sub(r"{\w+}", "[^/]+", each), plain)]
    found: dict[str, Any] = document["paths"][max(matches, key=lambda each: -each.count("{"))]
    return found


def check(document: dict[str, Any], path: str, body: object, kind: str = "200", method: str = "post") -> None:
    """Assert that a body fits its schema in the description."""
    response = path_item(document, path)[method]["responses"][kind]
    reference = response["$ref"].removeprefix("#/components/responses/")
    schema = document["components"]["responses"][reference]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(body)


def test_every_route_is_described_and_no_other(document: dict[str, Any]) -> None:
    """The description has all routes of the application and no others."""
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}

    assert {each for each in routes() if each[0] not in ("*", "HEAD")} == described


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    """No `$ref` is broken, no component is unused, and operation ids are unique."""
    found = set(re.findall(r"'\$ref': '#/components/(\w+/\w+)'", str(document)))
    components = {
        f"{kind}/{name}" for kind, each in document["components"].items() for name in each if kind != "securitySchemes"
    }
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]

    assert components == found
    assert len(names) == len(set(names))


def test_every_schema_is_valid(document: dict[str, Any]) -> None:
    """The schemas are valid JSON Schema, as OpenAPI 3.2 demands."""
    assert "3.2.0" == document["openapi"]
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(("task", "path"), [(task, path) for task in BODIES for path in paths_of(task)])
def test_requests_and_responses_fit_their_schemas(
    task: str, path: str, document: dict[str, Any], shared: Client
) -> None:
    """Each route's request, response and error fit their schemas."""
    body = {**BODIES[task], "model": ENDPOINTS[task]}
    requests = {"chat/completions": "Chat", "completions": "Completion", "embeddings": "Embedding"}
    schema = {"$ref": f"#/components/schemas/{requests[task]}Request", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(body)

    check(document, path, shared.post(path, body).json())
    check(document, path, shared.post(path, {}).json(), "default")
    check(document, path, shared.post(path, body, headers={"Authorization": "Bearer no"}).json(), "default")


@pytest.mark.parametrize(("path", "body"), [(path, body) for body, paths in RERANKS for path in paths])
def test_rerankings_fit_their_schemas(
    path: str, body: dict[str, object], document: dict[str, Any], shared: Client
) -> None:
    """Each route's request, response and error fit their schemas."""
    named = {**body, "model": "embed"}
    reference = path_item(document, path)["post"]["requestBody"]["$ref"].removeprefix("#/components/requestBodies/")
    schema = document["components"]["requestBodies"][reference]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(named)

    check(document, path, shared.post(path, named).json())
    check(document, path, shared.post(path, {"model": "embed"}).json(), "default")


TOOL = {"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}}
RICH: dict[str, dict[str, object]] = {
    "media": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": data_url(image()), "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": encoded(wav()), "format": "wav"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": encoded(PDF)}},
                ],
            }
        ]
    },
    "call": {**chat_body("call f {}"), "tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
    "choice": {**chat_body("a"), "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    "result": {
        "messages": [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "3"},
        ]
    },
}


@pytest.mark.parametrize("case", RICH)
def test_media_and_tools_fit_their_schemas(case: str, document: dict[str, Any], shared: Client) -> None:
    """Requests with media and tools, and answers with calls, fit the schemas of a chat."""
    schema = {"$ref": "#/components/schemas/ChatRequest", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(RICH[case])
    answer = shared.post("/v1/chat/completions", {**RICH[case], "model": "chat"}).json()

    check(document, "/v1/chat/completions", answer)
    assert case in ("media", "result") or answer["choices"][0]["message"]["tool_calls"]


RESPONSES: dict[str, dict[str, object]] = {
    "text": {"input": "a", "instructions": "b", "reasoning": {"effort": "low"}, "max_output_tokens": 16},
    "cut": {"input": "word " * 17, "max_output_tokens": 16},
    "call": {"input": "call f", "tools": [{"type": "function", "name": "f"}], "tool_choice": "auto"},
    "schema": {"input": "a", "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}},
    "items": {
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": data_url(image())}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "3"},
            {"role": "user", "content": [{"type": "input_file", "filename": "a", "file_data": encoded(PDF)}]},
        ]
    },
}


@pytest.mark.parametrize("path", RESPONSES_PATHS)
@pytest.mark.parametrize("case", RESPONSES)
def test_responses_fit_their_schemas(case: str, path: str, document: dict[str, Any], shared: Client) -> None:
    """Requests, answers and errors of the Responses API fit their schemas."""
    schema = {"$ref": "#/components/schemas/ResponsesRequest", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(RESPONSES[case])
    answer = shared.post(path, {**RESPONSES[case], "model": "chat"})

    assert 200 == answer.status_code
    check(document, path, answer.json())
    check(document, path, shared.post(path, {"model": "chat"}).json(), "default")


def test_a_model_service_fits_its_schema(document: dict[str, Any]) -> None:
    """The description of a model service, and the error of none, fit their schemas."""
    path = "/api/2.1/unity-catalog/model-services"
    with connected(LocalEndpoints({"a.b.c": Echo()})) as client:
        check(document, f"{path}/a.b.c", client.get(f"{path}/a.b.c").json(), method="get")
        check(document, f"{path}/a.b.d", client.get(f"{path}/a.b.d").json(), "default", "get")


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["a"], "data": [[1], ["x"]]}},
        {"dataframe_records": [{"a": 1}]},
        {"instances": [1.5]},
        {"inputs": {"a": [None]}, "params": {"b": 1}},
    ],
)
def test_predictions_fit_their_schemas(body: dict[str, object], document: dict[str, Any]) -> None:
    """A custom model's requests, answers and errors, and its description, fit their schemas."""
    schema = {"$ref": "#/components/schemas/PredictionRequest", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(body)
    with connected(LocalEndpoints({"score": list, "fails": math.sqrt})) as client:
        check(document, "/invocations", client.post("/invocations", body).json())
        failed = client.query("fails", body)
        check(document, "/invocations", failed.json(), "default")
        description = client.get("/api/2.0/serving-endpoints/score").json()
        check(document, "/api/2.0/serving-endpoints/score", description, method="get")

    assert (400, True) == (failed.status_code, "stack_trace" in failed.json())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/models", "200"),
        ("/v1/models/chat", "200"),
        ("/v1/models/nobody", "default"),
        ("/api/2.0/serving-endpoints", "200"),
        ("/api/2.0/serving-endpoints/chat", "200"),
        ("/api/2.0/serving-endpoints/nobody", "default"),
        ("/health", "200"),
        ("/stats", "200"),
        ("/.well-known/databricks-config", "200"),
        ("/oidc/.well-known/oauth-authorization-server", "200"),
    ],
)
def test_documents_fit_their_schemas(path: str, kind: str, document: dict[str, Any], shared: Client) -> None:
    """Each served document fits its schema."""
    check(document, path, shared.get(path).json(), kind, "get")


@pytest.mark.parametrize("base", ["/v1", "/openai/v1"])
def test_files_and_batches_fit_their_schemas(base: str, document: dict[str, Any]) -> None:
    """A file, a batch that is answered and one that failed, their lists, a deletion and an error."""
    with connected(LocalEndpoints(batches=Batches(fail={1: "invalid_json_line@1"}))) as client:
        form = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        line = b'{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"model":"complete","prompt":"a"}}'
        parts = form % (b"purpose", b"", b"batch") + form % (b"file", b'; filename="a.jsonl"', line) + b"--x--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        file = client.post(f"{base}/files", data=parts, headers=headers).json()
        creation = {"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
        created = [client.post(f"{base}/batches", {**creation, "metadata": {"a": "b"}}).json() for _ in range(2)]
        paths = [f"{base}/files/{file['id']}", *(f"{base}/batches/{each['id']}" for each in created)]
        while not {each["status"] for each in client.get(f"{base}/batches").json()["data"]} <= {"completed", "failed"}:
            pass
        described = {path: client.get(path).json() for path in [*paths, f"{base}/files", f"{base}/batches"]}
        schema = {"$ref": "#/components/schemas/BatchCreation", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(creation)

        check(document, f"{base}/files", file, method="post")
        for path, body in described.items():
            check(document, path, body, method="get")
        for batch in created:
            check(document, f"{base}/batches", batch)
            cancelled = client.post(f"{base}/batches/{batch['id']}/cancel")
            check(document, f"{base}/batches/a/cancel", cancelled.json(), "default")
        check(document, f"{base}/batches/none", client.get(f"{base}/batches/none").json(), "default", "get")


def test_token_responses_fit_their_schemas(document: dict[str, Any], shared: Client) -> None:
    """The response with a token and the token error fit their schemas."""
    endpoints, path = shared.endpoints, "/oidc/v1/token"
    secret = {"client_id": endpoints.client_id, "client_secret": endpoints.client_secret}
    form = "&".join(f"{name}={value}" for name, value in {"grant_type": "client_credentials", **secret}.items())
    headers = {"Content-Type": "application/x-www-form-urlencoded"}

    check(document, path, shared.post(path, data=form.encode(), headers=headers).json())
    check(document, path, shared.post(path, data=b"grant_type=x", headers=headers).json(), "default")


def test_one_endpoint_has_its_own_description(shared: Client) -> None:
    """An endpoint's description has only the schemas of its task, and its response fits them."""
    document = shared.get("/api/2.0/serving-endpoints/embed/openapi").json()
    [(path, item)] = document["paths"].items()
    [server] = document["servers"]
    answer = shared.post("/serving-endpoints/embed" + path, BODIES["embeddings"]).json()
    schema = item["post"]["responses"]["200"]["content"]["application/json"]["schema"]

    assert (f"{shared.endpoints.url}/serving-endpoints/embed", "embed") == (server["url"], document["info"]["title"])
    assert {"EmbeddingRequest", "EmbeddingResponse"} == set(document["components"]["schemas"])
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answer)


def test_a_description_has_all_models_and_tasks() -> None:
    """Each model of an endpoint has its path, and each task its schemas."""
    endpoint = ServingEndpoint({"a": Echo(), "b": Echo()}, tasks=["chat", "embeddings"])
    with connected(LocalEndpoints({"both": endpoint})) as client:
        document = client.get("/api/2.0/serving-endpoints/both/openapi").json()

    assert {"/served-models/a/invocations", "/served-models/b/invocations"} == set(document["paths"])
    request = document["paths"]["/served-models/a/invocations"]["post"]["requestBody"]["content"]["application/json"]
    assert ["ChatRequest", "EmbeddingRequest"] == [
        each["$ref"].rpartition("/")[2] for each in request["schema"]["oneOf"]
    ]
    assert {"Message", "Usage"} <= set(document["components"]["schemas"])
