"""Batches and files as the Batch API describes them. Missing and odd fields are empty; no other bytes raise either.

Sources: the API references of OpenAI, Azure ("Validating", times as ISO 8601, null counts), Mistral (`input_files`,
"SUCCESS"), Novita (counts beside the batch, errors as a text) and Together (uppercase, a batch within `job`).
"""

import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, NamedTuple, TypeVar

from spark_llm.protocol.fields import string_of
from spark_llm.protocol.json_codec import NotJSONError, read_json, replace_surrogates
from spark_llm.validation.numbers import is_number

KEY = "spark_llm_key"  # of a batch's metadata
_ENDED = ("completed", "failed", "expired", "cancelled")
_RUNNING = ("validating", "in_progress", "finalizing", "cancelling")
_STATUSES = {  # of other servers, by OpenAI's names
    **dict.fromkeys(("success", "succeeded", "ended", "done", "complete", "finished"), "completed"),
    **dict.fromkeys(("timeout_exceeded", "timed_out"), "expired"),
    **dict.fromkeys(("error", "errored"), "failed"),
    **dict.fromkeys(("canceled", "aborted"), "cancelled"),
    **dict.fromkeys(("canceling", "cancellation_requested"), "cancelling"),
    **dict.fromkeys(("queued", "pending", "running", "processing", "progress"), "in_progress"),
}
_ENDS = ("completed_at", "failed_at", "expired_at", "cancelled_at")  # their status, where it has an unknown name
_QUOTA = re.compile(
    r"token_limit_exceeded|enqueued[ _]token|batch_limit_exceeded|too many (active )?batches", re.IGNORECASE
)
_MISSING = re.compile(
    r"no such file|not (yet )?(found|exist|ready|(been )?processed)|(pending|being processed)\b", re.IGNORECASE
)
_ISO_TIME = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:?\d\d)?")
_MAX_PROBLEMS = 1_000
T = TypeVar("T")


class BatchProblem(NamedTuple):
    """Why a batch failed as a whole: a code, a message, and the number of the line it is about, from 1."""

    code: str
    message: str
    line: int | None

    def __str__(self) -> str:
        """Return it as one text."""
        return f"{self.code}: {self.message}{'' if self.line is None else f' (line {self.line})'}"


class BatchState(NamedTuple):
    """A batch as the server describes it.

    Attributes:
        id: Its id.
        status: Its status, by OpenAI's names; an unknown one is as the server writes it, in lower case.
        ended: Whether nothing of it will change any more.
        input_file_id: The id of the file of its requests.
        output_file_id: The id of the file of replies, if there is one.
        error_file_id: The id of the file of errors, if there is one.
        problems: Why it failed as a whole.
        total: The number of its requests; 0 where the server has not counted them yet.
        completed: How many of them were answered.
        failed: How many of them failed.
        key: The key that this library gave it; None where the server keeps no metadata.
        created_at: When it was created, in seconds since 1970.
    """

    id: str
    status: str
    ended: bool
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    problems: tuple[BatchProblem, ...] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0
    key: str | None = None
    created_at: float | None = None

    @property
    def is_quota(self) -> bool:
        """Whether it failed since too many tokens were waiting already: the same file passes later."""
        return self.status == "failed" and any(
            is_quota_message(f"{problem.code} {problem.message}") for problem in self.problems
        )


class FileState(NamedTuple):
    """A file as the server describes it: its id and its name."""

    id: str
    name: str


class BatchPage(NamedTuple):
    """A page of a list of batches; `last_id` is where the next one begins, where `has_more` says that there is one."""

    batches: tuple[BatchState, ...]
    has_more: bool
    last_id: str | None


class FilePage(NamedTuple):
    """A page of a list of files; the fields are those of `BatchPage`."""

    files: tuple[FileState, ...]
    has_more: bool
    last_id: str | None


def is_quota_message(text: str) -> bool:
    """Return whether a code or a message is about the tokens or batches that may wait at once."""
    return bool(_QUOTA.search(text))


def is_missing_message(text: str) -> bool:
    """Return whether a message says that a file is not there, or not ready, which may pass in a moment."""
    return bool(_MISSING.search(text))


def read_batch(body: bytes) -> BatchState | None:
    """Read a batch; None for bytes that describe none."""
    return _batch(_document(body))


def read_batches(body: bytes) -> BatchPage | None:
    """Read a page of a list of batches; None for bytes that are no list."""
    found = _page(body, _batch)
    return None if found is None else BatchPage(*found)


def read_file(body: bytes) -> FileState | None:
    """Read a file's description; None for bytes that describe none."""
    return _file(_document(body))


