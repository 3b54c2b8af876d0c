"""The chat task: a conversation in, one or more texts out, or the values that the texts hold.

Wire format: the OpenAI chat completions request and response, as Databricks Model Serving documents them. A typed
answer is asked for by `response_format`, or in words where a server does not know the field. Instructions are a system
message, or the head of the user's message where a model has no system role.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from spark_llm.protocol.choices import TOOL_CALL, read_choices
from spark_llm.protocol.finish_reason import ending_of
from spark_llm.protocol.parameters import repeatable
from spark_llm.protocol.reasoning import parted
from spark_llm.protocol.structured.output import Mismatch, StructuredOutput
from spark_llm.protocol.task import FOLDED, PLAIN
from spark_llm.protocol.values import (
    Answer,
    Content,
    Failure,
    Item,
    Message,
    Outcome,
    Prompt,
    Response,
    Result,
    RowError,
)
from spark_llm.protocol.wire import body, string_of, text_of, write_json

_CUT = "the answer ran out of tokens before its JSON was whole; raise max_tokens"
_ONLY_THOUGHTS = "the model thought, and gave no answer"
_OUT_OF_THOUGHT = RowError("truncated", 200, f"{_ONLY_THOUGHTS}; raise max_tokens", retryable=False)
_NO_ANSWER = RowError("invalid_response", 200, _ONLY_THOUGHTS, retryable=True)
_SYSTEM = ("system", "developer")
_ABOUT_FORMAT = re.compile(r"response_format|json_schema", re.IGNORECASE)
# Templates of Gemma and Mistral, OpenAI's o1, Bedrock, Google: none of them has a code for it.
_ABOUT_ROLES = re.compile(r"\broles?\b|\b(system|developer) (messages?|prompts?|instructions?)\b", re.IGNORECASE)
_TEMPLATES_WORDS = re.compile(
    r"system role not supported|roles must alternate|only user and assistant roles", re.IGNORECASE
)


@dataclass(frozen=True)
class Chat:
    """A chat question: its instructions, its parameters as a JSON object, and how many answers are asked for.

    Answers are texts, unless a `reply` says what they hold; with `own_replies` each `Prompt` says it for itself. With
    `answer_only` a text comes without the thoughts that a model wrote in front of it.
    """

    system: str | None = None
    parameters: bytes = b"{}"
    n: int = 1
    reply: StructuredOutput | None = None
    own_replies: bool = False
    answer_only: bool = False

    name = "chat"
    route = "/chat/completions"

    @cached_property
    def repeatable(self) -> bool:
        """Whether equal conversations may be answered alike: not where the user asked for chance without a seed."""
        return repeatable(self.parameters)

    def most_inputs(self, dialect: int, batch_size: int) -> int:  # noqa: ARG002 -- the protocol's signature
        """Say that a request carries one conversation."""
        return 1

    def shows(self, items: Sequence[Item], dialect: int) -> int:
        """Return that a typed answer needs the field, and instructions a system role."""
        (item,) = items
        typed = PLAIN if self._asked(item)[2] is not None else 0
        return typed | (FOLDED if self._leads(item, dialect) else 0)

    def otherwise(self, items: Sequence[Item], dialect: int, words: str | None) -> int | None:
        """Return the form without a system message where the words are about roles, else the one without the field."""
        (item,) = items
        about_roles = words is None or (_ABOUT_ROLES.search(words) and not _ABOUT_FORMAT.search(words))
        if about_roles and not dialect & FOLDED and self._leads(item, dialect):
            return dialect | FOLDED
        return None if dialect & PLAIN or self._asked(item)[2] is None else dialect | PLAIN

    def costs_nothing(self, item: Item) -> bool:  # noqa: ARG002 -- the protocol's signature
        """Say that every text is asked, a blank one too: its meaning is the instructions'."""
        return False

    def encode(self, items: Sequence[Item], model: str | None, dialect: int) -> bytes:
        """Write one conversation; its own system message takes the place of `system`."""
        (item,) = items
        said, system, reply = self._asked(item)
        in_words = reply.instructions if reply is not None and dialect & PLAIN else None
        messages = _messages(said, system, in_words, folded=bool(dialect & FOLDED))
        if reply is None or in_words is not None:
            return body(model, self.parameters, messages)
        return body(model, self.parameters, reply.response_format + b"," + messages)

    def decode(self, response: Response, count: int) -> Outcome:  # noqa: ARG002 -- always one
        """Read the choices; an answer that is empty because its tokens ran out is `truncated`.

        Some servers say with a 500 that a template takes no such roles; that is no fault that passes.
        """
        outcome = read_choices(response, self.n, _message_text)
        if (
            isinstance(outcome, Failure)
            and outcome.error.status == 500
            and _TEMPLATES_WORDS.search(outcome.error.message)
        ):
            return replace(outcome, error=outcome.error._replace(kind="invalid_request", retryable=False))
        return outcome

    def typed(self, outcome: Outcome, items: Sequence[Item], dialect: int) -> Outcome:
        """Read the answer's text as the value that was asked for; one that does not fit is `schema_mismatch`.

        Where the server was asked for JSON of a schema, what is no JSON shows that it does not know the field.
        """
        said, _, reply = self._asked(items[0])
        if not isinstance(outcome, Answer) or (reply is None and not self.answer_only):
            return outcome
        result = outcome.results[0]
        if result.text is None:
            return outcome
        if reply is None:
            _leave_thoughts_out(result, said if isinstance(said, str) else "")
            return outcome
        read = reply.read(result.text or "")
        if not isinstance(read, Mismatch):
            result.parsed = read
            if self.answer_only:
                result.text = parted(result.text or "").answer or result.text
        elif ending_of(result.finish_reason) == "length" and not read.is_json:
            result.error = RowError("truncated", 200, _CUT, retryable=False)
        else:
            outcome.about_form = not dialect & PLAIN and not read.is_json
            why = f"the answer does not fit the type that was asked for: {read.why}"
            result.error = RowError("schema_mismatch", 200, why, retryable=True)
        return outcome

    def again(self, item: Item, result: Result) -> Item:
        """Go on with the conversation: what was answered, and what is wrong with it."""
        said, system, reply = self._asked(item)
        if reply is None or result.text is None or not isinstance(misfit := reply.read(result.text), Mismatch):
            return item
        conversation = [
            *_conversation(said),
            {"role": "assistant", "content": result.text},
            {"role": "user", "content": reply.ask_again(misfit)},
        ]
        return Prompt(conversation, system, reply) if isinstance(item, Prompt) else conversation

    def _asked(self, item: Item) -> tuple[Content, str | None, StructuredOutput | None]:
        """Return what is said, the instructions to it, and the type of its answer."""
        if not isinstance(item, Prompt):
            return item, self.system, self.reply
        system = self.system if item.system is None else item.system
        return item.content, system, item.reply if isinstance(item.reply, StructuredOutput) else self.reply

    def _leads(self, item: Item, dialect: int) -> bool:
        """Return whether the request has a system message, unless the wire form is without."""
        said, system, reply = self._asked(item)
        own = not isinstance(said, str) and any(map(_is_instruction, said))
        return own or system is not None or (reply is not None and bool(dialect & PLAIN))


