"""The one door to the network: a body goes out, a `Response` comes back, whatever happens. No exception leaves.

aiohttp's client, with connections kept open between requests. Redirects are not followed: the token is for one host.
"""

import asyncio
import time
from urllib.request import getproxies, proxy_bypass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from spark_llm._values import Response
from spark_llm._version import __version__

CONNECT_S = 15.0
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": f"spark_llm/{__version__}"}


def _proxy_for(url: URL) -> str | None:
    """Return the proxy that the environment names for this URL, looked up once.

    aiohttp's own `trust_env` would look for proxies and read ~/.netrc at every request, and send what it finds there.
    """
    host = url.host or ""
    return None if proxy_bypass(host) else getproxies().get(url.scheme)


class HTTPClient:
    """Posts JSON to one URL over a pool of open connections; lives on one event loop."""

    def __init__(self, url: str, timeout_s: float, connections: int) -> None:
        """Post to `url`; give one try `timeout_s`; keep at most `connections` open."""
        self._url = URL(url, encoded=True)
        self._timeout_s = timeout_s
        self._proxy = _proxy_for(self._url)
        self._headers: dict[str | None, CIMultiDict[str]] = {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ttl_dns_cache=300, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, CONNECT_S)),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def post(self, body: bytes, token: str | None) -> Response:
        """Send one body and wait for the whole answer, a time-out or a broken connection."""
        began = time.monotonic()
        status = 0
        try:
            async with self._session.post(
                self._url, data=body, headers=self._headers_for(token), proxy=self._proxy, allow_redirects=False
            ) as answer:
                status = answer.status
                content = await answer.read()
            return Response(status, content, answer.headers, time.monotonic() - began)
        except aiohttp.ConnectionTimeoutError:
            return Response(
                status,
                latency_s=time.monotonic() - began,
                fault="connection",
                detail=f"no connection within {time.monotonic() - began:.1f} s",
            )
        except asyncio.TimeoutError:
            waited = time.monotonic() - began
            return Response(
                status,
                latency_s=waited,
                fault="timeout",
                detail=f"no whole answer within {self._timeout_s:g} s ({waited:.1f} s waited)",
            )
        except aiohttp.ClientPayloadError as error:
            return Response(
                status,
                latency_s=time.monotonic() - began,
                fault="invalid_response",
                detail=f"the answer was cut short: {error}",
            )
        except (aiohttp.ClientError, OSError) as error:
            return Response(
                status,
                latency_s=time.monotonic() - began,
                fault="connection",
                detail=f"{type(error).__name__}: {error}",
            )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    def _headers_for(self, token: str | None) -> CIMultiDict[str]:
        headers = self._headers.get(token)
        if headers is None:
            headers = CIMultiDict(_HEADERS)
            if token is not None:
                headers["Authorization"] = f"Bearer {token}"
            self._headers = {token: headers}
        return headers
