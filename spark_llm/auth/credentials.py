"""Who is asking: credentials as values that travel to the workers, and which of them goes to which host.

A secret is never printed: not by `repr`, not in an error. It goes to the host that it is for, and to no other.
`auth.tokens` makes tokens of credentials on the workers.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from spark_llm.errors import ConfigError
from spark_llm.protocol.urls import host_url, is_azure, is_databricks, is_openai, is_route_optimised, is_workspace

TokenSource = str | Callable[[], str]
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Bearer:
    """A token, or the way to get one; equal to its copies wherever they travel, and masked when it prints.

    Attributes:
        source: The token; a function that returns one; None asks without a token.
        identity: What makes it equal to another one.
        origin: Where it comes from, in words for whoever must replace it.
    """

    source: TokenSource | None = field(default=None, repr=False, compare=False)
    identity: str = field(default="", repr=False)
    origin: str = field(default="", repr=False, compare=False)

    @classmethod
    def of(cls, source: TokenSource | None, origin: str = "token=", identity: str = "") -> "Bearer":
        """Wrap a token or a callable that returns one; None asks without a token.

        A callable is equal to itself alone, or to those of the same `identity`. Raises `ConfigError` for a token that
        cannot stand in a header.
        """
        if source is None:
            return cls()
        if isinstance(source, str):
            return cls(checked(source, f"The token ({origin})"), source, origin)
        if callable(source):
            return cls(source, identity or uuid.uuid4().hex, origin)
        raise ConfigError(
            f"A token of type {type(source).__name__} is neither a string nor a callable.",
            "pass the token, a function that returns it, or ClientCredentials.",
        )

    def __repr__(self) -> str:
        """Show that there is a token, and not which."""
        return "None" if self.source is None else "'***'"


@dataclass(frozen=True)
class ClientCredentials:
    """A service principal's OAuth client; each worker gets its own tokens with it, and renews them in time.

    >>> Endpoint("my-endpoint", token=ClientCredentials("client-id", "client-secret"))

    Source: the client credentials grant of RFC 6749, section 4.4, as Databricks documents it (OAuth M2M).

    Attributes:
        client_id: The client.
        client_secret: Its secret; it is never printed.
        token_url: Where tokens are given out. Default: /oidc/v1/token of the endpoint's workspace.
        scope: What the tokens shall be good for.
        description_url: Where a route-optimised endpoint is described, whose tokens are good for it alone; found from
            its URL.
        origin: Where it comes from, in words for whoever must replace it.
    """

    client_id: str
    client_secret: str = field(repr=False)
    token_url: str | None = None
    scope: str = "all-apis"
    description_url: str | None = field(default=None, repr=False)
    origin: str = field(default="token=", repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check what can stand in a request."""
        checked(self.client_id, "The client's id")
        checked(self.client_secret, "The client's secret")


Credential = Bearer | ClientCredentials


class Workspace(NamedTuple):
    """A workspace's address, and who is asking there."""

    host: str
    credential: Credential


class Login(Protocol):
    """A place where a driver may be signed in to a workspace, beyond its environment variables."""

    @property
    def requires(self) -> str:
        """What must be there for it, in words."""

    def is_here(self, environ: Mapping[str, str]) -> bool:
        """Return whether it is worth asking; without a network."""

    def workspace(self, environ: Mapping[str, str]) -> Workspace | None:
        """Return the workspace and the credential; None where there is none after all. May ask a network."""


class SignedInElsewhereError(Exception):
    """The environment does not say who is asking, but a login may, which is not asked yet."""


def is_token(text: str) -> bool:
    """Return whether a header can hold this as a token."""
    return bool(_TOKEN.fullmatch(text))


def checked(secret: object, what: str) -> str:
    """Return a secret that a header can hold; raise `ConfigError` for another, without telling it."""
    if not isinstance(secret, str) or not is_token(secret):
        raise ConfigError(
            f"{what} is empty, or has a space, a line end or another character that no header can hold.",
            "pass it alone, without quotes, spaces or a trailing newline (token.strip()).",
        )
    return secret


def credential_of(token: TokenSource | Credential | None, identity: str = "") -> Credential:
    """Return what a user gave as `token=` as a credential."""
    return token if isinstance(token, (Bearer, ClientCredentials)) else Bearer.of(token, identity=identity)


def from_environment(url: str, environ: Mapping[str, str]) -> Credential | None:
    """Return the credential that the environment holds for this host: a secret is not sent to strangers.

    For a workspace DATABRICKS_TOKEN, or DATABRICKS_CLIENT_ID with DATABRICKS_CLIENT_SECRET, and where both are there
    the one that DATABRICKS_AUTH_TYPE ("pat", "oauth-m2m") names; for OpenAI and Azure OpenAI their keys.
    """
    if is_databricks(url) or is_workspace(url, environ.get("DATABRICKS_HOST", "")):
        client = [environ.get(f"DATABRICKS_CLIENT_{part}") for part in ("ID", "SECRET")]
        prefers_client = environ.get("DATABRICKS_AUTH_TYPE") == "oauth-m2m" or is_route_optimised(url)
        if client[0] and client[1] and (prefers_client or not environ.get("DATABRICKS_TOKEN")):
            return ClientCredentials(client[0], client[1], origin="DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET")
        return _of_variable("DATABRICKS_TOKEN", environ)
    if is_openai(url):
        return _of_variable("OPENAI_API_KEY", environ)
    return _of_variable("AZURE_OPENAI_API_KEY", environ) if is_azure(url) else None


def _of_variable(name: str, environ: Mapping[str, str]) -> Bearer | None:
    return Bearer.of(environ[name], name) if environ.get(name) else None


def at_workspace(credential: Credential, url: str, host: str) -> Credential:
    """Return the credential fit for `url`: a client is told where the workspace at `host` gives out its tokens.

    A route-optimised endpoint takes OAuth tokens only. Raises `ConfigError` for a personal access token, and for a
    client when the workspace is not known.
    """
    optimised = is_route_optimised(url)
    if isinstance(credential, Bearer):
        if optimised and isinstance(credential.source, str) and credential.source.startswith("dapi"):
            raise ConfigError(
                "A route-optimised endpoint takes OAuth tokens only, and this is a personal access token.",
                "set DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, or pass token=ClientCredentials(…).",
            )
        return credential
    home = host or host_url(credential.token_url or "") if optimised or not is_databricks(url) else host_url(url)
    if not home and not credential.token_url:
        raise ConfigError(
            "DATABRICKS_HOST does not say at which workspace the OAuth client gets its tokens.",
            "set it to the workspace's URL on the driver, or pass ClientCredentials(…, token_url=…).",
        )
    name = urlsplit(url).path.split("/")[-2]
    return replace(
        credential,
        token_url=credential.token_url or f"{home}/oidc/v1/token",
        description_url=f"{home}/api/2.0/serving-endpoints/{name}" if optimised else None,
    )
