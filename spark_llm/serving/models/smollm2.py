"""SmolLM2: a small real model for chat and completions, in this process.

Its engine is in the extra `local`. The engine is imported, and the weights fetched, when the model starts.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from spark_llm.serving.models.threaded import ThreadedModel, missing_package_error
from spark_llm.serving.models.weights import find_weights
from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import ChatRequest, CompletionRequest
from spark_llm.serving.protocol.values import Choice, Piece, Texts, Usage

SLOTS = 4  # more gain nothing on two cores
CONTEXT_TOKENS = 8192  # over all slots
# The parameters of a request that the engine gets unchanged.
_SAMPLING = ("temperature", "top_p", "top_k", "stop", "frequency_penalty", "presence_penalty")

Logprobs = Sequence[Mapping[str, Any]]  # one for each token


class SmolLM2(ThreadedModel):
    """SmolLM2-135M-Instruct: chat and completions, good for sentiment with a JSON schema or a one-sentence summary.

    A conversation and its reply share 2,048 tokens. Each prompt, and each of `n` replies, is generated separately, so
    `usage` is the true sum.

    Args:
        n_threads: Threads of the engine. Several wait for each other in loops, and help only on cores that are idle.
    """

    name = "smollm2-135m-instruct"

    def __init__(self, *, n_threads: int = 1) -> None:
        super().__init__(n_threads, workers=SLOTS)
        self._engine: Any = None

    async def chat(self, request: ChatRequest) -> Texts:
        """Return `n` replies to a conversation."""
        return await self._replies(request)

    async def complete(self, request: CompletionRequest) -> Texts:
        """Return `n` continuations of each prompt."""
        return await self._replies(request)

    async def stream(self, request: ChatRequest | CompletionRequest) -> AsyncGenerator[Piece, None]:
        """Yield the replies token by token, all in parallel."""
        jobs, replies = self._jobs(request)
        loop = asyncio.get_running_loop()
        texts: asyncio.Queue[tuple[int, str, Logprobs | None] | None] = asyncio.Queue()

        def generate(is_cancelled: Callable[[], bool], index: int) -> None:
            def emit(text: str, logprobs: Logprobs | None) -> None:
                loop.call_soon_threadsafe(texts.put_nowait, (index, text, logprobs))

            _generate(self._handler(jobs[index]), jobs[index], is_cancelled, replies[index], emit)

        def on_done(generation: asyncio.Future[list[Any]]) -> None:
            if not generation.cancelled():
                generation.exception()  # retrieved here, since no one may be left to raise it to
            texts.put_nowait(None)

        generation = asyncio.ensure_future(self.run_in_threads(generate, range(len(jobs))))
        generation.add_done_callback(on_done)
        try:
            while (item := await texts.get()) is not None:
                index, text, logprobs = item
                yield Piece(text, _usage(replies, request.n), index, logprobs=logprobs)
            await generation  # raises the generation's error, if there is one
        finally:
            generation.cancel()
        for index, reply in enumerate(replies):
            yield Piece("", _usage(replies, request.n), index, reply.finish_reason)

    async def _replies(self, request: ChatRequest | CompletionRequest) -> Texts:
        jobs, replies = self._jobs(request)

        def generate(is_cancelled: Callable[[], bool], index: int) -> None:
            _generate(self._handler(jobs[index]), jobs[index], is_cancelled, replies[index], lambda *_: None)

        await self.run_in_threads(generate, range(len(jobs)))
        choices = [Choice(reply.text, reply.finish_reason, logprobs=reply.logprobs) for reply in replies]
        return Texts(choices, _usage(replies, request.n))

    def _jobs(self, request: ChatRequest | CompletionRequest) -> tuple[list[dict[str, Any]], list["_Reply"]]:
        """Return the engine's request for each reply, and an empty reply for each."""
        if isinstance(request, ChatRequest):
            if request.tools or any(message.media for message in request.messages):
                raise Refused.bad_request(f"{self.name} reads text only: no images, audio, files or tools.")
            body = _sampling(request, request.limit)
            body["messages"] = [{"role": message.role, "content": message.text} for message in request.messages]
            if request.logprobs:
                body |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
            if request.response_format is not None:
                body["response_format"] = request.response_format
            bodies = [body]
        else:
            bodies = [{**_sampling(request, request.max_tokens), "prompt": prompt} for prompt in request.texts]
        jobs = [job for body in bodies for job in _copies(body, request.n, request.seed)]
        return jobs, [_Reply() for _ in jobs]

    def _handler(self, job: dict[str, Any]) -> Any:  # noqa: ANN401 -- a function of the engine, which has no types
        """Return the engine's method for a chat or for a completion."""
        return self._engine.handle_chat_completions if "messages" in job else self._engine.handle_completions

    def _start(self) -> None:
        try:
            import xllamacpp
        except ImportError as error:
            raise missing_package_error("xllamacpp") from error
        params = xllamacpp.CommonParams()
        params.model.path = str(find_weights().chat_gguf)
        params.n_parallel = SLOTS
        params.n_ctx = CONTEXT_TOKENS
        params.cache_ram_mib = 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._n_threads
        params.verbosity = -1
        # The engine opens a port of its own, which is not needed: keep it on loopback, behind a random key.
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.ui = False
        params.api_keys = [secrets.token_hex(16)]
        self._engine = xllamacpp.Server(params)

    def _stop(self) -> None:
        self._engine = None


