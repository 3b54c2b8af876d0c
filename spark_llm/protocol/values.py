"""The value types that all packages share: prompts, responses, results, failures and usage.

Plain values. This file decides nothing, and knows no wire format, no clock and no Spark.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, TypedDict

import msgspec

from spark_llm.errors import HINT, Kind
from spark_llm.protocol.media import Media

Part = str | Media  # of a message's content
Message = Mapping[str, object]  # role, content (a text or a list of parts), and where it has them the tool fields
Content = str | Sequence[Message]  # a text, or a conversation


@dataclass(slots=True, frozen=True)
class Prompt:
    """A text or a conversation with its own instructions and its own output type; None stands for the task's."""

    content: Content
    system: str | None = None
    output: Hashable = None  # a `StructuredOutput`, which only the codec knows


Item = Content | Prompt | bytes  # the prompt of one row, or the JSON of its columns


class ToolCall(TypedDict):
    """A call of a tool, in an answer or in a message: its arguments are JSON, as the model wrote it."""

    id: str | None
    name: str
    arguments: str


class RankedDocument(TypedDict):
    """A document of a ranking: its place in the array of its row, its score and its text."""

    index: int
    score: float
    text: str | None


MAX_COUNT = 2**31 - 1  # of tokens in a row: the column has 32 bits


