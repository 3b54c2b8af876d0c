"""Endpoints on this machine, served from a thread of their own."""

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

from spark_llm.serving.app import Application, Latency
from spark_llm.serving.bearer import BearerToken
from spark_llm.serving.faults import Faults
from spark_llm.serving.ledger import Recorded, Stats
from spark_llm.serving.limits import After, Capacity
from spark_llm.serving.local_models import MiniLM, SmolLM2
from spark_llm.serving.models import Echo, Model
from spark_llm.serving.server import HOST, Server

NO_FAULTS = Faults()
UNLIMITED = Capacity()


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
        token_expires: When the token is good no longer, counted from its setting and by the requests that brought it;
            they are then refused with 401 until it is set anew: `endpoints.token = "new"`. Default: never.
        faults: What goes wrong with which request. Can be set anew: `endpoints.faults = Faults("503*2")`.
        latency_s: Seconds before a model is asked, or a function from the request's number (0 first) to seconds.
        capacity: How many requests all endpoints together take, at once and in a window; above it they wait or are
            refused at once. Can be set anew: `endpoints.capacity = Capacity(concurrency=8)`. Default: no limit.
        port: The port to bind. Default: any free one.
    """

    def __init__(
        self,
        models: Mapping[str, Model] | None = None,
        *,
        token: str | None = None,
        token_expires: After | None = None,
        faults: Faults = NO_FAULTS,
        latency_s: Latency = 0.0,
        capacity: Capacity = UNLIMITED,
        port: int = 0,
    ) -> None:
        if models is None:
            models = dict.fromkeys(("chat", "complete", "embed"), Echo())
        bearer = _set_now(token or f"local-{secrets.token_hex(16)}", token_expires)
        self._app = Application(models, token=bearer, faults=faults, latency_s=latency_s, capacity=capacity)
        self._port = port
        self._server: Server | None = None
        self._started = ExitStack()
        self._turn = threading.RLock()

    @classmethod
    def real(
        cls,
        *,
        n_threads: int = 2,
        token: str | None = None,
        token_expires: After | None = None,
        faults: Faults = NO_FAULTS,
        latency_s: Latency = 0.0,
        capacity: Capacity = UNLIMITED,
        port: int = 0,
    ) -> "LocalEndpoints":
        """Serve small real models: SmolLM2 as chat and complete, MiniLM as embed.

        They need the extra `local`; their weights (115 MB) are fetched at the first start.
        """
        text = SmolLM2(n_threads=n_threads)
        models: dict[str, Model] = {"chat": text, "complete": text, "embed": MiniLM(n_threads=n_threads)}
        return cls(
            models,
            token=token,
            token_expires=token_expires,
            faults=faults,
            latency_s=latency_s,
            capacity=capacity,
            port=port,
        )

    def start(self) -> "LocalEndpoints":
        """Start the models and listen; raises `OSError` where the port is taken. Does nothing where it runs."""
        with self._turn:
            if self._server is not None:
                return self
            with ExitStack() as stack:
                for model in {id(model): model for model in self._app.models.values()}.values():
                    if isinstance(model, AbstractContextManager):
                        stack.enter_context(model)
                self._server = Server(self._app.build(), self._port)
                self._port = self._server.port
                self._started = stack.pop_all()
        return self

    def stop(self) -> None:
        """Drop what is in flight, close the port and stop the models. Does nothing where it does not run."""
        with self._turn:
            if self._server is None:
                return
            self._server.stop()
            self._server = None
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
        """The token that requests must bring; set anew, it is good for as long again."""
        return self._app.token.value

    @token.setter
    def token(self, token: str) -> None:
        self._app.token = _set_now(token, self.token_expires)

    @property
    def token_expires(self) -> After | None:
        """When the token is good no longer; set anew, it counts from now."""
        return self._app.token.expires

    @token_expires.setter
    def token_expires(self, token_expires: After | None) -> None:
        self._app.token = _set_now(self.token, token_expires)

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
    def capacity(self) -> Capacity:
        """How many requests are taken; set anew, its windows are empty, and its steps count from the next request.

        What is in work or in line stays there; where requests wait in line, the steps count from the setting.
        """
        return self._app.gate.capacity

    @capacity.setter
    def capacity(self, capacity: Capacity) -> None:
        self._on_loop(lambda: self._app.gate.reset(capacity))

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
        """Set every counter to zero, forget the requests, and begin the faults' script and the capacity again."""
        self._on_loop(self._app.reset)

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

    def _on_loop(self, act: Callable[[], None]) -> None:
        """Run `act` where the application runs, and wait for it."""
        with self._turn:
            if self._server is None:
                act()
            else:
                self._server.call(act)


def _set_now(token: str, expires: After | None) -> BearerToken:
    return BearerToken(token, expires=expires, now=time.monotonic())
