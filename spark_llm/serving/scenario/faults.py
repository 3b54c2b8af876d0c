"""Fault injection by a script, which is read in order of arrival.

A fault depends on the request's number alone (and on the seed, with random rates), so a run can be repeated. This file
decides; the application acts. A new refusal is a row in `REFUSALS`; a new misbehaviour is a row in `MISBEHAVIOURS` and
a function in `http/responses`.
"""

import random
import re
from bisect import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from math import inf
from operator import itemgetter

from spark_llm.serving.protocol.errors import INTERNAL_ERROR, UNAUTHENTICATED, ErrorResponse

_LIMIT = {"type": "rate_limit_exceeded", "code": 429, "limit_type": "input_tokens_per_minute", "limit": 200000}
_GUARDRAIL = '{"input_guardrail":[{"flagged":true}],"finishReason":"input_guardrail_triggered"}'
_HTML_502 = '{"external_model_provider":"custom","external_model_error":"<html><h1>502 Bad Gateway</h1></html>"}'
_RATE = "REQUEST_LIMIT_EXCEEDED: Exceeded workspace input tokens per minute rate limit for this endpoint."
_CAPACITY = "Databricks is unable to satisfy this request due to unexpected capacity constraints."
_SLOW = "The service is taking too long to process your request. Please try again later."
_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_FLEX = "Resource unavailable: there is no capacity for flex processing now. Please try again later."

REFUSALS: dict[str, ErrorResponse] = {
    "400": ErrorResponse(400, "INVALID_PARAMETER_VALUE", "Bad request: the input cannot be processed."),
    "context": ErrorResponse(
        400, "BAD_REQUEST", "Bad request: prompt token count exceeds the limit.", code="context_length_exceeded"
    ),
    "guardrail": ErrorResponse(400, "BAD_REQUEST", _GUARDRAIL, code="content_filter"),
    "401": UNAUTHENTICATED,
    "403": ErrorResponse(403, "PERMISSION_DENIED", "The caller has no permission to query this endpoint."),
    "403number": ErrorResponse(403, 403, "Invalid access token."),  # error_code as a number: seen in the field
    "429": ErrorResponse(429, "REQUEST_LIMIT_EXCEEDED", _RATE, type="rate_limit_error", code="rate_limit_exceeded"),
    "429body": ErrorResponse(
        429, 429, "Rate limit exceeded.", body={"error": {"message": "Rate limit exceeded.", **_LIMIT}}
    ),
    "flex": ErrorResponse(429, "RESOURCE_EXHAUSTED", _FLEX, type="resource_unavailable", code="resource_unavailable"),
    "quota": ErrorResponse(429, "RESOURCE_EXHAUSTED", _QUOTA, type="insufficient_quota", code="insufficient_quota"),
    "500": INTERNAL_ERROR,
    "502": ErrorResponse(502, "INTERNAL_ERROR", _HTML_502, type="server_error"),
    "503": ErrorResponse(503, "TEMPORARILY_UNAVAILABLE", _CAPACITY, type="server_error"),
    "504": ErrorResponse(504, "TEMPORARILY_UNAVAILABLE", _SLOW, type="server_error"),
}
MISBEHAVIOURS = {
    "hang": "never answers",
    "cut": "sends the headers and half of the body, and closes the connection",
    "garbage": "status 200 with bytes that are not JSON",
    "html": "status 200 with an HTML page",
    "empty": "status 200 with no text and finish_reason 'length' (no vectors or scores, for embeddings and rerankings)",
    "half": "status 200 with half of a body and its true Content-Length: the transport is complete, the JSON is not",
    "drip": "the whole answer, sent slowly in pieces",
    "errorbody": "status 200 with an error document as its body",
}
OK = "ok"
KINDS = (OK, *REFUSALS, *MISBEHAVIOURS)

_STEP = re.compile(r"(?P<kind>[^@*]+)(?:@(?P<retry_after>[!-)+-?A-~]+))?(?:\*(?P<count>[1-9][0-9]*))?")


@dataclass(frozen=True)
class Fault:
    """The fault of one request.

    Attributes:
        kind: One of `KINDS`; "ok" is an answer without a fault.
        retry_after: The wait that a refusal tells. "1.5" (seconds) is sent unchanged in Retry-After, "1500ms" in
            retry-after-ms, "+2" as the HTTP date two seconds later. "429body" has its wait in the body.
    """

    kind: str = OK
    retry_after: str | None = None

    def __post_init__(self) -> None:
        """Check the kind, and that only a refusal has a wait."""
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.kind!r}. Hint: choose one of {', '.join(KINDS)}.")
        if self.retry_after is not None and self.kind not in REFUSALS:
            raise ValueError(f"{self.kind!r} has no Retry-After. Hint: these have: {', '.join(REFUSALS)}.")
        if self.retry_after is not None:
            REFUSALS[self.kind].check_retry_after(self.retry_after)

    @property
    def refusal(self) -> ErrorResponse | None:
        """The error response of a refused request; None for other faults."""
        return REFUSALS.get(self.kind)

    @classmethod
    def parse(cls, step: str) -> "Fault":
        """Return the fault of one step of a script: `503` or `429@1.5`."""
        match = _STEP.fullmatch(step)
        if match is None or match["count"] is not None:
            raise ValueError(f"{step!r} is not a single fault. Hint: write it as 503 or 429@1.5.")
        return cls(match["kind"], match["retry_after"])

    def __str__(self) -> str:
        """Return the fault as a step of a script."""
        return self.kind if self.retry_after is None else f"{self.kind}@{self.retry_after}"


