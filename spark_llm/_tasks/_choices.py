"""Reading `choices`, which chat and completions answer alike.

A 200 is an answer only if it holds one: no choices, no text and an error in place of a document are failures, and an
answer that ran out of tokens before it began is an error of its row.
"""

from collections.abc import Callable, Mapping

from spark_llm._tasks._failure import document_of
from spark_llm._tasks._wire import count_of, header_of, not_an_answer, string_of, usage_of
from spark_llm._values import Answer, Failure, Outcome, Response, Result, RowError

TextOfChoice = Callable[
    [Mapping[str, object]], tuple[str | None, RowError | None]
]  # a choice to its text, and why that is not an answer


def read_choices(response: Response, n: int, text_of_choice: TextOfChoice) -> Outcome:
    """Read a response with `choices` for one input, of chat or of completions."""
    document = document_of(response, "choices")
    if isinstance(document, Failure):
        return document
    choices = document["choices"]
    if len(choices) > 1:
        choices.sort(key=lambda choice: count_of(choice.get("index")) or 0)
    first = choices[0]
    text, refused = text_of_choice(first)
    finish_reason = string_of(first.get("finish_reason"))
    error = refused or _why_empty(text, finish_reason)
    if text is None and error is None:
        return not_an_answer(response, "the answer has no text", document)
    result = Result(
        text=None if error else text,
        finish_reason=finish_reason,
        model=string_of(document.get("model")) or header_of(response, "served-model-name"),
        request_id=header_of(response, "x-request-id") or string_of(document.get("id")),
        error=error,
    )
    if n > 1 and error is None:
        result.choices = [text_of_choice(choice)[0] for choice in choices]
    return Answer([result], usage_of(document))


def _why_empty(text: str | None, finish_reason: str | None) -> RowError | None:
    """Name the error of a 200 that answers nothing and would not do better if asked again."""
    if not text and finish_reason == "length":
        return RowError(
            "truncated", 200, "every token was spent before the answer began; raise max_tokens", retryable=False
        )
    if not text and finish_reason == "content_filter":
        return RowError("content_filter", 200, "the answer was withheld by a content filter", retryable=False)
    return None
