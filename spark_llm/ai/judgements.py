"""Judgements of a row's content: whether it meets a condition, and its score by a rubric.

The content is a text, or several named values: a struct, or a JSON object in a text. A condition and a rubric are
templates. With fields, `{title} is about {topic}`, they are filled with the row's values and are the user's message.
Without, they are instructions, and the content is the user's message.
"""

import base64
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from spark_llm.ai import prompts
from spark_llm.errors import ConfigError
from spark_llm.protocol.json_codec import NotJSONError, WrittenNumber, number_as_written, read_json, write_json
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Scalar
from spark_llm.protocol.template import Template
from spark_llm.protocol.values import Prompt, RowError

Content = str | Mapping[str, Any]

_MAX_CACHED = 100  # conditions and rubrics that stay in memory; a column may have many
_MEETS = StructuredOutput("meets", Scalar("boolean"))


def condition_prompt(content: Content, condition: str) -> Prompt | RowError | None:
    """Return the prompt that asks whether the content meets the condition; None for a null in a field that it names."""
    return _judged(content, "condition", _condition(condition))


def score_prompt(content: Content, rubric: str, least: float, most: float) -> Prompt | RowError | None:
    """Return the prompt that asks for a score of the content; None for a null in a field that the rubric names."""
    return _judged(content, "rubric", _rubric(rubric, least, most))


def condition_error(condition: str) -> RowError | None:
    """Return the error of a condition that no row can be asked about."""
    return _error_of(_condition(condition))


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


class _Judgement(NamedTuple):
    """A condition or a rubric: its template, the instructions of each prompt, and the type of the answers."""

    template: Template
    instructions: str
    output: StructuredOutput


@lru_cache(_MAX_CACHED)
def _condition(condition: str) -> _Judgement | RowError:
    template = _template("condition", condition)
    if isinstance(template, RowError):
        return template
    whole = prompts.FILTER.format(condition=template.pieces[0])
    return _Judgement(template, prompts.FILTER_STATEMENT if template.fields else whole, _MEETS)


@lru_cache(_MAX_CACHED)
def _rubric(rubric: str, least: float, most: float) -> _Judgement | RowError:
    if (error := score_error(least=least, most=most)) is not None:
        return error
    template = _template("rubric", rubric)
    if isinstance(template, RowError):
        return template
    span = {"least": _plain(least), "most": _plain(most)}
    whole = prompts.SCORE.format(rubric=template.pieces[0], **span)
    output = StructuredOutput("score", Scalar("double", (("ge", span["least"]), ("le", span["most"]))))
    return _Judgement(template, prompts.SCORE_QUESTION.format(**span) if template.fields else whole, output)


def _judged(content: Content, name: str, judgement: _Judgement | RowError) -> Prompt | RowError | None:
    if isinstance(judgement, RowError):
        return judgement
    template, instructions, output = judgement
    if not template.fields:
        return Prompt(content if isinstance(content, str) else _json(content), instructions, output)
    values = _named_values(content)
    missing = [field for field in template.fields if field not in values]
    if missing:
        found = f"only {', '.join(values)}" if values else "no fields"
        return option_error(
            f"{name} names {{{missing[0]}}}, and the content has {found}",
            f"pass struct({', '.join(dict.fromkeys(template.fields))}) as the content; in SQL, to_json(struct(…))",
        )
    [text] = template.fill({field: [_text(values[field])] for field in template.fields})
    return None if text is None else Prompt(text, instructions, output)


def _template(name: str, source: str) -> Template | RowError:
    if not source.strip():
        return option_error(f"{name} is empty", f"write the {name} as a sentence")
    try:
        return Template.parse(name, source)
    except ConfigError as error:
        return option_error(error.what.rstrip("."), error.hint.rstrip("."))


def _error_of(found: object) -> RowError | None:
    return found if isinstance(found, RowError) else None


def _plain(number: float) -> float:
    """Return a whole number without its point, as a model reads it best."""
    return int(number) if math.isfinite(number) and number == int(number) else number


def _named_values(content: Content) -> Mapping[str, Any]:
    """Return the values of a struct, or of a text that is a JSON object; none for any other text.

    A number of JSON with a point or an exponent, which a float may change, is written back as it was.
    """
    if not isinstance(content, str):
        return content
    try:
        value = read_json(content.encode("utf-8", "replace"), number_as_written)
    except NotJSONError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    """Return a value as it stands in a sentence; None for a null."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    return (
        write_json(value).decode() if isinstance(value, (bool, int, float, list, dict, WrittenNumber)) else str(value)
    )


def _json(content: Mapping[str, Any]) -> str:
    """Return named values as a JSON object, in their order: a date or a decimal as it is written, bytes in base64."""
    plain = (bool, int, float, list, dict, str, bytes, bytearray, type(None))
    values = {name: value if isinstance(value, plain) else str(value) for name, value in content.items()}
    return write_json(values).decode()
