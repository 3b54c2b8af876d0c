"""What goes wrong, told beforehand: a script, read in the order in which requests arrive.

A fault depends on the request's number alone (and on the seed, where there are dice), so a run can be repeated. This
file decides; the application acts. To add a refusal, add a row to `REFUSALS`; a new way to misbehave is a row in
`MISBEHAVIOURS` and a function in `responses`.
"""

import random
import re
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from math import inf
from operator import itemgetter

from spark_llm.serving.protocol.errors import INTERNAL_ERROR, UNAUTHENTICATED, Refusal

_LIMIT = {"type": "rate_limit_exceeded", "code": 429, "limit_type": "input_tokens_per_minute", "limit": 200000}
_GUARDRAIL = '{"input_guardrail":[{"flagged":true}],"finishReason":"input_guardrail_triggered"}'
_HTML_502 = '{"external_model_provider":"custom","external_model_error":"<html><h1>502 Bad Gateway</h1></html>"}'
_RATE = "REQUEST_LIMIT_EXCEEDED: Exceeded workspace input tokens per minute rate limit for this endpoint."
_CAPACITY = "Databricks is unable to satisfy this request due to unexpected capacity constraints."
_SLOW = "The service is taking too long to process your request. Please try again later."
_QUOTA = "You exceeded your current quota, please check your plan and billing details."

REFUSALS: dict[str, Refusal] = {
    "400": Refusal(400, "INVALID_PARAMETER_VALUE", "Bad request: the input cannot be processed."),
    "context": Refusal(
        400, "BAD_REQUEST", "Bad request: prompt token count exceeds the limit.", code="context_length_exceeded"
    ),
    "guardrail": Refusal(400, "BAD_REQUEST", _GUARDRAIL, code="content_filter"),
    "401": UNAUTHENTICATED,
    "403": Refusal(403, "PERMISSION_DENIED", "The caller has no permission to query this endpoint."),
    "403number": Refusal(403, 403, "Invalid access token."),  # error_code as a number: seen in the field
    "429": Refusal(429, "REQUEST_LIMIT_EXCEEDED", _RATE, type="rate_limit_error", code="rate_limit_exceeded"),
    "429body": Refusal(429, 429, "Rate limit exceeded.", body={"error": {"message": "Rate limit exceeded.", **_LIMIT}}),
    "quota": Refusal(429, "RESOURCE_EXHAUSTED", _QUOTA, type="insufficient_quota", code="insufficient_quota"),
    "500": INTERNAL_ERROR,
    "502": Refusal(502, "INTERNAL_ERROR", _HTML_502, type="server_error"),
    "503": Refusal(503, "TEMPORARILY_UNAVAILABLE", _CAPACITY, type="server_error"),
    "504": Refusal(504, "TEMPORARILY_UNAVAILABLE", _SLOW, type="server_error"),
}
MISBEHAVIOURS = {
    "hang": "never answers",
    "cut": "sends the headers and half of the body, and closes the connection",
    "garbage": "status 200 with bytes that are no JSON",
    "html": "status 200 with an HTML page",
    "empty": "status 200 with no text and finish_reason 'length' (no vectors, for embeddings)",
    "half": "status 200 with half of a body, whose length is told right: the transport is whole, the JSON is not",
    "drip": "the whole answer, sent slowly, piece by piece",
    "errorbody": "status 200 with an error document as its body",
}
OK = "ok"
KINDS = (OK, *REFUSALS, *MISBEHAVIOURS)

_STEP = re.compile(r"(?P<kind>[^@*]+)(?:@(?P<retry_after>[!-)+-?A-~]+))?(?:\*(?P<count>[1-9][0-9]*))?")


@dataclass(frozen=True)
class Fault:
    """What happens to one request.

    Attributes:
        kind: A word of `KINDS`; "ok" is no fault.
        retry_after: How long to wait, told with a refusal: "1.5" (seconds) is sent as it is in Retry-After, "1500ms"
            in retry-after-ms, "+2" as the HTTP date of two seconds from then. "429body" tells it in its body.
    """

    kind: str = OK
    retry_after: str | None = None

    def __post_init__(self) -> None:
        """Check the word, and that a wait is told only where a request is refused."""
        if self.kind not in KINDS:
            raise ValueError(f"No fault is named {self.kind!r}. Hint: the known ones are {', '.join(KINDS)}.")
        if self.retry_after is not None and self.kind not in REFUSALS:
            raise ValueError(f"{self.kind!r} tells no Retry-After. Hint: these do: {', '.join(REFUSALS)}.")
        if self.retry_after is not None:
            REFUSALS[self.kind].check_wait(self.retry_after)

    @property
    def refusal(self) -> Refusal | None:
        """The refusal to answer with, or None where the request is not refused."""
        return REFUSALS.get(self.kind)

    @classmethod
    def parse(cls, word: str) -> "Fault":
        """Read one word of a script: `503` or `429@1.5`."""
        step = _STEP.fullmatch(word)
        if step is None or step["count"] is not None:
            raise ValueError(f"{word!r} is no single fault. Hint: write it as 503 or 429@1.5.")
        return cls(step["kind"], step["retry_after"])

    def __str__(self) -> str:
        """Return the word as a script has it."""
        return self.kind if self.retry_after is None else f"{self.kind}@{self.retry_after}"


