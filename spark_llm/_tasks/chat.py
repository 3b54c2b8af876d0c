"""The chat task: a conversation in, one or more texts out, or the values that the texts hold.

Wire format: the OpenAI chat completions request and response, as Databricks Model Serving documents them. Typed answers
are asked for by a `response_format` in the first wire form, and in words in the second, for servers without the field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from spark_llm._tasks._choices import TOOL_CALL, read_choices
from spark_llm._tasks._finish_reason import ending_of
from spark_llm._tasks._parameters import repeatable
from spark_llm._tasks._reply import Misfit, Reply
from spark_llm._tasks._wire import body, string_of, text_of, write_json
from spark_llm._values import Answer, Item, Message, Outcome, Question, Response, Result, RowError, Said

_CUT = "the answer ran out of tokens before its JSON was whole; raise max_tokens"


@dataclass(frozen=True)
class Chat:
    """A chat question: its instructions, its parameters as a JSON object, and how many answers are asked for.

    Answers are texts, unless a `reply` says what they hold; with `own_replies` each `Question` says it for itself.
    """

    system: str | None = None
    parameters: bytes = b"{}"
    n: int = 1
    reply: Reply | None = None
    own_replies: bool = False

    name = "chat"
    route = "/chat/completions"

    @property
    def dialects(self) -> int:
        """Say that there are two ways to ask for a type, and one for a text."""
        return 2 if self.reply is not None or self.own_replies else 1

    @cached_property
    def repeatable(self) -> bool:
        """Whether equal conversations may be answered alike: not where the user asked for chance without a seed."""
        return repeatable(self.parameters)

    def most_inputs(self, dialect: int, batch_size: int) -> int:  # noqa: ARG002 -- the protocol's signature
        """Say that a request carries one conversation."""
        return 1

    def proves(self, dialect: int, count: int) -> bool:  # noqa: ARG002 -- the protocol's signature
        """Say that every answer proves its form: one that does not is told apart where it is read."""
        return True

    def costs_nothing(self, item: Item) -> bool:  # noqa: ARG002 -- the protocol's signature
        """Say that every text is asked, a blank one too: its meaning is the instructions'."""
        return False

    def encode(self, items: Sequence[Item], model: str | None, dialect: int) -> bytes:
        """Write one conversation; its own system message takes the place of `system`."""
        (item,) = items
        said, system, reply = self._asked(item)
        if reply is None:
            return body(model, self.parameters, _messages(said, system))
        if dialect > 0:
            return body(model, self.parameters, _messages(said, system, reply.instructions))
        return body(model, self.parameters, reply.response_format + b"," + _messages(said, system))

    def decode(self, response: Response, count: int) -> Outcome:  # noqa: ARG002 -- always one
        """Read the choices; an answer that is empty because its tokens ran out is `truncated`."""
        return read_choices(response, self.n, _message_text)

    def typed(self, outcome: Outcome, items: Sequence[Item], dialect: int) -> Outcome:
        """Read the answer's text as the value that was asked for; one that does not fit is `schema_mismatch`.

        Where the server was asked for JSON of a schema, what is no JSON shows that it does not know the field.
        """
        _, _, reply = self._asked(items[0])
        if reply is None or not isinstance(outcome, Answer) or outcome.results[0].text is None:
            return outcome
        (result,) = outcome.results
        read = reply.read(result.text or "")
        if not isinstance(read, Misfit):
            result.parsed = read
        elif ending_of(result.finish_reason) == "length" and not read.is_json:
            result.error = RowError("truncated", 200, _CUT, retryable=False)
        else:
            outcome.about_form = dialect == 0 and not read.is_json
            why = f"the answer does not fit the type that was asked for: {read.why}"
            result.error = RowError("schema_mismatch", 200, why, retryable=True)
        return outcome

    def again(self, item: Item, result: Result) -> Item:
        """Go on with the conversation: what was answered, and what is wrong with it."""
        said, system, reply = self._asked(item)
        if reply is None or result.text is None or not isinstance(misfit := reply.read(result.text), Misfit):
            return item
        conversation = [
            *_conversation(said),
            {"role": "assistant", "content": result.text},
            {"role": "user", "content": reply.ask_again(misfit)},
        ]
        return Question(conversation, system, reply) if isinstance(item, Question) else conversation

    def _asked(self, item: Item) -> tuple[Said, str | None, Reply | None]:
        """Return what is said, the instructions to it, and the type of its answer."""
        if not isinstance(item, Question):
            return item, self.system, self.reply
        system = self.system if item.system is None else item.system
        return item.said, system, item.reply if isinstance(item.reply, Reply) else self.reply


def _messages(said: Said, system: str | None, more: str | None = None) -> bytes:
    """Write the request's messages; `more` follows the instructions."""
    system = system if more is None else _joined(system, more)
    if isinstance(said, str):
        head = b"" if system is None else b'{"role":"system","content":' + write_json(system) + b"},"
        return b'"messages":[' + head + b'{"role":"user","content":' + write_json(said) + b"}]"
    return b'"messages":' + write_json(_led(said, system, more))


def _conversation(said: Said) -> Sequence[Message]:
    return [{"role": "user", "content": said}] if isinstance(said, str) else said


def _joined(instructions: object, more: str) -> str:
    return f"{instructions}\n\n{more}" if isinstance(instructions, str) and instructions else more


def _led(messages: Sequence[Message], system: str | None, more: str | None) -> Sequence[Message]:
    """Return a conversation with instructions: `system`, or its own with `more` added to them."""
    for place, message in enumerate(messages):
        if message and message.get("role") == "system":
            own = message if more is None else {**message, "content": _joined(message.get("content"), more)}
            return [*messages[:place], own, *messages[place + 1 :]]
    return messages if system is None else [{"role": "system", "content": system}, *messages]


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
