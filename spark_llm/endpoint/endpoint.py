"""The endpoint as the user names it: a serving endpoint's name, a URL, or an OpenAI-style base URL with a model."""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from spark_llm.auth.credentials import (
    Bearer,
    Credential,
    CredentialsProvider,
    SignInDeferredError,
    TokenSource,
    Workspace,
    as_credential,
    credential_for_endpoint,
    environment_credential,
)
from spark_llm.auth.databricks_profile import Profile
from spark_llm.endpoint import from_clients
from spark_llm.endpoint.route import APIS, Api, Route, check_headers, check_host, check_transport, check_url
from spark_llm.errors import ConfigError
from spark_llm.protocol.urls import (
    CHAT_ROUTE,
    RERANK_ROUTE,
    RESPONSES_ROUTE,
    SCORE_ROUTE,
    gateway_url,
    host_url,
    invocations_url,
    is_databricks,
    is_gateway_name,
    is_route_optimised,
    is_serving,
    is_workspace,
    masked_url,
)
from spark_llm.transport.certificates import check_ca_bundle
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.flags import check_flag

_INVOCATIONS = "/invocations"
_KNOWN_ROUTES = (_INVOCATIONS, CHAT_ROUTE, "/completions", "/embeddings", RESPONSES_ROUTE, RERANK_ROUTE, SCORE_ROUTE)
_ROUTES: dict[Api, str] = {"chat": CHAT_ROUTE, "responses": RESPONSES_ROUTE}  # of a chat
_NAME = re.compile(r"(?!\.+$)[\w.-]{1,255}", re.ASCII)
PROVIDERS: Sequence[CredentialsProvider] = (Profile(),)
_AUTHENTICATION_HEADERS = {"authorization", "api-key"}  # with one of these, no token is needed


