"""The values that models return; `bodies` and `sse` write them as responses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spark_llm.serving.protocol.tools import ToolCall


@dataclass(frozen=True)
class Usage:
    """The tokens of one request, over all its inputs and replies.

    Tokens of the cache, of images and of audio are part of `prompt_tokens`, those of thoughts of `completion_tokens`;
    None where the model does not tell them.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    image_tokens: int | None = None
    audio_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Choice:
    """One reply of a chat or completions model; with calls of tools, its text may be empty."""

    text: str
    finish_reason: str = "stop"
    tool_calls: Sequence[ToolCall] = ()
    logprobs: Sequence[Mapping[str, Any]] | None = None  # one for each token of the text; None where none were asked


@dataclass(frozen=True)
class Texts:
    """The replies of a model: n for the first input, then n for the second, and so on; and the tier of their price."""

    choices: Sequence[Choice]
    usage: Usage
    service_tier: str | None = None


@dataclass(frozen=True)
class CallPiece:
    """A piece of one call of a tool: the first has the id and the name, and the arguments, joined, are the call's.

    `number` is the call's place in its reply, 0 first.
    """

    number: int
    arguments: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Piece:
    """A piece of one streamed reply; the pieces of a reply, joined, are its text and its calls.

    The last piece of each reply has its `finish_reason`. `usage` counts the tokens so far, over all replies.
    """

    text: str
    usage: Usage
    index: int = 0
    finish_reason: str | None = None
    call: CallPiece | None = None
    logprobs: Sequence[Mapping[str, Any]] | None = None  # of its tokens


@dataclass(frozen=True)
class Vectors:
    """The vectors of a model, one for each input, as little-endian float32; `float_only` models ignore base64."""

    vectors: Sequence[bytes]
    usage: Usage
    float_only: bool = False
