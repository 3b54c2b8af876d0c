"""URLs of endpoints and workspaces: whose they are, how they are built, and how they are printed."""

import ipaddress
import re
from urllib.parse import urlsplit, urlunsplit

_DATABRICKS_HOSTS = re.compile(r"(^|\.)(databricks\.(com|us|mil)|azuredatabricks\.net|databricks\.azure\.(us|cn))$")
_OPENAI_HOSTS = re.compile(r"(^|\.)openai\.com$")
_AZURE_HOSTS = re.compile(r"\.(openai|cognitiveservices|services\.ai)\.azure\.(com|us|cn)$")
_AZURE_PATH = "/openai/deployments/"


def is_databricks(url: str) -> bool:
    """Return whether the host is a Databricks workspace, which answers nobody without a token."""
    return bool(_DATABRICKS_HOSTS.search(_host(url)))


def is_workspace(url: str, host: str) -> bool:
    """Return whether the URL is at this workspace: the same host, and the same port."""
    there, here = (
        (parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme))
        for parts in (urlsplit(url), urlsplit(host_url(host)))
    )
    return bool(here[0]) and there == here


def is_route_optimised(url: str) -> bool:
    """Return whether the URL is of the data plane: /WORKSPACE-ID/serving-endpoints/NAME/invocations."""
    return bool(re.fullmatch(r"/\d+/serving-endpoints/[^/]+/invocations", urlsplit(url).path))


def is_openai(url: str) -> bool:
    """Return whether the host is OpenAI's own."""
    return bool(_OPENAI_HOSTS.search(_host(url)))


def is_azure(url: str) -> bool:
    """Return whether the host is one of Azure's for models."""
    return bool(_AZURE_HOSTS.search(_host(url)))


def is_azure_openai(url: str) -> bool:
    """Return whether the service is Azure OpenAI, whose keys have a header of their own."""
    return is_azure(url) or _AZURE_PATH in urlsplit(url).path


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_url(host: str) -> str:
    """Return a workspace's host as a URL, however it was written: with a scheme or without; "" if it is none."""
    host = host.strip()
    try:
        parts = urlsplit(host if "://" in host else f"https://{host}")
        _ = parts.port  # reading it is what checks it
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


def invocations_url(host: str, name: str, served_model: str | None) -> str:
    """Return where an endpoint of a workspace is asked, or one model behind it."""
    served = "" if served_model is None else f"/served-models/{served_model}"
    return f"{host}/serving-endpoints/{name}{served}/invocations"


def masked(url: str) -> str:
    """Return a URL fit to print: no user, no password, no values of a query."""
    parts = urlsplit(url)
    query = "&".join(f"{name}=***" for name in (pair.partition("=")[0] for pair in parts.query.split("&")) if name)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
