"""The chat task: a text or a conversation in, one or more texts or structured output out.

Wire format: the OpenAI chat completions request and response, as Databricks Model Serving documents them, or those of
the Responses route where a model is served there. Structured output is requested by a field, or in words where a server
does not know the field. Instructions are a system message, or the head of the user's message where a model has no
system role.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from spark_llm.errors import HINT, ConfigError
from spark_llm.protocol.bodies import RequestBody, request_body
from spark_llm.protocol.chat.content import first_text
from spark_llm.protocol.chat.conversation import conversation_of, is_instruction
from spark_llm.protocol.chat.messages import messages_field
from spark_llm.protocol.chat.reasoning import split_reasoning
from spark_llm.protocol.chat.responses_answer import is_served_at_responses, names_responses, read_response
from spark_llm.protocol.chat.responses_request import ResponsesParameters, input_fields, responses_body
from spark_llm.protocol.chat.tool_calls import correction, defect_of, read_calls
from spark_llm.protocol.choices import TOOL_CALL, ChoiceContent, read_choices
from spark_llm.protocol.fields import string_of, text_of
from spark_llm.protocol.finish_reason import ending_of
from spark_llm.protocol.json_codec import read_json
from spark_llm.protocol.structured.output import Mismatch, StructuredOutput
from spark_llm.protocol.task import FOLDED, PLAIN, RESPONSES, UNSCORED, Task, UnsendableError
from spark_llm.protocol.values import Answer, Content, Failure, Item, Outcome, Prompt, Response, Result, RowError

_JSON_CUT = "the answer ran out of tokens before its JSON was complete; raise max_tokens"
_REASONING_ONLY = "the answer holds reasoning and no text"
_REASONING_CUT = RowError("truncated", 200, f"{_REASONING_ONLY}; raise max_tokens", retryable=False)
_NO_TEXT = RowError("invalid_response", 200, _REASONING_ONLY, retryable=True)
_ABOUT_FORMAT = re.compile(r"response_format|json_schema|text\.format", re.IGNORECASE)
_LOGPROBS = b'"logprobs":true,"top_logprobs":20,'  # the most that OpenAI, Azure, Databricks and vLLM return
_ABOUT_LOGPROBS = re.compile(r"log_?\s?prob", re.IGNORECASE)
# From templates of Gemma and Mistral, OpenAI's o1, Bedrock and Google: none of them sends a code for it.
_ABOUT_ROLES = re.compile(r"\broles?\b|\b(system|developer) (messages?|prompts?|instructions?)\b", re.IGNORECASE)
_TEMPLATE_ERROR = re.compile(
    r"system role not supported|roles must alternate|only user and assistant roles", re.IGNORECASE
)


@dataclass(frozen=True)
class Chat(Task):
    """A chat task: its instructions, its parameters as a JSON object, and the number of answers to each prompt.

    Answers are texts, unless `output` gives their type; with `output_per_prompt` each `Prompt` has a type of its own.
    `answer_only` removes the reasoning that a model wrote in front of its answer. With `tools`, which are among the
    parameters, calls of them are answers.
    """

    system: str | None = None
    parameters: bytes = b"{}"
    n: int = 1
    output: StructuredOutput | None = None
    output_per_prompt: bool = False
    answer_only: bool = False
    tools: bool = False

    name = "chat"
    route = "/chat/completions"

    def max_inputs(self, wire_format: int, batch_size: int) -> int:  # noqa: ARG002 -- the protocol's signature
        """Return 1: a request carries one conversation."""
        return 1

    def required_features(self, items: Sequence[Item], wire_format: int) -> int:
        """Return the field `response_format` for structured output, the system role for instructions, and logprobs."""
        (item,) = items
        output = self.output_of(item)
        structured = PLAIN if output is not None else 0
        scored = UNSCORED if self._asks_logprobs(output, wire_format) else 0
        return structured | scored | (FOLDED if self._has_system_message(item, wire_format) else 0)

    def fallback_format(self, items: Sequence[Item], wire_format: int, message: str | None) -> int | None:
        """Return the format without a system message after a message about roles, else the one without the field.

        A message that names the Responses route leads there first. Logprobs are left out after a message that names
        them, and before the rest after one that names nothing.
        """
        (item,) = items
        if message is not None and not wire_format & RESPONSES and names_responses(message):
            return wire_format | RESPONSES
        output = self.output_of(item)
        if self._asks_logprobs(output, wire_format) and (message is None or _is_about_logprobs(message)):
            return wire_format | UNSCORED
        about_roles = message is None or (_ABOUT_ROLES.search(message) and not _ABOUT_FORMAT.search(message))
        if about_roles and not wire_format & FOLDED and self._has_system_message(item, wire_format):
            return wire_format | FOLDED
        return None if wire_format & PLAIN or output is None else wire_format | PLAIN

    def encode(self, items: Sequence[Item], model: str | None, wire_format: int) -> RequestBody:
        """Write one conversation; its own system message takes the place of `system`."""
        (item,) = items
        content, system, output = self._parts(item)
        schema_text = output.instructions if output is not None and wire_format & PLAIN else None
        folded = bool(wire_format & FOLDED)
        if wire_format & RESPONSES:
            text_format = None if output is None or schema_text is not None else output.text_format
            conversation = input_fields(content, system, schema_text, folded=folded)
            return responses_body(model, self._responses_parameters, text_format, conversation)
        messages = messages_field(content, system, schema_text, folded=folded)
        fields = [_LOGPROBS] if self._asks_logprobs(output, wire_format) else []
        if output is not None and schema_text is None:
            fields += [output.response_format, b","]
        return request_body(model, self.parameters, *fields, *messages)

    def decode(self, response: Response, count: int, wire_format: int = 0) -> Outcome:  # noqa: ARG002 -- always one
        """Read the choices; an answer that is empty because its tokens ran out is `truncated`.

        Some servers answer 500 where a chat template has no such role, 404 where a model is served at the Responses
        route, and 403 where it gives no logprobs; each is a permanent `invalid_request`.
        """
        content_of_choice = _content_with_calls if self.tools else _content
        if self.output_per_prompt:
            content_of_choice = _content_with_logprobs
        at_responses = bool(wire_format & RESPONSES)
        outcome = (
            read_response(response, content_of_choice)
            if at_responses
            else read_choices(response, self.n, content_of_choice)
        )
        if isinstance(outcome, Failure):
            error = outcome.error
            is_template = error.status == 500 and _TEMPLATE_ERROR.search(error.message)
            is_unscored = error.status == 403 and _ABOUT_LOGPROBS.search(error.message)
            if is_template or is_unscored or (not at_responses and is_served_at_responses(error)):
                return replace(outcome, error=error._replace(kind="invalid_request", retryable=False))
        return outcome

    def parse_output(self, outcome: Outcome, items: Sequence[Item], wire_format: int) -> Outcome:
        """Parse the answer's text as structured output, and check its calls of tools.

        A text that does not fit is `schema_mismatch`; calls whose arguments are no JSON are `invalid_response`. An
        answer with calls has no other type. A text without JSON after a request with `response_format` shows that the
        server does not know the field.
        """
        content, _, output = self._parts(items[0])
        if not isinstance(outcome, Answer) or (output is None and not self.answer_only and not self.tools):
            return outcome
        result = outcome.results[0]
        logprobs, result.logprobs = result.logprobs, None
        if result.tool_calls:
            return _check_calls(outcome, result)
        if result.text is None:
            return outcome
        if output is None:
            if self.answer_only:
                _remove_reasoning(result, content if isinstance(content, str) else "")
            return outcome
        parsed = output.parse(result.text or "")
        if not isinstance(parsed, Mismatch):
            output.fill(result, parsed, first_text(content), logprobs)
            if self.answer_only:
                result.text = split_reasoning(result.text or "").answer or result.text
        elif ending_of(result.finish_reason) == "length" and not parsed.is_json:
            result.error = RowError("truncated", 200, _JSON_CUT, retryable=False)
        else:
            outcome.format_unsupported = not wire_format & PLAIN and not parsed.is_json
            message = f"the answer does not fit its type: {parsed.reason}"
            result.error = RowError("schema_mismatch", 200, message, retryable=True)
            outcome.mismatched = True
        return outcome

    def reask(self, item: Item, result: Result) -> Item:
        """Return the conversation with the answer and a message that names its mismatch."""
        content, system, output = self._parts(item)
        if result.tool_calls:
            further = correction(result.tool_calls, result.text, defect_of(result.tool_calls) or "")
        elif output and result.text is not None and isinstance(mismatch := output.parse(result.text), Mismatch):
            further = [
                {"role": "assistant", "content": result.text},
                {"role": "user", "content": output.correction(mismatch)},
            ]
        else:
            return item
        conversation = [*conversation_of(content), *further]
        return Prompt(conversation, system, output) if isinstance(item, Prompt) else conversation

    def output_of(self, item: Item) -> StructuredOutput | None:
        """Return the type of the answer to a prompt: its own or the task's; None for a text."""
        return self._parts(item)[2]

    @cached_property
    def _responses_parameters(self) -> ResponsesParameters:
        """The parameters for the Responses route; raises `UnsendableError`, for every row, where it has no place."""
        try:
            return ResponsesParameters.of(self.parameters)
        except ConfigError as error:
            why = f"The model is served at the Responses route. {error.what}{HINT}{error.hint.removesuffix('.')}"
            message = f'{why}; Endpoint(…, api="responses") says so when the UDF is built.'
            refusal = RowError("invalid_request", None, message, retryable=False)
            raise UnsendableError(Failure(refusal, final=True)) from None

    def _parts(self, item: Item) -> tuple[Content, str | None, StructuredOutput | None]:
        """Return a prompt's content, its instructions and its output type."""
        if isinstance(item, bytes):
            raise TypeError("the columns of a row are no prompt")
        if not isinstance(item, Prompt):
            return item, self.system, self.output
        system = self.system if item.system is None else item.system
        return item.content, system, item.output if isinstance(item.output, StructuredOutput) else self.output

    def _asks_logprobs(self, output: StructuredOutput | None, wire_format: int) -> bool:
        """Return whether a request asks for logprobs: where the output needs them, unless the user's fields say it."""
        if output is None or not output.asks_logprobs or wire_format & (UNSCORED | RESPONSES):
            return False
        return not self._sets_logprobs

    @cached_property
    def _sets_logprobs(self) -> bool:
        return not {"logprobs", "top_logprobs"}.isdisjoint(read_json(self.parameters))

    def _has_system_message(self, item: Item, wire_format: int) -> bool:
        """Return whether the request has a system message, in a format that allows one."""
        content, system, output = self._parts(item)
        own = not isinstance(content, str) and any(map(is_instruction, content))
        return own or system is not None or (output is not None and bool(wire_format & PLAIN))


