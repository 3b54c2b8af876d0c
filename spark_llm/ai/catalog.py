"""Catalog of the AI functions: a row's arguments in, its prompt out. Knows no column, no SQL, no Spark.

Names, parameters and defaults are those of Databricks' SQL functions (SQL language manual, `ai_classify` and the other
functions of that family).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from spark_llm.ai import prompts
from spark_llm.ai.judgements import condition_error, condition_prompt, option_error, score_error, score_prompt
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Enumeration, Field, Nullable, Scalar, Struct
from spark_llm.protocol.values import Item, Prompt, RowError
from spark_llm.validation.parameter import Parameter

SENTIMENTS = ("positive", "negative", "neutral", "mixed")
MAX_LABELS = 500
MAX_CACHED_LISTS = 100  # label lists, each of up to MAX_LABELS texts, whose instructions stay in memory
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

    def option_error(self, options: Mapping[str, Any]) -> RowError | None:
        """Return the error of options that are the same for every row; those that are columns are left out."""
        return self.check(**options) if options else None

    def prompts(self, columns: Sequence[Sequence[Any]]) -> list[Item | RowError | None]:
        """Return each row's prompt, None for a row with a null argument, and an error for an invalid argument."""
        return [None if None in row else self.make_prompt(*row) for row in zip(*columns, strict=True)]


def _gen(prompt: str) -> Item:
    return prompt


def _classify(content: str, labels: Sequence[str | None]) -> Item | RowError:
    return _prompt_with(_classify_instructions(tuple(labels)), content)


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
def _classify_instructions(labels: tuple[str | None, ...]) -> Instructions | RowError:
    return _label_error(labels) or (
        prompts.CLASSIFY.format(labels=_json_list(labels)),
        StructuredOutput("label", Enumeration(labels)),  # type: ignore[arg-type]  # `_label_error` refuses nulls
    )


@lru_cache(maxsize=MAX_CACHED_LISTS)
def _extract_instructions(labels: tuple[str | None, ...]) -> Instructions | RowError:
    fields = tuple(Field(str(label), Nullable(Scalar("string"))) for label in labels)
    return _label_error(labels) or (
        prompts.EXTRACT.format(labels=_json_list(labels)),
        StructuredOutput("entities", Struct(fields)),
    )


@lru_cache(maxsize=MAX_CACHED_LISTS)
def _mask_instructions(labels: tuple[str | None, ...]) -> Instructions | RowError:
    return _label_error(labels) or (prompts.MASK.format(labels=_json_list(labels)), None)


def _prompt_with(instructions: Instructions | RowError, content: str) -> Prompt | RowError:
    return instructions if isinstance(instructions, RowError) else Prompt(content, *instructions)


def _json_list(labels: Sequence[str | None]) -> str:
    """Return labels as JSON strings, so that a comma inside a label does not end it."""
    return ", ".join(write_json(label).decode() for label in labels)


def _max_words_error(max_words: int) -> RowError | None:
    if max_words >= 0:
        return None
    return option_error(f"max_words={max_words} is less than 0", "pass the maximum number of words, or 0 for no limit")


def _language_error(to_lang: str) -> RowError | None:
    return None if to_lang.strip() else option_error("to_lang is empty", "name a language or its code, such as 'fr'")


def _label_error(labels: Sequence[str | None]) -> RowError | None:
    if not labels:
        return option_error("the list of labels is empty", "name at least one label, as in array('angry', 'happy')")
    if not all(label and label.strip() for label in labels):
        return option_error("a label is null or blank", "leave it out of the list")
    if len(labels) > MAX_LABELS:
        return option_error(
            f"{len(labels)} labels are more than the limit of {MAX_LABELS}", "name fewer, or classify in two steps"
        )
    if len(set(labels)) < len(labels):
        return option_error("a label is in the list twice", "name each label once, for example with array_distinct()")
    return None


_CONTENT, _LABELS, _JUDGED = Parameter("content"), Parameter("labels", "texts"), Parameter("content", "content")
_LEAST, _MOST = Parameter("least", "number", 0.0), Parameter("most", "number", 10.0)

FUNCTIONS = {
    function.name: function
    for function in (
        Function("gen", (Parameter("prompt"),), _gen),
        Function("classify", (_CONTENT, _LABELS), _classify, _label_error, "parsed"),
        Function("extract", (_CONTENT, _LABELS), _extract, _label_error, "parsed"),
        Function("summarize", (_CONTENT, Parameter("max_words", "whole", 50)), _summarize, _max_words_error),
        Function("translate", (_CONTENT, Parameter("to_lang")), _translate, _language_error),
        Function("analyze_sentiment", (_CONTENT,), _analyze_sentiment, field="parsed"),
        Function("fix_grammar", (_CONTENT,), _fix_grammar),
        Function("mask", (_CONTENT, _LABELS), _mask, _label_error),
        Function("filter", (_JUDGED, Parameter("condition")), condition_prompt, condition_error, "parsed"),
        Function("score", (_JUDGED, Parameter("rubric"), _LEAST, _MOST), score_prompt, score_error, "parsed"),
    )
}
