"""The report of `classify_by_sample`, as values and as text. It is pure."""

from dataclasses import dataclass

from spark_llm.ai.dataframes.agreement import CONFIDENCE, Agreement
from spark_llm.text.table import text_table


@dataclass(frozen=True, repr=False, kw_only=True)
class SampleReport:
    """What `classify_by_sample` asked, and how often its small model agrees with the chat model.

    It prints as text. Texts are different contents; rows with equal contents are one text.

    Attributes:
        rows: Rows of the DataFrame.
        texts: Different contents that are not null.
        sampled: Texts of the sample.
        learned: Texts of the sample that the small model learned from.
        held_out: Texts of the sample that measure it: they have an answer and a vector.
        wanted: The agreement that was asked for.
        found: The agreement above the chosen threshold, `measured` and `lower_bound`; where no threshold is good
            enough, the one with the highest bound. None where nothing was measured.
        asked: Texts that the chat model was asked, the sample among them.
        decided: Texts that the small model decided, so as many requests less.
        failed: Asked texts with an error.
        without_vector: Texts with no vector that fits; the chat model is asked.
        chat_tokens: Tokens of the chat model, as billed in this call.
        embed_tokens: Tokens of the embedding model, as billed in this call.
    """

    rows: int = 0
    texts: int = 0
    wanted: float = 0.0
    sampled: int = 0
    learned: int = 0
    held_out: int = 0
    found: Agreement | None = None
    asked: int = 0
    decided: int = 0
    failed: int = 0
    without_vector: int = 0
    chat_tokens: int = 0
    embed_tokens: int = 0

    @property
    def asked_share(self) -> float:
        """The share of the texts that the chat model was asked."""
        return self.asked / self.texts if self.texts else 0.0

    @property
    def cost_of_the_rest(self) -> str:
        """What it costs to ask the chat model about all texts beside the sample, in words."""
        rest = self.texts - self.asked
        tokens = rest * self.chat_tokens // max(1, self.asked)
        return f"all {rest:,} other texts take as many requests" + (f" and about {tokens:,} tokens" if tokens else "")

    def __repr__(self) -> str:
        return text_table((name, fact) for name, fact in self._facts().items() if fact)

    def _facts(self) -> dict[str, str]:
        failed = f", {self.failed:,} failed" if self.failed else ""
        missing = f"{self.without_vector:,} texts; the chat model is asked" if self.without_vector else ""
        tokens = f"{self.chat_tokens:,} of the chat model, {self.embed_tokens:,} of the embedding model"
        return {
            "rows": f"{self.rows:,}, {self.texts:,} different texts",
            "sample": f"{self.sampled:,} texts: {self.learned:,} to learn from, {self.held_out:,} held out",
            "agreement": "" if self.found is None else agreement_text(self.found, self.wanted),
            "asked": f"{self.asked:,} texts ({self.asked_share:.1%}){failed}",
            "decided by the model": f"{self.decided:,} texts, as many requests saved",
            "without a vector": missing,
            "tokens": tokens,
        }


def agreement_text(found: Agreement, wanted: float) -> str:
    """Return an agreement in words."""
    return (
        f"{found.measured:.1%} of {found.texts:,} held-out texts above the probability {found.threshold:.3f}; at least"
        f" {found.lower_bound:.1%} at {CONFIDENCE:.0%} confidence, {wanted:.1%} was asked for"
    )
