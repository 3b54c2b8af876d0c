"""What the endpoints can take and do not tell: values, handed to `LocalEndpoints`.

They say what holds when; `Admission` applies them to the requests.
"""

from dataclasses import dataclass

from spark_llm.serving.scenario.faults import Fault


@dataclass(frozen=True, kw_only=True)
class After:
    """A moment, told by the seconds that have passed until it, or by the requests that have come before it.

    >>> After(elapsed_s=1.5)
    >>> After(requests=100)  # with the 101st request

    Attributes:
        elapsed_s: Seconds since whatever is counted from.
        requests: Requests since then.
    """

    elapsed_s: float | None = None
    requests: int | None = None

    def __post_init__(self) -> None:
        """Check that it is told in one way, and lies ahead."""
        if (self.elapsed_s is None) == (self.requests is None):
            raise ValueError(f"{self} is no moment. Hint: give either elapsed_s or requests.")
        _check(self, "elapsed_s", "requests")

    def reached(self, *, elapsed_s: float, requests: int) -> bool:
        """Tell whether the moment has come."""
        if self.elapsed_s is not None:
            return elapsed_s >= self.elapsed_s
        return self.requests is not None and requests >= self.requests


@dataclass(frozen=True, kw_only=True)
class Quota:
    """So many requests, and so many tokens, in any window of time; what is above it is refused.

    >>> Quota(requests=200, refusals_count=True)
    >>> Quota(tokens=20_000, refuse_as="429body@15")

    The window slides: a request is refused if the window that ends with it is spent. Tokens are known, and spent, when
    an answer is made, so the requests that are in work by then can go above.

    Attributes:
        requests: The most requests in a window.
        tokens: The tokens in a window, as answers report them, after which requests are refused.
        window_s: How long the window is.
        refusals_count: A refused request is spent as well, so who asks on without a pause is never answered.
        refuse_as: A refusal as a script of `Faults` has it: "429", "503@1.5", "429body@15".
    """

    requests: int | None = None
    tokens: int | None = None
    window_s: float = 60.0
    refusals_count: bool = False
    refuse_as: str = "429"

    def __post_init__(self) -> None:
        """Check the numbers and the word."""
        _check(self, "requests", "tokens")
        _refusal(self.refuse_as)
        if self.requests is None and self.tokens is None:
            raise ValueError("A quota of nothing refuses nothing. Hint: give it requests or tokens.")
        if not self.window_s > 0:
            raise ValueError(f"Quota(window_s={self.window_s}) is no window. Hint: give more than 0, or leave it out.")

    @property
    def refusal(self) -> Fault:
        """What happens to a request above the quota."""
        return _refusal(self.refuse_as)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How much all endpoints together can take; whoever asks has to find out.

    >>> Capacity(concurrency=8)  # the ninth at once is refused
    >>> Capacity(concurrency=8, queue=True)  # the ninth at once waits
    >>> Capacity(concurrency=8, refuse_as="503@250ms", quota=Quota(requests=600))
    >>> Capacity(concurrency=8, steps=((After(requests=100), Capacity(concurrency=2)),))  # shrinks

    A request that is refused for its token or its body does not come this far: it takes no place and spends nothing.

    Attributes:
        concurrency: The most requests in work at once: held, late, or with the model.
        queue: Requests above `concurrency` wait in line, first come, first served, and are not refused.
        quota: The most requests or tokens in a window.
        refuse_as: The refusal above `concurrency`, as a script of `Faults` has it: "429", "503@1.5", "429body@15".
        steps: What takes the whole place of this capacity, and when: the last one holds whose moment has come, counted
            from the first request. What was spent in the window stays spent; who is in line stays in line.
    """

    concurrency: int | None = None
    queue: bool = False
    quota: Quota | None = None
    refuse_as: str = "429"
    steps: tuple[tuple[After, "Capacity"], ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers and the word, and that a step has no steps of its own."""
        _check(self, "concurrency")
        _refusal(self.refuse_as)
        if any(capacity.steps for _, capacity in self.steps):
            raise ValueError("A step of a capacity has steps of its own. Hint: put them all into one row.")

    @property
    def refusal(self) -> Fault:
        """What happens to a request above `concurrency`."""
        return _refusal(self.refuse_as)

    @property
    def window_s(self) -> float:
        """The longest window of its quotas: how far back it has to be known what was spent."""
        quotas = [each.quota for each in (self, *(capacity for _, capacity in self.steps))]
        return max((quota.window_s for quota in quotas if quota is not None), default=0.0)

    def at(self, *, elapsed_s: float, requests: int) -> "Capacity":
        """Return what holds so many seconds after the first request, for one with so many requests before it."""
        come = (capacity for after, capacity in self.steps if after.reached(elapsed_s=elapsed_s, requests=requests))
        return [self, *come][-1]


def _check(value: After | Quota | Capacity, *names: str) -> None:
    for name in names:
        number = getattr(value, name)
        if number is not None and not number >= 0:
            raise ValueError(f"{type(value).__name__}({name}={number}) is less than nothing. Hint: give 0 or more.")


def _refusal(word: str) -> Fault:
    fault = Fault.parse(word)
    if fault.refusal is None:
        raise ValueError(f"refuse_as={word!r} refuses nothing. Hint: write it as 429, 503@1.5 or 429body@15.")
    return fault
