"""`LocalEndpoints`: serving endpoints on this machine, on an event loop in a thread of their own."""

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from urllib.parse import quote

from spark_llm.serving.auth.oauth import TokenEndpoint
from spark_llm.serving.auth.tokens import HOUR_S, IssuedTokenExpiry, Token, TokenStore
from spark_llm.serving.batches.file_store import FileStore
from spark_llm.serving.batches.worker import BatchWorker
from spark_llm.serving.catalog import ServingEndpoint, deploy
from spark_llm.serving.http.app import Application
from spark_llm.serving.http.batch_api import BatchApi
from spark_llm.serving.http.batch_controls import BatchControls
from spark_llm.serving.http.invocations import InvocationHandler, Latency
from spark_llm.serving.http.lines import LineHandler
from spark_llm.serving.http.server import HOST, Server
from spark_llm.serving.models.base import Model
from spark_llm.serving.models.custom import PredictFunction
from spark_llm.serving.scenario.batches import Batches
from spark_llm.serving.scenario.capacity import After, Capacity
from spark_llm.serving.scenario.faults import Faults
from spark_llm.serving.scenario.stats import Recorded, Stats
from spark_llm.serving.stock import echo_endpoints, real_endpoints

HOUR = After(elapsed_s=HOUR_S)
NO_FAULTS = Faults()
UNLIMITED = Capacity()
AT_ONCE = Batches()


