"""Request and response bodies of the benchmark endpoint. No socket, no clock.

Answers identify their prompts, so a wrong row is detected: the answer to a text is its last word. A vector of
`ECHO_DIMENSIONS` numbers begins with the number at the end of its text. Longer vectors are all equal, computed once.
"""

import array
import base64
import json
import math
import random
from functools import cache

import msgspec

DIMENSIONS = 1_024
ECHO_DIMENSIONS = 2
SEED = 20_240_611

_STATUS = {
    200: b"200 OK",
    400: b"400 Bad Request",
    404: b"404 Not Found",
    429: b"429 Too Many Requests",
    503: b"503 Service Unavailable",
}
_CHAT = (
    b'{"id":"chatcmpl-0","object":"chat.completion","created":1700000000,"model":"benchmark","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":%b},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":24,"completion_tokens":5,"total_tokens":29}}'
)
_encoded = msgspec.json.Encoder().encode


class Part(msgspec.Struct):
    """One part of a message; only texts are read."""

    text: str = ""


class Message(msgspec.Struct):
    """One message of a conversation."""

    content: str | list[Part]

    @property
    def text(self) -> str:
        """Its text, or the texts of its parts."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Request(msgspec.Struct):
    """The fields of any request that change its answer."""

    messages: list[Message] = []
    input: list[str] | str = ""
    encoding_format: str = "float"
    dimensions: int = DIMENSIONS


class NumberedText(msgspec.Struct):
    """One of the texts that openaivec puts into a single prompt."""

    id: int
    body: str


class Prompt(msgspec.Struct):
    """The prompt format of openaivec."""

    user_messages: list[NumberedText]


_read_request = msgspec.json.Decoder(Request).decode
_read_prompt = msgspec.json.Decoder(Prompt).decode


class ParsedRequest:
    """A parsed request: its texts, and the response to them."""

    def __init__(self, path: str, body: bytes) -> None:
        """Parse a body; the last segment of the path is its route."""
        self._route = path.rsplit("/", 1)[1]
        self._request = _read_request(body)
        self._numbered: list[NumberedText] = []
        if self._route == "responses" and isinstance(self._request.input, str):
            self._numbered = _read_prompt(self._request.input).user_messages

    @property
    def texts(self) -> list[str]:
        """The texts, each of which needs an answer."""
        if self._route == "completions":
            return [self._request.messages[-1].text]
        return [text.body for text in self._numbered] if self._route == "responses" else list(self._request.input)

    def response(self) -> bytes:
        """Return the whole HTTP response."""
        if self._route == "completions":
            return http_response(200, _CHAT % _encoded(_last_word(self.texts[0])))
        if self._route == "responses":
            return http_response(200, _structured(self._numbered))
        in_base64 = self._request.encoding_format == "base64"
        if self._request.dimensions == ECHO_DIMENSIONS:
            return _vectors([_echo(text) for text in self.texts], in_base64)
        return _long_vectors(len(self.texts), in_base64)


def http_response(status: int, body: bytes) -> bytes:
    """Return a whole HTTP response with this JSON body."""
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (_STATUS[status], len(body)) + body


@cache
def error_response(status: int) -> bytes:
    """Return the whole HTTP response of a refusal, without a Retry-After."""
    return http_response(
        status, b'{"error":{"message":"refused by the benchmark","type":"benchmark","code":"refused"}}'
    )


def _last_word(text: str) -> str:
    return text.rsplit(maxsplit=1)[-1]


def _echo(text: str) -> list[float]:
    word = _last_word(text)
    return [float(word) if word.isdecimal() else 0.0] + [0.5] * (ECHO_DIMENSIONS - 1)


def _structured(texts: list[NumberedText]) -> bytes:
    """Return the Responses API's body for openaivec's prompt: one message for each numbered text."""
    text = _encoded({"assistant_messages": [{"id": each.id, "body": _last_word(each.body)} for each in texts]}).decode()
    content = [{"type": "output_text", "text": text, "annotations": []}]
    message = {"id": "msg_0", "type": "message", "role": "assistant", "status": "completed", "content": content}
    return _encoded(
        {
            "id": "resp_0",
            "object": "response",
            "created_at": 1_700_000_000,
            "model": "benchmark",
            "status": "completed",
            "output": [message],
            "parallel_tool_calls": False,
            "tool_choice": "auto",
            "tools": [],
        }
    )


@cache
def _long_vectors(count: int, in_base64: bool) -> bytes:  # noqa: FBT001 -- a key of the cache
    rng = random.Random(SEED)
    numbers = [rng.gauss(0.0, 1 / math.sqrt(DIMENSIONS)) for _ in range(DIMENSIONS)]
    return _vectors([numbers] * count, in_base64)


def _vectors(vectors: list[list[float]], in_base64: bool) -> bytes:  # noqa: FBT001 -- the two wire forms
    """Return the response with these vectors; JSON numbers have the nine digits of a float32."""
    if in_base64:
        encoded = [json.dumps(base64.b64encode(array.array("f", numbers).tobytes()).decode()) for numbers in vectors]
    else:
        encoded = ["[" + ",".join(f"{number:.9g}" for number in numbers) + "]" for numbers in vectors]
    data = ",".join(
        f'{{"object":"embedding","index":{index},"embedding":{vector}}}' for index, vector in enumerate(encoded)
    )
    usage = json.dumps({"prompt_tokens": 8 * len(vectors), "total_tokens": 8 * len(vectors)})
    return http_response(200, f'{{"object":"list","data":[{data}],"model":"benchmark","usage":{usage}}}'.encode())
