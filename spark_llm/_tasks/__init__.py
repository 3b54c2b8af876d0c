"""The codecs: what each task sends, and what it makes of any bytes that come back.

`Task` is what the engine knows of a task. No codec raises for what a server sends: bytes that are no answer
become a `Failure`. None of them knows a socket, a clock or Spark.
"""

from collections.abc import Sequence
from typing import Protocol

from spark_llm._values import Item, Outcome, Response, Result


class Task(Protocol):
    """One kind of question: chat, completion or embedding, with its parameters; frozen, so that it can travel."""

    @property
    def name(self) -> str:
        """The task's name: "chat", "complete" or "embed"."""

    @property
    def route(self) -> str:
        """The path that follows an OpenAI-style base URL."""

    @property
    def dialects(self) -> int:
        """How many wire forms the task has, best first; the next is tried where a server refuses the one before."""

    @property
    def repeatable(self) -> bool:
        """Whether equal requests may be answered alike, so that one of them is enough."""

    def most_inputs(self, dialect: int, batch_size: int) -> int:
        """How many inputs one request may carry in this wire form, where the user allows `batch_size`."""

    def proves(self, dialect: int, count: int) -> bool:
        """Whether an answer to `count` inputs in this wire form proves that the server understands the form."""

    def costs_nothing(self, item: Item) -> bool:
        """Whether this input is never sent, and its result null."""

    def encode(self, items: Sequence[Item], model: str | None, dialect: int) -> bytes:
        """Write the request's body: one item, or as many as `most_inputs` allows."""

    def decode(self, response: Response, count: int) -> Outcome:
        """Read the response to a request of `count` inputs."""

    def typed(self, outcome: Outcome, items: Sequence[Item], dialect: int) -> Outcome:
        """Read the texts of an answer as the types that were asked for; without any, return it as it is."""

    def again(self, item: Item, result: Result) -> Item:
        """Return what is asked after an answer that did not fit its type."""