@dataclass(frozen=True)
class Faults:
    """A script of faults in order of arrival; requests after its end are answered.

    >>> Faults("429 429@1.5 ok*3 503 500 hang cut half drip garbage html errorbody empty")
    >>> Faults("ok*9 503", cycle=True)  # every tenth request
    >>> Faults(poison="cyanide")  # a request with this word in an input is refused
    >>> Faults.random({"503": 0.05, "cut": 0.01}, seed=7)

    Every request for a model counts, including those that are refused earlier, for their token or their body.

    Attributes:
        script: Steps with blanks between: a kind; for a refusal `@` and a Retry-After; then `*` and a count.
        cycle: Begin again after the last step.
        poison: A word; a request with it in one of its inputs is refused as `poison_as`.
        poison_as: The kind of that refusal, such as "400", "context" or "guardrail".
        rates: The share of the requests after the script that get a fault, by its step.
        seed: The random seed for `rates`.
        drip_s: The seconds from the first piece of a dripping answer to its last.
    """

    script: str = ""
    cycle: bool = field(default=False, kw_only=True)
    poison: str | None = field(default=None, kw_only=True)
    poison_as: str = field(default="400", kw_only=True)
    rates: tuple[tuple[str, float], ...] = field(default=(), kw_only=True)
    seed: int = field(default=0, kw_only=True)
    drip_s: float = field(default=1.0, kw_only=True)
    _scripted: tuple[Fault, ...] = field(init=False, repr=False, compare=False)
    _ends: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _cumulative_rates: tuple[tuple[Fault, float], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Parse the script, and keep it in its shortest form."""
        runs = [(fault, sum(count for _, count in run)) for fault, run in groupby(_parse(self.script), itemgetter(0))]
        sums = accumulate(rate for _, rate in self.rates)
        object.__setattr__(self, "script", " ".join(str(f) if count == 1 else f"{f}*{count}" for f, count in runs))
        object.__setattr__(self, "_scripted", tuple(fault for fault, _ in runs))
        object.__setattr__(self, "_ends", tuple(accumulate(count for _, count in runs)))
        object.__setattr__(
            self, "_cumulative_rates", tuple(zip((Fault.parse(step) for step, _ in self.rates), sums, strict=True))
        )
        if any(not 0 <= rate <= 1 for _, rate in self.rates) or sum(rate for _, rate in self.rates) > 1:
            raise ValueError(f"The rates {dict(self.rates)} are not shares of 1. Hint: 5 in a hundred is 0.05.")
        if self.poison_as not in REFUSALS:
            raise ValueError(
                f"poison_as={self.poison_as!r} is not a refusal. Hint: choose one of {', '.join(REFUSALS)}."
            )
        if self.poison == "":
            raise ValueError("poison='' matches every text. Hint: give it a word, or omit it.")
        if not 0 <= self.drip_s < inf:
            raise ValueError(f"drip_s={self.drip_s} is not a finite time of 0 or more. Hint: half a second is 0.5.")

    @classmethod
    def random(cls, rates: Mapping[str, float], *, seed: int, poison: str | None = None) -> "Faults":
        """Return random faults: `{"503": 0.05}` refuses one request in twenty. Equal seeds give equal faults."""
        return cls(rates=tuple(rates.items()), seed=seed, poison=poison)

    def at(self, number: int) -> Fault:
        """Return the fault of the request with this number; the first one is 0."""
        length = self._ends[-1] if self._ends else 0
        place = number % length if self.cycle and length else number
        if place < length:
            return self._scripted[bisect(self._ends, place)]
        if self._cumulative_rates:
            draw = random.Random(f"{self.seed}:{number}").random()
            return next((fault for fault, rate in self._cumulative_rates if draw < rate), _OK)
        return _OK

    def poisoned(self, inputs: Iterable[str]) -> ErrorResponse | None:
        """Return the error response for inputs of which one has the poison word; else None."""
        if self.poison is not None and any(self.poison in text for text in inputs):
            return REFUSALS[self.poison_as]
        return None

    def __str__(self) -> str:
        """Return the script in its shortest form."""
        return self.script


_OK = Fault()


def _parse(script: str) -> list[tuple[Fault, int]]:
    steps = []
    for step in script.split():
        match = _STEP.fullmatch(step)
        if match is None:
            raise ValueError(f"{step!r} is not a step of a script. Hint: write it as 429, 429@1.5, ok*3 or 429@1.5*3.")
        steps.append((Fault(match["kind"], match["retry_after"]), int(match["count"] or 1)))
    return steps
