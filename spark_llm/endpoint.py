"""Where to ask: a serving endpoint's name, a URL, or an OpenAI-style base with a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from spark_llm.auth import Bearer, TokenSource, from_environment, host_url, is_databricks
from spark_llm.errors import ConfigError

_ROUTES = ("/invocations", "/chat/completions", "/completions", "/embeddings")
_NAME = re.compile(r"(?!\.+$)[\w.-]{1,255}", re.ASCII)


@dataclass(frozen=True)
class Route:
    """A resolved endpoint, ready to travel: where to post, for which model, as whom."""

    url: str
    model: str | None
    bearer: Bearer

    def __repr__(self) -> str:
        """Show where it leads, without the token and without the values of a query."""
        return f"Route(url={_masked(self.url)!r}, model={self.model!r}, token={self.bearer!r})"


@dataclass(frozen=True)
class Endpoint:
    """A serving endpoint: what to ask, and who is asking.

    >>> Endpoint("my-endpoint")  # at DATABRICKS_HOST, with DATABRICKS_TOKEN
    >>> Endpoint("my-endpoint", served_model="my-model-2")  # one model behind it
    >>> Endpoint("https://host/serving-endpoints/my-endpoint/invocations", token=token)
    >>> Endpoint("http://127.0.0.1:8000/v1", model="smollm2")  # an OpenAI-style base

    Attributes:
        target: The endpoint's name, looked up at DATABRICKS_HOST; or a URL. A URL whose path ends in /invocations,
            /chat/completions, /completions or /embeddings is posted to as it is, query and all; any other is a base,
            to which the task's route is added.
        model: The model's name in the request; needed with a base, sent as it is with the other URLs.
        served_model: One model behind a named endpoint, past its traffic split.
        token: The bearer token, or a function that returns one and is called on the workers. Where it is left out:
            DATABRICKS_TOKEN for a workspace and OPENAI_API_KEY for OpenAI, from the environment of the driver; no
            token for any other host.
    """

    target: str
    model: str | None = None
    served_model: str | None = None
    token: TokenSource | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check what can be known without the environment and without a network."""
        if not isinstance(self.target, str) or not self.target.strip():
            raise ConfigError(
                f"Endpoint({self.target!r}) names no endpoint.",
                'pass an endpoint\'s name, like "my-endpoint", or a URL.',
            )
        for name in ("model", "served_model"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise ConfigError(
                    f"Endpoint({name}={value!r}) is not a name.", f"write {name} as a string, or leave it out."
                )
        if self.served_model is not None and not _NAME.fullmatch(self.served_model):
            raise ConfigError(
                f"Endpoint(served_model={self.served_model!r}) is not a served model's name.",
                "copy it from the endpoint's page.",
            )
        Bearer.of(self.token)
        if self.is_url:
            self._check_url()
        elif not _NAME.fullmatch(self.target):
            raise ConfigError(
                f"{self.target!r} is neither an endpoint's name nor a URL.",
                'a name has letters, digits, "-", "_" and "."; a URL begins with https://.',
            )
        elif self.model is not None:
            raise ConfigError(
                f"Endpoint({self.target!r}, model={self.model!r}): a name stands for its model.",
                "leave model out, or pass served_model=.",
            )

    @property
    def is_url(self) -> bool:
        """Whether the target is a URL rather than a name."""
        return "://" in self.target

    def __repr__(self) -> str:
        """Show the endpoint without its token."""
        shown = [repr(_masked(self.target) if self.is_url else self.target)]
        shown += [
            f"{name}={value!r}"
            for name, value in (("model", self.model), ("served_model", self.served_model))
            if value is not None
        ]
        return f"Endpoint({', '.join(shown + ([] if self.token is None else ['token=***']))})"

    def resolve(self, route: str, environ: Mapping[str, str]) -> Route:
        """Return where a task of this `route` ("/embeddings", say) is posted to, with the token for it.

        Raises `ConfigError` when the host, the token or the model is not known, or the URL is another task's.
        """
        url = self._url_of_route(route) if self.is_url else self._url_of_name(environ)
        source = self.token if self.token is not None else from_environment(url, environ)
        if source is None and (is_databricks(url) or not self.is_url):
            raise ConfigError(
                f"There is no token for {_masked(url)}.",
                "set DATABRICKS_TOKEN on the driver, or pass Endpoint(…, token=…).",
            )
        return Route(url, self.model, Bearer.of(source))

    def _url_of_name(self, environ: Mapping[str, str]) -> str:
        host = host_url(environ.get("DATABRICKS_HOST", ""))
        if not urlsplit(host).hostname:
            raise ConfigError(
                f"The endpoint {self.target!r} is a name, and DATABRICKS_HOST does not say at which workspace.",
                "set DATABRICKS_HOST to the workspace's URL on the driver, or pass the endpoint's full URL.",
            )
        served = "" if self.served_model is None else f"/served-models/{self.served_model}"
        return f"{host}/serving-endpoints/{self.target}{served}/invocations"

    def _url_of_route(self, route: str) -> str:
        parts = urlsplit(self.target)
        path = parts.path.rstrip("/")
        known = next((known for known in _ROUTES if path.endswith(known)), None)
        if known is None and self.model is None:
            raise ConfigError(
                f"{_masked(self.target)} ends in no known route, so it is taken for a base, and a base needs a model.",
                f'pass Endpoint(url, model="…"), or a URL that ends in {route} or /invocations.',
            )
        if known not in (None, "/invocations", route):
            raise ConfigError(
                f"{_masked(self.target)} answers {known}, and this UDF asks {route}.",
                f"use the URL that ends in {route}, or the base before it.",
            )
        return urlunsplit(parts._replace(path=path if known else path + route, fragment=""))

    def _check_url(self) -> None:
        try:
            parts = urlsplit(self.target)
            _ = parts.port  # reading it is what checks it
        except ValueError:  # its words quote the URL, and a password may be in it
            raise ConfigError("The endpoint's URL cannot be read.", "write it as https://host/path.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", self.target):
            raise ConfigError(f"{_masked(self.target)!r} is not a URL to post to.", "write it as https://host/path.")
        if parts.username is not None or parts.password is not None:
            raise ConfigError(
                f"The URL of {parts.hostname} has a user or a password in it, and URLs are printed.",
                "leave it out, and pass token=.",
            )
        if self.served_model is not None:
            raise ConfigError(
                "served_model= goes with an endpoint's name, not with a URL.",
                "put /served-models/NAME into the URL, or pass the name.",
            )


def _masked(url: str) -> str:
    """Return a URL fit to print: no user, no password, no values of a query."""
    parts = urlsplit(url)
    query = "&".join(f"{name}=***" for name in (pair.partition("=")[0] for pair in parts.query.split("&")) if name)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))
