"""One request: the inputs it carries, the wire format they are in, and the cost of its attempts. Decides nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from spark_llm.flow.batcher import Indexed
from spark_llm.flow.limiter import Permit
from spark_llm.flow.negotiation import Doubt, WireFormatNegotiation
from spark_llm.flow.retry import Attempts
from spark_llm.protocol.bodies import RequestBody
from spark_llm.protocol.chat.content import item_bytes, item_characters
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Answer, Result, RowError, Usage


@dataclass(slots=True, eq=False)
class Request:
    """Inputs that travel together, in one wire format."""

    owner: Any  # the stream that it belongs to; compared by identity
    inputs: list[Indexed]
    negotiation: WireFormatNegotiation
    wire_format: int = 0  # of the last attempt
    format_flags: int = 0  # of wire formats, without which its inputs were refused or not understood
    attempts: Attempts = field(default_factory=Attempts)
    wasted_usage: Usage | None = None  # tokens of attempts that gave no answer
    http_requests: int = 0  # that were sent for it, and that no other part of a split request counts
    refusals: tuple[int, ...] = ()  # the HTTP statuses of attempts that gave no answer, as for `http_requests`
    permit: Permit | None = None  # of the attempt in flight
    mismatch: Result | None = None  # an answer that did not fit its type
    reasks: int = 0  # attempts after such an answer
    doubt: Doubt | None = None  # since it was refused in another wire format
    has_bad_input: bool = False  # whether one of its inputs is known to be refused
    is_recheck: bool = False  # whether it was sent again to see if others were refused for a token that had ended
    send_number: int = 0  # of the last attempt: a later one of any request is higher
    token: str | None = field(default=None, repr=False)  # of the last attempt
    body: RequestBody | None = field(default=None, repr=False)  # of the next attempt, from its permit until it is sent

    @property
    def characters(self) -> int:
        """How long the inputs are, to estimate their tokens."""
        return sum(item_characters(item) for _, item in self.inputs)

    @property
    def bytes(self) -> int:
        """About how many bytes of memory the inputs take."""
        return sum(item_bytes(item) for _, item in self.inputs)

    def results(self, outcome: Answer | RowError, latency_s: float | None) -> Iterator[tuple[int, Result]]:
        """Yield the result of each input, with its part, by length, of the tokens that all attempts cost.

        HTTP requests cannot be shared out: the first input accounts for them all, and for their refusals.
        """
        answered = outcome.usage if isinstance(outcome, Answer) else None
        usage = self.wasted_usage if answered is None else answered.plus(self.wasted_usage)
        shares = _shares(usage, [[entry] for entry in self.inputs]) if usage else repeat(None, len(self.inputs))
        if isinstance(outcome, Answer):
            results = outcome.results
        else:
            results = [Result(error=outcome) for _ in self.inputs] if self.mismatch is None else [self.mismatch]
        for (number, _), result, share in zip(self.inputs, results, shares, strict=True):
            result.usage = share
            result.attempts = self.attempts.sent
            result.requests, self.http_requests = self.http_requests, 0
            result.refusals, self.refusals = self.refusals, ()
            result.latency_ms = None if latency_s is None else latency_s * 1000
            yield number, result

    def reask(self, task: Task, answer: Answer) -> None:
        """Add to its one input that the answer did not fit its type; keep the answer, in case no better one comes."""
        [(number, item)], [self.mismatch] = self.inputs, answer.results
        self.inputs = [(number, task.reask(item, self.mismatch))]
        self.reasks += 1

    def add_wasted_usage(self, usage: Usage | None) -> None:
        """Add tokens that were billed for no answer, or for one that does not fit."""
        if usage is not None:
            self.wasted_usage = usage.plus(self.wasted_usage)

    def split(self, at: int) -> "tuple[Request, Request]":
        """Return two parts, which share the wasted tokens by length; the first accounts for the HTTP requests."""
        parts = [self.inputs[:at], self.inputs[at:]]
        before, after = (
            Request(
                self.owner,
                part,
                self.negotiation,
                self.wire_format,
                self.format_flags,
                Attempts(sent=self.attempts.sent),
                share,
                doubt=self.doubt,
            )
            for part, share in zip(parts, _shares(self.wasted_usage, parts), strict=True)
        )
        before.http_requests, before.refusals = self.http_requests, self.refusals
        return before, after


def _shares(usage: Usage | None, parts: Sequence[Sequence[Indexed]]) -> Sequence[Usage | None]:
    if usage is None or len(parts) == 1:
        return [usage] * len(parts)
    return usage.share([sum(item_characters(item) for _, item in part) for part in parts])
