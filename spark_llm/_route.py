"""A resolved endpoint, as it travels to the workers, and how a URL is printed."""

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from spark_llm.auth import Credential, is_azure_openai


@dataclass(frozen=True)
class Route:
    """A resolved endpoint, ready to travel: where to post, for which model, as whom.

    Attributes:
        url: Where each request is posted to.
        model: What the request names as its model, if anything.
        credential: Who is asking.
        headers: Further headers of each request; their values may be secrets.
        ca_bundle: Certificates, or the path of a file of them, to trust besides the system's own.
    """

    url: str
    model: str | None
    credential: Credential
    headers: tuple[tuple[str, str], ...] = ()
    ca_bundle: str | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """Show where it leads, without the token, the headers and the values of a query."""
        return f"Route(url={self.shown!r}, model={self.model!r}, token={self.credential!r})"

    @property
    def shown(self) -> str:
        """The URL, fit to print."""
        return masked(self.url)

    @property
    def azure(self) -> bool:
        """Whether keys travel in Azure's own header."""
        return is_azure_openai(self.url)


def is_loopback(url: str) -> bool:
    """Return whether the URL's host is this machine itself."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def masked(url: str) -> str:
    """Return a URL fit to print: no user, no password, no values of a query."""
    parts = urlsplit(url)
    query = "&".join(f"{name}=***" for name in (pair.partition("=")[0] for pair in parts.query.split("&")) if name)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))