@checks_arguments
@dataclass(frozen=True)
class Endpoint:
    """A serving endpoint: its address, its model and the authentication of its requests.

    >>> Endpoint("my-endpoint")  # at DATABRICKS_HOST, with DATABRICKS_TOKEN
    >>> Endpoint("my-endpoint", served_model="my-model-2")  # one model behind it
    >>> Endpoint("https://host/serving-endpoints/my-endpoint/invocations", token=token)
    >>> Endpoint("system.ai.my-model")  # a model service of the workspace's AI Gateway
    >>> Endpoint("http://127.0.0.1:8000/v1", model="smollm2")  # an OpenAI-style base URL
    >>> Endpoint("https://api.openai.com/v1", model="gpt-5-pro", api="responses")  # at the Responses route
    >>> Endpoint("https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21", token=key)

    Attributes:
        target: The endpoint's name, looked up at DATABRICKS_HOST; a name of three parts is a model of its AI Gateway.
            Or a URL. One whose path ends in /invocations, /chat/completions, /responses, /completions, /embeddings,
            /rerank or /score is used as it is, with its query; any other is a base URL, to which the task's route is
            added.
        model: The model's name in the request; required with a base URL, optional with the others.
        served_model: One model behind a named endpoint; it bypasses the traffic split.
        token: The bearer token; a function that returns one and is called on the workers; or `ClientCredentials`.
            Default for a workspace: DATABRICKS_TOKEN, DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, a profile in
            ~/.databrickscfg, or the user who runs the notebook. For OpenAI it is OPENAI_API_KEY, for Azure OpenAI
            AZURE_OPENAI_API_KEY, and for any other host no token.
        headers: Further headers of every request, such as a gateway's; their values are never printed. With an
            Authorization header among them, no other source of a token is used.
        ca_bundle: Certificates to trust besides the system's own: the text of a PEM file, which travels to the workers,
            or a path that exists there. A text is parsed at once; a path is first read on the workers.
        allow_http: Allow requests without TLS to another machine; the network in between can read all of them.
        attribution: Whether requests to Databricks Model Serving name the job: Spark's application and, in a table job,
            run, table and column. The workspace's tables of usage then show who asked. Never content.
        api: The route of a chat: "chat" (chat completions) or "responses". Default: that of the URL, else "chat",
            unless the server's first refusal says that the model is served at "responses".

    Raises `ConfigError` for an invalid value.
    """

    target: str
    model: str | None = None
    served_model: str | None = None
    token: TokenSource | Credential | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    ca_bundle: str | None = field(default=None, repr=False)
    allow_http: bool = False
    attribution: bool = True
    api: Api | None = None
    _identity: str = field(default_factory=lambda: uuid.uuid4().hex, init=False, repr=False, compare=False)

    @classmethod
    @checks_arguments
    def from_openai(cls, client: Any, model: str, *, allow_http: bool = False) -> "Endpoint":  # noqa: ANN401 -- openai need not be installed
        """Return the endpoint of an `openai` client: its base URL, key, organisation and headers; Azure's too.

        >>> Endpoint.from_openai(OpenAI(), "gpt-5-mini")

        Raises `ConfigError` for a client that authenticates by its own transport.
        """
        return cls(**from_clients.arguments_from_openai(client, model), allow_http=allow_http)

    @classmethod
    @checks_arguments
    def from_workspace(cls, workspace: Any, name: str, *, served_model: str | None = None) -> "Endpoint":  # noqa: ANN401 -- databricks-sdk need not be installed
        """Return an endpoint of the workspace of a `WorkspaceClient` of databricks-sdk.

        A personal access token and an OAuth client travel to the workers. For any other credential its current token
        travels, which expires after about an hour.

        >>> Endpoint.from_workspace(WorkspaceClient(), "my-endpoint")
        """
        cls(name, served_model=served_model)  # its checks
        return cls(**from_clients.arguments_from_workspace(workspace, name, served_model))

    @classmethod
    @checks_arguments
    def from_mlflow(cls, client: Any, name: str, *, allow_http: bool = False) -> "Endpoint":  # noqa: ANN401 -- mlflow need not be installed
        """Return an endpoint of an MLflow deployment client: of Databricks, or of an AI Gateway.

        >>> Endpoint.from_mlflow(get_deploy_client("databricks"), "my-endpoint")
        """
        cls(name)  # its checks
        return cls(**from_clients.arguments_from_mlflow(client, name), allow_http=allow_http)

    def __post_init__(self) -> None:
        """Check the values, without the environment and without a network."""
        if not isinstance(self.target, str) or not self.target.strip():
            raise ConfigError(
                f"Endpoint({self.target!r}) does not name an endpoint.",
                'pass an endpoint\'s name, like "my-endpoint", or a URL.',
            )
        for name in ("model", "served_model"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise ConfigError(
                    f"Endpoint({name}={value!r}) is not a name.", f"write {name} as a string, or leave it out."
                )
        if self.served_model is not None and not is_name(self.served_model):
            raise ConfigError(
                f"Endpoint(served_model={self.served_model!r}) is not a served model's name.",
                "copy it from the endpoint's page.",
            )
        as_credential(self.token)
        check_headers(self.headers)
        if self.ca_bundle is not None:
            check_ca_bundle(self.ca_bundle)
        check_flag("allow_http", self.allow_http, owner="Endpoint")
        check_flag("attribution", self.attribution, owner="Endpoint")
        if self.api not in (None, *APIS):
            raise ConfigError(
                f"Endpoint(api={self.api!r}) is neither 'chat' nor 'responses'.", "leave it out to have it found."
            )
        self._check_target()

    def _check_target(self) -> None:
        if self.is_url:
            check_url(self.target)
            if self.served_model is not None:
                raise ConfigError(
                    "served_model= goes with an endpoint's name, not with a URL.",
                    "put /served-models/NAME into the URL, or pass the name.",
                )
        elif not is_name(self.target):
            raise ConfigError(
                f"{self.target!r} is neither an endpoint's name nor a URL.",
                'a name has letters, digits, "-", "_" and "."; a URL begins with https://.',
            )
        elif is_gateway_name(self.target) and self.served_model is not None:
            raise ConfigError(
                f"Endpoint({self.target!r}, served_model={self.served_model!r}): a model of the AI Gateway has none.",
                "leave served_model out.",
            )
        elif self.model is not None:
            raise ConfigError(
                f"Endpoint({self.target!r}, model={self.model!r}): a name stands for its model.",
                "leave model out, or pass served_model=.",
            )

    @property
    def chat_api(self) -> Api | None:
        """The route of a chat, where the user has set it: by `api`, or by a URL that ends in /responses."""
        if self.api is None and self.is_url and _known_route(self.target) == RESPONSES_ROUTE:
            return "responses"
        return self.api

    @property
    def rerank_route(self) -> str:
        """The route of a reranking: /score at a URL that ends in it, else /rerank."""
        return SCORE_ROUTE if self.is_url and _known_route(self.target) == SCORE_ROUTE else RERANK_ROUTE

    @property
    def is_url(self) -> bool:
        """Whether the target is a URL rather than a name."""
        return "://" in self.target

    def __repr__(self) -> str:
        """Show the endpoint without its secrets."""
        shown = [repr(masked_url(self.target) if self.is_url else self.target)]
        shown += [f"{name}={getattr(self, name)!r}" for name in ("model", "served_model") if getattr(self, name)]
        shown += [f"{name}=***" for name in ("token", "headers", "ca_bundle") if getattr(self, name)]
        shown += ["allow_http=True"] if self.allow_http else []
        shown += [] if self.attribution else ["attribution=False"]
        shown += [f"api={self.api!r}"] if self.api else []
        return f"Endpoint({', '.join(shown)})"

    def resolve(
        self,
        route: str,
        environ: Mapping[str, str],
        providers: Sequence[CredentialsProvider] = PROVIDERS,
        *,
        allow_sign_in: bool = True,
    ) -> Route:
        """Return the URL, model and credential for requests of a task's `route`, such as "/embeddings".

        If neither the endpoint nor the environment has a credential, the first of `providers` with one is used. Without
        `allow_sign_in`, `SignInDeferredError` is raised instead. Raises `ConfigError` if the host, the credential or
        the model is not known, and for the URL of another task.
        """
        if route == CHAT_ROUTE:
            route = _ROUTES[self.chat_api or "chat"]
        elif route and self.api is not None:
            raise ConfigError(f"Endpoint(api={self.api!r}) is for a chat.", "leave api= out for any other task.")
        self._check_serves(route)
        url = self._url_for_route(route) if self.is_url else None
        host = host_url(environ.get("DATABRICKS_HOST", ""))
        credential: Credential | None = None
        if self.token is not None or _AUTHENTICATION_HEADERS & {name.lower() for name in self.headers}:
            credential = as_credential(self.token, self._identity)
        elif url or host:
            credential = environment_credential(url or host, environ)
        needs_host = url is None and not host
        if needs_host or (credential is None and (url is None or is_databricks(url) or is_workspace(url, host))):
            address = host if url is None or is_route_optimised(url) else url
            workspace = self._workspace_from_providers(address, environ, providers, allow_sign_in=allow_sign_in)
            host, credential = workspace.host, credential or workspace.credential
        model = self.model
        if url is None and is_gateway_name(self.target):
            url, model = gateway_url(host, route), self.target
        url = url or invocations_url(host, self.target, self.served_model)
        check_host(url)
        if not self.allow_http:
            check_transport(url)
        credential = credential_for_endpoint(credential or Bearer(), url, host)
        headers = tuple(sorted(self.headers.items()))
        attributed = self.attribution and is_serving(url)
        return Route(url, model, credential, headers, self.ca_bundle, attributed, self.chat_api)

    def _check_serves(self, route: str) -> None:
        """Raise `ConfigError` for a custom model at a base URL or the AI Gateway, and a reranking at Databricks."""
        known = _known_route(self.target) if self.is_url else _INVOCATIONS
        if route == _INVOCATIONS and (known is None or is_gateway_name(self.target)):
            raise ConfigError(
                f"{self!r} serves no custom model: these are at a serving endpoint, or at a URL that ends in {route}.",
                f'pass the endpoint\'s name, or the whole URL without model=, as in "http://host:5000{route}".',
            )
        if route == RERANK_ROUTE and known == _INVOCATIONS:
            raise ConfigError(
                f"{self!r} serves no reranking: neither serving endpoints nor Databricks' AI Gateway do.",
                "pass a URL that ends in /rerank or /score, of another server; for a custom model use predict_udf.",
            )

    def _workspace_from_providers(
        self, address: str, environ: Mapping[str, str], providers: Sequence[CredentialsProvider], *, allow_sign_in: bool
    ) -> Workspace:
        """Return the workspace of the first provider that has one, at `address` unless that is empty."""
        for provider in providers:
            if provider.is_available(environ):
                if not allow_sign_in:
                    raise SignInDeferredError
                workspace = provider.workspace(environ)
                if workspace is not None and (not address or is_workspace(address, workspace.host)):
                    return workspace
        if not address:
            raise ConfigError(
                f"The endpoint {self.target!r} is a name, and DATABRICKS_HOST names no workspace.",
                "set DATABRICKS_HOST to the workspace's URL on the driver, or pass the endpoint's full URL.",
            )
        others = "".join(f"; {provider.requirement}" for provider in providers)
        raise ConfigError(
            f"There is no token for {masked_url(address)}. None of these exists: token=; DATABRICKS_TOKEN; "
            f"DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET{others}.",
            "set DATABRICKS_TOKEN on the driver, or pass Endpoint(…, token=…).",
        )

    def _url_for_route(self, route: str) -> str:
        parts = urlsplit(self.target)
        path, known = parts.path.rstrip("/"), _known_route(self.target)
        reranks = route == RERANK_ROUTE
        if known is None and self.model is None:
            raise ConfigError(
                f"{masked_url(self.target)} ends in no known route, so it is a base URL, which needs a model.",
                f'pass Endpoint(url, model="…"), or a URL that ends in {route}{"" if reranks else " or /invocations"}.',
            )
        if known not in (None, _INVOCATIONS, route):
            raise ConfigError(
                f"{masked_url(self.target)} serves {known}, but this UDF sends requests to {route}.",
                f"use the URL that ends in {route}, or the base URL before it.",
            )
        return urlunsplit(parts._replace(path=path if known else path + route, fragment=""))


def _known_route(url: str) -> str | None:
    """Return the known route that a URL's path ends in; None for a base URL."""
    path = urlsplit(url).path.rstrip("/")
    return next((known for known in _KNOWN_ROUTES if path.endswith(known)), None)


def is_name(text: str) -> bool:
    """Return whether a text can be the name of an endpoint or of a served model."""
    return _NAME.fullmatch(text) is not None
