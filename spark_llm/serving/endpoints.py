"""Endpoints on this machine, served from a thread of their own."""

import asyncio
import contextlib
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import TypeVar

from aiohttp import web

from spark_llm.serving.app import Application, Latency
from spark_llm.serving.faults import Faults
from spark_llm.serving.ledger import Recorded, Stats
from spark_llm.serving.local_models import MiniLM, SmolLM2
from spark_llm.serving.models import Echo, Model

HOST = "127.0.0.1"
NO_FAULTS = Faults()
_BACKLOG = 1024  # clients open hundreds of connections in one moment; a full queue would cost each a second
_Value = TypeVar("_Value")


class LocalEndpoints:
    """Serving endpoints on 127.0.0.1, with models that need no key.

    They speak Databricks' protocol at `.url` and OpenAI's at `.openai_url`, want a token, count every request, and go
    wrong as told. Use them as a context manager, or `start` and `stop` them; started again they have the same port, so
    an outage can be played.

    >>> with LocalEndpoints(faults=Faults("429@1 ok*3"), latency_s=0.05) as endpoints:
    ...     requests.post(endpoints.invocations("chat"), json=…, headers={"Authorization": f"Bearer {endpoints.token}"})
    ...     endpoints.stats.by_status

    Args:
        models: The model behind each endpoint, by the endpoint's name. Default: an `Echo` as chat, complete and embed.
        token: The bearer token that requests must bring. Default: a new one, in `.token`.
        faults: What goes wrong with which request. Can be set anew: `endpoints.faults = Faults("503*2")`.
        latency_s: Seconds before a model is asked, or a function from the request's number (0 first) to seconds.
        port: The port to bind. Default: any free one.
    """

    def __init__(
        self,
        models: Mapping[str, Model] | None = None,
        *,
        token: str | None = None,
        faults: Faults = NO_FAULTS,
        latency_s: Latency = 0.0,
        port: int = 0,
    ) -> None:
        if models is None:
            models = dict.fromkeys(("chat", "complete", "embed"), Echo())
        self._app = Application(
            models, token=token or f"local-{secrets.token_hex(16)}", faults=faults, latency_s=latency_s
        )
        self._port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._started = ExitStack()
        self._turn = threading.RLock()

    @classmethod
    def real(
        cls,
        *,
        n_threads: int = 2,
        token: str | None = None,
        faults: Faults = NO_FAULTS,
        latency_s: Latency = 0.0,
        port: int = 0,
    ) -> "LocalEndpoints":
        """Serve small real models: SmolLM2 as chat and complete, MiniLM as embed.

        They need the extra `local`; their weights (115 MB) are fetched at the first start.
        """
        text = SmolLM2(n_threads=n_threads)
        models: dict[str, Model] = {"chat": text, "complete": text, "embed": MiniLM(n_threads=n_threads)}
        return cls(models, token=token, faults=faults, latency_s=latency_s, port=port)

    def start(self) -> "LocalEndpoints":
        """Start the models and listen; raises `OSError` where the port is taken. Does nothing where it runs."""
        with self._turn:
            if self._thread is not None:
                return self
            with ExitStack() as stack:
                for model in {id(model): model for model in self._app.models.values()}.values():
                    if isinstance(model, AbstractContextManager):
                        stack.enter_context(model)
                self._listen()
                self._started = stack.pop_all()
        return self

    def stop(self) -> None:
        """Drop what is in flight, close the port and stop the models. Does nothing where it does not run."""
        with self._turn:
            if self._thread is None or self._loop is None:
                return
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._thread = self._loop = None
            self._started.close()

    def __enter__(self) -> "LocalEndpoints":  # noqa: PYI034 -- typing.Self came with Python 3.11
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        """Name the endpoints and where they are, never the token."""
        return f"LocalEndpoints({', '.join(self._app.models)} at {self.url if self._port else 'no port yet'})"

    @property
    def url(self) -> str:
        """The address of it all, as `DATABRICKS_HOST` would be: `http://127.0.0.1:PORT`."""
        if not self._port:
            raise RuntimeError(
                "These endpoints have no port yet. Hint: start them, `with LocalEndpoints() as endpoints`."
            )
        return f"http://{HOST}:{self._port}"

    @property
    def openai_url(self) -> str:
        """The base of the OpenAI routes."""
        return f"{self.url}/v1"

    @property
    def token(self) -> str:
        """The token that requests must bring."""
        return self._app.token

    @token.setter
    def token(self, token: str) -> None:
        self._app.token = token

    @property
    def faults(self) -> Faults:
        """What goes wrong with which request, by its number since the start or the last `reset`."""
        return self._app.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._app.faults = faults

    @property
    def latency_s(self) -> Latency:
        """Seconds before a model is asked, or a function of the request's number."""
        return self._app.latency_s

    @latency_s.setter
    def latency_s(self, latency_s: Latency) -> None:
        self._app.latency_s = latency_s

    @property
    def names(self) -> list[str]:
        """The names of the endpoints."""
        return list(self._app.models)

    def invocations(self, name: str) -> str:
        """Return the URL that one endpoint is asked at."""
        return f"{self.url}/serving-endpoints/{name}/invocations"

    @property
    def stats(self) -> Stats:
        """The counters at this moment; every answer that a client has is in them."""
        return self._app.ledger.stats

    @property
    def requests(self) -> deque[Recorded]:
        """The last 10,000 requests as they came, oldest first."""
        return self._app.ledger.recorded

    def reset(self) -> None:
        """Set every counter to zero, forget the requests, and begin the faults' script again."""
        self._app.ledger.reset()

    def wait_for(self, predicate: Callable[[Stats], bool], timeout_s: float = 10.0) -> Stats:
        """Block until the counters satisfy `predicate`, and return them; raises `TimeoutError`.

        >>> endpoints.wait_for(lambda stats: stats.in_flight == 3, timeout_s=5)
        """
        return self._app.ledger.wait_for(predicate, timeout_s)

    def hold(self, word: str) -> None:
        """Let requests wait that have `word` somewhere in their body, until it is released."""
        self._on_loop(lambda: self._app.holds.hold(word))

    def release(self, word: str | None = None) -> None:
        """Let go the requests that `word` holds, or all."""
        self._on_loop(lambda: self._app.holds.release(word))

    def _on_loop(self, act: Callable[[], _Value]) -> _Value:
        """Run `act` where the application runs, and wait for it."""

        async def run() -> _Value:
            return act()

        with self._turn:
            if self._loop is None:
                return act()
            return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _listen(self) -> None:
        """Listen on a loop in a thread of its own: the caller's thread may run one already, as a notebook's does."""
        runner = web.AppRunner(
            self._app.build(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1, keepalive_timeout=3600
        )
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_serve, args=(loop, runner), name="spark-llm-serving", daemon=True)
        thread.start()
        try:
            self._port = asyncio.run_coroutine_threadsafe(_bind(runner, self._port), loop).result()
        except BaseException:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            raise
        self._loop, self._thread = loop, thread


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
