"""The values that models return; `bodies` and `sse` write them as responses."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """The tokens of one request, over all its inputs and replies.

    Tokens of the cache, of images and of audio are part of `prompt_tokens`; None where the model does not tell them.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    image_tokens: int | None = None
    audio_tokens: int | None = None

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Choice:
    """One reply of a chat or completions model."""

    text: str
    finish_reason: str = "stop"


@dataclass(frozen=True)
class Texts:
    """The replies of a model: n for the first input, then n for the second, and so on; and the tier of their price."""

    choices: Sequence[Choice]
    usage: Usage
    service_tier: str | None = None


@dataclass(frozen=True)
class Piece:
    """A piece of one streamed reply; the pieces of a reply, joined, are its text.

    The last piece of each reply has its `finish_reason`. `usage` counts the tokens so far, over all replies.
    """

    text: str
    usage: Usage
    index: int = 0
    finish_reason: str | None = None


@dataclass(frozen=True)
class Vectors:
    """The vectors of a model, one for each input, as little-endian float32; `float_only` models ignore base64."""

    vectors: Sequence[bytes]
    usage: Usage
    float_only: bool = False
