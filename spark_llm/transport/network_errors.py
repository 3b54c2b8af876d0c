"""The messages of network errors, with the cause and the host, and which of them are permanent."""

import os
import socket
import ssl

import aiohttp
from yarl import URL

_PLAIN_HTTP_REASONS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")  # TLS to a port of plain HTTP


def error_text(error: Exception) -> str:
    """Return the message for a network error: the cause and the host."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return _connection_error_text(error)
    if isinstance(error, aiohttp.ClientHttpProxyError):  # its own text has the proxy's password
        return f"the proxy lets no connection through: {error.status} {error.message}"
    if _is_about_url(error):
        return f"the URL cannot be used: {on_one_line(error)}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return _unreadable_text(on_one_line(error.message) or "no status line")
    return f"the connection broke: {type(error).__name__}: {error}"


def _unreadable_text(text: str) -> str:
    """Return the message for an answer that aiohttp cannot read, from its own text."""
    if text.startswith(("Got more than ", "Too many headers")):
        return f"the headers of the answer are too large: {text.partition(' when ')[0]}"
    problem = "the answer cannot be read" if "content-encoding" in text else "what came back is not HTTP"
    return f"{problem}: {text}"


def is_permanent(error: Exception) -> bool:
    """Return whether a retry is useless: a URL, a certificate, a protocol or a proxy has to be fixed first."""
    if _is_about_url(error):
        return True
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return error.status in (401, 403, 407)
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return isinstance(error.os_error, ssl.SSLError) and error.os_error.reason in _PLAIN_HTTP_REASONS
    return isinstance(error, aiohttp.ClientConnectorCertificateError)


def _is_about_url(error: Exception) -> bool:
    """Return whether the URL is no address, or has a host that cannot be encoded for a name server."""
    if isinstance(error, UnicodeDecodeError):  # of something that a server has sent
        return False
    return isinstance(error, (UnicodeError, aiohttp.InvalidURL))


def _connection_error_text(error: aiohttp.ClientConnectorError) -> str:
    place = host_and_port(error)
    certificate = isinstance(error, aiohttp.ClientConnectorCertificateError)  # has no `os_error` in aiohttp 3.10
    reason = error.__cause__ if certificate else error.os_error
    if isinstance(reason, socket.gaierror):
        return f"the name {error.host} cannot be resolved: {reason.strerror}"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {reason.verify_message} ({place})"
    if isinstance(reason, ssl.SSLError):
        return f"no TLS with {place}: {(reason.reason or str(reason)).replace('_', ' ').lower()}"
    proxy = "the proxy " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
    text = os.strerror(reason.errno).lower() if isinstance(reason, OSError) and reason.errno else str(reason)
    return f"no connection to {proxy}{place}: {text}"


def host_and_port(address: URL | aiohttp.ClientConnectorError) -> str:
    """Return the host and the port of an address, an IPv6 host in brackets."""
    host = address.host or ""
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


def on_one_line(text: object) -> str:
    """Return a text with each run of blanks as one space."""
    return " ".join(str(text).split())
