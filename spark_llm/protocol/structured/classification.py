"""The output of a classification: one label or several, with the reason and the confidence where they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from spark_llm.protocol.structured.confidence import label_confidence
from spark_llm.protocol.structured.output import SINGLE_FIELD, StructuredOutput
from spark_llm.protocol.structured.schema import Array, Enumeration, Field, Scalar, Shape, Struct
from spark_llm.protocol.values import Result

_RATIONALE = "rationale"


@dataclass(frozen=True)
class Classification(StructuredOutput):
    """The type of an answer that is one of several labels, or a list of them.

    >>> Classification.of(["angry", "happy"], rationale=True).parse('{"rationale": "It says so.", "label": "angry"}')
    {'rationale': 'It says so.', 'label': 'angry'}
    """

    asks_logprobs: bool = False

    @classmethod
    def of(
        cls, labels: Sequence[str], *, several: bool = False, rationale: bool = False, confidence: bool = False
    ) -> "Classification":
        """Return the output for these labels; the reason comes before the label, so that the label follows from it."""
        name, shape = "labels" if several else "label", cast("Shape", Enumeration(tuple(labels)))
        if several:
            shape = Array(shape)
        if rationale:
            shape = Struct((Field(_RATIONALE, Scalar("string")), Field(name, shape)))
        return cls(name, shape, asks_logprobs=confidence)

    def fill(self, result: Result, value: Any, text: str, logprobs: object) -> None:  # noqa: ANN401, ARG002 -- as of any type of answers
        """Set the label of a result, or its labels in their own order; its reason, and its confidence if known."""
        has_rationale = isinstance(self.shape, Struct)
        chosen = value[self.name] if has_rationale else value
        result.rationale = value[_RATIONALE] if has_rationale else None
        if isinstance(chosen, str):
            result.parsed = chosen
            if logprobs is not None:
                field = self.name if has_rationale else SINGLE_FIELD
                result.confidence = label_confidence(logprobs, field, chosen, self._labels)
        else:
            result.parsed = [label for label in self._labels if label in set(chosen)]

    @cached_property
    def _labels(self) -> tuple[str, ...]:
        shape = self.shape.fields[-1].shape if isinstance(self.shape, Struct) else self.shape
        enumeration = shape.element if isinstance(shape, Array) else shape
        return tuple(map(str, enumeration.values)) if isinstance(enumeration, Enumeration) else ()
