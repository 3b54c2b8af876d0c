"""Single requests that block, each on a connection of its own: for threads without an event loop."""

import asyncio
from collections.abc import Callable, Mapping

from spark_llm.protocol.bodies import RequestBody
from spark_llm.protocol.values import Response
from spark_llm.transport.http import HTTPClient, LongBody, TransferClient


def send_once(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: RequestBody | None = None,
    token: str | None = None,
    azure: bool = False,
    timeout_s: float = 30.0,
    ca_bundle: str | None = None,
) -> Response:
    """Send one request on a new connection and return its response; it blocks."""

    async def once() -> Response:
        client = HTTPClient(url, timeout_s, 1, headers=headers, azure=azure, ca_bundle=ca_bundle)
        try:
            return await client.send(method, body, token)
        finally:
            await client.close()

    return asyncio.run(once())


def transfer_once(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: LongBody | None = None,
    sink: Callable[[bytes], object] | None = None,
    token: str | None = None,
    azure: bool = False,
    idle_s: float = 300.0,
    ca_bundle: str | None = None,
) -> Response:
    """Send one request on a new connection as `TransferClient` does, with pauses up to `idle_s`; it blocks."""

    async def once() -> Response:
        client = TransferClient(url, idle_s, 1, headers=headers, azure=azure, ca_bundle=ca_bundle)
        try:
            return await client.transfer(method, body, token, sink)
        finally:
            await client.close()

    return asyncio.run(once())
