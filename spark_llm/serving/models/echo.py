"""`Echo`: a model with exact, predictable answers, for tests."""

import hashlib
import struct
from collections.abc import Collection
from dataclasses import dataclass, replace

from spark_llm.serving.models.echo_media import say_of
from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import (
    MAX_DIMENSIONS,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Request,
)
from spark_llm.serving.protocol.values import Choice, Texts, Usage, Vectors


@dataclass(frozen=True)
class Echo:
    """A model with predictable answers, for tests.

    A chat reply is the last message, exactly; a system message stands before it on a line of its own. In the place of
    an image, an audio clip or a file stands the text of `echo_media`. A completion is its prompt. A vector is
    `echo_vector` of its text. Tokens are words, and for media those of `echo_media`. `max_tokens` cuts a reply to that
    many words, with `finish_reason` "length"; every other parameter is ignored.

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
        system = [message.text for message in earlier if message.role == "system"]
        said = [part if isinstance(part, str) else say_of(part).text for part in last.parts]
        replies = _replies(["\n".join([*system, "".join(said)])], request.n, request.limit)
        return Texts(replies, _chat_usage(request, replies))

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
    return [choice for text in texts for choice in [_truncated(text, limit)] * (n or 1)]


def _truncated(text: str, limit: int | None) -> Choice:
    if limit is None or limit >= len(text):
        return Choice(text)
    words = text.split(None, limit)
    if len(words) <= limit:
        return Choice(text)
    return Choice(text[: len(text) - len(words[limit])].rstrip(), "length")


def _chat_usage(request: ChatRequest, replies: list[Choice]) -> Usage:
    """Return the usage of a chat; without media of a kind, its tokens are not told."""
    usage = _usage([message.text for message in request.messages], replies)
    media = [medium for message in request.messages for medium in message.media]
    tokens = {kind: [say_of(medium).tokens for medium in media if medium.kind == kind] for kind in ("image", "audio")}
    return replace(
        usage,
        prompt_tokens=usage.prompt_tokens + sum(say_of(medium).tokens for medium in media),
        image_tokens=sum(tokens["image"]) if tokens["image"] else None,
        audio_tokens=sum(tokens["audio"]) if tokens["audio"] else None,
    )


def _usage(inputs: list[str], replies: list[Choice] | tuple[()]) -> Usage:
    return Usage(_word_count(inputs), _word_count([reply.text for reply in replies]))


def _word_count(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)
