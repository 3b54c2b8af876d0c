"""A workspace's own word about its endpoints: where it is asked for, and what it says. Knows no clock and no socket.

Source: the Databricks REST reference, Serving endpoints (`GET /api/2.0/serving-endpoints` and `/{name}`). Any document
can be read; what it does not say is empty.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from spark_llm.protocol.urls import INVOCATIONS_PATH
from spark_llm.text.suggestion import did_you_mean

API = "/api/2.0/serving-endpoints"
LISTS_THEM = "`spark-llm endpoints` lists those of the workspace."
_KINDS = {"chat": "chat", "completions": "complete", "embeddings": "embed"}  # the last word of llm/v1/chat
_OPENAI = re.compile(r"/serving-endpoints/(chat/completions|completions|embeddings)")


class Subject(NamedTuple):
    """What can be described: an endpoint's name, one model behind it if that is asked, and where to ask."""

    name: str
    served: str | None
    url: str

    @classmethod
    def of(cls, url: str, model: str | None) -> "Subject | None":
        """Return what is asked at this URL, with the model that requests name; None for what no workspace describes."""
        parts = urlsplit(url)
        if named := INVOCATIONS_PATH.fullmatch(parts.path):
            name, served = unquote(named["name"]), named["served"] and unquote(named["served"])
        elif _OPENAI.fullmatch(parts.path) and model:
            name, served = model, None
        else:
            return None
        path = f"{API}/{quote(name, safe='')}"
        return cls(name, served, urlunsplit(parts._replace(path=path, query="")))

    @property
    def list_url(self) -> str:
        """Where all endpoints of the workspace are listed."""
        return urlunsplit(urlsplit(self.url)._replace(path=API))


class Description(NamedTuple):
    """What a workspace says of one endpoint.

    Attributes:
        name: Its name.
        kind: What it serves, in the workspace's words: "llm/v1/chat".
        ready: Whether it takes requests.
        update: What becomes of its configuration: "NOT_UPDATING", "IN_PROGRESS", "UPDATE_FAILED" …
        served: The models behind it, by name.
        stopped: Whether one of them is stopped.
        scales_to_zero: Whether one of them is started by the first request.
        own_url: Where a route-optimised endpoint is asked; None for any other endpoint.
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
        """Read a description, as far as it is one."""
        state = _object(document, "state")
        entities = list(_objects(_object(document, "config"), "served_entities"))
        query = _object(_object(document, "data_plane_info"), "query_info")
        own_url = _text(document, "endpoint_url") or _text(query, "endpoint_url")
        return cls(
            name=_text(document, "name"),
            kind=_text(document, "task"),
            ready=_text(state, "ready") != "NOT_READY",
            update=_text(state, "config_update"),
            served=tuple(filter(None, (_text(entity, "name") for entity in entities))),
            stopped=any("STOPPED" in _text(_object(entity, "state"), "deployment") for entity in entities),
            scales_to_zero=any(entity.get("scale_to_zero_enabled") is True for entity in entities),
            own_url=own_url if isinstance(document, Mapping) and document.get("route_optimized") is True else None,
        )

    @property
    def task(self) -> str | None:
        """The task that it serves, as this library calls it; None for a custom model, and for one that is not told."""
        return _KINDS.get(self.kind.rpartition("/")[2])

    @property
    def state(self) -> str:
        """Its state in a few words."""
        words = [] if self.update in ("", "NOT_UPDATING") else [self.update]
        words += ["stopped"] if self.stopped and not self.ready else []
        return ("READY" if self.ready else "NOT_READY") + (f" ({', '.join(words)})" if words else "")

    def wrong(self, served: str | None) -> tuple[str, str] | None:
        """Return what keeps it, or one model behind it, from answering, and what to do; None where nothing does."""
        if not self.ready:
            return f"The endpoint {self.name} is {self.state}.", self._until_ready
        if served is not None and self.served and served not in self.served:
            models = ", ".join(self.served)
            return f"The endpoint {self.name} has no served model {served!r}.", f"it has {models}: name one of these."
        return None

    def other_task(self, asked: str) -> str:
        """Return what to do where `asked` ("chat") is refused because the endpoint is for another task; else nothing.

        Some endpoints answer more than the task that they are described by, so the endpoint has the last word.
        """
        if self.task in (None, asked):
            return ""
        return (
            f"the endpoint {self.name} serves {self.task} ({self.kind}), and {asked} was asked of it: use"
            f" {self.task}_udf, or name an endpoint for {asked}; {LISTS_THEM}"
        )

    @property
    def _until_ready(self) -> str:
        if self.update == "IN_PROGRESS":
            return "it is being deployed; check again when its page under Serving says Ready."
        if self.update in ("UPDATE_FAILED", "UPDATE_CANCELED"):
            return "its last update did not succeed; the Events on its page under Serving say why."
        return "start it on its page under Serving, then check again."

    @property
    def own_way(self) -> str:
        """How a route-optimised endpoint wants to be asked; empty for any other."""
        if self.own_url is None:
            return ""
        return f"it is route-optimised: ask {self.own_url} with an OAuth token, such as ClientCredentials get."


def listed(document: object) -> list[Description]:
    """Read a list of endpoints."""
    return [Description.read(entry) for entry in _objects(document, "endpoints")]


def unknown_name_hint(name: str, names: Sequence[str]) -> str:
    """Return the hint for an endpoint that the workspace does not have: the most similar names, and how to list all."""
    return f"{did_you_mean(name, names, otherwise='check the name;', max_suggestions=3)} {LISTS_THEM}"


def _object(document: object, name: str) -> Mapping[str, Any]:
    found = document.get(name) if isinstance(document, Mapping) else None
    return found if isinstance(found, dict) else {}


def _objects(document: object, name: str) -> Iterator[Mapping[str, Any]]:
    found = document.get(name) if isinstance(document, Mapping) else None
    yield from (entry for entry in found if isinstance(entry, dict)) if isinstance(found, list) else ()


def _text(document: object, name: str) -> str:
    found = document.get(name) if isinstance(document, Mapping) else None
    return " ".join(found.split())[:500] if isinstance(found, str) else ""
