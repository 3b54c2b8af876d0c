"""Descriptions of endpoints: the documents of `/api/2.0/serving-endpoints` and of `/v1/models`.

Values in, values out; the fields and their values are those of the Databricks REST reference.
"""

from typing import Any

import msgspec

from spark_llm.serving.auth.oauth import authorization_detail
from spark_llm.serving.catalog import Catalog, Deployment
from spark_llm.serving.models.custom import CustomModel
from spark_llm.serving.models.tasks import PREDICTIONS

ENDPOINTS_PATH = "/api/2.0/serving-endpoints"
SERVICES_PATH = "/api/2.1/unity-catalog/model-services"
WORKSPACE_ID = "1270010000000001"
ACCOUNT_ID = "12700100-0000-4000-8000-000000000001"
CREATOR = "local"

Document = dict[str, Any]


def endpoint_list(catalog: Catalog, created_ms: int) -> Document:
    """Return the list of `GET /api/2.0/serving-endpoints`, with a summary of each endpoint."""
    return {"endpoints": [_endpoint_summary(each, created_ms) for each in catalog.values() if not each.is_service]}


def endpoint_detail(deployment: Deployment, base_url: str, created_ms: int) -> Document:
    """Return the full description of one endpoint."""
    document = _endpoint_summary(deployment, created_ms)
    document["config"] = {
        "served_entities": [_entity_detail(deployment, name, created_ms) for name in deployment.entities],
        "traffic_config": {
            "routes": [
                {"served_model_name": name, "served_entity_name": name, "traffic_percentage": 0 if number else 100}
                for number, name in enumerate(deployment.entities)
            ]
        },
        "config_version": 1,
    }
    document |= {"route_optimized": deployment.route_optimized, "permission_level": "CAN_MANAGE"}
    if deployment.route_optimized:
        url = f"{base_url}/{WORKSPACE_ID}/serving-endpoints/{deployment.name}/invocations"
        details = msgspec.json.encode([authorization_detail(deployment.id)]).decode()
        document["endpoint_url"] = url
        document["data_plane_info"] = {"query_info": {"endpoint_url": url, "authorization_details": details}}
    return document


def service_detail(deployment: Deployment) -> Document:
    """Return the description of a model service, which the gateway serves."""
    return {
        "name": f"model-services/{deployment.name}",
        "supported_api_types": [f"mlflow/v1/{task.path}" for task in deployment.tasks if task.path],
        "created_by": CREATOR,
        "effective_owner": CREATOR,
    }


def model_list(catalog: Catalog, created_ms: int) -> Document:
    """Return the endpoints as an OpenAI list of models; custom models alone are none of OpenAI's."""
    models = [each for each in catalog.values() if each.tasks != (PREDICTIONS,)]
    return {"object": "list", "data": [model_detail(each, created_ms) for each in models]}


def model_detail(deployment: Deployment, created_ms: int) -> Document:
    """Return an endpoint as an OpenAI model object."""
    return {"id": deployment.name, "object": "model", "created": created_ms // 1000, "owned_by": CREATOR}


def workspace_config(base_url: str) -> Document:
    """Return `/.well-known/databricks-config`, which clients read before they sign in."""
    return {
        "oidc_endpoint": f"{base_url}/oidc",
        "account_id": ACCOUNT_ID,
        "workspace_id": WORKSPACE_ID,
        "cloud": "AWS",
        "host_type": "workspace",
        "token_federation_default_oidc_audiences": [f"{base_url}/oidc/v1/token"],
    }


def _endpoint_summary(deployment: Deployment, created_ms: int) -> Document:
    task = deployment.tasks[0].databricks_name
    return {
        "name": deployment.name,
        "id": deployment.id,
        "creator": CREATOR,
        "creation_timestamp": created_ms,
        "last_updated_timestamp": created_ms,
        **({} if task is None else {"task": task, "endpoint_type": "FOUNDATION_MODEL_API"}),
        "state": {"ready": "READY" if deployment.ready else "NOT_READY", "config_update": "NOT_UPDATING"},
        "config": {"served_entities": [_entity_summary(deployment, name) for name in deployment.entities]},
        "tags": [],
    }


def _entity_summary(deployment: Deployment, name: str) -> Document:
    model = deployment.entities[name]
    entity: Document = {"name": name, "entity_name": model.name}
    if PREDICTIONS in deployment.tasks:
        is_model = not (isinstance(model, CustomModel) and model.feature_serving)
        version = {"entity_version": "1"} if is_model else {}  # a feature specification has no versions
        return {**entity, **version, "workload_size": "Small", "workload_type": "CPU"}
    details = {"name": model.name, "display_name": model.name, "description": "A model on this machine.", "docs": ""}
    return {**entity, "entity_version": "1", "foundation_model": details}


def _entity_detail(deployment: Deployment, name: str, created_ms: int) -> Document:
    state = (
        {"deployment": "DEPLOYMENT_READY", "deployment_state_message": ""}
        if deployment.ready
        else {"deployment": "DEPLOYMENT_STOPPED", "deployment_state_message": "Stopped"}
    )
    return {
        **_entity_summary(deployment, name),
        "state": state,
        "scale_to_zero_enabled": False,
        "creator": CREATOR,
        "creation_timestamp": created_ms,
    }