def read_files(body: bytes) -> FilePage | None:
    """Read a page of a list of files; None for bytes that are no list."""
    found = _page(body, _file)
    return None if found is None else FilePage(*found)


def _document(body: bytes) -> Any:  # noqa: ANN401 -- a JSON document has any type
    try:
        return replace_surrogates(read_json(body))
    except NotJSONError:
        return None


def _page(body: bytes, read: Callable[[object], T | None]) -> tuple[tuple[T, ...], bool, str | None] | None:
    document = _document(body)
    page = document if isinstance(document, dict) else {"data": document}
    entries = next((page[name] for name in ("data", "value") if isinstance(page.get(name), list)), None)
    if entries is None:  # Go writes null for a list of nothing
        return ((), False, None) if page.get("object") == "list" else None
    found = tuple(entry for entry in map(read, entries) if entry is not None)
    last = entries[-1] if entries else None
    last_id = string_of(page.get("last_id")) or (string_of(last.get("id")) if isinstance(last, dict) else None)
    return found, page.get("has_more") is True, last_id


def _batch(document: object) -> BatchState | None:
    if isinstance(document, dict) and "id" not in document and isinstance(document.get("job"), dict):
        document = document["job"]
    if not isinstance(document, dict) or (batch_id := string_of(document.get("id"))) is None:
        return None
    status = _status(document)
    inputs = document.get("input_files")
    first_input = inputs[0] if isinstance(inputs, list) and inputs else None
    metadata = document.get("metadata")
    return BatchState(
        batch_id,
        status,
        ended=status in _ENDED,
        input_file_id=string_of(document.get("input_file_id")) or string_of(first_input),
        output_file_id=string_of(document.get("output_file_id")) or string_of(document.get("output_file")),
        error_file_id=string_of(document.get("error_file_id")) or string_of(document.get("error_file")),
        problems=_problems(document),
        total=_count(document, "total", "total_requests"),
        completed=_count(document, "completed", "succeeded", "succeeded_requests"),
        failed=_count(document, "failed", "failed_requests"),
        key=string_of(metadata.get(KEY)) if isinstance(metadata, dict) else None,
        created_at=_seconds(document.get("created_at")),
    )


def _status(document: dict[str, Any]) -> str:
    written = (string_of(document.get("status")) or "").strip().lower().replace("-", "_").replace(" ", "_")
    status = _STATUSES.get(written, written)
    if status in _ENDED or status in _RUNNING:
        return status
    ends = (name.removesuffix("_at") for name in _ENDS if document.get(name))
    return next(ends, status)


def _problems(document: dict[str, Any]) -> tuple[BatchProblem, ...]:
    """Return the errors of a batch: in `errors.data`, in a list, or a single object or text."""
    found = document.get("errors") or document.get("error")
    if isinstance(found, dict) and isinstance(found.get("data"), list):
        found = found["data"]
    entries = found if isinstance(found, list) else [found]
    return tuple(problem for entry in entries[:_MAX_PROBLEMS] if (problem := _problem(entry)) is not None)


def _problem(entry: object) -> BatchProblem | None:
    if isinstance(entry, dict) and entry:
        line = entry.get("line")
        number = line if isinstance(line, int) and not isinstance(line, bool) and line > 0 else None
        return BatchProblem(string_of(entry.get("code")) or "", string_of(entry.get("message")) or "", number)
    text = string_of(entry)
    return None if text is None else BatchProblem("", text, None)


def _count(document: dict[str, Any], *names: str) -> int:
    """Return the first of these counts, from `request_counts` or beside it; 0 where there is none."""
    counts = document.get("request_counts")
    groups = [counts, document] if isinstance(counts, dict) else [document]
    found = (group.get(name) for group in groups for name in names)
    return next((count for count in found if isinstance(count, int) and not isinstance(count, bool) and count >= 0), 0)


def _seconds(value: object) -> float | None:
    """Return seconds since 1970, from a number or from a text of ISO 8601."""
    if is_number(value) and 0 <= value < 1e11:
        return float(value)
    match = _ISO_TIME.match(value) if isinstance(value, str) else None
    if match is None:
        return None
    zone = (match[2] or "Z").replace("Z", "+00:00")
    try:
        moment = datetime.strptime(f"{match[1].replace(' ', 'T')}{zone}", "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        return None
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds()


def _file(document: object) -> FileState | None:
    if not isinstance(document, dict) or (file_id := string_of(document.get("id"))) is None:
        return None
    return FileState(file_id, string_of(document.get("filename")) or string_of(document.get("name")) or "")
