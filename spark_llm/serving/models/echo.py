"""`Echo`: a model with exact, predictable answers, for tests."""

import hashlib
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from spark_llm.serving.models.echo_media import EchoMedia, say_of
from spark_llm.serving.models.echo_tools import told_calls
from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import (
    MAX_DIMENSIONS,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Request,
)
from spark_llm.serving.protocol.rerank import RerankRequest, ScoreRequest, Scores
from spark_llm.serving.protocol.tools import ToolCall
from spark_llm.serving.protocol.values import Choice, Texts, Usage, Vectors


@dataclass(frozen=True)
class Echo:
    """A model with predictable answers, for tests.

    A chat reply is the last message, exactly; a system message stands before it on a line of its own. In the place of
    an image, an audio clip or a file stands the text of `echo_media`. A completion is its prompt. A vector is
    `echo_vector` of its text. A document's score is the share of the query's words that it has. Tokens are words, and
    for media those of `echo_media`. `max_tokens` cuts a reply to that many words, with `finish_reason` "length"; every
    other parameter is ignored.

    With `tools`, a line `call NAME ARGUMENTS` in the last message of a user calls that tool with these arguments, JSON
    or not; several lines make several calls. A `tool_choice` of a name or of "required" makes a call where no line
    does, to the named or the first tool: the message is its arguments if it is a JSON object, `{}` is them if not.

    >>> Echo(dimensions=1024)
    >>> Echo(refuse_fields=("encoding_format",))  # as a service that takes only known fields
    >>> Echo(float_only=True)  # as a service that silently ignores base64

    Attributes:
        dimensions: The length of a vector, unless the request sets it.
        refuse_fields: Fields of a request that are refused by name, with status 400.
        refuse_roles: Roles of messages that are refused, as by models whose chat template has no system role.
        float_only: Return vectors as lists of numbers for every `encoding_format`.
        name: The `model` field of responses.
    """

    dimensions: int = 8
    refuse_fields: Collection[str] = ()
    refuse_roles: Collection[str] = ()
    float_only: bool = False
    name: str = "echo"

    def __post_init__(self) -> None:
        """Check `dimensions` as a request's are checked."""
        if not 1 <= self.dimensions <= MAX_DIMENSIONS:
            raise ValueError(
                f"Echo(dimensions={self.dimensions}) is out of range. Hint: give a number from 1 to {MAX_DIMENSIONS}."
            )

    async def chat(self, request: ChatRequest) -> Texts:
        """Return the last message."""
        self._check_fields(request)
        if role := next((message.role for message in request.messages if message.role in self.refuse_roles), None):
            raise Refused.bad_request(f"{role.capitalize()} role not supported")
        *earlier, last = request.messages
        said = [[(medium.kind, say_of(medium)) for medium in message.media] for message in request.messages]
        if calls := told_calls(request):
            replies = [_limited_calls(calls, request.limit)] * (request.n or 1)
        else:
            system = [message.text for message in earlier if message.role == "system"]
            of_last = iter(said[-1])
            text = "".join(part if isinstance(part, str) else next(of_last)[1].text for part in last.parts)
            replies = _replies(["\n".join([*system, text])], request.n, request.limit)
        usage = _usage([message.text for message in request.messages], replies)
        return Texts(replies, _with_media(usage, [each for of_message in said for each in of_message]))

    async def complete(self, request: CompletionRequest) -> Texts:
        """Return each prompt."""
        self._check_fields(request)
        replies = _replies(request.texts, request.n, request.max_tokens)
        return Texts(replies, _usage(request.texts, replies))

    async def embed(self, request: EmbeddingRequest) -> Vectors:
        """Return a vector made from each text's hash."""
        self._check_fields(request)
        dimensions = request.dimensions or self.dimensions
        vectors = [_vector(text, dimensions) for text in request.texts]
        return Vectors(vectors, _usage(request.texts, ()), float_only=self.float_only)

    async def rerank(self, request: RerankRequest | ScoreRequest) -> Scores:
        """Return the share of the query's words that are in each document."""
        self._check_fields(request)
        query, documents = request.pair
        words = set(query.lower().split())
        shares = [len(words.intersection(text.lower().split())) / max(1, len(words)) for text in documents]
        return Scores(shares, _usage([query, *documents], ()))

    def _check_fields(self, request: Request) -> None:
        for name in self.refuse_fields:
            if name in request.body:
                raise Refused.bad_request(f"Unrecognized request argument supplied: {name}", param=name)


