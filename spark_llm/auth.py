"""Who is asking: the bearer token, where it comes from, and how a worker keeps it fresh.

A secret is never printed: not by `repr`, not in an error. A token that is a callable is called on the worker, in a
thread beside the event loop, when the first request needs it and once after the server has refused the token it gave.
"""

import asyncio
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from spark_llm.errors import ConfigError

TokenSource = str | Callable[[], str]
_DATABRICKS_HOSTS = re.compile(r"(^|\.)(databricks\.(com|us|mil)|azuredatabricks\.net|databricks\.azure\.(us|cn))$")
_OPENAI_HOSTS = re.compile(r"(^|\.)openai\.com$")


@dataclass(frozen=True)
class Bearer:
    """A token, or the way to get one; equal to its copies wherever they travel, and masked when it prints."""

    source: TokenSource | None = field(default=None, repr=False, compare=False)
    identity: str = field(default="", repr=False)

    @classmethod
    def of(cls, source: TokenSource | None) -> "Bearer":
        """Wrap a token or a callable that returns one; None asks without a token.

        Raises `ConfigError` for a token that cannot stand in a header.
        """
        if source is None:
            return cls()
        if isinstance(source, str):
            if not re.fullmatch(r"[\x21-\x7e]+", source):
                raise ConfigError(
                    "The token is empty, or has a space, a line end or another character that no header can hold.",
                    "pass the token alone, without quotes, spaces or a trailing newline (token.strip()).",
                )
            return cls(source, source)
        if callable(source):
            return cls(source, uuid.uuid4().hex)
        raise ConfigError(
            f"A token of type {type(source).__name__} is neither a string nor a callable.",
            "pass the token, or a function that returns it.",
        )

    def __repr__(self) -> str:
        """Show that there is a token, and not which."""
        return "None" if self.source is None else "'***'"


def from_environment(url: str, environ: Mapping[str, str]) -> str | None:
    """Return the token that the environment holds for this host: a secret is not sent to strangers."""
    host = urlsplit(url).hostname or ""
    workspace = urlsplit(host_url(environ.get("DATABRICKS_HOST", ""))).hostname
    if host == workspace or _DATABRICKS_HOSTS.search(host):
        return environ.get("DATABRICKS_TOKEN") or None
    if _OPENAI_HOSTS.search(host):
        return environ.get("OPENAI_API_KEY") or None
    return None


def is_databricks(url: str) -> bool:
    """Return whether the host is a Databricks workspace, which answers nobody without a token."""
    return bool(_DATABRICKS_HOSTS.search(urlsplit(url).hostname or ""))


def host_url(host: str) -> str:
    """Return a workspace's host as a URL, however it was written: with a scheme or without, with a slash at the end."""
    host = host.strip()
    parts = urlsplit(host if "://" in host else f"https://{host}")
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


def _called(source: Callable[[], str]) -> str:
    """Call a token function; what it returns is checked before it is sent anywhere."""
    try:
        token = source()
    except Exception as error:
        what = f"The token function raised {type(error).__name__}: {error}."
        raise ConfigError(what, "call it alone, on a worker, to see why.") from error
    if not isinstance(token, str):
        raise ConfigError(f"The token function returned a {type(token).__name__}.", "return the token as a string.")
    Bearer.of(token)
    return token


class TokenKeeper:
    """The token of one engine, on its event loop."""

    def __init__(self, bearer: Bearer) -> None:
        """Keep what `bearer` gives."""
        self._source = bearer.source
        self._token = bearer.source if isinstance(bearer.source, str) else None
        self._turn = asyncio.Lock()

    async def get(self) -> str | None:
        """Return the token, asking for it when there is none yet."""
        if self._token is None and callable(self._source):
            await self.renewed(None)
        return self._token

    async def renewed(self, refused: str | None) -> bool:
        """Get a new token in place of the one that was refused, once for all who had it; return whether it differs."""
        if not callable(self._source):
            return False
        async with self._turn:
            if self._token == refused:
                self._token = await asyncio.get_running_loop().run_in_executor(None, _called, self._source)
            return self._token != refused
