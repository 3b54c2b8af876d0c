"""Catalog of the AI functions: a row's arguments in, its prompt out. Knows no column, no SQL, no Spark.

Names, parameters and defaults are those of Databricks' SQL functions (SQL language manual, `ai_classify` and the other
functions of that family).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from spark_llm.ai import prompts
from spark_llm.ai.judgements import condition_error, condition_prompt, option_error, score_error, score_prompt
from spark_llm.ai.labels import MAX_CACHED_LISTS, choice_error, json_list, label_error, label_prompt, labels_prompt
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Enumeration, Field, Nullable, Scalar, Struct
from spark_llm.protocol.values import Item, Prompt, RowError
from spark_llm.validation.parameter import Parameter

SENTIMENTS = ("positive", "negative", "neutral", "mixed")
_LANGUAGES = {
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "hi": "Hindi",
    "it": "Italian",
    "pt": "Portuguese",
    "th": "Thai",
}
_SENTIMENT = StructuredOutput("sentiment", Enumeration(SENTIMENTS))

Instructions = tuple[str, StructuredOutput | None]  # the system prompt for a list of labels, and the answer's type


@dataclass(frozen=True)
class Function:
    """An AI function: its name without `ai_`, its parameters, and how a row's arguments become a prompt.

    `check` returns the error of options, by name, whatever the row's text is. `field` is the field of the result that
    is the function's value.
    """

    name: str
    parameters: tuple[Parameter, ...]
    make_prompt: Callable[..., Item | RowError | None]
    check: Callable[..., RowError | None] = lambda **_: None
    field: Literal["text", "parsed"] = "text"

    @property
    def typed(self) -> bool:
        """Whether each prompt asks for structured output."""
        return self.field == "parsed"

    def with_options(self, names: Collection[str]) -> "Function":
        """Return the function with these of its `extra` parameters."""
        kept = tuple(each for each in self.parameters if not each.extra or each.name in names)
        return replace(self, parameters=kept)

    def option_error(self, options: Mapping[str, Any]) -> RowError | None:
        """Return the error of options that are the same for every row; those that are columns are left out."""
        return self.check(**options) if options else None

    def prompts(self, columns: Sequence[Sequence[Any]]) -> list[Item | RowError | None]:
        """Return each row's prompt, None for a row with a null argument, and an error for an invalid argument."""
        names = [parameter.name for parameter in self.parameters]
        rows = zip(*columns, strict=True)
        return [
            None if any(value is None for value in row) else self.make_prompt(**dict(zip(names, row, strict=False)))
            for row in rows
        ]


def _gen(prompt: str) -> Item:
    return prompt


def _extract(content: str, labels: Sequence[str | None]) -> Item | RowError:
    return _prompt_with(_extract_instructions(tuple(labels)), content)


def _mask(content: str, labels: Sequence[str | None]) -> Item | RowError:
    return _prompt_with(_mask_instructions(tuple(labels)), content)


def _analyze_sentiment(content: str) -> Item:
    return Prompt(content, prompts.ANALYZE_SENTIMENT, _SENTIMENT)


def _fix_grammar(content: str) -> Item:
    return Prompt(content, prompts.FIX_GRAMMAR)


def _summarize(content: str, max_words: int) -> Item | RowError:
    if (error := _max_words_error(max_words)) is not None:
        return error
    prompt = prompts.SUMMARIZE if max_words else prompts.SUMMARIZE_AT_ANY_LENGTH
    return Prompt(content, prompt.format(max_words=max_words))


def _translate(content: str, to_lang: str) -> Item | RowError:
    if (error := _language_error(to_lang)) is not None:
        return error
    language = _LANGUAGES.get(to_lang.strip().lower(), to_lang)
    return Prompt(content, prompts.TRANSLATE.format(language=language))


@lru_cache(maxsize=MAX_CACHED_LISTS)
def _extract_instructions(labels: tuple[str | None, ...]) -> Instructions | RowError:
    fields = tuple(Field(str(label), Nullable(Scalar("string"))) for label in labels)
    return label_error(labels) or (
        prompts.EXTRACT.format(labels=json_list(labels)),
        StructuredOutput("entities", Struct(fields)),
    )


@lru_cache(maxsize=MAX_CACHED_LISTS)
def _mask_instructions(labels: tuple[str | None, ...]) -> Instructions | RowError:
    return label_error(labels) or (prompts.MASK.format(labels=json_list(labels)), None)


def _prompt_with(instructions: Instructions | RowError, content: str) -> Prompt | RowError:
    return instructions if isinstance(instructions, RowError) else Prompt(content, *instructions)


def _max_words_error(max_words: int) -> RowError | None:
    if max_words >= 0:
        return None
    return option_error(f"max_words={max_words} is less than 0", "pass the maximum number of words, or 0 for no limit")


def _language_error(to_lang: str) -> RowError | None:
    return None if to_lang.strip() else option_error("to_lang is empty", "name a language or its code, such as 'fr'")


_CONTENT, _LABELS, _JUDGED = Parameter("content"), Parameter("labels", "texts"), Parameter("content", "content")
_OF_LABELS = (
    Parameter("labels", "labels"),
    Parameter("descriptions", "descriptions", (), extra=True),
    Parameter("instructions", "text", "", extra=True),
    Parameter("examples", "examples", (), extra=True),
    Parameter("rationale", "flag", default=False, extra=True),
)
_CONFIDENCE = Parameter("confidence", "flag", default=False, extra=True)
_LEAST, _MOST = Parameter("least", "number", 0.0), Parameter("most", "number", 10.0)

FUNCTIONS = {
    function.name: function
    for function in (
        Function("gen", (Parameter("prompt"),), _gen),
        Function("classify", (_CONTENT, *_OF_LABELS, _CONFIDENCE), label_prompt, choice_error, "parsed"),
        Function("classify_multi", (_CONTENT, *_OF_LABELS), labels_prompt, choice_error, "parsed"),
        Function("extract", (_CONTENT, _LABELS), _extract, label_error, "parsed"),
        Function("summarize", (_CONTENT, Parameter("max_words", "whole", 50)), _summarize, _max_words_error),
        Function("translate", (_CONTENT, Parameter("to_lang")), _translate, _language_error),
        Function("analyze_sentiment", (_CONTENT,), _analyze_sentiment, field="parsed"),
        Function("fix_grammar", (_CONTENT,), _fix_grammar),
        Function("mask", (_CONTENT, _LABELS), _mask, label_error),
        Function("filter", (_JUDGED, Parameter("condition")), condition_prompt, condition_error, "parsed"),
        Function("score", (_JUDGED, Parameter("rubric"), _LEAST, _MOST), score_prompt, score_error, "parsed"),
    )
}
