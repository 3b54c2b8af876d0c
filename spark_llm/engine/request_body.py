"""The bodies of the requests of one stream: how they are written, and how large they may be."""

from collections.abc import Sequence
from dataclasses import dataclass

from spark_llm.endpoint.route import Route
from spark_llm.errors import HINT
from spark_llm.flow.batcher import MB, PACKED_BYTES, Batcher
from spark_llm.flow.request import Request
from spark_llm.policy import Policy
from spark_llm.protocol.bodies import RequestBody, with_fields
from spark_llm.protocol.task import UNATTRIBUTED, Task, UnsendableError
from spark_llm.protocol.values import Item, RowError


@dataclass(frozen=True)
class BodyWriter:
    """Writes the body of a request: the task's fields, the model, and those that name the job.

    Attributes:
        task: The task.
        model: The model's name, if requests have one.
        attribution: The fields that name the job, as JSON without braces; empty where the endpoint gets none.
        max_bytes: The size of the largest body that the endpoint gets; None: any.
    """

    task: Task
    model: str | None = None
    attribution: bytes = b""
    max_bytes: int | None = None

    @classmethod
    def of(cls, task: Task, policy: Policy, route: Route, attribution: bytes) -> "BodyWriter":
        """Return the writer for a route; the policy's limit comes before that of the task."""
        max_mb = task.max_request_mb(route.url) if policy.max_request_mb is None else policy.max_request_mb
        return cls(task, route.model, attribution, None if max_mb is None else int(max_mb * MB))

    def batcher(self, max_inputs: int) -> Batcher:
        """Return a batcher of up to so many inputs, whose bodies keep within the limit."""
        max_bytes = PACKED_BYTES if self.max_bytes is None else self.max_bytes
        envelope = len(self._write([], 0)) if max_inputs > 1 else 0
        return Batcher(max_inputs, max_bytes - envelope + 1, self.task.max_request_tokens)  # the first has no comma

    def write(self, request: Request) -> RequestBody:
        """Return the body of a request in its wire format."""
        return self._write([item for _, item in request.inputs], request.wire_format)

    def size_error(self, body: RequestBody) -> RowError | None:
        """Return the error of an input whose body is larger than the limit; None where it is not."""
        if self.max_bytes is None or len(body) <= self.max_bytes:
            return None
        message = (
            f"not sent: its request has {len(body) / MB:.3g} MB ({len(body):,} bytes), and the limit is"
            f" {self.max_bytes / MB:.3g} MB ({self.max_bytes:,} bytes).{HINT}make the row's input smaller; if the"
            " server takes more, set Policy(max_request_mb=…)."
        )
        return RowError("invalid_request", None, message, retryable=False)

    def _write(self, items: Sequence[Item], wire_format: int) -> RequestBody:
        body = self.task.encode(items, self.model, wire_format)
        return body if wire_format & UNATTRIBUTED or not self.attribution else with_fields(body, self.attribution)


def unsendable_error(request: Request) -> RowError | None:
    """Write a request's body; return why it is not sent, None where it is.

    What no body can be written for without a fault of the input is met again by the attempt, which ends its stream.
    """
    bodies: BodyWriter = request.owner.bodies
    try:
        request.body = bodies.write(request)
    except UnsendableError as error:
        return None if error.failure.final else error.failure.error
    except Exception:  # noqa: BLE001 -- the row says so
        return None
    return bodies.size_error(request.body)
