"""The completion task: a prompt in, the text that continues it out.

Wire format: the OpenAI (legacy) completions request and response, as Databricks Model Serving documents them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spark_llm._tasks._choices import read_choices
from spark_llm._tasks._wire import body, write_json
from spark_llm._values import Item, Outcome, Response, RowError


@dataclass(frozen=True)
class Complete:
    """A prompt to continue: its parameters as a JSON object, and how many answers are asked for."""

    parameters: bytes = b"{}"
    n: int = 1

    name = "complete"
    route = "/completions"
    dialects = 1
    batched = False

    def costs_nothing(self, item: Item) -> bool:  # noqa: ARG002 -- the protocol's signature
        """Say that every prompt is asked, a blank one too."""
        return False

    def encode(self, items: Sequence[Item], model: str | None, dialect: int) -> bytes:  # noqa: ARG002 -- one dialect
        """Write one prompt."""
        (item,) = items
        return body(model, self.parameters, b'"prompt":' + write_json(item))

    def decode(self, response: Response, count: int) -> Outcome:  # noqa: ARG002 -- always one
        """Read the choices; an answer that is empty because its tokens ran out is `truncated`."""
        return read_choices(response, self.n, _choice_text)


def _choice_text(choice: Mapping[str, object]) -> tuple[str | None, RowError | None]:
    text = choice.get("text")
    return text if isinstance(text, str) else None, None
