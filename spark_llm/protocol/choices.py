"""Reads `choices`, the field that chat and completions responses share.

A 2xx counts as an answer only if it holds one. A response without choices or text, or with an error in place of a
document, is a failure. An answer that ran out of tokens before it began, or that a filter withheld, is a row's error.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spark_llm.protocol.failures import document_of, failure_of, invalid_response_failure
from spark_llm.protocol.fields import count_of, header_of, string_of, usage_of
from spark_llm.protocol.finish_reason import Ending, ending_of
from spark_llm.protocol.values import Answer, Failure, Outcome, Response, Result, RowError

# Returns the text of a choice, or the error of one that holds something else.
TextOfChoice = Callable[[Mapping[str, object]], tuple[str | None, RowError | None]]
ReadChoice = Callable[[Mapping[str, object]], str | RowError | Failure]

TOOL_CALL = RowError(
    "invalid_response", 200, "the model called a tool, and a text column cannot run one", retryable=False
)
_TRUNCATED = RowError("truncated", 200, "the tokens ran out before the answer began; raise max_tokens", retryable=False)
_WITHHELD = RowError("content_filter", 200, "a content filter withheld the answer", retryable=False)


def read_choices(response: Response, n: int, text_of_choice: TextOfChoice, count: int = 1) -> Outcome:
    """Read a response with `n` choices for each of `count` inputs, of chat or of completions.

    Choice k of input i has the index i·n + k. Other indexes after a request of several inputs show that the server
    does not know this format: it joined the inputs, or read only the first.
    """
    document = document_of(response, "choices", format_unsupported=count > 1)
    if isinstance(document, Failure):
        return document
    groups = _by_input(document["choices"], n, count)
    if groups is None:
        reason = f"the choices' indexes are not 0 to {count * n - 1}, each once"
        return invalid_response_failure(response, reason, document, format_unsupported=True)

    def read(choice: Mapping[str, object]) -> str | RowError | Failure:
        return _read(choice, text_of_choice, response, document)

    read_inputs = [_result(group, n, read) for group in groups]
    failures = [failure for _, failure in read_inputs if failure is not None]
    if len(failures) == count:
        return failures[0]
    model = string_of(document.get("model")) or header_of(response, "served-model-name")
    request_id = header_of(response, "x-request-id") or string_of(document.get("id"))
    results = [result for result, _ in read_inputs]
    for result in results:
        result.model, result.request_id = model, request_id
    return Answer(results, usage_of(document))


def _by_input(choices: list[dict[str, Any]], n: int, count: int) -> list[list[dict[str, Any]]] | None:
    """Return each input's choices in order; None where their indexes do not tell which input they belong to."""
    if len(choices) == count == 1:
        return [choices]
    if count == 1:
        return [sorted(choices, key=lambda choice: count_of(choice.get("index")) or 0)]
    found = {count_of(choice.get("index", position)): choice for position, choice in enumerate(choices)}
    if len(choices) != count * n or found.keys() != set(range(count * n)):
        return None
    return [[found[first + copy] for copy in range(n)] for first in range(0, count * n, n)]


def _result(choices: Sequence[Mapping[str, object]], n: int, read: ReadChoice) -> tuple[Result, Failure | None]:
    """Return the result of one input, and the failure that another attempt may avoid.

    Its text is the first choice that is an answer. Among `n` choices a missing one, or one without an answer, is null.
    """
    readings = [read(choice) for choice in choices]
    texts = [reading if isinstance(reading, str) else None for reading in readings]
    first = next((at for at, text in enumerate(texts) if text is not None), 0)
    reading, finish_reason = readings[first], string_of(choices[first].get("finish_reason"))
    if isinstance(reading, Failure):
        return Result(finish_reason=finish_reason, error=reading.error), reading
    if isinstance(reading, RowError):
        return Result(finish_reason=finish_reason, error=reading), None
    texts += [None] * (n - len(texts))
    return Result(text=reading, choices=texts if n > 1 else None, finish_reason=finish_reason), None


def _read(
    choice: Mapping[str, object], text_of_choice: TextOfChoice, response: Response, document: dict[str, Any]
) -> str | RowError | Failure:
    """Return a choice's text, the error of its row, or the failure of a choice that another attempt may complete.

    Its finish reason is read before its text, since half a text looks like a whole one.
    """
    reason = string_of(choice.get("finish_reason"))
    ending = ending_of(reason)
    aborted = _aborted(choice, document, ending, response)
    if aborted is not None:
        return aborted
    text, error = text_of_choice(choice)
    error = error or _error_of_ending(text, ending)
    if error is not None:
        return error._replace(status=response.status)
    if text is None or (text == "" and reason is not None and ending is None):
        unknown = "" if ending or reason is None else f" (finish_reason {reason!r})"
        return invalid_response_failure(response, f"the answer has no text{unknown}", document)
    return text


def _aborted(
    choice: Mapping[str, object], document: dict[str, Any], ending: Ending | None, response: Response
) -> Failure | None:
    """Return the failure of a choice that the server reports as aborted; None for any other.

    OpenRouter puts an `error` into the choice, also next to `stop`, or next to the choices. LiteLLM moves unknown
    fields into `provider_specific_fields`.
    """
    moved = choice.get("provider_specific_fields")
    moved = moved if isinstance(moved, dict) else {}
    outside = document.get("error") if ending in (None, "error") else None
    if error := choice.get("error") or moved.get("error") or outside:
        return failure_of(response, {"error": error, "usage": document.get("usage")})
    natives = choice.get("native_finish_reason"), moved.get("native_finish_reason")
    if "error" in (ending, *map(ending_of, natives)):
        return invalid_response_failure(response, "the server aborted the answer", document)
    return None


def _error_of_ending(text: str | None, ending: Ending | None) -> RowError | None:
    """Return the error of a choice whose finish reason shows that another attempt would hold no answer either."""
    if ending == "content_filter":
        return _WITHHELD
    if not text and ending == "length":
        return _TRUNCATED
    return TOOL_CALL if not text and ending == "tool_calls" else None