def _messages(said: Content, system: str | None, more: str | None, *, folded: bool) -> bytes:
    """Write the request's messages; `more` follows the instructions."""
    if folded:
        return b'"messages":' + write_json(list(_folded(_led(_conversation(said), system, more))))
    if isinstance(said, str):
        system = system if more is None else _joined(system, more)
        head = b"" if system is None else b'{"role":"system","content":' + write_json(system) + b"},"
        return b'"messages":[' + head + b'{"role":"user","content":' + write_json(said) + b"}]"
    return b'"messages":' + write_json(_led(said, system, more))


def _conversation(said: Content) -> Sequence[Message]:
    return [{"role": "user", "content": said}] if isinstance(said, str) else said


def _joined(instructions: object, more: object) -> str:
    return "\n\n".join(part for part in (instructions, more) if isinstance(part, str) and part)


def _is_instruction(message: Message) -> bool:
    return bool(message) and message.get("role") in _SYSTEM


def _folded(messages: Sequence[Message]) -> Iterator[Message]:
    """Yield a conversation without system messages: each stands at the head of the user's message that follows it."""
    instructions = ""
    for message in messages:
        if _is_instruction(message):
            instructions = _joined(instructions, message.get("content"))
        elif instructions and message and message.get("role") == "user":
            yield {**message, "content": _joined(instructions, message.get("content"))}
            instructions = ""
        else:
            if instructions:
                yield {"role": "user", "content": instructions}
                instructions = ""
            yield message
    if instructions:
        yield {"role": "user", "content": instructions}


def _led(messages: Sequence[Message], system: str | None, more: str | None) -> Sequence[Message]:
    """Return a conversation with instructions: `system`, or its own, with `more` added to them."""
    for place, message in enumerate(messages):
        if message and message.get("role") == "system":
            own = message if more is None else {**message, "content": _joined(message.get("content"), more)}
            return [*messages[:place], own, *messages[place + 1 :]]
    system = system if more is None else _joined(system, more)
    return messages if system is None else [{"role": "system", "content": system}, *messages]


def _leave_thoughts_out(result: Result, said: str) -> None:
    """Keep the answer alone; thoughts without one are an error, as an empty text is no answer."""
    answer, had_thoughts = parted(result.text or "", said)
    if had_thoughts and not answer:
        ran_out = ending_of(result.finish_reason) == "length"
        result.text, result.error = None, _OUT_OF_THOUGHT if ran_out else _NO_ANSWER
    elif had_thoughts:
        result.text = answer


def _message_text(choice: Mapping[str, object]) -> tuple[str | None, RowError | None]:
    """Return a choice's text; where there is none, the error of a message that says something else instead."""
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
