"""The thread that runs an engine's event loop, and the handling of unexpected exceptions in it.

An unexpected exception never leaves a stream waiting. It is logged, its owner ends the streams that it belongs to, and
each row without a result gets an error that names the exception's type.
"""

import asyncio
import contextlib
import encodings.idna  # noqa: F401 -- for the first connection: on the loop, its import would look through Spark's jars
import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakMethod

from spark_llm.protocol.values import RowError

CLOSE_S = 5.0  # how long `close` waits for the thread

_logger = logging.getLogger("spark_llm.engine")


class LoopOwner(Protocol):
    """The object that works on the loop; all its methods run in the loop's thread."""

    def on_error(self, error: BaseException) -> None:
        """Recover from an exception in a callback."""

    def on_loop_end(self, reason: str) -> None:
        """End everything that waits for the loop, which has ended."""

    async def shut_down(self) -> None:
        """Cancel the tasks and close the connections, before the loop is closed."""


class LoopThread:
    """An event loop in a daemon thread of its own; it runs until it is closed or an exception ends it."""

    def __init__(self, label: str) -> None:
        """Make the loop, which `start` runs; the log's lines begin with `label`."""
        self.loop = new_event_loop()
        self._label = label
        self._thread: threading.Thread | None = None
        self._owner: LoopOwner

    def start(self, owner: LoopOwner) -> None:
        """Start the thread."""
        self._owner = owner
        self._thread = threading.Thread(target=self._run, name="spark_llm engine", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self.loop.close()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs, in this process and not in its parent."""
        return self._thread is not None and self._thread.is_alive()

    def call(self, callback: Callable[..., None], *arguments: object) -> None:
        """Have the loop call back; do nothing where it was closed, which its streams notice by `is_alive`."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.guarded, callback, *arguments)

    def guarded(self, callback: Callable[..., None], *arguments: object) -> None:
        """Call `callback` on the loop, and hand its exception to the owner: asyncio would only log it."""
        try:
            callback(*arguments)
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the rows say so
            self._owner.on_error(error)

    def close(self) -> None:
        """Stop the loop, and wait until its owner has shut down."""
        self.call(self.loop.stop)
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        reason = "it was closed"
        try:
            self.loop.run_forever()
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the rows say so
            reason = f"{type(error).__name__} in its event loop"
            log_unexpected(self._label, error)
        self._owner.on_loop_end(reason)
        try:
            self.loop.run_until_complete(self._owner.shut_down())
        except BaseException as error:  # noqa: BLE001 -- as above
            log_unexpected(self._label, error)
        self.loop.close()  # its executor's threads end when their work is done
        del self._owner  # which holds this object: without the cycle both are freed at once
        _logger.info("%s: engine closed", self._label)


def log_unexpected(label: str, error: BaseException) -> None:
    """Log the type of an error; its traceback, which may quote a row, at DEBUG."""
    shows = _logger.isEnabledFor(logging.DEBUG)
    _logger.error("%s: unexpected %s", label, type(error).__name__, exc_info=error if shows else None)


def engine_error(reason: str) -> RowError:
    """Return the error of rows that the engine cannot answer any more."""
    message = f"the engine stopped: {reason}. Hint: run it again; the logger spark_llm.engine has more, at DEBUG."
    return RowError("cancelled", None, message, retryable=True)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop where it is installed: a row then costs a fifth less CPU."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def weak(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls a method and does not keep its object: a closed engine is freed at once."""
    reference = WeakMethod(method)

    def call(*arguments: object) -> Any:  # noqa: ANN401 -- the method's result
        found = reference()
        return None if found is None else found(*arguments)

    return call
