"""The engine: one event loop in a background thread of the Python worker, which carries out what the rules decide.

Spark's thread hands rows in and takes results out (`Engine.stream`); the loop's thread sends, waits and settles. An
engine, with its open connections and the window that it has found, outlives the task: the next one on the same
endpoint goes on with it (`engine.registry`).

Nothing may leave a stream that waits for ever. An exception that nobody expected ends the stream it belongs to, or all
streams of the engine where that cannot be known; each row without a result gets an error that names its type.
"""

import asyncio
import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from spark_llm.auth.tokens import SignInError, TokenKeeper
from spark_llm.cache.entry import Keys
from spark_llm.endpoint.route import Route
from spark_llm.engine.process_identity import most_connections
from spark_llm.engine.row_stream import Rows, Stream
from spark_llm.errors import ConfigError, RowFailedError
from spark_llm.flow.batcher import Indexed
from spark_llm.flow.limiter import ConcurrencyLimiter
from spark_llm.flow.log import Flow, FlowLog
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.read_ahead import ReadAhead
from spark_llm.flow.request import Request
from spark_llm.flow.scheduler import RequestScheduler, Verdict
from spark_llm.policy import Policy
from spark_llm.protocol.hints import with_hint
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Answer, Failure, Response, Result, Row, RowError
from spark_llm.transport.http import HTTPClient

if TYPE_CHECKING:
    from spark_llm.cache.answer_cache import Cache

_CANCEL_S = 5.0
_KEEP_ERRORS = 'leave out Policy(on_error="raise") to keep errors in their rows, or mend the cause.'
_TOKENS_MOST = 3  # that one request is sent with: each may have ended while it was on its way
_CALLED_OFF = RowError("cancelled", None, "called off", retryable=True)

_logger = logging.getLogger("spark_llm.engine")
_flow_logger = logging.getLogger("spark_llm.flow")


