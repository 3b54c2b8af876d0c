"""Endpoints on this machine, served from a thread of their own."""

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

from spark_llm.serving.auth.oauth import TokenEndpoint
from spark_llm.serving.auth.tokens import AN_HOUR_S, IssuedTokensExpire, Token, Tokens
from spark_llm.serving.catalog import Catalog, ServingEndpoint
from spark_llm.serving.http.app import Application
from spark_llm.serving.http.invocations import Invocations, Latency
from spark_llm.serving.http.server import HOST, Server
from spark_llm.serving.models.base import Model
from spark_llm.serving.scenario.capacity import After, Capacity
from spark_llm.serving.scenario.faults import Faults
from spark_llm.serving.scenario.stats import Recorded, Stats
from spark_llm.serving.stock import echo_endpoints, real_endpoints

AN_HOUR = After(elapsed_s=AN_HOUR_S)
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
        models: The model behind each endpoint, or a `ServingEndpoint`, by the endpoint's name. Default: an `Echo` for
            each of chat, complete and embed, and for its own task alone.
        token: The plain token, which requests may bring. Default: a new one, in `.token`.
        token_expires: When the plain token is good no longer, counted from its setting and by the requests that
            brought it; they are then refused with 401 until it is set anew: `endpoints.token = "new"`. Default: never.
        clients: The secrets of the OAuth clients that may ask for tokens, by their ids. Default: one client, in
            `.client_id` and `.client_secret`.
        issued_tokens_expire: When a token that a client was given is good no longer, or a function from that token's
            number (0 first) to it; it is then refused with 403. Default: after an hour.
        faults: What goes wrong with which request. Can be set anew: `endpoints.faults = Faults("503*2")`.
        latency_s: Seconds before a model is asked, or a function from the request's number (0 first) to seconds.
        capacity: How many requests all endpoints together take, at once and in a window; above it they wait or are
            refused at once. Can be set anew: `endpoints.capacity = Capacity(concurrency=8)`. Default: no limit.
        port: The port to bind. Default: any free one.
    """

    def __init__(
        self,
        models: Mapping[str, Model | ServingEndpoint] | None = None,
        *,
        token: str | None = None,
        token_expires: After | None = None,
        clients: Mapping[str, str] | None = None,
        issued_tokens_expire: IssuedTokensExpire = AN_HOUR,
        faults: Faults = NO_FAULTS,
        latency_s: Latency = 0.0,
        capacity: Capacity = UNLIMITED,
        port: int = 0,
    ) -> None:
        self._catalog = Catalog(echo_endpoints() if models is None else models)
        plain = _set_now(token or f"local-{secrets.token_hex(16)}", token_expires)
        self._tokens = Tokens(plain, issued_expire=issued_tokens_expire)
        self._invocations = Invocations(
            self._catalog, self._tokens, faults=faults, latency_s=latency_s, capacity=capacity
        )
        if clients is None:
            clients = {f"client-{secrets.token_hex(8)}": secrets.token_hex(16)}
        token_endpoint = TokenEndpoint(clients, self._tokens, self._catalog.ids)
        self._clients = token_endpoint.clients
        self._app = Application(self._catalog, self._tokens, self._invocations, token_endpoint)
        self._port = port
        self._server: Server | None = None
        self._started = ExitStack()
        self._turn = threading.RLock()

    @classmethod
    def real(cls, *, n_threads: int = 2, token: str | None = None, port: int = 0) -> "LocalEndpoints":
        """Serve small real models: `real_endpoints`, which can be given to the constructor with all else that it takes.

        They need the extra `local`; their weights (115 MB) are fetched at the first start.
        """
        return cls(real_endpoints(n_threads=n_threads), token=token, port=port)

    def start(self) -> "LocalEndpoints":
        """Start the models and listen; raises `OSError` where the port is taken. Does nothing where it runs."""
        with self._turn:
            if self._server is not None:
                return self
            with ExitStack() as stack:
                for model in self._catalog.models:
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
        return f"LocalEndpoints({', '.join(self.names)} at {self.url if self._port else 'no port yet'})"

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
        """The plain token; set anew, it is good for as long again."""
        return self._tokens.plain.value

    @token.setter
    def token(self, token: str) -> None:
        self._set_token(lambda: _set_now(token, self.token_expires))

    @property
    def token_expires(self) -> After | None:
        """When the plain token is good no longer; set anew, it counts from now."""
        return self._tokens.plain.expires

    @token_expires.setter
    def token_expires(self, token_expires: After | None) -> None:
        self._set_token(lambda: _set_now(self.token, token_expires))

    def _set_token(self, made: Callable[[], Token]) -> None:
        self._on_loop(lambda: setattr(self._tokens, "plain", made()))

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
        """How many tokens clients have been given, since the start or the last `reset`."""
        return self._tokens.issued

    def revoke(self) -> None:
        """Make every token good no longer, the plain one and those that clients were given.

        What is set (`endpoints.token = "new"`) or given out from now on is good.
        """
        self._on_loop(self._tokens.revoke)

    def set_ready(self, name: str, ready: bool) -> None:  # noqa: FBT001 -- it is what the name says
        """Stop an endpoint, which then refuses every request, or start it again."""
        self._on_loop(lambda: self._catalog.set_ready(name, ready=ready))

    @property
    def faults(self) -> Faults:
        """What goes wrong with which request, by its number since the start or the last `reset`."""
        return self._invocations.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._on_loop(lambda: setattr(self._invocations, "faults", faults))

    @property
    def latency_s(self) -> Latency:
        """Seconds before a model is asked, or a function of the request's number."""
        return self._invocations.latency_s

    @latency_s.setter
    def latency_s(self, latency_s: Latency) -> None:
        self._on_loop(lambda: setattr(self._invocations, "latency_s", latency_s))

    @property
    def capacity(self) -> Capacity:
        """How many requests are taken; set anew, its windows are empty, and its steps count from the next request.

        What is in work or in line stays there; where requests wait in line, the steps count from the setting.
        """
        return self._invocations.gate.capacity

    @capacity.setter
    def capacity(self, capacity: Capacity) -> None:
        self._on_loop(lambda: self._invocations.gate.reset(capacity))

    @property
    def names(self) -> list[str]:
        """The names of the endpoints."""
        return self._catalog.names

    def invocations(self, name: str) -> str:
        """Return the URL that one endpoint is asked at."""
        return f"{self.url}/serving-endpoints/{name}/invocations"

    @property
    def stats(self) -> Stats:
        """The counters at this moment; every answer that a client has is in them."""
        return self._invocations.ledger.stats

    @property
    def requests(self) -> deque[Recorded]:
        """The last 10,000 requests as they came, oldest first."""
        return self._invocations.ledger.recorded

    def reset(self) -> None:
        """Set every counter to zero, forget the requests, and begin the faults' script and the capacity again."""
        self._on_loop(self._invocations.reset)
        self._on_loop(self._tokens.reset)

    def wait_for(self, predicate: Callable[[Stats], bool], timeout_s: float = 10.0) -> Stats:
        """Block until the counters satisfy `predicate`, and return them; raises `TimeoutError`.

        >>> endpoints.wait_for(lambda stats: stats.in_flight == 3, timeout_s=5)
        """
        return self._invocations.ledger.wait_for(predicate, timeout_s)

    def hold(self, word: str) -> None:
        """Let requests wait that have `word` somewhere in their body, until it is released."""
        self._on_loop(lambda: self._invocations.holds.hold(word))

    def release(self, word: str | None = None) -> None:
        """Let go the requests that `word` holds, or all."""
        self._on_loop(lambda: self._invocations.holds.release(word))

    def _on_loop(self, act: Callable[[], None]) -> None:
        """Run `act` where the application runs, and wait for it; at once where that is this thread."""
        server = self._server
        if server is not None and server.runs_here:  # it must not wait for a thread that waits for it
            act()
            return
        with self._turn:
            if self._server is None:
                act()
            else:
                self._server.call(act)


def _set_now(token: str, expires: After | None) -> Token:
    return Token(token, expires=expires, now=time.monotonic())
