"""Credentials: values that travel to the workers, and the rules for the hosts that may get them.

A secret is never printed: not by `repr`, not in an error. It goes to the host that it is for, and to no other. On the
workers, `auth.tokens` gets tokens with these credentials.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from spark_llm.errors import ConfigError
from spark_llm.protocol.urls import host_url, is_azure, is_databricks, is_openai, is_route_optimised, is_workspace
from spark_llm.validation.arguments import checks_arguments

TokenSource = str | Callable[[], str]
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Bearer:
    """A bearer token, or a function that returns one. It equals its pickled copies, and its `repr` is masked.

    Attributes:
        source: The token; a function that returns one; None sends no token.
        identity: Two are equal if their identities are.
        origin: A description of its source, such as a variable's name, for error messages.
    """

    source: TokenSource | None = field(default=None, repr=False, compare=False)
    identity: str = field(default="", repr=False)
    origin: str = field(default="", repr=False, compare=False)

    @classmethod
    def of(cls, source: TokenSource | None, origin: str = "token=", identity: str = "") -> "Bearer":
        """Wrap a token or a function that returns one; None sends no token.

        A function equals itself alone, or functions of the same `identity`. Raises `ConfigError` for a token that a
        header cannot hold.
        """
        if source is None:
            return cls()
        if isinstance(source, str):
            return cls(valid_secret(source, f"The token ({origin})"), source, origin)
        if callable(source):
            return cls(source, identity or uuid.uuid4().hex, origin)
        raise ConfigError(
            f"A token of type {type(source).__name__} is neither a string nor a callable.",
            "pass the token, a function that returns it, or ClientCredentials.",
        )

    def __repr__(self) -> str:
        """Show whether there is a token, masked."""
        return "None" if self.source is None else "'***'"


@checks_arguments
@dataclass(frozen=True)
class ClientCredentials:
    """A service principal's OAuth client; each worker gets its own tokens with it, and renews them in time.

    >>> Endpoint("my-endpoint", token=ClientCredentials("client-id", "client-secret"))

    Source: the client credentials grant of RFC 6749, section 4.4, as Databricks documents it (OAuth M2M).

    Attributes:
        client_id: The client's id.
        client_secret: Its secret; it is never printed.
        token_url: The URL of the token endpoint. Default: /oidc/v1/token of the endpoint's workspace.
        scope: The scope of the tokens.
        description_url: The URL that describes a route-optimised endpoint, which needs tokens of its own; derived from
            the endpoint's URL.
        origin: A description of its source, such as variables' names, for error messages.

    Raises `ConfigError` for an id or a secret that a header cannot hold.
    """

    client_id: str
    client_secret: str = field(repr=False)
    token_url: str | None = None
    scope: str = "all-apis"
    description_url: str | None = field(default=None, repr=False)
    origin: str = field(default="token=", repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check that a header can hold the id and the secret."""
        valid_secret(self.client_id, "The client's id")
        valid_secret(self.client_secret, "The client's secret")


Credential = Bearer | ClientCredentials


class Workspace(NamedTuple):
    """The URL of a workspace, and the credential for it."""

    host: str
    credential: Credential


class CredentialsProvider(Protocol):
    """A source of a workspace and its credential on the driver, besides the environment variables."""

    @property
    def requirement(self) -> str:
        """The requirement for it, for error messages."""

    def is_available(self, environ: Mapping[str, str]) -> bool:
        """Return whether the source exists; uses no network."""

    def workspace(self, environ: Mapping[str, str]) -> Workspace | None:
        """Return the workspace and its credential, or None. May use the network."""


class SignInDeferredError(Exception):
    """The environment has no credential; a provider is available, and is used later."""


def is_valid_token(text: str) -> bool:
    """Return whether a header can hold this text as a token."""
    return bool(_TOKEN.fullmatch(text))


def valid_secret(secret: object, label: str) -> str:
    """Return a secret that a header can hold; raise `ConfigError` for another, without printing it."""
    if not isinstance(secret, str) or not is_valid_token(secret):
        raise ConfigError(
            f"{label} is empty, or has a space, a line end or another character that no header can hold.",
            "pass it alone, without quotes, spaces or a trailing newline (token.strip()).",
        )
    return secret


def as_credential(token: TokenSource | Credential | None, identity: str = "") -> Credential:
    """Return the value of `token=` as a credential."""
    return token if isinstance(token, (Bearer, ClientCredentials)) else Bearer.of(token, identity=identity)


def environment_credential(url: str, environ: Mapping[str, str]) -> Credential | None:
    """Return the credential that the environment holds for this host; None for any other host.

    For a workspace, it is DATABRICKS_TOKEN, or DATABRICKS_CLIENT_ID with DATABRICKS_CLIENT_SECRET. If both are set,
    DATABRICKS_AUTH_TYPE ("pat", "oauth-m2m") chooses. For OpenAI and Azure OpenAI it is their keys.
    """
    if is_databricks(url) or is_workspace(url, environ.get("DATABRICKS_HOST", "")):
        client_id, secret = (environ.get(f"DATABRICKS_CLIENT_{part}") for part in ("ID", "SECRET"))
        prefers_client = environ.get("DATABRICKS_AUTH_TYPE") == "oauth-m2m" or is_route_optimised(url)
        if client_id and secret and (prefers_client or not environ.get("DATABRICKS_TOKEN")):
            return ClientCredentials(client_id, secret, origin="DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET")
        return _bearer_from_variable("DATABRICKS_TOKEN", environ)
    if is_openai(url):
        return _bearer_from_variable("OPENAI_API_KEY", environ)
    return _bearer_from_variable("AZURE_OPENAI_API_KEY", environ) if is_azure(url) else None


def _bearer_from_variable(name: str, environ: Mapping[str, str]) -> Bearer | None:
    return Bearer.of(environ[name], name) if environ.get(name) else None


def credential_for_endpoint(credential: Credential, url: str, host: str) -> Credential:
    """Return the credential with the URLs that it needs for the endpoint at `url`, of the workspace at `host`.

    A route-optimised endpoint takes OAuth tokens only. Raises `ConfigError` for a personal access token there, and for
    a client if the workspace is not known.
    """
    optimised = is_route_optimised(url)
    if isinstance(credential, Bearer):
        if optimised and isinstance(credential.source, str) and credential.source.startswith("dapi"):
            raise ConfigError(
                "A route-optimised endpoint takes OAuth tokens only, and this is a personal access token.",
                "set DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, or pass token=ClientCredentials(…).",
            )
        return credential
    workspace_url = (
        host or host_url(credential.token_url or "") if optimised or not is_databricks(url) else host_url(url)
    )
    if not workspace_url and not credential.token_url:
        raise ConfigError(
            "DATABRICKS_HOST names no workspace where the OAuth client could get its tokens.",
            "set it to the workspace's URL on the driver, or pass ClientCredentials(…, token_url=…).",
        )
    name = urlsplit(url).path.split("/")[-2]
    return replace(
        credential,
        token_url=credential.token_url or f"{workspace_url}/oidc/v1/token",
        description_url=f"{workspace_url}/api/2.0/serving-endpoints/{name}" if optimised else None,
    )
