"""The chat task: a text or a conversation in, one or more texts or structured output out.

Wire format: the OpenAI chat completions request and response, as Databricks Model Serving documents them. Structured
output is requested by `response_format`, or in words where a server does not know the field. Instructions are a system
message, or the head of the user's message where a model has no system role.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from spark_llm.protocol.chat.conversation import conversation_of, is_instruction
from spark_llm.protocol.chat.messages import messages_field, refusal_of
from spark_llm.protocol.chat.reasoning import split_reasoning
from spark_llm.protocol.choices import TOOL_CALL, read_choices
from spark_llm.protocol.fields import string_of, text_of
from spark_llm.protocol.finish_reason import ending_of
from spark_llm.protocol.json_codec import request_body
from spark_llm.protocol.structured.output import Mismatch, StructuredOutput
from spark_llm.protocol.task import FOLDED, PLAIN, Task
from spark_llm.protocol.values import Answer, Content, Failure, Item, Outcome, Prompt, Response, Result, RowError

_JSON_CUT = "the answer ran out of tokens before its JSON was complete; raise max_tokens"
_REASONING_ONLY = "the answer holds reasoning and no text"
_REASONING_CUT = RowError("truncated", 200, f"{_REASONING_ONLY}; raise max_tokens", retryable=False)
_NO_TEXT = RowError("invalid_response", 200, _REASONING_ONLY, retryable=True)
_ABOUT_FORMAT = re.compile(r"response_format|json_schema", re.IGNORECASE)
# From templates of Gemma and Mistral, OpenAI's o1, Bedrock and Google: none of them sends a code for it.
_ABOUT_ROLES = re.compile(r"\broles?\b|\b(system|developer) (messages?|prompts?|instructions?)\b", re.IGNORECASE)
_TEMPLATE_ERROR = re.compile(
    r"system role not supported|roles must alternate|only user and assistant roles", re.IGNORECASE
)


@dataclass(frozen=True)
class Chat(Task):
    """A chat task: its instructions, its parameters as a JSON object, and the number of answers to each prompt.

    Answers are texts, unless `output` gives their type; with `output_per_prompt` each `Prompt` has a type of its own.
    `answer_only` removes the reasoning that a model wrote in front of its answer.
    """

    system: str | None = None
    parameters: bytes = b"{}"
    n: int = 1
    output: StructuredOutput | None = None
    output_per_prompt: bool = False
    answer_only: bool = False

    name = "chat"
    route = "/chat/completions"

    def max_inputs(self, wire_format: int, batch_size: int) -> int:  # noqa: ARG002 -- the protocol's signature
        """Return 1: a request carries one conversation."""
        return 1

    def required_features(self, items: Sequence[Item], wire_format: int) -> int:
        """Return the field `response_format` for structured output, and the system role for instructions."""
        (item,) = items
        structured = PLAIN if self._parts(item)[2] is not None else 0
        return structured | (FOLDED if self._has_system_message(item, wire_format) else 0)

    def fallback_format(self, items: Sequence[Item], wire_format: int, message: str | None) -> int | None:
        """Return the format without a system message after a message about roles, else the one without the field."""
        (item,) = items
        about_roles = message is None or (_ABOUT_ROLES.search(message) and not _ABOUT_FORMAT.search(message))
        if about_roles and not wire_format & FOLDED and self._has_system_message(item, wire_format):
            return wire_format | FOLDED
        return None if wire_format & PLAIN or self._parts(item)[2] is None else wire_format | PLAIN

    def refusal(self, item: Item) -> str | None:
        """Return why the wire format has no place for an item; None where it has."""
        return None if isinstance(item, str) else refusal_of(item)

    def encode(self, items: Sequence[Item], model: str | None, wire_format: int) -> bytes:
        """Write one conversation; its own system message takes the place of `system`."""
        (item,) = items
        content, system, output = self._parts(item)
        schema_text = output.instructions if output is not None and wire_format & PLAIN else None
        messages = messages_field(content, system, schema_text, folded=bool(wire_format & FOLDED))
        if output is None or schema_text is not None:
            return request_body(model, self.parameters, *messages)
        return request_body(model, self.parameters, output.response_format, b",", *messages)

    def decode(self, response: Response, count: int) -> Outcome:  # noqa: ARG002 -- always one
        """Read the choices; an answer that is empty because its tokens ran out is `truncated`.

        Some servers answer 500 where a chat template has no such role; that is a permanent `invalid_request`.
        """
        outcome = read_choices(response, self.n, _message_text)
        if (
            isinstance(outcome, Failure)
            and outcome.error.status == 500
            and _TEMPLATE_ERROR.search(outcome.error.message)
        ):
            return replace(outcome, error=outcome.error._replace(kind="invalid_request", retryable=False))
        return outcome

    def parse_output(self, outcome: Outcome, items: Sequence[Item], wire_format: int) -> Outcome:
        """Parse the answer's text as structured output; a text that does not fit is `schema_mismatch`.

        A text without JSON after a request with `response_format` shows that the server does not know the field.
        """
        content, _, output = self._parts(items[0])
        if not isinstance(outcome, Answer) or (output is None and not self.answer_only):
            return outcome
        result = outcome.results[0]
        if result.text is None:
            return outcome
        if output is None:
            _remove_reasoning(result, content if isinstance(content, str) else "")
            return outcome
        parsed = output.parse(result.text or "")
        if not isinstance(parsed, Mismatch):
            result.parsed = parsed
            if self.answer_only:
                result.text = split_reasoning(result.text or "").answer or result.text
        elif ending_of(result.finish_reason) == "length" and not parsed.is_json:
            result.error = RowError("truncated", 200, _JSON_CUT, retryable=False)
        else:
            outcome.format_unsupported = not wire_format & PLAIN and not parsed.is_json
            message = f"the answer does not fit its type: {parsed.reason}"
            result.error = RowError("schema_mismatch", 200, message, retryable=True)
        return outcome

    def reask(self, item: Item, result: Result) -> Item:
        """Return the conversation with the answer and a message that names its mismatch."""
        content, system, output = self._parts(item)
        if output is None or result.text is None or not isinstance(mismatch := output.parse(result.text), Mismatch):
            return item
        conversation = [
            *conversation_of(content),
            {"role": "assistant", "content": result.text},
            {"role": "user", "content": output.correction(mismatch)},
        ]
        return Prompt(conversation, system, output) if isinstance(item, Prompt) else conversation

    def _parts(self, item: Item) -> tuple[Content, str | None, StructuredOutput | None]:
        """Return a prompt's content, its instructions and its output type."""
        if not isinstance(item, Prompt):
            return item, self.system, self.output
        system = self.system if item.system is None else item.system
        return item.content, system, item.output if isinstance(item.output, StructuredOutput) else self.output

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


def _message_text(choice: Mapping[str, object]) -> tuple[str | None, RowError | None]:
    """Return a choice's text; for a tool call or a refusal without text, its error."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return None, None
    text = text_of(message.get("content"))
    if text:
        return text, None
    if message.get("tool_calls"):
        return None, TOOL_CALL
    if refusal := string_of(message.get("refusal")):
        return None, RowError("content_filter", 200, refusal, retryable=False)
    return text, None