def echo_vector(text: str, dimensions: int = 8) -> list[float]:
    """Return the vector of `Echo` for `text`.

    Its values are odd multiples of 1/256 between -1 and 1, so float32 holds them exactly and none is zero. Equal
    texts have equal vectors, and a longer vector of a text begins with its shorter one.

    >>> echo_vector("guitar", 2)
    [-0.55859375, 0.36328125]
    """
    return list(struct.unpack(f"<{dimensions}f", _vector(text, dimensions)))


# Byte k of 0..255 stands for (2k - 255)/256. That needs eight bits, so of the four bytes of its float32 the lower two
# are zero, and the upper two come from a table.
_FLOATS = [struct.pack("<f", (2 * k - 255) / 256) for k in range(256)]
_THIRD_BYTES = bytes(value[2] for value in _FLOATS)
_FOURTH_BYTES = bytes(value[3] for value in _FLOATS)


def _vector(text: str, dimensions: int) -> bytes:
    seed = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    blocks = bytearray()
    for number in range(-(-dimensions // 32)):
        block = seed.copy()
        block.update(number.to_bytes(4, "little"))
        blocks += block.digest()
    vector = bytearray(4 * dimensions)
    vector[2::4] = blocks[:dimensions].translate(_THIRD_BYTES)
    vector[3::4] = blocks[:dimensions].translate(_FOURTH_BYTES)
    return bytes(vector)


def _replies(texts: list[str], n: int | None, limit: int | None) -> list[Choice]:
    return [choice for text in texts for choice in [Choice(*_cut(text, limit))] * (n or 1)]


def _cut(text: str, limit: int | None) -> tuple[str, str]:
    """Return a text cut to `limit` words, and its finish reason."""
    if limit is None or limit >= len(text):
        return text, "stop"
    words = text.split(None, limit)
    if len(words) <= limit:
        return text, "stop"
    return text[: len(text) - len(words[limit])].rstrip(), "length"


def _limited_calls(calls: list[ToolCall], limit: int | None) -> Choice:
    """Return calls as a reply; one that is cut to `limit` words has arguments that break off, and is the last."""
    kept: list[ToolCall] = []
    for call in calls:
        left = None if limit is None else limit - _calls_words(kept) - 1  # a word is the name
        if left is not None and left < 0:
            return Choice("", "length", kept)
        arguments, reason = _cut(call.arguments, left)
        kept.append(call._replace(arguments=arguments))
        if reason == "length":
            return Choice("", "length", kept)
    return Choice("", "tool_calls", kept)


def _with_media(usage: Usage, said: list[tuple[str, EchoMedia]]) -> Usage:
    """Return the usage with the tokens of media; without media of a kind, its tokens are not told."""
    if not said:
        return usage
    tokens = {kind: [each.tokens for of, each in said if of == kind] for kind in ("image", "audio")}
    return replace(
        usage,
        prompt_tokens=usage.prompt_tokens + sum(each.tokens for _, each in said),
        image_tokens=sum(tokens["image"]) if tokens["image"] else None,
        audio_tokens=sum(tokens["audio"]) if tokens["audio"] else None,
    )


def _usage(inputs: list[str], replies: list[Choice] | tuple[()]) -> Usage:
    words = _word_count([reply.text for reply in replies]) + sum(_calls_words(reply.tool_calls) for reply in replies)
    return Usage(_word_count(inputs), words)


def _calls_words(calls: Sequence[ToolCall]) -> int:
    return _word_count([f"{call.name} {call.arguments}" for call in calls])


def _word_count(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)