class LocalEndpoints(BatchControls):
    """Serving endpoints on 127.0.0.1, with models that need no key.

    They serve Databricks' protocol at `.url` and OpenAI's at `.openai_url`, require a token, count every request, and
    inject faults. Use them as a context manager, or call `start` and `stop`. A restart keeps the port, so a test can
    simulate an outage.

    >>> with LocalEndpoints(faults=Faults("429@1 ok*3"), latency_s=0.05) as endpoints:
    ...     requests.post(endpoints.invocations("chat"), json=…, headers={"Authorization": f"Bearer {endpoints.token}"})
    ...     endpoints.stats.by_status

    Args:
        models: The model of each endpoint, or a `ServingEndpoint`, by the endpoint's name. A function is a custom
            model: `CustomModel`. Default: chat, complete and embed, each an `Echo` with one task.
        token: The plain token for requests. Default: a new one, in `.token`.
        token_expires: The expiry of the plain token, counted from its setting and by the requests that bring it. They
            then get 401 until it is set again: `endpoints.token = "new"`. Default: never.
        clients: The secrets of the OAuth clients, by their ids. Default: one client, in `.client_id` and
            `.client_secret`.
        issued_tokens_expire: The expiry of issued tokens, or a function from a token's number (0 first) to it. Expired
            ones get 403. Default: after an hour.
        faults: The faults of requests. Can be set later: `endpoints.faults = Faults("503*2")`.
        latency_s: Seconds before the model runs, or a function from the request's number (0 first) to seconds.
        capacity: The concurrency and quotas of all endpoints together; requests above it wait or are refused. Can be
            set later: `endpoints.capacity = Capacity(concurrency=8)`. Default: no limit.
        batches: The speed and the faults of the Batch API. Can be set later: `endpoints.batches = Batches(…)`.
        port: The port to bind. Default: any free one.
    """

    def __init__(
        self,
        models: Mapping[str, Model | PredictFunction | ServingEndpoint] | None = None,
        *,
        token: str | None = None,
        token_expires: After | None = None,
        clients: Mapping[str, str] | None = None,
        issued_tokens_expire: IssuedTokenExpiry = HOUR,
        faults: Faults = NO_FAULTS,
        latency_s: Latency = 0.0,
        capacity: Capacity = UNLIMITED,
        batches: Batches = AT_ONCE,
        port: int = 0,
    ) -> None:
        self._catalog = deploy(echo_endpoints() if models is None else models)
        plain = _new_token(token or f"local-{secrets.token_hex(16)}", token_expires)
        self._tokens = TokenStore(plain, issued_expire=issued_tokens_expire)
        self._invocations = InvocationHandler(
            self._catalog, self._tokens, faults=faults, latency_s=latency_s, capacity=capacity
        )
        if clients is None:
            clients = {f"client-{secrets.token_hex(8)}": secrets.token_hex(16)}
        names_by_id = {each.id: name for name, each in self._catalog.items()}
        token_endpoint = TokenEndpoint(clients, self._tokens, names_by_id)
        self._clients = token_endpoint.clients
        lines = LineHandler(self._invocations)
        self._batch_worker = BatchWorker(FileStore(), lines.answer, lines.is_served, batches)
        self._batch_api = BatchApi(self._tokens, self._batch_worker)
        self._app = Application(self._catalog, self._tokens, self._invocations, token_endpoint, self._batch_api)
        self._port = port
        self._server: Server | None = None
        self._running_models = ExitStack()
        self._lock = threading.RLock()

    @classmethod
    def real(cls, *, n_threads: int = 1, token: str | None = None, port: int = 0) -> "LocalEndpoints":
        """Return endpoints with small real models, from `real_endpoints`.

        Pass `real_endpoints()` to the constructor to combine them with its other arguments. They need the extra
        `local`; the first start fetches their weights (115 MB).
        """
        return cls(real_endpoints(n_threads=n_threads), token=token, port=port)

    def start(self) -> "LocalEndpoints":
        """Start the models and listen; raises `OSError` if the port is taken. No-op when running."""
        with self._lock:
            if self._server is not None:
                return self
            with ExitStack() as stack:
                models = {id(model): model for each in self._catalog.values() for model in each.entities.values()}
                for model in models.values():  # each once
                    if isinstance(model, AbstractContextManager):
                        stack.enter_context(model)
                self._server = Server(self._app.build(), self._port)
                self._port = self._server.port
                self._server.run_on_loop(self._batch_worker.resume)
                self._running_models = stack.pop_all()
        return self

    def stop(self) -> None:
        """Drop requests in flight, close the port and stop the models. No-op when stopped.

        Files and batches stay, and the work goes on at the next start; the end of the context manager forgets them.
        """
        with self._lock:
            if self._server is None:
                return
            self._server.stop()
            self._server = None
            self._running_models.close()

    def __enter__(self) -> "LocalEndpoints":  # noqa: PYI034 -- typing.Self came with Python 3.11
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._batch_worker.clear()

    def __repr__(self) -> str:
        """Return the names and the address, never the token."""
        return f"LocalEndpoints({', '.join(self.names)} at {self.url if self._port else 'no port yet'})"

    @property
    def url(self) -> str:
        """The workspace's address, as in `DATABRICKS_HOST`: `http://127.0.0.1:PORT`."""
        if not self._port:
            raise RuntimeError(
                "The endpoints have no port before the start. Hint: start them, `with LocalEndpoints() as endpoints`."
            )
        return f"http://{HOST}:{self._port}"

    @property
    def openai_url(self) -> str:
        """The base URL of the OpenAI routes."""
        return f"{self.url}/v1"

    @property
    def page_url(self) -> str:
        """The URL of the serving page with the plain token, for a browser.

        The token is in the fragment, which a browser sends to no server. The page removes it from the address bar.
        """
        return f"{self.url}/#token={quote(self.token, safe='')}"

    @property
    def token(self) -> str:
        """The plain token; setting it starts its expiry again."""
        return self._tokens.plain.value

    @token.setter
    def token(self, token: str) -> None:
        self._set_token(lambda: _new_token(token, self.token_expires))

    @property
    def token_expires(self) -> After | None:
        """The expiry of the plain token; setting it starts its count."""
        return self._tokens.plain.expires

    @token_expires.setter
    def token_expires(self, token_expires: After | None) -> None:
        self._set_token(lambda: _new_token(self.token, token_expires))

    def _set_token(self, make: Callable[[], Token]) -> None:
        self._on_loop(lambda: setattr(self._tokens, "plain", make()))

    @property
    def client_id(self) -> str:
        """The id of the first OAuth client."""
        return next(iter(self._clients))

    @property
    def client_secret(self) -> str:
        """The secret of the first OAuth client."""
        return self._clients[self.client_id]

    @property
    def tokens_issued(self) -> int:
        """The number of tokens issued to clients since the start or the last `reset`."""
        return self._tokens.issued_count

    def revoke(self) -> None:
        """Revoke every token: the plain one and those issued to clients.

        Tokens set (`endpoints.token = "new"`) or issued from now on are valid.
        """
        self._on_loop(self._tokens.revoke)

    def set_ready(self, name: str, ready: bool) -> None:  # noqa: FBT001 -- the name says which value it sets
        """Stop an endpoint, which then refuses every request, or start it again; raises `ValueError` if unknown."""
        if (deployment := self._catalog.get(name)) is None:
            raise ValueError(f"unknown endpoint {name!r}. Hint: these are served: {', '.join(self.names)}.")
        self._on_loop(lambda: setattr(deployment, "ready", ready))

    @property
    def faults(self) -> Faults:
        """The faults of requests, by their number since the start or the last `reset`."""
        return self._invocations.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._on_loop(lambda: setattr(self._invocations, "faults", faults))

    @property
    def latency_s(self) -> Latency:
        """Seconds before the model runs, or a function of the request's number."""
        return self._invocations.latency_s

    @latency_s.setter
    def latency_s(self, latency_s: Latency) -> None:
        self._on_loop(lambda: setattr(self._invocations, "latency_s", latency_s))

    @property
    def capacity(self) -> Capacity:
        """The capacity of all endpoints together; setting it empties the windows and restarts the steps.

        Requests in work or in the queue stay there. The steps count from the next request, or from the setting if
        requests are in the queue.
        """
        return self._invocations.gate.capacity

    @capacity.setter
    def capacity(self, capacity: Capacity) -> None:
        self._on_loop(lambda: self._invocations.gate.reset(capacity))

    @property
    def names(self) -> list[str]:
        """The names of the endpoints."""
        return list(self._catalog)

    def invocations(self, name: str) -> str:
        """Return the invocations URL of one endpoint."""
        return f"{self.url}/serving-endpoints/{name}/invocations"

    @property
    def stats(self) -> Stats:
        """The counters at this moment; they include every response that a client has received."""
        return self._invocations.stats.snapshot()

    @property
    def requests(self) -> deque[Recorded]:
        """The last 10,000 requests as received, oldest first; fewer if their bodies have more than 128 MB."""
        return self._invocations.stats.recorded

    def reset(self) -> None:
        """Set every counter to zero, forget the requests, and restart the scripts and the capacity.

        Files and batches stay.
        """
        self._on_loop(self._invocations.reset)
        self._on_loop(self._batch_worker.answered.clear)
        self._on_loop(lambda: self._batch_api.set_script(self.batches))
        self._on_loop(self._tokens.reset)

    def wait_for(self, predicate: Callable[[Stats], bool], timeout_s: float = 10.0) -> Stats:
        """Block until the counters satisfy `predicate`, and return them; raises `TimeoutError`.

        >>> endpoints.wait_for(lambda stats: stats.in_flight == 3, timeout_s=5)
        """
        return self._invocations.stats.wait_for(predicate, timeout_s)

    def hold(self, word: str) -> None:
        """Hold requests that have `word` somewhere in their body, until `release`."""
        self._on_loop(lambda: self._invocations.holds.hold(word))

    def release(self, word: str | None = None) -> None:
        """Release the requests that `word` holds, or all."""
        self._on_loop(lambda: self._invocations.holds.release(word))

    def _on_loop(self, action: Callable[[], None]) -> None:
        """Run `action` on the application's event loop, and wait for it; at once on that loop's own thread."""
        server = self._server
        if server is not None and server.is_current_thread:  # waiting for itself would never end
            action()
            return
        with self._lock:
            if self._server is None:
                action()
            else:
                self._server.run_on_loop(action)


def _new_token(token: str, expires: After | None) -> Token:
    return Token(token, expires=expires, now=time.monotonic())
