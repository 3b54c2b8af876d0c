"""Reading `choices`, which chat and completions answer alike.

A 200 is an answer only if it holds one: no choices, no text and an error in place of a document are failures, and an
answer that ran out of tokens before it began is an error of its row.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spark_llm._tasks._failure import document_of
from spark_llm._tasks._wire import count_of, header_of, not_an_answer, string_of, usage_of
from spark_llm._values import Answer, Failure, Outcome, Response, Result, RowError

TextOfChoice = Callable[
    [Mapping[str, object]], tuple[str | None, RowError | None]
]  # a choice to its text, and why that is not an answer

_NO_TEXT = RowError("invalid_response", 200, "the answer has no text", retryable=True)
_TRUNCATED = RowError(
    "truncated", 200, "every token was spent before the answer began; raise max_tokens", retryable=False
)
_WITHHELD = RowError("content_filter", 200, "the answer was withheld by a content filter", retryable=False)


def read_choices(response: Response, n: int, text_of_choice: TextOfChoice, count: int = 1) -> Outcome:
    """Read a response with `n` choices for each of `count` inputs, of chat or of completions.

    The choice k of input i has the index i·n + k. Where several inputs were asked, choices that are not just these
    show that the server did not take them for several: it put them together, or read the first one only.
    """
    document = document_of(response, "choices", about_form=count > 1)
    if isinstance(document, Failure):
        return document
    groups = _by_input(document["choices"], n, count)
    if groups is None:
        why = f"the choices' indexes are not 0 to {count * n - 1}, each once"
        return not_an_answer(response, why, document, about_form=True)
    results = [_result(group, n, text_of_choice) for group in groups]
    if all(result.error is _NO_TEXT for result in results):
        return not_an_answer(response, _NO_TEXT.message, document)
    model = string_of(document.get("model")) or header_of(response, "served-model-name")
    request_id = header_of(response, "x-request-id") or string_of(document.get("id"))
    for result in results:
        result.model, result.request_id = model, request_id
    return Answer(results, usage_of(document))


def _by_input(choices: list[dict[str, Any]], n: int, count: int) -> list[list[dict[str, Any]]] | None:
    """Return each input's choices in order; None where those of several inputs cannot be told apart."""
    if count == 1:
        return [sorted(choices, key=lambda choice: count_of(choice.get("index")) or 0)]
    found = {count_of(choice.get("index", position)): choice for position, choice in enumerate(choices)}
    if len(choices) != count * n or found.keys() != set(range(count * n)):
        return None
    return [[found[first + copy] for copy in range(n)] for first in range(0, count * n, n)]


def _result(choices: Sequence[Mapping[str, object]], n: int, text_of_choice: TextOfChoice) -> Result:
    """Make one input's result of its choices, the first of which is its text."""
    text, refused = text_of_choice(choices[0])
    finish_reason = string_of(choices[0].get("finish_reason"))
    error = refused or _why_empty(text, finish_reason)
    return Result(
        text=None if error else text,
        choices=[text_of_choice(choice)[0] for choice in choices] if n > 1 and error is None else None,
        finish_reason=finish_reason,
        error=error,
    )


def _why_empty(text: str | None, finish_reason: str | None) -> RowError | None:
    """Name the error of a choice that answers nothing."""
    if not text and finish_reason == "length":
        return _TRUNCATED
    if not text and finish_reason == "content_filter":
        return _WITHHELD
    return _NO_TEXT if text is None else None
