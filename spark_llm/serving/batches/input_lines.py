"""The lines of an input file, and what is wrong with them. Values in, values out.

A line is decoded only as far as the check needs. Codes and messages are OpenAI's, and Azure's where they differ.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

MAX_ERRORS = 100  # told of one file


class BatchError(NamedTuple):
    """Why a batch failed; `line` counts from 1, and is None where no line is at fault."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Line(msgspec.Struct):
    """A line that passed the check; its body is not decoded."""

    custom_id: str
    body: msgspec.Raw


class _Head(msgspec.Struct):
    model: str
    stream: bool | None = None
    input: msgspec.Raw = msgspec.Raw(b"")


class _CheckedLine(msgspec.Struct):
    custom_id: str
    method: Literal["POST"]
    url: str
    body: _Head


_LINE = msgspec.json.Decoder(Line)
_CHECKED = msgspec.json.Decoder(_CheckedLine)
_FIELDS = ("custom_id", "method", "url", "body")


def read_line(raw: bytes) -> Line:
    """Return a line that passed the check."""
    return _LINE.decode(raw)


@dataclass
class InputCheck:
    """Checks the lines of one file, in order.

    Attributes:
        endpoint: The path that every line must have.
        is_served: Whether there is a model of this name.
        max_requests: Lines at most, and inputs of embeddings at most.
        is_azure: Whether codes are Azure's.
        starts: Where each line begins in the file.
        model: The model of the first line; every line must have it.
        inputs: The inputs of embeddings so far.
        errors: What is wrong, 100 errors at most.
    """

    endpoint: str
    is_served: Callable[[str], bool]
    max_requests: int
    is_azure: bool = False

    def __post_init__(self) -> None:
        """Begin at the first line."""
        self.starts = array("Q")
        self.model: str | None = None
        self.inputs = 0
        self.errors: list[BatchError] = []
        self._ids: set[str] = set()
        self._number = 0

    @property
    def is_over(self) -> bool:
        """Whether what follows changes nothing: there are too many errors or lines."""
        return len(self.errors) >= MAX_ERRORS or len(self.starts) > self.max_requests

    def add(self, raw: bytes, start: int) -> None:
        """Check the next line, which begins at `start`; a blank one counts only in the numbers of others."""
        self._number += 1
        if raw.isspace():
            return
        self.starts.append(start)
        try:
            raw.decode()  # for the strings that the decoder skips
            line = _CHECKED.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._explain(raw)
            return
        if line.custom_id in self._ids:
            self._fail(
                "duplicate_custom_id",
                f"The custom_id '{line.custom_id}' for this request is a duplicate of another request. The custom_id "
                "parameter must be unique for each request in a batch.",
                "custom_id",
            )
            return
        self._ids.add(line.custom_id)
        if line.url != self.endpoint and not (self.is_azure and _short(line.url) == _short(self.endpoint)):
            self._fail(
                "url_mismatch" if self.is_azure else "invalid_url",
                "The URL provided for this request does not match the batch endpoint.",
                "url",
            )
        elif line.body.stream:
            self._fail("streaming_unsupported", "Streaming is not supported in the Batch API.", "body.stream")
        else:
            self._check_model(line.body.model)
            self.inputs += _input_count(line.body.input)

    def end(self) -> list[BatchError]:
        """Return what is wrong with the file as a whole, after its last line."""
        if not self.starts:
            message = "The input file is empty. Please ensure that your batch contains at least one request."
            return [BatchError("empty_file", message, "input_file_id")]
        is_embeddings = _short(self.endpoint) == "/embeddings"
        count, of = (self.inputs, "embedding inputs") if is_embeddings else (0, "")
        if len(self.starts) > self.max_requests:
            count, of = len(self.starts), "requests"
        if count > self.max_requests:
            message = f"The batch input file contains too many {of}. The maximum number of {of} is {self.max_requests}."
            return [BatchError("too_many_tasks", message)]
        return self.errors[:MAX_ERRORS]

    def _check_model(self, model: str) -> None:
        if self.model is None:
            self.model = model
        if not self.is_served(model):
            message = f"The provided model '{model}' is not supported by the Batch API."
            self._fail("model_not_found", message, "body.model")
        elif model != self.model:
            self._fail(
                "model_mismatch" if self.is_azure else "mismatched_model",
                f"The model '{model}' for this request does not match the rest of the batch. Each batch must contain "
                "requests for a single model.",
                "body.model",
            )

    def _fail(self, code: str, message: str, param: str | None = None) -> None:
        self.errors.append(BatchError(code, message, param, self._number))

    def _explain(self, raw: bytes) -> None:
        """Add the error of a line that is no JSON object with the fields of a request."""
        try:
            line = msgspec.json.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            line = None
        if not isinstance(line, dict):
            self._fail("invalid_json_line", "This line is not parseable as valid JSON.")
        elif absent := [field for field in _FIELDS if line.get(field) is None]:
            message = f"Missing required parameter: '{absent[0]}'."
            self._fail("missing_required_parameter", message, absent[0])
        elif not isinstance(line["body"], dict):
            self._fail("invalid_request", "Invalid type for 'body': expected an object.", "body")
        elif line["body"].get("model") is None:
            self._fail("invalid_request", "Model parameter is required.", "body.model")
        elif line["method"] != "POST":
            self._fail("invalid_request", f"Invalid value: '{line['method']}'. Value must be 'POST'.", "method")
        else:
            types = {"custom_id": str, "url": str, "body.model": str, "body.stream": bool}
            values = {
                "custom_id": line["custom_id"],
                "url": line["url"],
                **{f"body.{k}": v for k, v in line["body"].items()},
            }
            param = next((each for each, kind in types.items() if not isinstance(values.get(each, True), kind)), "body")
            self._fail("invalid_request", f"Invalid type for '{param}'.", param)


def _short(url: str) -> str:
    """Return a path without the version that Azure's older routes leave out."""
    return url.removeprefix("/v1")


def _input_count(raw: msgspec.Raw) -> int:
    text = bytes(raw)
    if not text.startswith(b"["):
        return 1
    inputs: list[msgspec.Raw] = msgspec.json.decode(text, type=list[msgspec.Raw])
    return len(inputs)
