"""Lines of files: a request as it is uploaded, and the reply to it.

A body passes as the bytes that it is, in both directions. Sources: the OpenAI API reference (batch), Azure's guide to
batches, and vLLM's `run_batch`, which writes the error of a request beside a response without a body.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from spark_llm.protocol.bodies import RequestBody
from spark_llm.protocol.fields import string_of
from spark_llm.protocol.json_codec import NotJSONError, read_json, replace_surrogates, write_json
from spark_llm.protocol.values import Response

EXPIRED, CANCELLED, LEFT_OUT, NO_REPLY = "batch_expired", "batch_cancelled", "left_out", "no_reply"
_MESSAGES = {
    EXPIRED: "the batch ended before this request was answered",
    LEFT_OUT: "the batch completed without a reply to this request",
}
_STATUS_DIGITS = 3
_LINE_END = b"}\n"
_REQUEST_ID = "x-request-id"  # the header from which codecs read it
_BLANK = (b"", b"null", b'""', b"{}")


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw
    request_id: str | None = None


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response
    error: None = None


_decode = msgspec.json.Decoder(_Line).decode


class Reply(NamedTuple):
    """The reply to the request of one line: a response, or the code and the message of an error.

    Attributes:
        custom_id: The id of the request's line.
        response: The response, as a task decodes it; None where the request got none.
        code: Why there is no response: one of the codes above, or one of the server's own; else empty.
        message: The error's message.
    """

    custom_id: str
    response: Response | None
    code: str = ""
    message: str = ""


def write_line(custom_id: str, url: str, body: RequestBody) -> Iterator[bytes | memoryview]:
    """Yield the bytes of one line, with the line break, for the request of a body; media are written as they go."""
    yield _line_start(custom_id, url)
    if isinstance(body, bytes):
        yield body
    else:
        yield from body
    yield _LINE_END


def line_length(custom_id: str, url: str, body: RequestBody) -> int:
    """Return how many bytes a line has, with the line break."""
    return len(_line_start(custom_id, url)) + len(body) + len(_LINE_END)


def _line_start(custom_id: str, url: str) -> bytes:
    return b'{"custom_id":%b,"method":"POST","url":%b,"body":' % (write_json(custom_id), write_json(url))


def replyless_line(custom_id: str, code: str) -> bytes:
    """Return the line of a request whose batch ended without a reply to it, without a line break.

    The code is `EXPIRED` where the time ran out, and `LEFT_OUT` where the batch completed nevertheless.
    """
    return unanswered_line(custom_id, code, _MESSAGES[code])


def unanswered_line(custom_id: str, code: str, message: str) -> bytes:
    """Return the line of a request without a response, without a line break."""
    return write_json({"custom_id": custom_id, "response": None, "error": {"code": code, "message": message}})


def reply_lines(lines: Iterable[bytes], code: str | None) -> Iterator[tuple[str, str]]:
    """Yield the id and the text of each line that is a reply.

    Where there is a `code`, the batch was not cancelled: a request that is called so all the same gets this code.
    """
    for line in lines:
        text = line.decode("utf-8", "replace")
        reply = read_line(text)
        if reply is not None and reply.code == CANCELLED and code is not None:
            text = replyless_line(reply.custom_id, code).decode()
        if reply is not None:
            yield reply.custom_id, text


def read_line(line: bytes | str) -> Reply | None:
    """Read the line of a reply; None for a line that is no JSON, or that does not say which request it is about."""
    try:
        found = _decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _read_any(line.encode("utf-8", "replace") if isinstance(line, str) else line)
    body = bytes(found.response.body)
    if body in _BLANK or body.startswith(b'"'):
        return _read_any(line.encode("utf-8", "replace") if isinstance(line, str) else line)
    return Reply(found.custom_id, _response(found.response.status_code, body, found.response.request_id))


def _read_any(line: bytes) -> Reply | None:
    """Read a line that is not as OpenAI writes it, or that has an error."""
    try:
        document = read_json(line)
    except NotJSONError:
        return None
    custom_id = string_of(document.get("custom_id")) if isinstance(document, dict) else None
    if custom_id is None:
        return None
    custom_id = str(replace_surrogates(custom_id))
    response, error = document.get("response"), document.get("error")
    if isinstance(response, dict) and response:
        return Reply(custom_id, _response_of(response, error))
    code, message = _code_and_message(error)
    return Reply(custom_id, None, code, message)


def _response_of(response: dict[str, Any], error: object) -> Response:
    """Return the response of a line; where its body is empty, the error beside it is its body."""
    status = response.get("status_code")
    body = response.get("body") if "body" in response or "status_code" in response else response
    if isinstance(status, str) and status.isascii() and status.isdecimal() and len(status) == _STATUS_DIGITS:
        status = int(status)
    if not isinstance(status, int) or not 100 <= status < 1_000:
        status = 500 if error else 200
    if isinstance(body, str) and body:
        content = body.encode("utf-8", "replace")  # JSON within a text, or the page of a proxy
    else:
        content = write_json(body or ({"error": error} if error else None))
    return _response(status, content, string_of(response.get("request_id")))


def _response(status: int, body: bytes, request_id: str | None) -> Response:
    return Response(status, body, {_REQUEST_ID: request_id} if request_id else {})


def _code_and_message(error: object) -> tuple[str, str]:
    """Return the code and the message of an error: an object, perhaps within another one, or a text."""
    if isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    if isinstance(error, dict):
        codes = (error.get(name) for name in ("code", "type"))
        code = next((str(found) for found in codes if isinstance(found, (str, int)) and found), NO_REPLY)
        return str(replace_surrogates(code)), str(replace_surrogates(string_of(error.get("message")) or ""))
    text = string_of(error) or "the line has neither a response nor an error"
    return NO_REPLY, str(replace_surrogates(text))