def _remove_reasoning(result: Result, prompt: str) -> None:
    """Keep the answer alone; reasoning without an answer is an error, as an empty text is no answer."""
    answer, had_reasoning = split_reasoning(result.text or "", prompt)
    if had_reasoning and not answer:
        ran_out = ending_of(result.finish_reason) == "length"
        result.text, result.error = None, _REASONING_CUT if ran_out else _NO_TEXT
    elif had_reasoning:
        result.text = answer


def _check_calls(outcome: Answer, result: Result) -> Answer:
    """Give calls whose arguments cannot be read their error; those that ran out of tokens would end the same again."""
    if (defect := defect_of(result.tool_calls or ())) is not None:
        if ending_of(result.finish_reason) == "length":
            result.error = RowError("truncated", 200, _JSON_CUT, retryable=False)
        else:
            result.error = RowError("invalid_response", 200, defect, retryable=True)
            outcome.mismatched = True
    return outcome


def _content(choice: Mapping[str, object]) -> ChoiceContent:
    """Return a choice's text; for a tool call or a refusal without text, its error."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return ChoiceContent()
    text = text_of(message.get("content"))
    if text:
        return ChoiceContent(text)
    if message.get("tool_calls"):
        return ChoiceContent(error=TOOL_CALL)
    if refusal := string_of(message.get("refusal")):
        return ChoiceContent(error=RowError("content_filter", 200, refusal, retryable=False))
    return ChoiceContent(text)


def _content_with_logprobs(choice: Mapping[str, object]) -> ChoiceContent:
    """Return a choice's text or error, with the logprobs of its tokens."""
    return _content(choice)._replace(logprobs=choice.get("logprobs"))


def _is_about_logprobs(message: str) -> bool:
    """Return whether a refusal names logprobs, or none of the features that a format may leave out."""
    named = _ABOUT_FORMAT.search(message) or _ABOUT_ROLES.search(message)
    return bool(_ABOUT_LOGPROBS.search(message)) or not named


def _content_with_calls(choice: Mapping[str, object]) -> ChoiceContent:
    """Return a choice's text and its calls of tools; neither where the calls cannot be read."""
    message = choice.get("message")
    calls = read_calls(message.get("tool_calls")) if isinstance(message, dict) else None
    if isinstance(message, dict) and calls:
        return ChoiceContent(text_of(message.get("content")), calls=calls)
    return ChoiceContent(calls=[]) if calls is None else _content(choice)._replace(calls=[])
