"""An HTTP application on an event loop in a thread of its own.

The caller's thread may run a loop already, as a notebook's does.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable

from aiohttp import web

HOST = "127.0.0.1"
MOST_HEADER_BYTES = 8190  # of the first line, and of each header
_BACKLOG = 1024  # clients open hundreds of connections in one moment; a full queue would cost each a second


class _OfOurs(logging.Filter):
    """Lets pass what is wrong with the server, and not what a client sends that is no HTTP: it has its 400."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        is_theirs = kind is not None and (
            kind.__module__ == "aiohttp.http_exceptions" or kind is web.RequestPayloadError
        )
        return not is_theirs


_logger = logging.getLogger(__name__)
_logger.addFilter(_OfOurs())


class Server:
    """Listens from the moment it is made until it is stopped.

    Attributes:
        port: The port that it listens at.
    """

    def __init__(self, app: web.Application, port: int) -> None:
        """Listen at `port`, or at any free one if it is 0; raises `OSError` where it is taken."""
        runner = web.AppRunner(
            app,
            logger=_logger,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=0.1,
            keepalive_timeout=3600,
            max_line_size=MOST_HEADER_BYTES,
            max_field_size=MOST_HEADER_BYTES,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(self._loop, runner), name="spark-llm-serving", daemon=True)
        self._thread.start()
        try:
            self.port = asyncio.run_coroutine_threadsafe(_bind(runner, port), self._loop).result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Drop what is in flight and close the port."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def runs_here(self) -> bool:
        """Whether this is the application's own thread."""
        return threading.current_thread() is self._thread

    def call(self, act: Callable[[], None]) -> None:
        """Run `act` on the loop, from any other thread, and wait for it."""

        async def run() -> None:
            act()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()


async def _bind(runner: web.AppRunner, port: int) -> int:
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=_BACKLOG).start()
    bound: int = runner.addresses[0][1]
    return bound


def _serve(loop: asyncio.AbstractEventLoop, runner: web.AppRunner) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_close(runner))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _close(runner: web.AppRunner) -> None:
    """Close every connection at once, hung or not; their handlers are cancelled and count it."""
    for connection in runner.server.connections if runner.server else ():
        if connection.transport is not None:
            connection.transport.abort()
    await runner.cleanup()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*others, return_exceptions=True)
