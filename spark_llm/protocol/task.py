"""The codecs: what each task sends, and what it makes of any bytes that come back.

`Task` is what the engine knows of a task. No codec raises for what a server sends: bytes that are no answer
become a `Failure`. None of them knows a socket, a clock or Spark.
"""

from collections.abc import Sequence
from typing import Protocol

from spark_llm.protocol.values import Item, Outcome, Response, Result

# A wire form is a sum of flags, each of which does without something that a server may not know; 0 is the best form.
PLAIN = 1  # without the field or the list: no `encoding_format`, one prompt a request, a type in words
FOLDED = 2  # without a system message: instructions stand at the head of the user's message


class Task(Protocol):
    """One kind of question: chat, completion or embedding, with its parameters; frozen, so that it can travel."""

    @property
    def name(self) -> str:
        """The task's name: "chat", "complete" or "embed"."""

    @property
    def route(self) -> str:
        """The path that follows an OpenAI-style base URL."""

    @property
    def repeatable(self) -> bool:
        """Whether equal requests may be answered alike, so that one of them is enough."""

    def most_inputs(self, dialect: int, batch_size: int) -> int:
        """How many inputs one request may carry in this wire form, where the user allows `batch_size`."""

    def shows(self, items: Sequence[Item], dialect: int) -> int:
        """The flags of what the server has to understand to answer these inputs in this wire form."""

    def otherwise(self, items: Sequence[Item], dialect: int, words: str | None) -> int | None:
        """The wire form for inputs that were refused in this one, in these words; None where no other can help.

        Without words it is the next form that differs at all.
        """

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
