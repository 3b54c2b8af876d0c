"""Tallies: counts of rows, errors and tokens that can be added."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar

from spark_llm.errors import Kind

Counted = TypeVar("Counted", bound="Addable")

TOKENS = (
    *("prompt_tokens", "completion_tokens", "cached_tokens", "total_tokens", "cache_write_tokens"),
    *("image_tokens", "audio_tokens"),
)
"""The sorts of tokens that are added up, as the fields of a usage and of a tally are called."""


@dataclass(frozen=True)
class Tally:
    """The counts of one column.

    Attributes:
        asked: Rows with a prompt that were asked.
        failed: Those of them that were not answered, by the kind of their error.
        prompt_tokens: Tokens of the prompts, cached ones included.
        completion_tokens: Tokens of the answers.
        cached_tokens: Tokens of the prompts that the server had cached.
        total_tokens: All tokens, as the server added them up.
        requests: HTTP requests that were sent, retries included.
        cache_write_tokens: Tokens of the prompts that the server wrote to its cache.
        tiers: The tokens that were billed at a service tier, by its name, as far as they were counted apart. They are
            in the sums above too.
        cancelled: Rows with a prompt that were not asked, because their task had stopped; neither in `asked`
            nor in `failed`.
        image_tokens: Tokens of the prompts that stand for images.
        audio_tokens: Tokens of the prompts and the answers that stand for audio.
    """

    asked: int = 0
    failed: Mapping[Kind, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    total_tokens: int = 0
    requests: int = 0
    cache_write_tokens: int = 0
    tiers: Mapping[str, "Tally"] = field(default_factory=dict)
    cancelled: int = 0
    image_tokens: int = 0
    audio_tokens: int = 0

    @property
    def answered(self) -> int:
        """Rows that were answered."""
        return self.asked - sum(self.failed.values())

    @classmethod
    def of_tokens(cls, tokens: Mapping[str, Any]) -> "Tally":
        """Return a tally of the `TOKENS` in a mapping; None is 0."""
        numbers: dict[str, Any] = {name: tokens[name] or 0 for name in TOKENS}
        return cls(**numbers)

    def plus(self, other: "Tally") -> "Tally":
        """Return the sum of two tallies."""
        return total_of((self, other))


class Totals(ABC):
    """Base of a report: the numbers of its tally, under the same names."""

    @property
    @abstractmethod
    def _total(self) -> Tally:
        """The tally."""

    @property
    def failed(self) -> Mapping[Kind, int]:
        """Rows that were not answered, by the kind of their error; a row that failed in two columns counts twice."""
        return self._total.failed

    @property
    def cancelled(self) -> int:
        """Rows that were not asked, because their task had stopped; likewise."""
        return self._total.cancelled

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts, those of the cache among them."""
        return self._total.prompt_tokens

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answers."""
        return self._total.completion_tokens

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompts that the server had cached."""
        return self._total.cached_tokens

    @property
    def cache_write_tokens(self) -> int:
        """Tokens of the prompts that the server wrote to its cache."""
        return self._total.cache_write_tokens

    @property
    def image_tokens(self) -> int:
        """Tokens of the prompts that stand for images."""
        return self._total.image_tokens

    @property
    def audio_tokens(self) -> int:
        """Tokens of the prompts and the answers that stand for audio."""
        return self._total.audio_tokens

    @property
    def total_tokens(self) -> int:
        """All tokens, as the server counts them."""
        return self._total.total_tokens

    def _tokens_text(self, reasoning: int = 0) -> str:
        """Return all tokens and their parts as text; empty without any. `reasoning` is a part of the answers'."""
        total = self._total
        parts = [
            (total.prompt_tokens, "of questions"),
            (total.cached_tokens, "of them cached"),
            (total.cache_write_tokens, "of them written to the cache"),
            (total.image_tokens, "of images"),
            (total.audio_tokens, "of audio"),
            (total.completion_tokens, "of answers"),
            (reasoning, "of them reasoning"),
        ]
        listed = ", ".join(f"{count:,} {what}" for count, what in parts if count)
        return f"{total.total_tokens:,}" + (f" ({listed})" if listed else "") if total.total_tokens else ""


NUMBERS = tuple(part.name for part in fields(Tally) if part.name not in ("failed", "tiers"))
"""The fields of a tally that are numbers."""


def total_of(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies; zeros where there are none."""
    parts = list(tallies)
    failed, tiers = Counter[Kind](), dict[str, list[Tally]]()
    for part in parts:
        failed.update(part.failed)
        for tier, tokens in part.tiers.items():
            tiers.setdefault(tier, []).append(tokens)
    sums = {name: sum([getattr(part, name) for part in parts]) for name in NUMBERS}
    return Tally(failed=dict(+failed), tiers={tier: total_of(of_tier) for tier, of_tier in tiers.items()}, **sums)


class Addable(Protocol):
    """Counts that can be added, such as tallies."""

    def plus(self, other: Any) -> Any:  # noqa: ANN401 -- of the same type, which this returns
        """Return the sum of both."""


def sums(one: Mapping[str, Counted], other: Mapping[str, Counted]) -> dict[str, Counted]:
    """Return what both have, and the sum of what has the same name."""
    return {**one, **{name: one[name].plus(count) if name in one else count for name, count in other.items()}}
