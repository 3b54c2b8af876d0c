"""A resolved endpoint, as it travels to the workers, and the checks of its parts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from spark_llm.auth.credentials import Credential
from spark_llm.errors import ConfigError
from spark_llm.protocol.urls import is_azure_openai, is_loopback, masked_url

Api = Literal["chat", "responses"]
APIS: tuple[Api, ...] = get_args(Api)

_MAX_HOST = 253
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADERS_OF_A_CONNECTION = frozenset(  # which belong to one request, or to one connection and not to its requests
    (
        *("content-length", "content-encoding", "transfer-encoding", "trailer", "te", "expect"),
        *("connection", "keep-alive", "proxy-connection", "upgrade"),
    )
)
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


@dataclass(frozen=True)
class Route:
    """A resolved endpoint: the URL, model, credential and headers of its requests.

    Attributes:
        url: The URL of each request.
        model: The model's name in each request, if any.
        credential: The credential for the requests.
        headers: Further headers of each request; their values may be secrets.
        ca_bundle: Certificates in PEM, or the path of a file of them, to trust besides the system's own.
        attributed: Whether its requests carry the fields of `endpoint.attribution`.
        api: The dialect of its chats where it is set; None where the server's refusal of the first one may change it.
    """

    url: str
    model: str | None
    credential: Credential
    headers: tuple[tuple[str, str], ...] = ()
    ca_bundle: str | None = field(default=None, repr=False)
    attributed: bool = False
    api: Api | None = None

    def __repr__(self) -> str:
        """Show the URL and the model, without the token, the headers and the values of a query."""
        return f"Route(url={self.shown!r}, model={self.model!r}, token={self.credential!r})"

    @property
    def shown(self) -> str:
        """The URL with its secrets masked."""
        return masked_url(self.url)

    @property
    def azure(self) -> bool:
        """Whether a key is sent in Azure's own header."""
        return is_azure_openai(self.url)


def check_url(url: str) -> None:
    """Raise `ConfigError` for a URL that cannot be used, or has a password in it: URLs are printed."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it is what checks it
    except ValueError:  # its message quotes the URL, which may have a password in it
        raise ConfigError("The endpoint's URL cannot be read.", "write it as https://host/path.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", url):
        raise ConfigError(f"{masked_url(url)!r} is not an http or https URL.", "write it as https://host/path.")
    check_host(url)
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"The URL of {parts.hostname} has a user or a password in it, and URLs are printed.",
            "leave it out, and pass token=.",
        )


def check_host(url: str) -> None:
    """Raise `ConfigError` for a URL whose host no name server can be asked for.

    Names beyond ASCII are refused, since two standards encode them differently: "ß.de" is "ss.de" in the older one.
    """
    host = urlsplit(url).hostname or ""
    labels = host.removesuffix(".").split(".")
    if host.isascii() and (":" in host or (len(host) <= _MAX_HOST and all(0 < len(each) < 64 for each in labels))):
        return
    raise ConfigError(
        f"The host of {masked_url(url)!r} is no name that can be looked up.",
        "write 1 to 63 letters, digits or hyphens between two dots, and a name with other letters in its ASCII form,"
        " as in xn--bcher-kva.example.",
    )


def check_transport(url: str) -> None:
    """Raise `ConfigError` for plain http over a network: the token and the rows could be read."""
    parts = urlsplit(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"{masked_url(url)} is plain http to another machine: the network in between can read the token and"
            " the rows.",
            "use https://, or Endpoint(…, allow_http=True) within a network that you trust.",
        )


def check_headers(headers: object) -> None:
    """Raise `ConfigError` for headers that cannot be sent, or are not the user's, without printing their values."""
    if not isinstance(headers, Mapping) or not all(
        isinstance(name, str) and _HEADER.fullmatch(name) and isinstance(value, str) and _HEADER_VALUE.fullmatch(value)
        for name, value in headers.items()
    ):
        raise ConfigError(
            "Endpoint(headers=…) is not a mapping of header names to values on one line.",
            'write it as headers={"X-Team": "data"}.',
        )
    own = [name for name in headers if name.lower() in _HEADERS_OF_A_CONNECTION]
    if own:
        raise ConfigError(
            f"Endpoint(headers=…) has {own[0]}, which tells the server where a request on the connection ends.",
            "leave it out: it is written for each request.",
        )
