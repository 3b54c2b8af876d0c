"""Judgements of a row's content: whether it meets a condition, and its score by a rubric.

The content is a text, or several named values: a struct, or a JSON object in a text. A condition and a rubric are
templates. With fields, `{title} is about {topic}`, they are filled with the row's values and are the user's message.
Without, they are instructions, and the content is the user's message.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from spark_llm.ai import prompts
from spark_llm.errors import ConfigError
from spark_llm.protocol.json_codec import NotJSONError, read_json, write_json
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Scalar
from spark_llm.protocol.template import Template
from spark_llm.protocol.values import Prompt, RowError

Content = str | Mapping[str, Any]

_MAX_CACHED = 100  # templates and ranges that stay in memory; a column may have many
_MEETS = StructuredOutput("meets", Scalar("boolean"))


def condition_prompt(content: Content, condition: str) -> Prompt | RowError | None:
    """Return the prompt that asks whether the content meets the condition; None for a null in a field that it names."""
    return _judged(
        content,
        *("condition", condition),
        lambda about: prompts.FILTER.format(condition=about),
        prompts.FILTER_STATEMENT,
        _MEETS,
    )


def score_prompt(content: Content, rubric: str, least: float, most: float) -> Prompt | RowError | None:
    """Return the prompt that asks for a score of the content; None for a null in a field that the rubric names."""
    if (error := score_error(least=least, most=most)) is not None:
        return error
    span = {"least": _plain(least), "most": _plain(most)}
    return _judged(
        content,
        *("rubric", rubric),
        lambda about: prompts.SCORE.format(rubric=about, **span),
        prompts.SCORE_QUESTION.format(**span),
        _score(least, most),
    )


def condition_error(condition: str) -> RowError | None:
    """Return the error of a condition that no row can be asked about."""
    return _error_of(_template("condition", condition))


def score_error(rubric: str | None = None, least: float | None = None, most: float | None = None) -> RowError | None:
    """Return the error of a rubric or a range by which no row can be scored, as far as they are known."""
    given = [bound for bound in (least, most) if bound is not None]
    if not all(map(math.isfinite, given)) or (least is not None and most is not None and least >= most):
        bounds = ", ".join(f"{name}={bound}" for name, bound in (("least", least), ("most", most)) if bound is not None)
        return option_error(f"{bounds}: no score is between these", "pass two numbers, the smaller one as least")
    return None if rubric is None else _error_of(_template("rubric", rubric))


def option_error(problem: str, hint: str) -> RowError:
    """Return the error of a row whose function got an option that it does not take."""
    return RowError("invalid_request", None, f"{problem}. Hint: {hint}.", retryable=False)


def _judged(  # noqa: PLR0917 -- what a judgement is made of
    content: Content,
    name: str,
    source: str,
    instructions: Callable[[str], str],
    filled: str,
    output: StructuredOutput,
) -> Prompt | RowError | None:
    template = _template(name, source)
    if isinstance(template, RowError):
        return template
    if not template.fields:
        [about] = template.pieces
        return Prompt(content if isinstance(content, str) else _json(content), instructions(about), output)
    values = _named_values(content)
    missing = [field for field in template.fields if field not in values]
    if missing:
        found = f"only {', '.join(values)}" if values else "no fields"
        return option_error(
            f"{name} names {{{missing[0]}}}, and the content has {found}",
            f"pass struct({', '.join(dict.fromkeys(template.fields))}) as the content; in SQL, to_json(struct(…))",
        )
    [text] = template.fill({field: [_text(values[field])] for field in template.fields})
    return None if text is None else Prompt(text, filled, output)


@lru_cache(_MAX_CACHED)
def _template(name: str, source: str) -> Template | RowError:
    if not source.strip():
        return option_error(f"{name} is empty", f"write the {name} as a sentence")
    try:
        return Template.parse(name, source)
    except ConfigError as error:
        return option_error(error.what.rstrip("."), error.hint.rstrip("."))


def _error_of(template: Template | RowError) -> RowError | None:
    return template if isinstance(template, RowError) else None


@lru_cache(_MAX_CACHED)
def _score(least: float, most: float) -> StructuredOutput:
    return StructuredOutput("score", Scalar("double", (("ge", _plain(least)), ("le", _plain(most)))))


def _plain(number: float) -> float:
    """Return a whole number without its point, as a model reads it best."""
    return int(number) if math.isfinite(number) and number == int(number) else number


def _named_values(content: Content) -> Mapping[str, Any]:
    """Return the values of a struct, or of a text that is a JSON object; none for any other text."""
    if not isinstance(content, str):
        return content
    try:
        value = read_json(content.encode("utf-8", "replace"))
    except NotJSONError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return write_json(value).decode() if isinstance(value, (bool, int, float, list, dict)) else str(value)


def _json(content: Mapping[str, Any]) -> str:
    """Return named values as a JSON object, in their order; a date or a decimal as it is written."""
    plain = (bool, int, float, list, dict, str, type(None))
    values = {name: value if isinstance(value, plain) else str(value) for name, value in content.items()}
    return write_json(values).decode()
