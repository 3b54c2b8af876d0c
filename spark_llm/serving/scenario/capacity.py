"""Hidden capacity of the endpoints: concurrency, quotas, and steps in time. Values for `LocalEndpoints`.

`Admission` applies them to the requests.
"""

from dataclasses import dataclass

from spark_llm.serving.scenario.faults import Fault


@dataclass(frozen=True, kw_only=True)
class After:
    """A moment, given by the seconds that pass before it or by the requests that arrive before it.

    >>> After(elapsed_s=1.5)
    >>> After(requests=100)  # with the 101st request

    Attributes:
        elapsed_s: Seconds since the start of counting.
        requests: Requests since then.
    """

    elapsed_s: float | None = None
    requests: int | None = None

    def __post_init__(self) -> None:
        """Check that one number is given, and that it is not negative."""
        if (self.elapsed_s is None) == (self.requests is None):
            raise ValueError(f"{self} needs one number. Hint: give either elapsed_s or requests.")
        _check_not_negative(self, "elapsed_s", "requests")

    def reached(self, *, elapsed_s: float, requests: int) -> bool:
        """Return whether the moment has passed."""
        if self.elapsed_s is not None:
            return elapsed_s >= self.elapsed_s
        return self.requests is not None and requests >= self.requests


@dataclass(frozen=True, kw_only=True)
class Quota:
    """A limit of requests and of tokens in any window of time; requests above it are refused.

    >>> Quota(requests=200, refusals_count=True)
    >>> Quota(tokens=20_000, refuse_as="429body@15")

    The window slides: a request is refused if the window that ends with it is spent. Tokens are counted when an answer
    is made, so requests that are in work by then can exceed the quota.

    Attributes:
        requests: The maximum number of requests in a window.
        tokens: The tokens in a window, as answers report them, after which requests are refused.
        window_s: The length of the window in seconds.
        refusals_count: Refused requests count too, so a client that retries without a pause is never answered.
        refuse_as: The refusal, as a step of a `Faults` script: "429", "503@1.5", "429body@15".
    """

    requests: int | None = None
    tokens: int | None = None
    window_s: float = 60.0
    refusals_count: bool = False
    refuse_as: str = "429"

    def __post_init__(self) -> None:
        """Check the numbers and `refuse_as`."""
        _check_not_negative(self, "requests", "tokens")
        _parse_refusal(self.refuse_as)
        if self.requests is None and self.tokens is None:
            raise ValueError("A quota needs a limit. Hint: give it requests or tokens.")
        if not self.window_s > 0:
            raise ValueError(f"Quota(window_s={self.window_s}) is not a window. Hint: give more than 0, or omit it.")

    @property
    def refusal(self) -> Fault:
        """The fault of a request above the quota."""
        return _parse_refusal(self.refuse_as)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The capacity of all endpoints together; no response tells it to a client.

    >>> Capacity(concurrency=8)  # the ninth at once is refused
    >>> Capacity(concurrency=8, queue=True)  # the ninth at once waits
    >>> Capacity(concurrency=8, refuse_as="503@250ms", quota=Quota(requests=600))
    >>> Capacity(concurrency=8, steps=((After(requests=100), Capacity(concurrency=2)),))  # shrinks
    >>> Capacity(flex=False, steps=((After(elapsed_s=2), Capacity()),))  # no flex processing in the first two seconds

    A request that is refused for its token or its body takes no slot and spends nothing.

    Attributes:
        concurrency: The maximum number of requests in work at once: held, delayed, or with the model.
        queue: Requests above `concurrency` wait in a queue, first come, first served, and are not refused.
        quota: The maximum of requests or tokens in a window.
        flex: Whether requests with the service tier "flex" are admitted; they are refused as "flex" otherwise.
        refuse_as: The refusal above `concurrency`, as a step of a `Faults` script: "429", "503@1.5", "429body@15".
        steps: Capacities that replace this one, each from its moment on, counted from the first request; the last one
            whose moment has passed holds. Requests and tokens stay spent, and the queue stays.
    """

    concurrency: int | None = None
    queue: bool = False
    quota: Quota | None = None
    flex: bool = True
    refuse_as: str = "429"
    steps: tuple[tuple[After, "Capacity"], ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers and `refuse_as`, and that no step has steps."""
        _check_not_negative(self, "concurrency")
        _parse_refusal(self.refuse_as)
        if any(capacity.steps for _, capacity in self.steps):
            raise ValueError("A step of a capacity has steps of its own. Hint: put them all into one row.")

    @property
    def refusal(self) -> Fault:
        """The fault of a request above `concurrency`."""
        return _parse_refusal(self.refuse_as)

    @property
    def window_s(self) -> float:
        """The longest window of its quotas, in seconds; 0 without one."""
        quotas = [each.quota for each in (self, *(capacity for _, capacity in self.steps))]
        return max((quota.window_s for quota in quotas if quota is not None), default=0.0)

    def at(self, *, elapsed_s: float, requests: int) -> "Capacity":
        """Return the capacity in force so many seconds and requests after the first request."""
        past = (capacity for after, capacity in self.steps if after.reached(elapsed_s=elapsed_s, requests=requests))
        return [self, *past][-1]


def _check_not_negative(value: After | Quota | Capacity, *names: str) -> None:
    for name in names:
        number = getattr(value, name)
        if number is not None and not number >= 0:
            raise ValueError(f"{type(value).__name__}({name}={number}) is negative. Hint: give 0 or more.")


def _parse_refusal(step: str) -> Fault:
    fault = Fault.parse(step)
    if fault.refusal is None:
        raise ValueError(f"refuse_as={step!r} is not a refusal. Hint: write it as 429, 503@1.5 or 429body@15.")
    return fault
