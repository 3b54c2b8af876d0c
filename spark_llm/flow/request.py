"""One request on its way: whose inputs it carries, how they are asked, and what its tries cost. Decides nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from spark_llm.flow.batcher import Indexed
from spark_llm.flow.limiter import Permit
from spark_llm.flow.negotiation import Doubt, WireFormatNegotiation
from spark_llm.flow.retry import Attempts
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Answer, Item, Prompt, Result, RowError, Usage


@dataclass(slots=True, eq=False)
class Request:
    """Inputs on their way, in one wire form."""

    owner: Any  # whoever it is for; told apart by identity
    inputs: list[Indexed]
    form: WireFormatNegotiation
    dialect: int = 0
    flags: int = 0  # of wire forms, without which its inputs were refused, or not understood
    tries: Attempts = field(default_factory=Attempts)
    spent: Usage | None = None  # tokens of tries that gave no answer
    requests: int = 0  # HTTP requests that were sent for it, and that no other part of the same request counts
    sent: Permit | None = None  # the last try's, as long as it is in flight
    misfit: Result | None = None  # an answer that did not fit its type
    asked_again: int = 0  # times after such an answer
    probe: bool = False  # whether it looks for the end of an outage
    doubt: Doubt | None = None  # since it was refused in another form
    spoilt: bool = False  # whether one of its inputs is known to be refused
    last_look: bool = False  # whether it was asked again to see if others were refused for a token that had ended
    number: int = 0  # of its last sending: a later one is higher
    token: str | None = field(default=None, repr=False)  # that its last sending brought

    @property
    def characters(self) -> int:
        """How long the inputs are, to estimate their tokens."""
        return sum(_characters(item) for _, item in self.inputs)

    def settled(self, outcome: Answer | RowError, latency_s: float | None) -> Iterator[tuple[int, Result]]:
        """Give each input its result, with its part of the tokens that all tries cost, by length.

        Requests cannot be shared out: the first input accounts for them all.
        """
        answered = outcome.usage if isinstance(outcome, Answer) else None
        usage = self.spent if answered is None else answered.plus(self.spent)
        shares = _shares(usage, [self.inputs[at : at + 1] for at in range(len(self.inputs))])
        if isinstance(outcome, Answer):
            results = outcome.results
        else:
            results = [Result(error=outcome) for _ in self.inputs] if self.misfit is None else [self.misfit]
        for (number, _), result, share in zip(self.inputs, results, shares, strict=True):
            result.usage = share
            result.attempts = self.tries.sent
            result.requests, self.requests = self.requests, 0
            result.latency_ms = None if latency_s is None else latency_s * 1000
            yield number, result

    def ask_again(self, task: Task, answer: Answer) -> None:
        """Ask its one input again after an answer that did not fit its type, and keep that for want of a better."""
        [(number, item)], [self.misfit] = self.inputs, answer.results
        self.inputs = [(number, task.reask(item, self.misfit))]
        self.asked_again += 1

    def has_cost(self, usage: Usage | None) -> None:
        """Take note of tokens that were billed for no answer, or for one that will not do."""
        if usage is not None:
            self.spent = usage.plus(self.spent)

    def split(self, at: int) -> "tuple[Request, Request]":
        """Cut in two; what the tries cost is shared out by length, and the first part accounts for the requests."""
        parts = [self.inputs[:at], self.inputs[at:]]
        before, after = (
            Request(
                self.owner,
                part,
                self.form,
                self.dialect,
                self.flags,
                Attempts(sent=self.tries.sent),
                share,
                doubt=self.doubt,
            )
            for part, share in zip(parts, _shares(self.spent, parts), strict=True)
        )
        before.requests = self.requests
        return before, after


def _shares(usage: Usage | None, parts: Sequence[Sequence[Indexed]]) -> Sequence[Usage | None]:
    if usage is None or len(parts) == 1:
        return [usage] * len(parts)
    return usage.share([sum(_characters(item) for _, item in part) for part in parts])


def _characters(item: Item) -> int:
    """Return the length of a text, or of a conversation's messages."""
    if isinstance(item, str):
        return len(item)
    if isinstance(item, Prompt):
        return len(item.system or "") + _characters(item.content)
    return sum(len(content) for message in item if isinstance(content := message.get("content"), str))
