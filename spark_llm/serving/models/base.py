"""What stands behind an endpoint: the protocols of a model, and one that is exact.

A model serves the tasks whose method it has. It sees checked requests and gives back values; it knows no HTTP. One
that must be started first (weights, threads) is a context manager as well, and is entered when the endpoints start.
"""

import hashlib
import struct
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import (
    MAX_DIMENSIONS,
    ChatRequest,
    Choice,
    CompletionRequest,
    EmbeddingRequest,
    Piece,
    Request,
    Texts,
    Usage,
    Vectors,
)


class _Named(Protocol):
    @property
    def name(self) -> str:
        """What responses give as their `model`."""


@runtime_checkable
class ChatModel(_Named, Protocol):
    """Serves chat: a conversation in, replies out."""

    async def chat(self, request: ChatRequest) -> Texts:
        """Answer one conversation with `n` replies."""


@runtime_checkable
class CompletionModel(_Named, Protocol):
    """Serves completions: prompts in, texts out."""

    async def complete(self, request: CompletionRequest) -> Texts:
        """Answer each prompt with `n` texts, in the order of the prompts."""


@runtime_checkable
class EmbeddingModel(_Named, Protocol):
    """Serves embeddings: texts in, vectors out."""

    async def embed(self, request: EmbeddingRequest) -> Vectors:
        """Answer each input with one vector, in the order of the inputs."""


@runtime_checkable
class StreamingModel(_Named, Protocol):
    """Writes its chat, its completions or both piece by piece; the answers of any other are cut into words."""

    def stream(self, request: ChatRequest | CompletionRequest) -> AsyncGenerator[Piece, None]:
        """Write `n` replies, each in pieces; the pieces of several may come in any order."""


Model = ChatModel | CompletionModel | EmbeddingModel


@dataclass(frozen=True)
class Echo:
    """A model whose every answer can be told beforehand, for tests.

    A chat reply is the last message, exactly, after the system message and a line break if there is one. A completion
    is its prompt. A vector is `echo_vector` of its text. Tokens are words. `max_tokens` cuts a reply to so many words,
    with `finish_reason` "length"; every other parameter is let pass.

    >>> Echo(dimensions=1024)
    >>> Echo(refuse_fields=("encoding_format",))  # a service that takes only the fields that it knows
    >>> Echo(float_only=True)  # one that does not know base64, and does not say so

    Attributes:
        dimensions: How long a vector is where the request does not say.
        refuse_fields: Fields of a request that are refused by name, with status 400.
        refuse_roles: Roles of messages that are refused, as models do whose chat template has no system role.
        float_only: Answer vectors as lists of numbers, whatever `encoding_format` says.
        name: What responses give as their `model`.
    """

    dimensions: int = 8
    refuse_fields: Collection[str] = ()
    refuse_roles: Collection[str] = ()
    float_only: bool = False
    name: str = "echo"

    def __post_init__(self) -> None:
        """Check what a request would be checked for."""
        if not 1 <= self.dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"Echo(dimensions={self.dimensions}) is not within 1 to {MAX_DIMENSIONS}.")

    async def chat(self, request: ChatRequest) -> Texts:
        """Say the last message again."""
        self._refuse_unknown(request)
        if refused := next((message.role for message in request.messages if message.role in self.refuse_roles), None):
            raise Refused.bad_request(f"{refused.capitalize()} role not supported")
        *earlier, last = request.messages
        system = [message.text for message in earlier if message.role == "system"]
        replies = _replies(["\n".join([*system, last.text])], request.n, request.limit)
        return Texts(replies, _usage([message.text for message in request.messages], replies))

    async def complete(self, request: CompletionRequest) -> Texts:
        """Say each prompt again."""
        self._refuse_unknown(request)
        replies = _replies(request.inputs, request.n, request.max_tokens)
        return Texts(replies, _usage(request.inputs, replies))

    async def embed(self, request: EmbeddingRequest) -> Vectors:
        """Make a vector of each text's hash."""
        self._refuse_unknown(request)
        dimensions = request.dimensions or self.dimensions
        vectors = [_vector(text, dimensions) for text in request.inputs]
        return Vectors(vectors, _usage(request.inputs, ()), float_only=self.float_only)

    def _refuse_unknown(self, request: Request) -> None:
        for name in self.refuse_fields:
            if name in request.body:
                raise Refused.bad_request(f"Unrecognized request argument supplied: {name}", param=name)


def echo_vector(text: str, dimensions: int = 8) -> list[float]:
    """Return the vector that `Echo` answers for `text`.

    Its values are odd multiples of 1/256 between -1 and 1, so that float32 holds them exactly and none is zero; equal
    texts have equal vectors, and a longer vector begins with the shorter one of the same text.

    >>> echo_vector("guitar", 2)
    [-0.55859375, 0.36328125]
    """
    return list(struct.unpack(f"<{dimensions}f", _vector(text, dimensions)))


# Value k of 0..255 stands for (2k - 255)/256. Eight bits are all that it takes, so of the four bytes of its
# float32 the lower two are zero, and the upper two are looked up.
_FLOATS = [struct.pack("<f", (2 * k - 255) / 256) for k in range(256)]
_THIRD = bytes(value[2] for value in _FLOATS)
_FOURTH = bytes(value[3] for value in _FLOATS)


def _vector(text: str, dimensions: int) -> bytes:
    seed = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    blocks = bytearray()
    for number in range(-(-dimensions // 32)):
        block = seed.copy()
        block.update(number.to_bytes(4, "little"))
        blocks += block.digest()
    vector = bytearray(4 * dimensions)
    vector[2::4] = blocks[:dimensions].translate(_THIRD)
    vector[3::4] = blocks[:dimensions].translate(_FOURTH)
    return bytes(vector)


def _replies(texts: list[str], n: int | None, limit: int | None) -> list[Choice]:
    return [choice for text in texts for choice in [_cut(text, limit)] * (n or 1)]


def _cut(text: str, limit: int | None) -> Choice:
    if limit is None or limit >= len(text):
        return Choice(text)
    words = text.split(None, limit)
    if len(words) <= limit:
        return Choice(text)
    return Choice(text[: len(text) - len(words[limit])].rstrip(), "length")


def _usage(asked: list[str], replies: list[Choice] | tuple[()]) -> Usage:
    return Usage(_words(asked), _words([reply.text for reply in replies]))


def _words(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)
