"""URLs of endpoints and workspaces: the service behind one, how to build one, and how to print one."""

import ipaddress
import re
from urllib.parse import urlsplit, urlunsplit

INVOCATIONS_PATH = re.compile(r"/serving-endpoints/(?P<name>[^/?]+)(/served-models/(?P<served>[^/]+))?/invocations")
"""The path of a workspace's endpoint, or of one served model behind it."""

CHAT_ROUTE, RESPONSES_ROUTE = "/chat/completions", "/responses"
RERANK_ROUTE, SCORE_ROUTE = "/rerank", "/score"

_GATEWAY_NAME = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_DATABRICKS_HOSTS = re.compile(r"(^|\.)(databricks\.(com|us|mil)|azuredatabricks\.net|databricks\.azure\.(us|cn))$")
_OPENAI_HOSTS = re.compile(r"(^|\.)openai\.com$")
_AZURE_HOSTS = re.compile(r"\.(openai|cognitiveservices|services\.ai)\.azure\.(com|us|cn)$")
_AZURE_PATH = "/openai/deployments/"


def is_databricks(url: str) -> bool:
    """Return whether the host is a Databricks workspace, which never answers without a token."""
    return bool(_DATABRICKS_HOSTS.search(_host(url)))


def is_workspace(url: str, host: str) -> bool:
    """Return whether the URL has the host and the port of this workspace."""
    target, workspace = (
        (parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme))
        for parts in (urlsplit(url), urlsplit(host_url(host)))
    )
    return bool(workspace[0]) and target == workspace


def is_route_optimised(url: str) -> bool:
    """Return whether the URL belongs to the data plane: /WORKSPACE-ID/serving-endpoints/NAME/invocations."""
    return bool(re.fullmatch(r"/\d+/serving-endpoints/[^/]+/invocations", urlsplit(url).path))


def is_serving(url: str) -> bool:
    """Return whether the path is one of Databricks Model Serving, whatever the host: there may be a proxy in front."""
    return "/serving-endpoints/" in urlsplit(url).path


def is_gateway(url: str) -> bool:
    """Return whether the path is one of the gateway of Databricks, which takes a model's name of three parts."""
    return "/ai-gateway/" in urlsplit(url).path


def is_openai(url: str) -> bool:
    """Return whether the host belongs to OpenAI."""
    return bool(_OPENAI_HOSTS.search(_host(url)))


def is_azure(url: str) -> bool:
    """Return whether the host belongs to a model service of Azure."""
    return bool(_AZURE_HOSTS.search(_host(url)))


def is_azure_openai(url: str) -> bool:
    """Return whether the service is Azure OpenAI, which takes its key in the header `api-key`."""
    return is_azure(url) or _AZURE_PATH in urlsplit(url).path


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_url(host: str) -> str:
    """Return a workspace's host as a URL, given with or without a scheme; "" for a text that is not a host."""
    host = host.strip()
    try:
        parts = urlsplit(host if "://" in host else f"https://{host}")
        _ = parts.port  # raises ValueError for a port that is not a number
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


def invocations_url(host: str, name: str, served_model: str | None) -> str:
    """Return the invocations URL of a workspace's endpoint, or of one served model behind it."""
    served = "" if served_model is None else f"/served-models/{served_model}"
    return f"{host}/serving-endpoints/{name}{served}/invocations"


def is_gateway_name(name: str) -> bool:
    """Return whether a name is that of a model of a workspace's AI Gateway: catalog, schema and model."""
    return bool(_GATEWAY_NAME.fullmatch(name))


def gateway_url(host: str, route: str) -> str:
    """Return the URL of a route of a workspace's AI Gateway."""
    return f"{host}/ai-gateway/mlflow/v1{route}"


def responses_url(url: str) -> str:
    """Return the URL of the Responses route beside one of the chat completions route; any other URL unchanged."""
    return _with_route(url, CHAT_ROUTE, RESPONSES_ROUTE)


def chat_url(url: str) -> str:
    """Return the URL of the chat completions route beside one of the Responses route; any other URL unchanged.

    Both routes ask one model: so neither the digest of a request nor the key of its answer depends on the route.
    """
    return _with_route(url, RESPONSES_ROUTE, CHAT_ROUTE)


def _with_route(url: str, route: str, other: str) -> str:
    parts = urlsplit(url)
    if not parts.path.endswith(route):
        return url
    return urlunsplit(parts._replace(path=parts.path.removesuffix(route) + other))


def masked_url(url: str) -> str:
    """Return a URL that may be printed: without user and password, and with `***` for each value of the query."""
    parts = urlsplit(url)
    query = "&".join(f"{name}=***" for name in (pair.partition("=")[0] for pair in parts.query.split("&")) if name)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
