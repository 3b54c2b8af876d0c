"""The interface of a task: it writes the bodies of requests and reads the answers.

The engine knows no more of a task than `Task`. No task raises for the bytes that a server sends: bytes that hold no
answer become a `Failure`. Tasks know no socket, no clock and no Spark.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

from spark_llm.protocol.bodies import RequestBody
from spark_llm.protocol.parameters import is_repeatable
from spark_llm.protocol.urls import is_databricks, is_gateway, is_serving
from spark_llm.protocol.values import Failure, Item, Outcome, Response, Result, RowError

# A wire format is a sum of flags. Each flag leaves out a feature that some servers do not know; 0 uses all features.
PLAIN = 1  # without the field or the list: no `encoding_format`, one prompt a request, a type described in words
FOLDED = 2  # without a system message: the instructions stand at the head of the user's message
RESPONSES = 8  # at the route /responses, in its dialect; a refusal that names that route settles it
UNSCORED = 16  # without `logprobs` and `top_logprobs`
TEXTS = 32  # of a reranking, the documents under the name `texts`
UNATTRIBUTED = 4  # without the next two fields, which no task writes: they say who asks
ATTRIBUTION_FIELDS = ("usage_context", "client_request_id")


class UnsendableError(Exception):
    """An input, or a whole task, that a wire format has no place for; `failure` has what its rows end with."""

    def __init__(self, failure: Failure) -> None:
        """Keep the failure."""
        super().__init__(failure.error.message)
        self.failure = failure

    @classmethod
    def of_input(cls, message: str) -> "UnsendableError":
        """Return the error of one input, which no server has seen."""
        return cls(Failure(RowError("invalid_request", None, message, retryable=False)))


class Task(Protocol):
    """Chat, completion, embedding, prediction or reranking, with its parameters; frozen and picklable."""

    @property
    def name(self) -> str:
        """The task's name: "chat", "complete", "embed", "predict" or "rerank"."""

    @property
    def route(self) -> str:
        """The path that follows an OpenAI-style base URL."""

    @property
    def parameters(self) -> bytes:
        """The fields of a request that the user sets, as a JSON object."""

    @cached_property
    def repeatable(self) -> bool:
        """Whether equal requests may share one answer: by default not with a temperature above 0 and no seed."""
        return is_repeatable(self.parameters)

    @property
    def default_batch_size(self) -> int:
        """How many inputs one request may carry where the user sets no `batch_size`."""
        return 64

    @property
    def max_request_tokens(self) -> int | None:
        """How many tokens, as `flow.batcher` estimates them, the inputs of one request may have; None: any number."""
        return 250_000  # OpenAI's limit is 300,000; a sixth of it is the margin of the estimate

    def max_request_mb(self, url: str) -> float | None:
        """The largest request in MB that the server at a URL takes, where the user sets none; None: none is known."""
        return (
            4 if is_databricks(url) or is_serving(url) or is_gateway(url) else None
        )  # of foundation and external models, and agents

    @property
    def reports_tokens(self) -> bool:
        """Whether answers say how many tokens they took: by default they do."""
        return True

    def max_inputs(self, wire_format: int, batch_size: int) -> int:
        """How many inputs one request may carry in a wire format, where the user allows `batch_size`."""

    def required_features(self, items: Sequence[Item], wire_format: int) -> int:
        """The flags of the features that a server must know to answer these inputs in this wire format."""

    def fallback_format(self, items: Sequence[Item], wire_format: int, message: str | None) -> int | None:
        """The wire format to try after a refusal with this message; None where no other format can help.

        Without a message it is the next format in which the request differs.
        """

    def skips(self, item: Item) -> bool:  # noqa: ARG002 -- for those that skip some
        """Whether this input is never sent, and its result is null; by default all are sent, blank ones too."""
        return False

    def encode(self, items: Sequence[Item], model: str | None, wire_format: int) -> RequestBody:
        """Write a request's body, for one item or for as many as `max_inputs` allows.

        Raises `UnsendableError` for what the wire format has no place for.
        """

    def decode(self, response: Response, count: int, wire_format: int = 0) -> Outcome:
        """Read the response to a request of `count` inputs in a wire format."""

    def parse_output(self, outcome: Outcome, items: Sequence[Item], wire_format: int) -> Outcome:  # noqa: ARG002 -- as above
        """Parse the texts of an answer as structured output; a task without it returns the outcome unchanged."""
        return outcome

    def reask(self, item: Item, result: Result) -> Item:  # noqa: ARG002 -- as above
        """Return the next prompt after an answer that does not fit its type; without types it is the same."""
        return item
