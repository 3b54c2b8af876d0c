"""Limits, retries and error handling of a UDF; each option is explained here."""

import re
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from spark_llm.errors import ConfigError
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.flags import check_flag
from spark_llm.validation.numbers import check_number, check_whole

MAX_IN_FLIGHT = 512  # the limit where the user sets none
TIMEOUT_S = 120.0  # likewise
TIER_TIMEOUTS_S = {"flex": 900.0}  # by service tier: OpenAI and Azure advise 15 minutes for a tier that may queue
_MAX_NUMBER = 1e9
_URL_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # one letter is a drive of Windows


class _Path(Protocol):
    def __fspath__(self) -> str: ...


@checks_arguments
@dataclass(frozen=True, kw_only=True)
class Policy:
    """Limits, retries and error handling of a UDF.

    >>> Policy(max_in_flight=32)  # at most 32 requests in flight, over all tasks of a host
    >>> Policy(max_tries=6, timeout_s=300)  # a slow endpoint that often fails

    Attributes:
        max_in_flight: Most requests in flight, over all tasks of a host; in table jobs and `progress`, over all hosts.
            None: found automatically, up to 512.
        requests_per_minute: Most requests in any minute, over the same tasks. None: as many as the endpoint takes.
        tokens_per_minute: Most tokens of prompts and answers in any minute, over the same tasks, as answers report
            them; estimated before the first answer. None: as many as the endpoint takes.
        tasks: Number of tasks that run at once, for workers that cannot share the three limits above: on several hosts
            outside table jobs and `progress`, or in sandboxes. A host with 4 of 8 tasks then takes half of each limit.
        timeout_s: Seconds for one attempt, from sending to the whole answer. None: 120, and 900 with
            `service_tier="flex"`, whose requests may queue.
        max_tries: Attempts of one request that may end in a fault: a lost connection, a timeout, a 500, a response
            without an answer.
        give_up_after_s: Seconds that one row may wait because of rate limits (429, 503) before it fails.
        max_failure_rate: Share of failed rows, over the last 1,000 of a task, or of all tasks of a stage on one host,
            at which they stop: the other rows are `cancelled`, and can be sent again. None: they never stop for this.
        batch_size: Inputs in one request, 1 to 100,000: texts of an embedding request (Databricks takes 150 at most),
            prompts of a completion request, 8 at most, where the endpoint takes a list of them; rows of a custom
            model. None: 64, and 5,000 for a custom model.
        max_request_mb: Largest request, in MB of 2^20 bytes: its whole body. Requests of several rows are filled up to
            it. A row that alone needs a larger one is not sent, and has the error `invalid_request`. None: 4 for chat,
            completions and embeddings at Databricks; elsewhere any, but with several rows up to 4. Custom models: 16.
        dedupe: Whether equal inputs of a task are sent once. None: yes, unless `temperature` is above 0 without a
            `seed`.
        cache: A folder on each worker's local disk for answers, kept for 30 days and in 4 GiB at most. A request with
            a cached answer is not sent again: after a retried task, a second action, or `orderBy` on a result. The key
            is the endpoint's URL, the headers and the body, without the token. Errors are not cached, and nothing is
            where `dedupe` is off. A row from the cache has 0 `attempts` and 0 tokens. None: no cache.
        reask: How often a prompt is sent again because its answer does not fit the type of `returns`.
        on_error: "row" puts the error into the row's `error` field; "raise" fails the task at the first failed row.
    """

    max_in_flight: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    tasks: int = 1
    timeout_s: float | None = None
    max_tries: int = 4
    give_up_after_s: float = 600.0
    max_failure_rate: float | None = None
    batch_size: int | None = None
    max_request_mb: float | None = None
    dedupe: bool | None = None
    cache: str | _Path | None = None
    reask: int = 1
    on_error: Literal["row", "raise"] = "row"

    def __post_init__(self) -> None:
        """Check every field on the driver."""
        for name in ("max_in_flight", "batch_size"):
            if getattr(self, name) is not None:
                self._check_whole(name, 1, 100_000)
        self._check_whole("tasks", 1, 100_000)
        for name, minimum, unit in (
            ("requests_per_minute", 1.0, "requests a minute"),
            ("tokens_per_minute", 1.0, "tokens a minute"),
            ("max_request_mb", 0.001, "MB"),
            ("timeout_s", 0.001, "seconds"),
        ):
            if (limit := getattr(self, name)) is not None:
                self._check_number(name, minimum, unit=unit)
                object.__setattr__(self, name, float(limit))  # 60 and 60.0 are one limit, which workers share
        if self.max_failure_rate is not None:
            self._check_number("max_failure_rate", 0.001, 1.0)
        if self.dedupe is not None:
            check_flag("dedupe", self.dedupe, owner="Policy")
        if self.cache is not None:
            object.__setattr__(self, "cache", _folder(self.cache))  # a string, so that equal policies share an engine
            if self.dedupe is False:
                raise ConfigError(
                    "Policy(cache=…, dedupe=False) is a contradiction: a cache gives equal inputs the same answer.",
                    "leave out one of the two.",
                )
        self._check_whole("max_tries", 1, 1_000)
        self._check_whole("reask", 0, 1_000)
        self._check_number("give_up_after_s", 0.0, unit="seconds")
        if self.on_error not in ("row", "raise"):
            raise ConfigError(
                f"Policy(on_error={self.on_error!r}) is neither 'row' nor 'raise'.", "leave it out for 'row'."
            )

    def _check_whole(self, name: str, minimum: int, maximum: int) -> None:
        check_whole(name, getattr(self, name), minimum, maximum, owner="Policy")

    def _check_number(self, name: str, minimum: float, maximum: float = _MAX_NUMBER, unit: str = "") -> None:
        check_number(name, getattr(self, name), minimum, maximum, unit=unit, owner="Policy")

    @property
    def attempt_s(self) -> float:
        """Seconds for one attempt."""
        return TIMEOUT_S if self.timeout_s is None else self.timeout_s

    def for_tier(self, service_tier: object) -> "Policy":
        """Return the policy of requests at a service tier: one without a time-out gets the tier's, if it has one."""
        timeout_s = TIER_TIMEOUTS_S.get(service_tier) if isinstance(service_tier, str) else None
        return self if self.timeout_s is not None or timeout_s is None else replace(self, timeout_s=timeout_s)

    @property
    def ceiling(self) -> int:
        """The most requests that one task may have in flight where it cannot share the limit."""
        return max(1, (self.max_in_flight or MAX_IN_FLIGHT) // self.tasks)


def _folder(value: str | _Path) -> str:
    """Return a folder's path; raise `ConfigError` for a URL and for other values."""
    path = value.__fspath__() if hasattr(value, "__fspath__") else value
    if not isinstance(path, str) or not path.strip() or "\0" in path or _URL_SCHEME.match(path):
        raise ConfigError(
            f"Policy(cache={value!r}) is not a folder on a local disk.",
            'name a folder that each worker can write to, such as cache="/local_disk0/answers", or leave it out.',
        )
    return path
