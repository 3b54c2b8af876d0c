"""The attributes that say which operation a column's requests are, at which server."""

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from spark_llm.engine.request_spec import RequestSpec
from spark_llm.livecounts.labels import Label
from spark_llm.monitoring.telemetry import conventions
from spark_llm.protocol.urls import INVOCATIONS_PATH, is_azure_openai, is_databricks, is_serving

Value = str | int

_PROVIDERS = {  # by the end of the host
    "services.ai.azure.com": "azure.ai.inference",
    "api.anthropic.com": "anthropic",
    "amazonaws.com": "aws.bedrock",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "api.groq.com": "groq",
    "ml.cloud.ibm.com": "ibm.watsonx.ai",
    "api.mistral.ai": "mistral_ai",
    "api.moonshot.ai": "moonshot_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
}


def attributes_of(specs: Iterable[RequestSpec]) -> dict[str, Value]:
    """Return the attributes that all request specs of a column have in common."""
    asked = [(spec.task.name, spec.route.url, spec.route.model) for spec in specs]
    first, *others = [dict(_attributes(*each)) for each in asked] or [{}]
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def attributes_of_label(label: Label) -> dict[str, Value]:
    """Return the attributes of the UDF that a label is of."""
    asked = dict(_attributes(label.task, label.url, label.model)) if label.task else {}
    return {conventions.UDF: label.name, **asked}


def provider_of(url: str) -> str:
    """Return the provider's name: a well-known one, "databricks", or "openai" for any other server of its API."""
    host = urlsplit(url).hostname or ""
    if is_databricks(url) or is_serving(url):
        return "databricks"
    for end, provider in _PROVIDERS.items():
        if f".{host}".endswith(f".{end}"):
            return provider
    return "azure.ai.openai" if is_azure_openai(url) else "openai"


def _attributes(task: str, url: str, model: str | None) -> Iterator[tuple[str, Value]]:
    parts = urlsplit(url)
    yield conventions.OPERATION_NAME, conventions.OPERATION_NAMES.get(task, task)
    yield conventions.PROVIDER_NAME, provider_of(url)
    names = INVOCATIONS_PATH.search(parts.path)
    if model := model or (names and (names["served"] or names["name"])):
        yield conventions.REQUEST_MODEL, model
    if parts.hostname:
        yield conventions.SERVER_ADDRESS, parts.hostname
        yield conventions.SERVER_PORT, parts.port or (80 if parts.scheme == "http" else 443)
