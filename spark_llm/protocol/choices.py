"""Reads `choices`, the field that chat and completions responses share.

A 2xx counts as an answer only if it holds one. A response without choices or text, or with an error in place of a
document, is a failure. An answer that ran out of tokens before it began, or that a filter withheld, is a row's error.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from spark_llm.protocol.failures import document_of, failure_of, invalid_response_failure
from spark_llm.protocol.fields import count_of, header_of, string_of, usage_of
from spark_llm.protocol.finish_reason import Ending, ending_of
from spark_llm.protocol.values import Answer, Failure, Outcome, Response, Result, RowError, ToolCall


class ChoiceContent(NamedTuple):
    """What a choice holds: a text, calls of tools or both; or the error of one that holds something else."""

    text: str | None = None
    error: RowError | None = None
    calls: list[ToolCall] | None = None  # None where the task takes none
    logprobs: object = None  # None where the task reads none


ContentOfChoice = Callable[[Mapping[str, object]], ChoiceContent]
ReadChoice = Callable[[Mapping[str, object]], ChoiceContent | RowError | Failure]

TOOL_CALL = RowError(
    "invalid_response", 200, "the model called a tool, and a text column cannot run one", retryable=False
)
_TRUNCATED = RowError("truncated", 200, "the tokens ran out before the answer began; raise max_tokens", retryable=False)
_WITHHELD = RowError("content_filter", 200, "a content filter withheld the answer", retryable=False)


def read_choices(response: Response, n: int, content_of_choice: ContentOfChoice, count: int = 1) -> Outcome:
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
    return read_groups(response, document, groups, n, content_of_choice)


def read_groups(
    response: Response,
    document: dict[str, Any],
    groups: Sequence[Sequence[Mapping[str, object]]],
    n: int,
    content_of_choice: ContentOfChoice,
) -> Outcome:
    """Read the choices of a document, which stand in one group for each input."""

    def read(choice: Mapping[str, object]) -> ChoiceContent | RowError | Failure:
        return _read(choice, content_of_choice, response, document)

    read_inputs = [_result(group, n, read) for group in groups]
    failures = [failure for _, failure in read_inputs if failure is not None]
    if len(failures) == len(groups):
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
        return [_first_of(sorted(choices, key=lambda choice: count_of(choice.get("index")) or 0), n)]
    found = {count_of(choice.get("index", position)): choice for position, choice in enumerate(choices)}
    if len(choices) != count * n or found.keys() != set(range(count * n)):
        return None
    return [[found[first + copy] for copy in range(n)] for first in range(0, count * n, n)]


def _first_of(choices: list[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """Return the choices that were asked for, of a server that sent more; where one was asked for, any may answer."""
    if n == 1 or len(choices) <= n:
        return choices
    within = {count_of(choice.get("index")): choice for choice in choices}
    numbered = None not in within and len(within) == len(choices)
    placed = [within[index] for index in range(n) if index in within] if numbered else []
    return placed or choices[:n]


def _places(choices: Sequence[Mapping[str, object]], n: int) -> Sequence[int]:
    """Return the place of each choice among `n`: its index, or its position where the indexes are no places."""
    indexes = [count_of(choice.get("index")) for choice in choices]
    places = [index for index in indexes if index is not None and index < n]
    return places if len(set(places)) == len(choices) else range(len(choices))


def _result(choices: Sequence[Mapping[str, object]], n: int, read: ReadChoice) -> tuple[Result, Failure | None]:
    """Return the result of one input, and the failure that another attempt may avoid.

    Its text is the first choice that is an answer. Among `n` choices a missing one, or one without an answer, is null.
    """
    readings = [read(choice) for choice in choices]
    answers = [reading if isinstance(reading, ChoiceContent) else None for reading in readings]
    first = next((at for at, answer in enumerate(answers) if answer is not None), 0)
    reading, finish_reason = readings[first], string_of(choices[first].get("finish_reason"))
    if isinstance(reading, Failure):
        return Result(finish_reason=finish_reason, error=reading.error), reading
    if isinstance(reading, RowError):
        return Result(finish_reason=finish_reason, error=reading), None
    texts = {place: answer and answer.text for place, answer in zip(_places(choices, n), answers, strict=True)}
    choice_texts = [texts.get(place) for place in range(n)] if n > 1 else None
    result = Result(reading.text, choice_texts, finish_reason=finish_reason, tool_calls=reading.calls or None)
    result.logprobs = reading.logprobs
    return result, None


def _read(
    choice: Mapping[str, object], content_of_choice: ContentOfChoice, response: Response, document: dict[str, Any]
) -> ChoiceContent | RowError | Failure:
    """Return a choice's content, the error of its row, or the failure of a choice that another attempt may complete.

    Its finish reason is read before its text, since half a text looks like a whole one.
    """
    reason = string_of(choice.get("finish_reason"))
    ending = ending_of(reason)
    aborted = _aborted(choice, document, ending, response)
    if aborted is not None:
        return aborted
    content = content_of_choice(choice)
    text = content.text
    error = content.error or _error_of_ending(content, ending)
    if error is not None:
        return error._replace(status=response.status)
    if content.calls:
        return content._replace(text=text or None)
    if text is None or (text == "" and reason is not None and ending is None):
        unknown = "" if ending or reason is None else f" (finish_reason {reason!r})"
        missing = "text" if content.calls is None else "text, and no tool call that can be read"
        return invalid_response_failure(response, f"the answer has no {missing}{unknown}", document)
    return content


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


def _error_of_ending(content: ChoiceContent, ending: Ending | None) -> RowError | None:
    """Return the error of a choice whose finish reason shows that another attempt would hold no answer either."""
    if ending == "content_filter":
        return _WITHHELD
    if content.text or content.calls:
        return None
    if ending == "length":
        return _TRUNCATED
    return TOOL_CALL if ending == "tool_calls" and content.calls is None else None
