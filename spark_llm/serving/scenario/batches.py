"""The speed and the faults of the Batch API. Values for `LocalEndpoints`; the library's own `Batch` is another thing.

This file decides; `batches` and `http` act. Batches and requests have numbers, counted from the setting of the script.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from spark_llm.serving.scenario.capacity import After
from spark_llm.serving.scenario.faults import Faults

MAX_REQUESTS = 50_000
NO_FAULTS = Faults()


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How local endpoints answer batches, and what goes wrong.

    >>> Batches(requests_per_s=500, start_after_s=1)
    >>> Batches(expire_after={0: 30})  # the first batch expires when 30 requests are answered
    >>> Batches(fail={1: "invalid_json_line@7"})  # the second one fails for line 7 of its file
    >>> Batches(stall_after={0: 10})  # until `endpoints.release_batches()`, or until it is cancelled
    >>> Batches(enqueued_tokens=20_000)  # a batch that would exceed it fails with token_limit_exceeded
    >>> Batches(on_create=Faults("cut 500"))  # the first creation works, and its response is cut

    Attributes:
        enabled: Whether there are such routes at all; without them they are unknown paths.
        requests_per_s: Requests of each batch answered in a second; None for as many as possible.
        start_after_s: Seconds that a batch stays in `validating`.
        seed: The random seed for the order of the answers.
        max_requests: Requests in a file at most, and inputs of embeddings at most.
        enqueued_tokens: Tokens that batches of one model may have in all while they run. A file has one token for each
            four of its bytes, begun ones too.
        expire_after: Answered requests after which a batch expires, by its number.
        stall_after: Answered requests after which a batch makes no progress, by its number.
        lose_after: Answered requests after which a batch has no line for any other, by its number, though it completes
            or expires. With 0 it names no file.
        fail: The code of the error with which a batch fails, by its number. `CODE@LINE` names a line.
        file_visible: When an uploaded file is found, counted from its upload and by the requests for it; it is a 404
            before. None: at once.
        on_upload: Faults of uploads, by their number. A refusal keeps nothing; all else happens after the upload.
        on_create: Faults of creations, likewise: after "cut" or "hang" the batch exists, and the client cannot know.
        on_read: Faults of requests that list or get files and batches.
        on_download: Faults of downloads.
        on_cancel: Faults of cancellations.
        on_delete: Faults of deletions.
    """

    enabled: bool = True
    requests_per_s: float | None = None
    start_after_s: float = 0.0
    seed: int = 0
    max_requests: int = MAX_REQUESTS
    enqueued_tokens: int | None = None
    expire_after: Mapping[int, int] = field(default_factory=dict)
    stall_after: Mapping[int, int] = field(default_factory=dict)
    lose_after: Mapping[int, int] = field(default_factory=dict)
    fail: Mapping[int, str] = field(default_factory=dict)
    file_visible: After | None = None
    on_upload: Faults = NO_FAULTS
    on_create: Faults = NO_FAULTS
    on_read: Faults = NO_FAULTS
    on_download: Faults = NO_FAULTS
    on_cancel: Faults = NO_FAULTS
    on_delete: Faults = NO_FAULTS

    def __post_init__(self) -> None:
        """Check the numbers and the errors."""
        if self.requests_per_s is not None and not 0 < self.requests_per_s < inf:
            raise ValueError(f"Batches(requests_per_s={self.requests_per_s}) is no rate. Hint: give more than 0.")
        if not 0 <= self.start_after_s < inf:
            raise ValueError(f"Batches(start_after_s={self.start_after_s}) is no time. Hint: give 0 or more seconds.")
        if self.max_requests < 1:
            raise ValueError(f"Batches(max_requests={self.max_requests}) allows nothing. Hint: give 1 or more.")
        if self.enqueued_tokens is not None and self.enqueued_tokens < 0:
            raise ValueError(f"Batches(enqueued_tokens={self.enqueued_tokens}) is negative. Hint: give 0 or more.")
        for name in ("expire_after", "stall_after", "lose_after"):
            if any(number < 0 or after < 0 for number, after in getattr(self, name).items()):
                raise ValueError(f"Batches({name}={getattr(self, name)}) has a negative number. Hint: give 0 or more.")
        for number, step in self.fail.items():
            code, at, line = step.partition("@")
            if number < 0 or not code or (at and not line.isdecimal()):
                raise ValueError(
                    f"Batches(fail={{{number}: {step!r}}}) is no error. Hint: write it as {{0: 'invalid_json_line@3'}}."
                )

    def failure(self, number: int) -> tuple[str, int | None] | None:
        """Return the code and the line with which the batch of this number fails."""
        if (step := self.fail.get(number)) is None:
            return None
        code, _, line = step.partition("@")
        return code, int(line) if line else None
