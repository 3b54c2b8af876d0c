"""Addresses of a Batch API, from the URL of a route: its files, its batches, and the route that lines name.

Sources: the OpenAI API reference (files, batch); Azure's guides to batch deployments, whose routes do not name a
deployment, and whose lines name `/chat/completions` in the older versions; Zhipu's reference, whose lines begin in /v4.
"""

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from spark_llm.errors import ConfigError
from spark_llm.protocol.urls import CHAT_ROUTE, RESPONSES_ROUTE, is_azure, is_databricks, is_gateway, masked_url

_ROUTES = (CHAT_ROUTE, RESPONSES_ROUTE, "/embeddings", "/completions")  # the longer of two names first
_VERSION = re.compile(r"/v\d+$")
_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)$")
_PAGE = 100  # batches in a list at once: OpenAI's limit
_FILES_PAGE = 1_000
NO_BATCHES_HINT = (
    "leave batch= out to have its rows asked at once, or use an endpoint of OpenAI, Azure OpenAI or the like."
)


class BatchURLs(NamedTuple):
    """The addresses of a Batch API, and what lines and batches say of the route.

    Attributes:
        files: The URL of files.
        batches: The URL of batches.
        line_url: The `url` of each line: a path, as the service writes it.
        endpoint: The `endpoint` of a batch.
    """

    files: str
    batches: str
    line_url: str
    endpoint: str

    def file(self, file_id: str) -> str:
        """Return the URL of a file."""
        return _below(self.files, file_id)

    def content(self, file_id: str) -> str:
        """Return the URL of a file's content."""
        return _below(self.files, file_id, "/content")

    def batch(self, batch_id: str) -> str:
        """Return the URL of a batch."""
        return _below(self.batches, batch_id)

    def cancel(self, batch_id: str) -> str:
        """Return the URL to which a request to cancel a batch is posted."""
        return _below(self.batches, batch_id, "/cancel")

    def batches_page(self, after: str | None = None, limit: int = _PAGE) -> str:
        """Return the URL of a page of batches: the first, or the one after a batch."""
        return _with_query(self.batches, limit=limit, after=after)

    def files_page(self, after: str | None = None, limit: int = _FILES_PAGE) -> str:
        """Return the URL of a page of the input files of batches: the first, or the one after a file."""
        return _with_query(self.files, purpose="batch", limit=limit, after=after)


def batch_urls(url: str) -> BatchURLs:
    """Return the addresses of the Batch API beside a route, such as https://api.openai.com/v1/chat/completions.

    A query, as Azure's `api-version`, stays. Raises `ConfigError` for a route that has no Batch API beside it: of
    Databricks, of a gateway, of a custom model.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    route = next((known for known in _ROUTES if path.endswith(known)), None)
    if route is None or is_databricks(url) or is_gateway(url) or "/serving-endpoints/" in path:
        raise ConfigError(f"{masked_url(url)} has no Batch API.", NO_BATCHES_HINT)
    base, deployments = _DEPLOYMENT.subn("/openai", path.removesuffix(route))
    version = _VERSION.search(base)
    line_url = f"{version[0] if version else '/v1'}{route}"
    if deployments and route == CHAT_ROUTE:
        line_url = route
    chats = route in (CHAT_ROUTE, RESPONSES_ROUTE)
    return BatchURLs(
        files=urlunsplit(parts._replace(path=f"{base}/files")),
        batches=urlunsplit(parts._replace(path=f"{base}/batches")),
        line_url=line_url,
        # Azure looks into the file for the route of a chat, and documents one value for both
        endpoint=CHAT_ROUTE if chats and (deployments or is_azure(url)) else line_url,
    )


def deployment_of(url: str) -> str | None:
    """Return the deployment of Azure that a route's URL names; its lines name it as their model. None for any other."""
    path = urlsplit(url).path.rstrip("/")
    found = (_DEPLOYMENT.search(path.removesuffix(route)) for route in _ROUTES if path.endswith(route))
    return next((unquote(each[1]) for each in found if each), None)


def _below(url: str, name: str, rest: str = "") -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path}/{quote(name, safe='')}{rest}"))


def _with_query(url: str, **parameters: str | int | None) -> str:
    parts = urlsplit(url)
    pairs = [f"{name}={quote(str(value), safe='')}" for name, value in parameters.items() if value is not None]
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, *pairs)))))
