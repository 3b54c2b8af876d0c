"""The AI functions as rules: a row's arguments in, what is asked about them out. Knows no column, no SQL, no Spark.

Names, parameters and defaults are those of Databricks' SQL functions (the SQL language manual, `ai_classify` and the
other functions of that family).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from spark_llm.ai import prompts
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Enumeration, Field, Nullable, Scalar, Struct
from spark_llm.protocol.values import Item, Prompt, RowError
from spark_llm.validation.numbers import is_whole

SENTIMENTS = ("positive", "negative", "neutral", "mixed")
LABELS_MOST = 500
LISTS_KEPT = 100  # lists of labels, each of up to LABELS_MOST texts, whose prompts and types are kept
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

Told = tuple[str, StructuredOutput | None]  # what a list of labels makes: the instructions, and the type of the answer
ParameterKind = Literal["text", "texts", "whole"]
PARAMETER_KINDS: dict[ParameterKind, str] = {
    "text": "a string",
    "texts": "a list of strings",
    "whole": "a whole number",
}


class Parameter(NamedTuple):
    """What a function takes: a text, an array of texts, or a whole number, with its value where none is given."""

    name: str
    kind: ParameterKind = "text"
    default: int | None = None

    def accepts(self, value: object) -> bool:
        """Return whether a value has the parameter's kind; a tuple of strings is a list of them."""
        if self.kind == "texts":
            return isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value)
        return is_whole(value) if self.kind == "whole" else isinstance(value, str)


@dataclass(frozen=True)
class Function:
    """What is asked about a row: its name without `ai_`, its parameters, and the question that they make.

    `field` is the part of the result that is the function's value, and `typed` whether a type is asked for.
    """

    name: str
    parameters: tuple[Parameter, ...]
    question: Callable[..., Item | RowError]
    field: Literal["text", "parsed"] = "text"

    @property
    def typed(self) -> bool:
        """Whether each question brings the type of its answer."""
        return self.field == "parsed"

    def asked(self, columns: Sequence[Sequence[Any]]) -> list[Item | RowError | None]:
        """Return what each row asks; a null in any argument is a null, and a wrong argument the row's error."""
        return [None if None in row else self.question(*row) for row in zip(*columns, strict=True)]


def _gen(prompt: str) -> Item:
    return prompt


def _classify(content: str, labels: Sequence[str | None]) -> Item | RowError:
    return _told(_choice(tuple(labels)), content)


def _extract(content: str, labels: Sequence[str | None]) -> Item | RowError:
    return _told(_entities(tuple(labels)), content)


def _mask(content: str, labels: Sequence[str | None]) -> Item | RowError:
    return _told(_masking(tuple(labels)), content)


def _analyze_sentiment(content: str) -> Item:
    return Prompt(content, prompts.ANALYZE_SENTIMENT, _SENTIMENT)


def _fix_grammar(content: str) -> Item:
    return Prompt(content, prompts.FIX_GRAMMAR)


def _summarize(content: str, max_words: int) -> Item | RowError:
    if max_words < 0:
        return _wrong(f"max_words={max_words} is less than 0", "give the most words, or 0 for any number")
    prompt = prompts.SUMMARIZE if max_words else prompts.SUMMARIZE_AT_ANY_LENGTH
    return Prompt(content, prompt.format(max_words=max_words))


def _translate(content: str, to_lang: str) -> Item | RowError:
    if not to_lang.strip():
        return _wrong("to_lang is empty", "name a language or its code, such as 'fr'")
    language = _LANGUAGES.get(to_lang.strip().lower(), to_lang)
    return Prompt(content, prompts.TRANSLATE.format(language=language))


@lru_cache(maxsize=LISTS_KEPT)
def _choice(labels: tuple[str | None, ...]) -> Told | RowError:
    return _wrong_labels(labels) or (
        prompts.CLASSIFY.format(labels=_listed(labels)),
        StructuredOutput("label", Enumeration(labels)),  # type: ignore[arg-type]  # texts, as was checked
    )


@lru_cache(maxsize=LISTS_KEPT)
def _entities(labels: tuple[str | None, ...]) -> Told | RowError:
    fields = tuple(Field(str(label), Nullable(Scalar("string"))) for label in labels)
    return _wrong_labels(labels) or (
        prompts.EXTRACT.format(labels=_listed(labels)),
        StructuredOutput("entities", Struct(fields)),
    )


@lru_cache(maxsize=LISTS_KEPT)
def _masking(labels: tuple[str | None, ...]) -> Told | RowError:
    return _wrong_labels(labels) or (prompts.MASK.format(labels=_listed(labels)), None)


def _told(told: Told | RowError, content: str) -> Prompt | RowError:
    return told if isinstance(told, RowError) else Prompt(content, *told)


def _listed(labels: Sequence[str | None]) -> str:
    """Return labels as JSON has them, so that a comma in one is no end of it."""
    return ", ".join(write_json(label).decode() for label in labels)


def _wrong_labels(labels: tuple[str | None, ...]) -> RowError | None:
    if not labels:
        return _wrong("the list of labels is empty", "name at least one, as in array('angry', 'happy')")
    if not all(label and label.strip() for label in labels):
        return _wrong("a label is null or blank", "leave it out of the list")
    if len(labels) > LABELS_MOST:
        return _wrong(f"{len(labels)} labels are more than {LABELS_MOST}", "name fewer, or classify in two steps")
    if len(set(labels)) < len(labels):
        return _wrong("a label is in the list twice", "name each once, for example by array_distinct()")
    return None


def _wrong(what: str, hint: str) -> RowError:
    return RowError("invalid_request", None, f"{what}. Hint: {hint}.", retryable=False)


_CONTENT, _LABELS = Parameter("content"), Parameter("labels", "texts")

FUNCTIONS = {
    function.name: function
    for function in (
        Function("gen", (Parameter("prompt"),), _gen),
        Function("classify", (_CONTENT, _LABELS), _classify, "parsed"),
        Function("extract", (_CONTENT, _LABELS), _extract, "parsed"),
        Function("summarize", (_CONTENT, Parameter("max_words", "whole", 50)), _summarize),
        Function("translate", (_CONTENT, Parameter("to_lang")), _translate),
        Function("analyze_sentiment", (_CONTENT,), _analyze_sentiment, "parsed"),
        Function("fix_grammar", (_CONTENT,), _fix_grammar),
        Function("mask", (_CONTENT, _LABELS), _mask),
    )
}
