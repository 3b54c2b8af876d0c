"""The completion task: a prompt in, the text that continues it out.

Wire format: the OpenAI (legacy) completions request and response, as Databricks Model Serving documents them. Several
prompts travel in one request as an array; a server that takes one at a time may refuse that, or answer with too few
choices, and is then asked so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from spark_llm.protocol.choices import read_choices
from spark_llm.protocol.parameters import repeatable
from spark_llm.protocol.task import PLAIN
from spark_llm.protocol.values import Item, Outcome, Response, Result, RowError
from spark_llm.protocol.wire import body, write_json

_PROMPTS_MOST = 8  # every prompt of a request waits for the slowest, so more of them gain little


@dataclass(frozen=True)
class Complete:
    """Prompts to continue: the parameters as a JSON object, and how many answers are asked for to each."""

    parameters: bytes = b"{}"
    n: int = 1

    name = "complete"
    route = "/completions"

    @cached_property
    def repeatable(self) -> bool:
        """Whether equal prompts may be answered alike: not where the user asked for chance without a seed."""
        return repeatable(self.parameters)

    def most_inputs(self, dialect: int, batch_size: int) -> int:
        """Say that a request carries a few prompts in the first dialect, and one in the second."""
        return 1 if dialect else min(batch_size, _PROMPTS_MOST)

    def shows(self, items: Sequence[Item], dialect: int) -> int:  # noqa: ARG002 -- the items tell
        """Return that several prompts need a server that takes an array; one is written alike in both forms."""
        return PLAIN if len(items) > 1 else 0

    def otherwise(self, items: Sequence[Item], dialect: int, words: str | None) -> int | None:  # noqa: ARG002 -- the protocol's signature
        """Return the form of single prompts for an array that was refused."""
        return PLAIN if len(items) > 1 else None

    def costs_nothing(self, item: Item) -> bool:  # noqa: ARG002 -- the protocol's signature
        """Say that every prompt is asked, a blank one too."""
        return False

    def encode(self, items: Sequence[Item], model: str | None, dialect: int) -> bytes:  # noqa: ARG002 -- the items tell
        """Write the prompts: several as an array, one as a plain string, which is all that the second dialect has."""
        prompt = items[0] if len(items) == 1 else items
        return body(model, self.parameters, b'"prompt":' + write_json(prompt))

    def decode(self, response: Response, count: int) -> Outcome:
        """Read each prompt's choices; an answer that is empty because its tokens ran out is `truncated`."""
        return read_choices(response, self.n, _choice_text, count)

    def typed(self, outcome: Outcome, items: Sequence[Item], dialect: int) -> Outcome:  # noqa: ARG002 -- the protocol's signature
        """Return the outcome: texts are all that is asked for."""
        return outcome

    def again(self, item: Item, result: Result) -> Item:  # noqa: ARG002 -- the protocol's signature
        """Return the item: nothing is asked for that an answer could miss."""
        return item


def _choice_text(choice: Mapping[str, object]) -> tuple[str | None, RowError | None]:
    text = choice.get("text")
    return text if isinstance(text, str) else None, None
