"""The completion task: a prompt in, the text that continues it out.

Wire format: the OpenAI (legacy) completions request and response, as Databricks Model Serving documents them. Several
prompts travel in one request as an array. A server that takes one prompt at a time may refuse the array, or answer
with too few choices; it then gets one prompt a request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spark_llm.protocol.bodies import request_body
from spark_llm.protocol.choices import ChoiceContent, read_choices
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.task import PLAIN, Task
from spark_llm.protocol.values import Item, Outcome, Response

_MAX_PROMPTS = 8  # every prompt of a request waits for the slowest, so more of them gain little


@dataclass(frozen=True)
class Complete(Task):
    """A completion task: its parameters as a JSON object, and the number of answers to each prompt."""

    parameters: bytes = b"{}"
    n: int = 1

    name = "complete"
    route = "/completions"

    def max_inputs(self, wire_format: int, batch_size: int) -> int:
        """Return that a request carries up to eight prompts as an array, and one without it."""
        return 1 if wire_format & PLAIN else min(batch_size, _MAX_PROMPTS)

    def required_features(self, items: Sequence[Item], wire_format: int) -> int:  # noqa: ARG002 -- one format has arrays
        """Return that several prompts need a server that takes an array; one prompt is the same in both formats."""
        return PLAIN if len(items) > 1 else 0

    def fallback_format(self, items: Sequence[Item], wire_format: int, message: str | None) -> int | None:  # noqa: ARG002 -- the protocol's signature
        """Return the format of single prompts for an array that was refused."""
        return wire_format | PLAIN if len(items) > 1 else None

    def encode(self, items: Sequence[Item], model: str | None, wire_format: int) -> bytes:  # noqa: ARG002 -- the number of items decides
        """Write the prompts: several as an array, one as a string."""
        prompt = items[0] if len(items) == 1 else items
        return request_body(model, self.parameters, b'"prompt":' + write_json(prompt))

    def decode(self, response: Response, count: int, wire_format: int = 0) -> Outcome:  # noqa: ARG002 -- they are read alike
        """Read each prompt's choices; an answer that is empty because its tokens ran out is `truncated`."""
        return read_choices(response, self.n, _choice_text, count)


def _choice_text(choice: Mapping[str, object]) -> ChoiceContent:
    text = choice.get("text")
    return ChoiceContent(text if isinstance(text, str) else None)
