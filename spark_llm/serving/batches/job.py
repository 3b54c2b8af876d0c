"""One batch: its state, and its object as the API writes it."""

from array import array
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal

from spark_llm.serving.batches.input_lines import BatchError
from spark_llm.serving.models.tasks import Task
from spark_llm.serving.protocol.values import Usage
from spark_llm.serving.scenario.batches import Batches

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
DAY_S = 86_400
ENDED = ("failed", "completed", "expired", "cancelled")

Document = dict[str, Any]


@dataclass
class BatchJob:
    """One batch, while it runs and after.

    Attributes:
        id: Its id in requests.
        number: How many batches were created before it, since the script was set.
        endpoint: The path of its requests.
        task: What that path asks for.
        is_azure: Whether it was created at one of Azure's routes.
        input_file_id: The file with its requests.
        input_path: Where that file is on the disk.
        metadata: The client's own words.
        output_expires_after_s: Seconds that its files stay.
        created_at: The time of its creation.
        plan: The script in force at its creation.
        status: Its state.
        times: The time at which it reached each state.
        model: The model of its requests, once they were read.
        lines: Where each request begins in its file, in the order in which they are answered.
        position: How many of them are answered.
        completed: How many of them were answered without an error.
        failed: How many were answered with an error, or not at all.
        is_expired: Whether its time ran out.
        enqueued_tokens: Tokens of its file, for the quota.
        input_tokens: Tokens of the requests, as the answers reported them; the other counts likewise.
        errors: Why it failed.
        file_ids: The ids of its files, by "output" and "error".
        paths: Where its files are being written, by the same words.
    """

    id: str
    number: int
    endpoint: str
    task: Task
    is_azure: bool
    input_file_id: str
    input_path: Path
    metadata: dict[str, str] | None
    output_expires_after_s: int
    created_at: float
    plan: Batches
    status: Status = "validating"
    times: dict[str, float] = field(default_factory=dict)
    model: str | None = None
    lines: "array[int]" = field(default_factory=lambda: array("Q"))
    position: int = 0
    completed: int = 0
    failed: int = 0
    is_expired: bool = False
    enqueued_tokens: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    errors: list[BatchError] = field(default_factory=list)
    file_ids: dict[str, str] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Whether its state changes no more."""
        return self.status in ENDED

    @property
    def loses_lines(self) -> bool:
        """Whether the script has it lose the lines of further requests."""
        return self.position >= self.plan.lose_after.get(self.number, inf)

    def set_status(self, status: Status, now: float) -> None:
        """Go to another state."""
        self.status = status
        self.times[status] = now

    def add_usage(self, usage: Usage | None) -> None:
        """Add the tokens of an answer."""
        if usage is not None:
            self.input_tokens += usage.prompt_tokens
            self.cached_tokens += usage.cached_tokens or 0
            self.output_tokens += usage.completion_tokens
            self.reasoning_tokens += usage.reasoning_tokens or 0

    def document(self) -> Document:
        """Return the batch object."""
        times = {
            f"{state}_at": None if (time := self.times.get(state)) is None else int(time)
            for state in ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        }
        errors = [error._asdict() for error in self.errors]
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.file_ids.get("output"),
            "error_file_id": self.file_ids.get("error"),
            "created_at": int(self.created_at),
            "expires_at": int(self.created_at) + DAY_S,
            **times,
            "request_counts": {"total": len(self.lines), "completed": self.completed, "failed": self.failed},
            "usage": {
                "input_tokens": self.input_tokens,
                "input_tokens_details": {"cached_tokens": self.cached_tokens},
                "output_tokens": self.output_tokens,
                "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
                "total_tokens": self.input_tokens + self.output_tokens,
            },
            "metadata": self.metadata,
        }
