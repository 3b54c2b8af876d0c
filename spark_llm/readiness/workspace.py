"""A workspace's descriptions of its endpoints: their URLs and their content. Knows no clock and no socket.

Source: the Databricks REST reference, Serving endpoints (`GET /api/2.0/serving-endpoints` and `/{name}`). Any document
can be read; missing fields are empty.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from spark_llm.protocol.urls import INVOCATIONS_PATH
from spark_llm.validation.suggestion import did_you_mean

API = "/api/2.0/serving-endpoints"
LIST_HINT = "`spark-llm endpoints` lists those of the workspace."
_TASKS = {  # the last word of llm/v1/chat, or of agent/v1/responses
    "chat": "chat",
    "responses": "chat",
    "completions": "complete",
    "embeddings": "embed",
}
_OPENAI_PATH = re.compile(r"/serving-endpoints/(chat/completions|completions|embeddings|responses)")


class Subject(NamedTuple):
    """The subject of a description: an endpoint's name, the served model if the URL names one, and the API's URL."""

    name: str
    served: str | None
    url: str

    @classmethod
    def from_url(cls, url: str, model: str | None) -> "Subject | None":
        """Return the endpoint at this URL, where requests name `model`; None for a URL outside a workspace's API."""
        parts = urlsplit(url)
        if match := INVOCATIONS_PATH.fullmatch(parts.path):
            name, served = unquote(match["name"]), match["served"] and unquote(match["served"])
        elif _OPENAI_PATH.fullmatch(parts.path) and model:
            name, served = model, None
        else:
            return None
        path = f"{API}/{quote(name, safe='')}"
        return cls(name, served, urlunsplit(parts._replace(path=path, query="")))

    @property
    def list_url(self) -> str:
        """The URL of the list of all endpoints in the workspace."""
        return urlunsplit(urlsplit(self.url)._replace(path=API))


class Description(NamedTuple):
    """A workspace's description of one endpoint.

    Attributes:
        name: Its name.
        kind: Its task as the workspace names it: "llm/v1/chat".
        ready: Whether it takes requests.
        update: The state of its configuration: "NOT_UPDATING", "IN_PROGRESS", "UPDATE_FAILED" …
        served: The names of its served models.
        stopped: Whether one of them is stopped.
        scales_to_zero: Whether one of them starts with the first request.
        own_url: The URL of a route-optimised endpoint; None for any other endpoint.
    """

    name: str
    kind: str
    ready: bool
    update: str
    served: tuple[str, ...]
    stopped: bool
    scales_to_zero: bool
    own_url: str | None

    @classmethod
    def read(cls, document: object) -> "Description":
        """Read a description; fields that are missing or of another type are empty."""
        entities = _objects(document, "config", "served_entities")
        own_url = _text(document, "endpoint_url") or _text(document, "data_plane_info", "query_info", "endpoint_url")
        return cls(
            name=_text(document, "name"),
            kind=_text(document, "task"),
            ready=_text(document, "state", "ready") != "NOT_READY",
            update=_text(document, "state", "config_update"),
            served=tuple(filter(None, (_text(entity, "name") for entity in entities))),
            stopped=any("STOPPED" in _text(entity, "state", "deployment") for entity in entities),
            scales_to_zero=any(entity.get("scale_to_zero_enabled") is True for entity in entities),
            own_url=own_url if _at(document, "route_optimized") is True else None,
        )

    @property
    def task(self) -> str | None:
        """The task as this library names it; None for a custom model, and for a description without a task."""
        return _TASKS.get(self.kind.rpartition("/")[2])

    @property
    def state(self) -> str:
        """The state in a few words: "READY", "NOT_READY (stopped)"."""
        details = [] if self.update in ("", "NOT_UPDATING") else [self.update]
        details += ["stopped"] if self.stopped and not self.ready else []
        return ("READY" if self.ready else "NOT_READY") + (f" ({', '.join(details)})" if details else "")

    def problem(self, served: str | None) -> tuple[str, str] | None:
        """Return why the endpoint, or this served model, cannot answer, and a hint; None if it can."""
        if not self.ready:
            return f"The endpoint {self.name} is {self.state}.", self._not_ready_hint
        if served is not None and self.served and served not in self.served:
            models = ", ".join(self.served)
            return f"The endpoint {self.name} has no served model {served!r}.", f"name one of {models}."
        return None

    def task_hint(self, task: str) -> str:
        """Return the hint if the endpoint refuses `task` ("chat") because it serves another one; else "".

        Some endpoints answer more tasks than their description names, so only a refusal shows a mismatch.
        """
        if self.task in (None, task):
            return ""
        return (
            f"the endpoint {self.name} serves {self.task} ({self.kind}), not {task}: use {self.task}_udf, or name an"
            f" endpoint for {task}; {LIST_HINT}"
        )

    @property
    def _not_ready_hint(self) -> str:
        if self.update == "IN_PROGRESS":
            return "it is being deployed; check again when its page under Serving says Ready."
        if self.update in ("UPDATE_FAILED", "UPDATE_CANCELED"):
            return "its last update failed; see the Events on its page under Serving."
        return "start it on its page under Serving, then check again."

    @property
    def api_hint(self) -> str:
        """The hint for an endpoint that takes Responses requests; empty for any other."""
        if not self.kind.endswith("/responses"):
            return ""
        return f'it serves {self.kind}: use Endpoint(…, api="responses").'

    @property
    def url_hint(self) -> str:
        """The hint for a route-optimised endpoint, which has a URL of its own; empty for any other."""
        if self.own_url is None:
            return ""
        return f"it is route-optimised: use {self.own_url} with an OAuth token, for example ClientCredentials(…)."


def read_descriptions(document: object) -> list[Description]:
    """Read the list of endpoints."""
    return [Description.read(entry) for entry in _objects(document, "endpoints")]


def unknown_name_hint(name: str, names: Sequence[str]) -> str:
    """Return the hint for an unknown endpoint name: the most similar names, and how to list all."""
    return f"{did_you_mean(name, names, otherwise='check the name;', max_suggestions=3)} {LIST_HINT}"


def _at(document: object, *path: str) -> object:
    """Return the value at the end of a path of names; None where there is none."""
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def _objects(document: object, *path: str) -> list[dict[str, Any]]:
    value = _at(document, *path)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _text(document: object, *path: str) -> str:
    value = _at(document, *path)
    return " ".join(value.split())[:500] if isinstance(value, str) else ""