class Usage(NamedTuple):
    """Tokens as the server reported them, and the tier that they are billed at; None for what it did not report.

    `cached_tokens` and `cache_write_tokens` are part of `prompt_tokens`, also where the server counts them beside it.
    `image_tokens` are part of it too. `audio_tokens` are part of `prompt_tokens` and, in a spoken answer, of
    `completion_tokens`.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_write_tokens: int | None = None
    service_tier: str | None = None
    image_tokens: int | None = None
    audio_tokens: int | None = None

    @property
    def counts(self) -> tuple[int | None, ...]:
        """The numbers: every field but the tier."""
        *tokens, _, images, audio = self
        return (*tokens, images, audio)

    @classmethod
    def of(cls, counts: Iterable[int | None], service_tier: str | None) -> "Usage":
        """Return a report of these `counts` at a tier."""
        *tokens, images, audio = counts
        return cls._make((*tokens, service_tier, images, audio))

    def plus(self, other: "Usage | None") -> "Usage":
        """Return the sum of two reports, number by number; None and a number give the number.

        The tier is that of the first report which has one.
        """
        if other is None:
            return self
        pairs = zip(self.counts, other.counts, strict=True)
        sums = (b if a is None else a if b is None else min(a + b, MAX_COUNT) for a, b in pairs)
        return Usage.of(sums, self.service_tier or other.service_tier)

    def share(self, weights: Sequence[int]) -> "list[Usage]":
        """Return one part for each weight, in proportion to the weights; the parts add up exactly."""
        if len(weights) == 1:
            return [self]
        columns = [[None] * len(weights) if total is None else _apportion(total, weights) for total in self.counts]
        return [Usage.of(row, self.service_tier) for row in zip(*columns, strict=True)]

    def unbilled(self) -> "Usage":
        """Return the same report with 0 in place of each number."""
        return Usage.of((None if count is None else 0 for count in self.counts), self.service_tier)


def _apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Return whole parts of `total`, each within one of its exact share: differences of rounded running sums."""
    weights = weights if any(weights) else [1] * len(weights)
    sums = list(accumulate(weights, initial=0))
    rounded = [total * running // sums[-1] for running in sums]
    return [upto - previous for previous, upto in pairwise(rounded)]


class RowError(NamedTuple):
    """Why a row was not answered; the fields of the `error` column."""

    kind: Kind
    status: int | None
    message: str
    retryable: bool

    @property
    def what(self) -> str:
        """The message without its hint."""
        return self.message.partition(HINT)[0]

    @property
    def hint(self) -> str:
        """The hint at the end of the message; empty where it has none."""
        return self.message.partition(HINT)[2]


class Result(msgspec.Struct, gc=False):
    """The result of one row; each attribute is the field of the same name in `schemas`.

    It is msgspec's kind of a dataclass, which is made in a third of the time, and is no object that Python's garbage
    collector has to look at: a stream holds a hundred thousand of them. So it may not be part of a cycle.
    """

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
    parsed: Any = None  # the text as a value of its output type, ready for a column
    prediction: Any = None  # a value of the type that predictions have, ready for a column
    tool_calls: list[ToolCall] | None = None
    ranking: list[RankedDocument] | None = None  # the best first
    requests: int = 0  # HTTP requests charged to the row; over all rows of a stream, the number of requests sent
    refusals: tuple[int, ...] = ()  # the statuses of their responses that held no answer
    confidence: float | None = None  # of a label
    rationale: str | None = None  # of a label, or of several
    logprobs: Any = None  # of the answer's tokens as the server sent them, until they are read
    shared_prompt_tokens: int | None = None  # of the prompt, in an answer that another row or an earlier run paid for


@dataclass(slots=True)
class Response:
    """The end of one attempt: an HTTP response, or the reason why there is none."""

    status: int  # 0 where no response began
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case, or a mapping that ignores case
    latency_s: float = 0.0
    fault: Kind | None = None  # "timeout", "connection" or "invalid_response" where the response is not whole
    detail: str = ""  # a description of the fault
    final: bool = False  # the fault is permanent: no further attempt can succeed
    no_socket: bool = False  # nothing was sent: this process may open no further connection
    oversized: bool = False  # the answer is larger than any that is read; another attempt would get the same
    secrets: tuple[str, ...] = field(default=(), repr=False)  # secrets of the request that no message may show

    @property
    def succeeded(self) -> bool:
        """Whether a server answered with a status of 2xx, and the whole response arrived."""
        return self.fault is None and 200 <= self.status < 300


@dataclass(slots=True)
class Answer:
    """A response that holds an answer: one result for each input, and the tokens of all of them."""

    results: list[Result]
    usage: Usage | None
    format_unsupported: bool = False  # the server does not know this wire format: send the next one
    mismatched: bool = False  # it has not the form that was asked for: ask again, as the policy says


@dataclass(slots=True, frozen=True)
class Failure:
    """A response that holds no answer: the error for its rows, and how the sender should go on."""

    error: RowError
    throttled: bool = False  # 429, 503 or no socket left: waiting costs time and counts as no attempt
    retry_after_s: float | None = None
    usage: Usage | None = None  # tokens that were billed nevertheless
    format_unsupported: bool = False  # the server does not know this wire format: send the next one
    final: bool = False  # permanent until a person acts: a stopped endpoint, an untrusted certificate
    never_sent: bool = False  # no request left: there was no token to send with it
    short: bool = False  # the provider has no room left at the tier: `throttled` too, and not since too much was sent
    served: bool = False  # the model answered, and not what was asked for: no outage explains it

    @property
    def stops_all(self) -> bool:
        """Whether every other row of the task would fail likewise, unless the cause was this row alone."""
        return self.final or self.error.kind in ("quota", "not_found", "unauthorized")

    @property
    def stops_at_once(self) -> bool:
        """Whether one such row is enough to stop the task, since no server read its input."""
        return self.never_sent or (self.final and self.error.status is None)

    @property
    def is_unsendable(self) -> bool:
        """Whether the wire format has no place for the input, or with `final` for any: no server was asked."""
        return self.error.kind == "invalid_request" and self.error.status is None

    @property
    def about_input(self) -> bool:
        """Whether the server refused the input, so that another text or a smaller batch may pass."""
        if self.is_unsendable:
            return False
        return self.error.kind in ("invalid_request", "context_length", "content_filter")


Outcome = Answer | Failure
Row = Item | RowError | Result | None  # a row's prompt, the error or the result of a row that has none, or null
