"""The chat task: a conversation in, one or more texts out.

Wire format: the OpenAI chat completions request and response, as Databricks Model Serving documents them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from spark_llm._tasks._choices import read_choices
from spark_llm._tasks._parameters import repeatable
from spark_llm._tasks._wire import body, string_of, text_of, write_json
from spark_llm._values import Item, Outcome, Response, RowError


@dataclass(frozen=True)
class Chat:
    """A chat question: its instructions, its parameters as a JSON object, and how many answers are asked for."""

    system: str | None = None
    parameters: bytes = b"{}"
    n: int = 1

    name = "chat"
    route = "/chat/completions"
    dialects = 1

    @cached_property
    def repeatable(self) -> bool:
        """Whether equal conversations may be answered alike: not where the user asked for chance without a seed."""
        return repeatable(self.parameters)

    def most_inputs(self, dialect: int, batch_size: int) -> int:  # noqa: ARG002 -- the protocol's signature
        """Say that a request carries one conversation."""
        return 1

    def proves(self, dialect: int, count: int) -> bool:  # noqa: ARG002 -- one dialect
        """Say that every answer proves the one form there is."""
        return True

    def costs_nothing(self, item: Item) -> bool:  # noqa: ARG002 -- the protocol's signature
        """Say that every text is asked, a blank one too: its meaning is the instructions'."""
        return False

    def encode(self, items: Sequence[Item], model: str | None, dialect: int) -> bytes:  # noqa: ARG002 -- one dialect
        """Write one conversation; its own system message takes the place of `system`."""
        (item,) = items
        if isinstance(item, str):
            head = b"" if self.system is None else b'{"role":"system","content":' + write_json(self.system) + b"},"
            return body(
                model, self.parameters, b'"messages":[' + head + b'{"role":"user","content":' + write_json(item) + b"}]"
            )
        messages = list(item)
        if self.system is not None and not any(message and message.get("role") == "system" for message in messages):
            messages.insert(0, {"role": "system", "content": self.system})
        return body(model, self.parameters, b'"messages":' + write_json(messages))

    def decode(self, response: Response, count: int) -> Outcome:  # noqa: ARG002 -- always one
        """Read the choices; an answer that is empty because its tokens ran out is `truncated`."""
        return read_choices(response, self.n, _message_text)


def _message_text(choice: Mapping[str, object]) -> tuple[str | None, RowError | None]:
    """Return a choice's text; where there is none, the error of a message that says something else instead."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return None, None
    text = text_of(message.get("content"))
    if text:
        return text, None
    if message.get("tool_calls"):
        why = "the model asked for a tool, and a text column cannot call one"
        return None, RowError("invalid_response", 200, why, retryable=False)
    if refusal := string_of(message.get("refusal")):
        return None, RowError("content_filter", 200, refusal, retryable=False)
    return text, None