class _Reply:
    """The reply of one generation, so far."""

    def __init__(self) -> None:
        self.text = ""
        self.finish_reason = "stop"
        self.usage = Usage(0)
        self.error: Mapping[str, Any] = {}
        self.logprobs: list[Mapping[str, Any]] | None = None  # None where the engine sends none

    def add(self, chunk: Mapping[str, Any]) -> tuple[str, Logprobs | None]:
        """Add a chunk of the engine's output, and return its text and its tokens' logprobs."""
        self.error = chunk.get("error") or self.error
        if timings := chunk.get("timings"):
            self.usage = Usage(timings["cache_n"] + timings["prompt_n"], timings["predicted_n"], timings["cache_n"])
        if usage := chunk.get("usage"):
            cached_tokens = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
            self.usage = Usage(usage["prompt_tokens"], usage["completion_tokens"], cached_tokens)
        text, logprobs = "", None
        for choice in chunk.get("choices") or ():
            if (sent := choice.get("logprobs")) and sent.get("content") is not None:
                logprobs = [*(logprobs or ()), *map(_as_openai, sent["content"])]
            text += (choice["delta"].get("content") if "delta" in choice else choice.get("text")) or ""
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        self.text += text
        if logprobs is not None:
            self.logprobs = [*(self.logprobs or ()), *logprobs]
        return text, logprobs


def _as_openai(token: Mapping[str, Any]) -> dict[str, Any]:
    """Return a token without the engine's own fields."""
    named = {name: token[name] for name in ("token", "logprob", "bytes")}
    if "top_logprobs" in token:
        named["top_logprobs"] = [_as_openai(each) for each in token["top_logprobs"]]
    return named


def _generate(
    handler: Callable[..., Any],
    job: dict[str, Any],
    is_cancelled: Callable[[], bool],
    reply: _Reply,
    emit: Callable[[str, Logprobs | None], None],
) -> None:
    """Run one job on the engine in streaming mode, so that it can stop at any token."""

    def on_chunk(chunk: Mapping[str, Any]) -> bool:
        text, logprobs = reply.add(chunk)
        if is_cancelled():
            return True
        if text or logprobs:
            emit(text, logprobs)
        return False

    if is_cancelled():
        return
    streaming = {"stream": True, "stream_options": {"include_usage": True}, "timings_per_token": True}
    try:
        handler({**job, **streaming}, on_chunk)
    except (ValueError, RuntimeError) as error:
        raise Refused.bad_request(str(error)) from None
    if reply.error:
        code = "context_length_exceeded" if reply.error.get("type") == "exceed_context_size_error" else None
        raise Refused.bad_request(f"Bad request: {reply.error.get('message')}", code=code)


def _sampling(request: ChatRequest | CompletionRequest, limit: int | None) -> dict[str, Any]:
    body = {name: getattr(request, name) for name in _SAMPLING if getattr(request, name) is not None}
    return body if limit is None else {**body, "max_tokens": min(limit, CONTEXT_TOKENS)}


def _copies(body: dict[str, Any], n: int | None, seed: int | None) -> list[dict[str, Any]]:
    """Return n copies of the body; with a seed, each copy has its own, so that the replies differ."""
    return [body if seed is None else {**body, "seed": (seed + k) % 2**32} for k in range(n or 1)]


def _usage(replies: Sequence[_Reply], n: int | None) -> Usage:
    """Return the sum over the replies; the tokens of a prompt count once for all its replies."""
    first_copies = replies[:: n or 1]
    return Usage(
        prompt_tokens=sum(reply.usage.prompt_tokens for reply in first_copies),
        completion_tokens=sum(reply.usage.completion_tokens for reply in replies),
        cached_tokens=sum(reply.usage.cached_tokens or 0 for reply in first_copies),
    )
