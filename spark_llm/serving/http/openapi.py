"""The description of what is served here, for tools that read OpenAPI 3.1: of the whole, and of one endpoint alone.

The description itself is data, in `openapi.json`; the schemas in it are those of the documented bodies.
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
def _data() -> Document:
    document: Document = msgspec.json.decode(_FILE.read_bytes())
    return document


def of_server(base: str) -> Document:
    """Describe everything that is served at `base`."""
    return {**_data(), "servers": [{"url": base}]}


def of_endpoint(deployment: Deployment, base: str) -> Document:
    """Describe how the models of one endpoint are queried, with no more schemas than that takes."""
    one_of = [_task_schemas(task.request.__name__) for task in deployment.tasks]
    operation = {
        "requestBody": {"required": True, "content": _json_of([request for request, _ in one_of])},
        "responses": {"200": {"description": "The answer.", "content": _json_of([response for _, response in one_of])}},
    }
    return {
        "openapi": _data()["openapi"],
        "info": {"title": deployment.name, "version": "1"},
        "servers": [{"url": f"{base}/serving-endpoints/{deployment.name}"}],
        "paths": {f"/served-models/{name}/invocations": {"post": operation} for name in deployment.entities},
        "components": {"schemas": _needed([name for pair in one_of for name in pair])},
    }


def _task_schemas(request: str) -> tuple[str, str]:
    return request, request.replace("Request", "Response")


def _json_of(names: list[str]) -> Document:
    schemas = [{"$ref": _SCHEMAS + name} for name in names]
    return {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas}}}


def _needed(names: list[str]) -> Document:
    """Return these schemas, and those that they refer to."""
    schemas, found, left = _data()["components"]["schemas"], {}, list(names)
    while left:
        name = left.pop()
        if name not in found:
            found[name] = schemas[name]
            left += _references(schemas[name])
    return found


def _references(schema: object) -> list[str]:
    if isinstance(schema, dict):
        own = [schema["$ref"].removeprefix(_SCHEMAS)] if "$ref" in schema else []
        return own + [name for part in schema.values() for name in _references(part)]
    return [name for part in schema for name in _references(part)] if isinstance(schema, list) else []
