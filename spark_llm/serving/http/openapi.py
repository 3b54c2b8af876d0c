"""The OpenAPI 3.2 descriptions: of the whole server, and of one endpoint.

The description is data, in `openapi.json`; its schemas are those of the documented bodies.
"""

from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from spark_llm.serving.catalog import Deployment

_FILE = Path(__file__).with_name("openapi.json")
_SCHEMAS = "#/components/schemas/"

Document = dict[str, Any]


@cache
def _description() -> Document:
    document: Document = msgspec.json.decode(_FILE.read_bytes())
    return document


def server_document(base_url: str) -> Document:
    """Return the description of all routes at `base_url`."""
    return {**_description(), "servers": [{"url": base_url}]}


def endpoint_document(deployment: Deployment, base_url: str) -> Document:
    """Return the description of one endpoint's query routes, with only the schemas that they use."""
    requests = [task.request_type.__name__ for task in deployment.own_path_tasks]
    responses = [name.replace("Request", "Response") for name in requests]
    operation = {
        "requestBody": {"required": True, "content": _json_content(requests)},
        "responses": {"200": {"description": "The answer.", "content": _json_content(responses)}},
    }
    return {
        "openapi": _description()["openapi"],
        "info": {"title": deployment.name, "version": "1"},
        "servers": [{"url": f"{base_url}/serving-endpoints/{deployment.name}"}],
        "paths": {f"/served-models/{name}/invocations": {"post": operation} for name in deployment.entities},
        "components": {"schemas": _schemas_used([*requests, *responses])},
    }


def _json_content(names: list[str]) -> Document:
    schemas = [{"$ref": _SCHEMAS + name} for name in names]
    return {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas}}}


def _schemas_used(names: list[str]) -> Document:
    """Return these schemas, and those that they refer to."""
    schemas, used, left = _description()["components"]["schemas"], {}, list(names)
    while left:
        name = left.pop()
        if name not in used:
            used[name] = schemas[name]
            left += _references(schemas[name])
    return used


def _references(schema: object) -> list[str]:
    if isinstance(schema, dict):
        own = [schema["$ref"].removeprefix(_SCHEMAS)] if "$ref" in schema else []
        return own + [name for part in schema.values() for name in _references(part)]
    return [name for part in schema for name in _references(part)] if isinstance(schema, list) else []
