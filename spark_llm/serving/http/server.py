"""The HTTP server: an aiohttp application on an event loop in a thread of its own.

The caller's thread may already run a loop, as a notebook's does.
"""

import asyncio
import contextlib
import errno
import logging
import threading
from collections.abc import Callable

from aiohttp import web

HOST = "127.0.0.1"
MAX_HEADER_BYTES = 8190  # of the first line, and of each header
_BACKLOG = 1024  # clients open hundreds of connections at once; a full queue would delay each by a second


def _is_server_error(record: logging.LogRecord) -> bool:
    """Return whether an error is the server's own; clients that send invalid HTTP get a 400, and no line in the log."""
    error_type = record.exc_info[0] if record.exc_info else None
    is_client_error = error_type is web.RequestPayloadError or (
        error_type is not None and error_type.__module__ == "aiohttp.http_exceptions"
    )
    return not is_client_error


_logger = logging.getLogger(__name__)
_logger.addFilter(_is_server_error)


class Server:
    """Listens from its construction until `stop`.

    Attributes:
        port: The port that it listens on.
    """

    def __init__(self, app: web.Application, port: int) -> None:
        """Listen on `port`, or on any free one for 0; raises `OSError` if it is taken."""
        runner = web.AppRunner(
            app,
            logger=_logger,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=0.1,
            keepalive_timeout=3600,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(self._loop, runner), name="spark-llm-serving", daemon=True)
        self._thread.start()
        try:
            self.port = asyncio.run_coroutine_threadsafe(_bind(runner, port), self._loop).result()
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise OSError(error.errno, f"port {port} is in use. Hint: port=0 takes any free one.") from error
            raise

    def stop(self) -> None:
        """Drop requests in flight and close the port."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller is on the application's own thread."""
        return threading.current_thread() is self._thread

    def run_on_loop(self, action: Callable[[], None]) -> None:
        """Run `action` on the loop, from any other thread, and wait for it."""

        async def run() -> None:
            action()

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
    """Abort every connection at once; that cancels its handlers, which count a disconnect."""
    for connection in runner.server.connections if runner.server else ():
        if connection.transport is not None:
            connection.transport.abort()
    await runner.cleanup()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*others, return_exceptions=True)