class Engine:
    """Everything that one endpoint is asked by one worker: its line, its window, its connections and its token."""

    def __init__(self, route: Route, policy: Policy, keeper: TokenKeeper | None = None) -> None:
        """Be ready to ask; nothing is opened before the first row. `keeper` is of the route's credential."""
        self._route = route
        self._policy = policy
        self._loop = new_event_loop()
        self._sending: dict[asyncio.Task[None], Request] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._client: HTTPClient | None = None
        self._keeper = keeper or TokenKeeper(route.credential, route.ca_bundle)
        self._turn = asyncio.Lock()  # to get a token
        self._renewal: asyncio.Future[None] | None = None  # of a token that is still good
        self._streams: set[Stream] = set()
        self._opening = threading.Lock()  # of streams
        self._begin()
        self._thread = threading.Thread(target=self._run, name="spark_llm engine", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._loop.close()
            raise
        _logger.info("%s: engine opened", route.shown)

    def _begin(self) -> None:
        """Know nothing of the endpoint yet, and have no request in line."""
        self._limit = ConcurrencyLimiter(self._policy, most_connections())
        self._schedule = RequestScheduler(self._limit, self._policy, renews=self._keeper.is_renewable)
        self._forms: dict[Task, WireFormatNegotiation] = {}
        self._flow_log = FlowLog()

    @property
    def is_alive(self) -> bool:
        """Whether it can ask: it was not closed, and its thread runs, in this process and not in a parent."""
        return self._thread.is_alive()

    def stream(self, task: Task, batches: Iterator[Sequence[Row]]) -> Iterator[list[Result | None]]:
        """Ask every row of `batches`; yield results in the rows' order, in chunks, null for null.

        An empty chunk is a beat: there is nothing yet, and the caller should push out what it has buffered. Raises
        `RowFailedError` for the first row that failed, when the policy says so. When the caller stops reading, what is
        in flight is called off.
        """
        stream = self._opened(task)
        counts, failed = _logger.isEnabledFor(logging.DEBUG), 0
        try:
            for chunk in self._results(stream, Rows(batches)):
                if counts:
                    failed += sum(result is not None and result.error is not None for result in chunk)
                yield chunk
        finally:
            self._closed(stream, failed)

    def _opened(self, task: Task) -> Stream:
        cache = self._cache(task)
        with self._opening:
            form = self._forms.setdefault(task, WireFormatNegotiation(task, self._policy.batch_size))
            stream = Stream(form, self._policy, cache)
            self._streams.add(stream)
        _logger.debug("%s: %s stream begun", self._route.shown, task.name)
        return stream

    def _closed(self, stream: Stream, failed: int) -> None:
        line = stream.line
        if line.held > line.ready and self._thread.is_alive():
            self._call_off(stream)
        with self._opening:
            self._streams.discard(stream)
        stream.close()
        words = "%s: %s stream ended: %d rows, %d of them failed"
        _logger.debug(words, self._route.shown, stream.form.task.name, line.left, failed)

    def _results(self, stream: Stream, rows: Rows) -> Iterator[list[Result | None]]:
        rows_a_request = stream.form.max_inputs
        line, pace = stream.line, ReadAhead(time.monotonic(), rows_a_request)
        while line.held or not rows.ended:
            now = time.monotonic()
            window_rows = self._limit.window * rows_a_request
            wanted = pace.wants(line.unsent, window_rows, now) or line.lacks
            if wanted:
                pace.has_taken(self._take(stream, rows, wanted), ended=rows.ended)
            nothing_to_wait_for = not wanted and line.ready == line.held
            if line.ready and (nothing_to_wait_for or pace.leaves(line.ready, now)):
                chunk = line.pop()
                if self._policy.on_error == "raise":
                    raise_if_failed(chunk, _KEEP_ERRORS)
                yield chunk
                if not pace.has_left(len(chunk), time.monotonic()):
                    continue
            elif not pace.flushes(now):
                if not wanted:
                    if stream.waits_alone():
                        self._hand_over(stream, stream.packer.flush())
                    enough = max(1, min(pace.enough(), line.held))
                    line.wait(pace.next_at(line.ready) - now, enough, pace.low_watermark(window_rows, now))
                    if not self._thread.is_alive():
                        line.abort(_unexpected("its thread ended"))
                continue
            yield []
            pace.has_flushed(time.monotonic(), line.settled)

    def _take(self, stream: Stream, rows: Rows, wanted: int) -> int:
        """Hand rows over to be asked, no more than are wanted; return how many."""
        taken = rows.take(wanted)
        self._hand_over(stream, stream.packer.add(stream.asked(taken)))
        if stream.line.lacks:
            self._hand_over(stream, stream.packer.flush())
        if rows.ended:
            stream.line.end()
            self._on_loop(self._pump)
        return len(taken)

    def _cache(self, task: Task) -> "Cache | None":
        """Return what keeps the answers of one stream: its file is open no longer than that."""
        folder, route = self._policy.cache, self._route
        if folder is None:
            return None
        from spark_llm.cache.answer_cache import Cache  # SQLite, which nobody else needs

        return Cache(os.fspath(folder), Keys(task, route.url, route.model, route.headers))

    def _hand_over(self, stream: Stream, packs: list[list[Indexed]]) -> None:
        if packs:
            self._on_loop(self._admit, stream, packs)

    def _call_off(self, stream: Stream) -> None:
        done = threading.Event()
        self._on_loop(self._cancel, stream, done)
        done.wait(_CANCEL_S)

    def close(self) -> None:
        """Call off what is in flight, close the connections and end the threads; the engine cannot be used again."""
        self._on_loop(self._loop.stop)
        self._thread.join(_CANCEL_S)

    def _on_loop(self, act: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # of a loop that was closed: its streams notice that its thread ended
            self._loop.call_soon_threadsafe(self._guarded, act, *arguments)

    # Everything below runs on the event loop.

    def _run(self) -> None:
        """Run the loop until `close` or an exception ends it; then no stream waits any longer, and nothing is left."""
        why = "it was closed"
        try:
            self._loop.run_forever()
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the rows say so
            why = f"{type(error).__name__} in its event loop"
            self._log_unexpected(error)
        with self._opening:
            for stream in self._streams:
                stream.line.abort(_unexpected(why))
        try:
            self._loop.run_until_complete(self._close())
        except BaseException as error:  # noqa: BLE001 -- as above
            self._log_unexpected(error)
        self._loop.close()  # and the threads of its executor, each when it has done what it does
        _logger.info("%s: engine closed", self._route.shown)

    def _guarded(self, act: Callable[..., None], *arguments: object) -> None:
        """Do what the loop calls back for. An exception there would be seen by nobody: it ends all streams."""
        try:
            act(*arguments)
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the rows say so
            self._begin_anew(error)

    def _begin_anew(self, error: BaseException) -> None:
        """End all streams and forget all requests: no count can be trusted after such an error."""
        self._log_unexpected(error)
        for sending, request in self._sending.items():
            request.sent = None  # its slot goes with all others
            sending.cancel()
        if self._timer is not None:
            self._timer.cancel()
        with self._opening:
            self._begin()
            for stream in self._streams:
                stream.line.abort(_unexpected(type(error).__name__))

    def _end(self, stream: Stream, why: RowError) -> None:
        """Give all rows of a stream that have no result this error, and call off what is in flight for them."""
        stream.line.abort(why)
        self._schedule.drop(stream)
        for sending, request in self._sending.items():
            if request.owner is stream:
                sending.cancel()

    def _log_unexpected(self, error: BaseException) -> None:
        """Log the type of an error; its traceback, which may quote a row, at DEBUG."""
        shows = _logger.isEnabledFor(logging.DEBUG)
        _logger.error("%s: unexpected %s", self._route.shown, type(error).__name__, exc_info=error if shows else None)

    async def _close(self) -> None:
        self._begin()  # no request takes the place of one that is called off
        for sending in self._sending:
            sending.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        if self._client is not None:
            await self._client.close()

    def _admit(self, stream: Stream, packs: list[list[Indexed]]) -> None:
        for pack in packs:
            self._schedule.add(stream, pack, stream.form)
        stream.line.lacks = 0
        if stream.line.stopped is not None:
            self._stop(stream, stream.line.stopped)
        self._pump()

    def _pump(self) -> None:
        """Send what may go now, each request in a task of its own, and set the clock for what may go later."""
        for request in self._ready():
            self._start(request)

    def _start(self, request: Request) -> None:
        sending = self._loop.create_task(self._send(request))
        self._sending[sending] = request
        sending.add_done_callback(partial(self._guarded, self._sent))

    def _ready(self) -> list[Request]:
        """Return what may go now, as sent, when what was judged has its results."""
        try:
            for request, last_word in self._schedule.judged(self._loop.time(), lambda stream: stream.line.lack()):
                self._deliver(request.owner, request.settled(self._advised(last_word), None))
            going = self._schedule.ready(self._loop.time())
            for request in going:
                if request.tries.sent == 1:
                    request.owner.line.sent(len(request.inputs))
            due = self._schedule.next_due(self._loop.time())
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if due is None else self._loop.call_at(due, self._guarded, self._pump)
            if _flow_logger.isEnabledFor(logging.INFO):
                self._log_flow()
        except BaseException as error:  # noqa: BLE001 -- requests may be lost that were on their way out of the line
            self._begin_anew(error)
            return []
        return going

    def _log_flow(self) -> None:
        limit, schedule, now = self._limit, self._schedule, self._loop.time()
        forms = tuple((form.task.name, form.dialect) for form in self._forms.values() if form.dialect)
        flow = Flow(limit.window, limit.per_s, limit.saturation, schedule.outage_since, schedule.held_until, forms)
        for level, words in self._flow_log.changes(flow, now):
            _flow_logger.log(level, "%s: %s", self._route.shown, words)

    def _sent(self, sending: "asyncio.Task[None]") -> None:
        request = self._sending.pop(sending)
        if sending.cancelled():
            self._broken(request, asyncio.CancelledError())
            self._pump()

    def _broken(self, request: Request, error: BaseException) -> None:
        """Free the slot of a request that nobody will settle, and end its stream, unless that is over."""
        self._schedule.cancelled(request)
        if not request.owner.line.aborted:
            self._log_unexpected(error)
            self._end(request.owner, _unexpected(type(error).__name__))

    async def _send(self, request: Request) -> None:
        """Send a request, and in the slot that it leaves the next one, as long as there is one."""
        sending = asyncio.current_task(self._loop)
        while True:
            try:
                await self._settle(request, request.owner)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 -- whatever it is, the rows say so
                self._broken(request, error)
                self._pump()
                return
            going = self._ready()
            if not going:
                return
            request = going.pop(0)
            if sending is not None:
                self._sending[sending] = request
            for another in going:
                self._start(another)

    async def _settle(self, request: Request, stream: Stream) -> None:
        """Ask once, and give the rows their results, or the request its place in the line."""
        try:
            outcome, latency_s = await self._ask(request, stream.form.task)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 -- a row never sinks a job, not even by a mistake of ours
            outcome = Failure(
                RowError("invalid_response", None, f"{type(error).__name__} while asking: {error}", retryable=False)
            )
            latency_s = None
        if request.sent is None:  # all was begun anew
            return
        now = self._loop.time()
        if isinstance(outcome, Answer):
            if self._schedule.answered(request, outcome, now, latency_s):
                self._deliver(stream, request.settled(outcome, latency_s))
        else:
            last_word = self._schedule.failed(request, outcome, now, random.random)
            if last_word is not None:
                why = self._advised(last_word)
                self._deliver(stream, request.settled(why, latency_s))
                if last_word.stops_all:
                    self._stop(stream, why)
        if stream.line.stopped is not None:
            self._stop(stream, stream.line.stopped)

    def _advised(self, last_word: Verdict) -> RowError:
        """Return the error for its rows, with what to do about it."""
        route = self._route
        return with_hint(last_word.error, route.shown, route.credential.origin, stops_all=last_word.stops_all)

    def _deliver(self, stream: Stream, results: Iterable[tuple[int, Result]]) -> None:
        """Put results in their places, and ask what waited for a twin that failed."""
        for pack in stream.settle(results):
            self._schedule.add(stream, pack, stream.form)

    async def _ask(self, request: Request, task: Task) -> "tuple[Answer | Failure, float | None]":
        items = [item for _, item in request.inputs]
        body = task.encode(items, self._route.model, request.dialect)
        try:
            if self._client is None:
                self._client = self._connected()
            now = time.time()
            if self._keeper.needs_renewal(now):
                if self._keeper.has_expired(now):
                    await self._in_a_thread(self._keeper.renew_if_needed)
                elif self._renewal is None or self._renewal.done():
                    self._renewal = self._loop.run_in_executor(None, self._keeper.renew_if_needed)
                    self._renewal.add_done_callback(_is_seen)
            response = await self._post(self._client, request, body)
        except SignInError as error:
            return error.failure, None
        except ConfigError as error:  # the bundle of certificates
            return Failure(RowError("connection", None, str(error), retryable=False), final=True), None
        return task.parse_output(task.decode(response, len(items)), items, request.dialect), response.latency_s

    async def _post(self, client: HTTPClient, request: Request, body: bytes) -> Response:
        """Send a request, and again where another token can be had than the one that was refused."""
        tokens = 0
        while True:
            tokens += 1
            request.token = token = self._keeper.token
            request.requests += 1
            response = await client.post(body, token)
            if response.status not in (401, 403):
                self._keeper.record_success(token)
                return response
            if tokens == _TOKENS_MOST or not await self._replaced(request, token):
                if tokens > 1:
                    self._keeper.record_futile_renewal()
                return response
            request.tries.sent += 1

    async def _replaced(self, request: Request, token: str | None) -> bool:
        """Get another token than the one that a request was refused with; return whether there is one."""
        decisive = self._schedule.is_decisive(request)
        while not await self._in_a_thread(self._keeper.replace, token, decisive):
            if decisive or not self._schedule.is_decisive(request):
                return False
            decisive = True  # others were refused meanwhile
        return True

    def _connected(self) -> HTTPClient:
        route, policy = self._route, self._policy
        return HTTPClient(
            route.url,
            policy.timeout_s,
            self._limit.ceiling,
            headers=dict(route.headers),
            azure=route.azure,
            ca_bundle=route.ca_bundle,
        )

    async def _in_a_thread(self, act: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 -- what `act` returns
        """Let the keeper of the token block a thread and not the loop, and no more than one thread of it."""
        async with self._turn:
            return await self._loop.run_in_executor(None, act, *arguments)

    def _stop(self, stream: Stream, error: RowError) -> None:
        """Give every row of the stream that is not in flight the same error: none of them can fare better."""
        stream.line.stop(error)
        while dropped := self._schedule.drop(stream):
            for request in dropped:
                if request.tries.sent == 0:
                    stream.line.sent(len(request.inputs))
                self._deliver(stream, request.settled(error, None))

    def _cancel(self, stream: Stream, done: threading.Event) -> None:
        self._loop.call_soon(done.set)
        self._end(stream, _CALLED_OFF)
        self._pump()


def _unexpected(what: str) -> RowError:
    words = f"the engine stopped asking: {what}. Hint: ask again; the logger spark_llm.engine has more, at DEBUG."
    return RowError("cancelled", None, words, retryable=True)


def _is_seen(renewal: "asyncio.Future[None]") -> None:
    """Look at how a renewal ended: where it failed, the next request gets a token and says why there is none."""
    if not renewal.cancelled():
        renewal.exception()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop where it is installed: a row then costs a fifth less CPU."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def raise_if_failed(results: Iterable[Result | None], hint: str) -> None:
    """Raise `RowFailedError` for the first of `results` that is an error."""
    for result in results:
        if result is not None and result.error is not None:
            error = result.error
            raise RowFailedError(f"A row was not answered: {error.kind} (status {error.status}): {error.message}", hint)
