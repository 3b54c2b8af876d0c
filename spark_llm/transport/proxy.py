"""The proxy for a URL by an environment's variables, as curl, requests, httpx and Go read them. It is pure.

These differ about NO_PROXY: a host that one of them reaches without a proxy is reached without it here.
"""

import ipaddress
import re
from collections.abc import Mapping

from yarl import URL

from spark_llm.errors import ConfigError
from spark_llm.protocol.urls import is_loopback

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_SUPPORTED_SCHEMES = ("http", "https")


def proxy_of(url: URL, proxies: Mapping[str, str]) -> URL | None:
    """Return the proxy for a URL, or None. `proxies` has the scheme, "all" for any scheme, and "no" for exceptions.

    Raises `ConfigError` for a proxy that cannot be used.
    """
    scheme = url.scheme if proxies.get(url.scheme) else "all"
    address = proxies.get(scheme, "").strip()
    if not address or is_exempt(url.raw_host or "", url.port, proxies.get("no", "")):
        return None
    name = f"{scheme.upper()}_PROXY"
    try:
        proxy = URL(address if "://" in address else f"http://{address}")
        f"{proxy.user}{proxy.password}".encode("latin-1")  # as basic authentication encodes them
    except ValueError:
        proxy = URL()
    if proxy.scheme.startswith("socks"):
        raise ConfigError(
            f"{name} names a SOCKS proxy ({proxy.scheme}://), which is not supported; nothing was sent.",
            f"set {url.scheme.upper()}_PROXY on the workers to an http:// proxy, or name the host in NO_PROXY.",
        )
    # A password with a bare "/", "?" or "#" ends the address early: the rest is parsed as a path.
    if (
        proxy.scheme not in _SUPPORTED_SCHEMES
        or not proxy.host
        or ":" in (proxy.user or "")
        or str(proxy.relative()) not in ("", "/")
    ):
        raise ConfigError(
            f"The address of the proxy in {name} cannot be read; nothing was sent.",
            "write it as http://user:password@host:port, with other characters percent-encoded.",
        )
    return proxy


def is_exempt(host: str, port: int | None, no_proxy: str) -> bool:
    """Return whether a host is reached without a proxy: this machine always is, others by NO_PROXY.

    An entry is `*`, an address, a range (10.0.0.0/8), a domain with its subdomains, or `.domain`; `:port` may follow.
    """
    host = host.lower().rstrip(".")
    entries = re.split(r"[\s,]+", no_proxy.lower())
    return is_loopback(host) or any(_covers(entry, host, port) for entry in entries)


def _covers(entry: str, host: str, port: int | None) -> bool:
    address = _ip_address(host)
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(re.sub(r"[\[\]]", "", entry), strict=False)
        except ValueError:
            return False
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit() and (":" not in name or name.endswith("]")):
        if number != str(port):
            return False
        entry = name
    if address is not None:
        return entry == "*" or address == _ip_address(entry.strip("[]"))
    domain = entry.removeprefix("*").strip(".")
    return entry == "*" or host.endswith(f".{domain}") or (host == domain and not entry.startswith("*"))


def _ip_address(text: str) -> _Address | None:
    """Return the IP address in a text, an IPv4-mapped one as IPv4; None for a name."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