@dataclass(frozen=True)
class Faults:
    """A script of what happens to requests, by their order of arrival; after it they are answered.

    >>> Faults("429 429@1.5 ok*3 503 500 hang cut half drip garbage html errorbody empty")
    >>> Faults("ok*9 503", cycle=True)  # every tenth request
    >>> Faults(poison="cyanide")  # a request with an input that has this word is refused
    >>> Faults.random({"503": 0.05, "cut": 0.01}, seed=7)

    Every request for a model counts, also one that is refused for its token or its body before its fault comes to it.

    Attributes:
        script: Words of `KINDS` with blanks between; `@` and a Retry-After after a refusal, then `*` and a count.
        cycle: Begin again after the last word.
        poison: A word; a request with it in one of its inputs is refused as `poison_as` says.
        poison_as: The word for that refusal: "400", "context" or "guardrail", say.
        rates: The share of the requests after the script that meet a fault, by its word.
        seed: What the dice for `rates` begin with.
        drip_s: How long a dripping answer takes, from its first piece to its last.
    """

    script: str = ""
    cycle: bool = field(default=False, kw_only=True)
    poison: str | None = field(default=None, kw_only=True)
    poison_as: str = field(default="400", kw_only=True)
    rates: tuple[tuple[str, float], ...] = field(default=(), kw_only=True)
    seed: int = field(default=0, kw_only=True)
    drip_s: float = field(default=1.0, kw_only=True)
    _steps: tuple[Fault, ...] = field(init=False, repr=False, compare=False)
    _ends: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _dice: tuple[tuple[Fault, float], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the script, and keep it in its shortest form."""
        runs = [(fault, sum(count for _, count in run)) for fault, run in groupby(_read(self.script), itemgetter(0))]
        shares = accumulate(rate for _, rate in self.rates)
        object.__setattr__(self, "script", " ".join(str(f) if count == 1 else f"{f}*{count}" for f, count in runs))
        object.__setattr__(self, "_steps", tuple(fault for fault, _ in runs))
        object.__setattr__(self, "_ends", tuple(accumulate(count for _, count in runs)))
        object.__setattr__(
            self, "_dice", tuple(zip((Fault.parse(word) for word, _ in self.rates), shares, strict=True))
        )
        if any(not 0 <= rate <= 1 for _, rate in self.rates) or sum(rate for _, rate in self.rates) > 1:
            raise ValueError(f"The rates {dict(self.rates)} are not shares of 1. Hint: 5 in a hundred is 0.05.")
        if self.poison_as not in REFUSALS:
            raise ValueError(f"poison_as={self.poison_as!r} refuses nothing. Hint: these do: {', '.join(REFUSALS)}.")
        if self.poison == "":
            raise ValueError("poison='' is in every text. Hint: give it a word, or leave it out.")
        if not 0 <= self.drip_s < inf:
            raise ValueError(f"drip_s={self.drip_s} is no time to send in. Hint: half a second is 0.5.")

    @classmethod
    def random(cls, rates: Mapping[str, float], *, seed: int, poison: str | None = None) -> "Faults":
        """Throw dice for each request: `{"503": 0.05}` refuses one in twenty; the same seed does the same again."""
        return cls(rates=tuple(rates.items()), seed=seed, poison=poison)

    def at(self, number: int) -> Fault:
        """Return what happens to the request of this number; the first one is 0."""
        total = self._ends[-1] if self._ends else 0
        place = number % total if self.cycle and total else number
        if place < total:
            return self._steps[bisect(self._ends, place)]
        if self._dice:
            draw = random.Random(f"{self.seed}:{number}").random()
            return next((fault for fault, share in self._dice if draw < share), _OK)
        return _OK

    def poisoned(self, inputs: list[str]) -> Refusal | None:
        """Return the refusal for these inputs, if one of them has the word."""
        if self.poison is not None and any(self.poison in text for text in inputs):
            return REFUSALS[self.poison_as]
        return None

    def __str__(self) -> str:
        """Return the script in its shortest form."""
        return self.script


_OK = Fault()


def _read(script: str) -> list[tuple[Fault, int]]:
    steps = []
    for word in script.split():
        step = _STEP.fullmatch(word)
        if step is None:
            raise ValueError(f"{word!r} is no step of a script. Hint: write it as 429, 429@1.5, ok*3 or 429@1.5*3.")
        steps.append((Fault(step["kind"], step["retry_after"]), int(step["count"] or 1)))
    return steps
