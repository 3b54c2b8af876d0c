"""The nouns that the floors hand each other: inputs, requests' answers, results and usage.

Plain values. This file decides nothing, and knows no wire format, no clock and no Spark.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from spark_llm.errors import HINT, Kind

Message = Mapping[str, object]  # {"role": …, "content": …}
Content = str | Sequence[Message]  # a text, or a conversation


@dataclass(slots=True, frozen=True)
class Prompt:
    """What is said, with instructions and a type of answer of its own; None for those of its task."""

    content: Content
    system: str | None = None
    reply: Hashable = None  # the codec's own word for it


Item = Content | Prompt  # what one row asks


class Usage(NamedTuple):
    """Tokens, as the server reported them; None where it did not."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    def plus(self, other: "Usage | None") -> "Usage":
        """Add two reports field by field; None and a number give the number."""
        if other is None:
            return self
        return Usage(
            *(b if a is None else a if b is None else min(a + b, 2**31 - 1) for a, b in zip(self, other, strict=True))
        )

    def share(self, weights: Sequence[int]) -> "list[Usage]":
        """Divide over rows in proportion to `weights`, in whole tokens that add up exactly."""
        if len(weights) == 1:
            return [self]
        columns = [[None] * len(weights) if total is None else _apportion(total, weights) for total in self]
        return [Usage(*row) for row in zip(*columns, strict=True)]


def _apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Whole parts of `total`, each within one of its exact share: running sums, rounded down."""
    weights = weights if any(weights) else [1] * len(weights)
    whole = sum(weights)
    parts, before, running = [], 0, 0
    for weight in weights:
        running += weight
        upto = total * running // whole
        parts.append(upto - before)
        before = upto
    return parts


class RowError(NamedTuple):
    """Why a row was not answered; the fields of the `error` column."""

    kind: Kind
    status: int | None
    message: str
    retryable: bool

    @property
    def what(self) -> str:
        """The message without its next step."""
        return self.message.partition(HINT)[0]

    @property
    def hint(self) -> str:
        """The next step that the message ends in, if any."""
        return self.message.partition(HINT)[2]


@dataclass(slots=True)
class Result:
    """What one row gets; a schema's field takes the attribute of its name."""

    text: str | None = None
    choices: list[str | None] | None = None
    embedding: bytes | None = None  # float32, little-endian
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    request_id: str | None = None
    attempts: int = 0
    latency_ms: float | None = None
    error: RowError | None = None
    parsed: Any = None  # the text as the type that was asked for, ready for a column
    requests: int = 0  # HTTP requests that the row accounts for: over all rows of a stream, all that were sent


@dataclass(slots=True)
class Response:
    """What came back for one try: an HTTP answer, or the reason why there is none."""

    status: int  # 0 where no answer began
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case, or a mapping that ignores case
    latency_s: float = 0.0
    fault: Kind | None = None  # "timeout", "connection" or "invalid_response" where the answer is not whole
    detail: str = ""  # the fault in words
    final: bool = False  # the fault will be there however often it is tried
    no_socket: bool = False  # nothing was sent: this process may open no further connection
    secrets: tuple[str, ...] = field(default=(), repr=False)  # what the request carried that no message may show

    @property
    def succeeded(self) -> bool:
        """Whether a server answered with success, a 2xx of any kind, and the answer came whole."""
        return self.fault is None and 200 <= self.status < 300


@dataclass(slots=True)
class Answer:
    """A response that was understood: a result for each input, and the tokens of them all."""

    results: list[Result]
    usage: Usage | None
    about_form: bool = False  # it shows that this wire form is not understood: ask in the next one


@dataclass(slots=True, frozen=True)
class Failure:
    """A response that is no answer: the error that the rows would get, and what it asks of the sender."""

    error: RowError
    told_to_wait: bool = False  # 429, 503, no socket left: not a fault, it spends time and no tries
    retry_after_s: float | None = None
    usage: Usage | None = None  # tokens that were billed all the same
    about_form: bool = False  # the answer shows that this wire form is not understood: ask in the next one
    final: bool = False  # it will be so until a person acts: an endpoint that was stopped, a certificate not trusted
    unasked: bool = False  # no input had a part in it: there was no token to ask with

    @property
    def stops_all(self) -> bool:
        """Whether no other row of the task can fare better, unless it was about this row alone."""
        return self.final or self.error.kind in ("quota", "not_found", "unauthorized")

    @property
    def stops_at_once(self) -> bool:
        """Whether one row is witness enough, since its input was never read: no token, no trusted connection."""
        return self.unasked or (self.final and self.error.status is None)

    @property
    def about_input(self) -> bool:
        """Whether the server refused what it was sent, so that another wording or a smaller batch may pass."""
        return self.error.kind in ("invalid_request", "context_length", "content_filter")


Outcome = Answer | Failure
Row = Item | RowError | None  # what a row brings: what it asks, why it cannot, or nothing
