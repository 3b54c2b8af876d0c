"""How a table job uses a provider's Batch API: `Batch`. Knows no socket, no clock and no Spark."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from spark_llm.errors import ConfigError
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.flags import check_flag
from spark_llm.validation.numbers import check_number, check_whole

Then = Literal["batch", "now"]
MAX_REQUESTS = 50_000  # of a file, as OpenAI takes them; as many inputs of embeddings
MAX_MB = 200.0  # of a file, likewise
_MAX_WAIT_S = 366 * 86_400.0
_WINDOW = re.compile(r"[1-9]\d*[hd]")


@checks_arguments
@dataclass(frozen=True, kw_only=True)
class Batch:
    """Answer the rows of a table job through the provider's Batch API: within a day, at about half the price.

    >>> enrich_table(spark, "reviews", "reviews_enriched", "id", {"mood": chat("review")}, batch=Batch())
    >>> Batch(wait_s=0)  # submit, and collect the answers with the next run of the same job

    Raises `ConfigError` for a value out of range.

    Attributes:
        window: The time in which the provider answers, as it writes it.
        poll_s: Seconds between two looks at the batches.
        wait_s: Seconds that a run waits for answers; None waits for all, 0 only submits.
        max_requests: Requests in one file at most.
        max_mb: Megabytes (of 1,000,000 bytes) of one file at most.
        then: What happens to rows whose error may pass, and to answers that do not fit their type: they go into the
            next "batch", or are asked "now", at the price of single requests.
        keep_files: Whether files stay with the provider after their answers were merged.
    """

    window: str = "24h"
    poll_s: float = 60.0
    wait_s: float | None = None
    max_requests: int = MAX_REQUESTS
    max_mb: float = MAX_MB
    then: Then = "batch"
    keep_files: bool = False

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.window, str) or not _WINDOW.fullmatch(self.window):
            raise ConfigError(f"Batch(window={self.window!r}) is not a time.", 'write hours or days, as in "24h".')
        check_number("poll_s", self.poll_s, 0.0, 3600.0, exclusive_minimum=True, unit="seconds", owner="Batch")
        if self.wait_s is not None:
            check_number("wait_s", self.wait_s, 0.0, _MAX_WAIT_S, unit="seconds", owner="Batch")
        check_whole("max_requests", self.max_requests, 1, 1_000_000, unit="requests", owner="Batch")
        check_number("max_mb", self.max_mb, 0.0, 10_000.0, exclusive_minimum=True, unit="megabytes", owner="Batch")
        if self.then not in get_args(Then):
            raise ConfigError(f"Batch(then={self.then!r}) is neither 'batch' nor 'now'.", "leave it out for 'batch'.")
        check_flag("keep_files", self.keep_files)
