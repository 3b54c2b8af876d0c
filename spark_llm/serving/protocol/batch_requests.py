"""Requests of the Batch API as OpenAI documents them: a creation, the fields of an upload, and a page of a list."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from spark_llm.serving.protocol.errors import ErrorResponse, Refused, unknown_value

WINDOW = "24h"
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
ORDERS = ("asc", "desc")
MIN_EXPIRY_S, MAX_EXPIRY_S = 3_600, 2_592_000
MAX_METADATA, MAX_KEY, MAX_VALUE = 16, 64, 512
_FIELDS = ("input_file_id", "endpoint", "completion_window")
_OPTIONAL = ("metadata", "output_expires_after")

Document = dict[str, Any]


class Listed(Protocol):
    """What a list has."""

    @property
    def id(self) -> str:
        """Its id."""

    def document(self) -> Document:
        """Return its object."""


ListedT = TypeVar("ListedT", bound=Listed)


class Creation(NamedTuple):
    """A request to create a batch."""

    input_file_id: str
    endpoint: str
    metadata: dict[str, str] | None
    output_expires_after_s: int | None


def read_creation(body: Mapping[str, Any], endpoints: Sequence[str]) -> Creation:
    """Return the fields of a request to create a batch for one of these paths; raises `Refused` for a wrong one."""
    for field in body:
        if field not in (*_FIELDS, *_OPTIONAL):
            raise Refused.bad_request(f"Unknown parameter: '{field}'.", param=field, code="unknown_parameter")
    for field in _FIELDS:
        if field not in body:
            message = f"Missing required parameter: '{field}'."
            raise Refused.bad_request(message, param=field, code="missing_required_parameter")
        _check_string(body[field], field)
    if body["endpoint"] not in endpoints:
        raise unknown_value(body["endpoint"], endpoints, "endpoint")
    if body["completion_window"] != WINDOW:
        message = f"Invalid value: '{body['completion_window']}'. Value must be '{WINDOW}'."
        raise Refused.bad_request(message, param="completion_window", code="invalid_value")
    expiry = body.get("output_expires_after")
    if expiry is not None and not isinstance(expiry, dict):
        raise _wrong_type("output_expires_after", "an object")
    seconds = None if expiry is None else read_expiry(expiry, "output_expires_after")
    return Creation(body["input_file_id"], body["endpoint"], _metadata(body.get("metadata")), seconds)


def read_expiry(fields: Mapping[str, object], param: str) -> int:
    """Return the seconds after which a file expires; raises `Refused` for a wrong anchor or number."""
    if fields.get("anchor") != "created_at":
        message = f"Invalid value: '{fields.get('anchor')}'. Value must be 'created_at'."
        raise Refused.bad_request(message, param=f"{param}.anchor", code="invalid_value")
    return whole_number(fields.get("seconds"), f"{param}.seconds", MIN_EXPIRY_S, MAX_EXPIRY_S)


def whole_number(value: object, param: str, minimum: int, maximum: int) -> int:
    """Return a number, or the text of one; raises `Refused` if it is out of range."""
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdecimal() or len(text) > len(str(maximum)):
        raise _wrong_type(param, f"an integer from {minimum} to {maximum}")
    number = int(text)
    if number < minimum:
        message = (
            f"Invalid '{param}': integer below minimum value. Expected a value >= {minimum}, but got {number} instead."
        )
        raise Refused.bad_request(message, param=param, code="integer_below_min_value")
    if number > maximum:
        message = (
            f"Invalid '{param}': integer above maximum value. Expected a value <= {maximum}, but got {number} instead."
        )
        raise Refused.bad_request(message, param=param, code="integer_above_max_value")
    return number


def list_document(items: Sequence[ListedT], query: Mapping[str, str], *, default: int, maximum: int) -> Document:
    """Return one page of a list as its object; raises `Refused` for a wrong page."""
    limit = whole_number(query.get("limit", default), "limit", 1, maximum)
    start = 0
    if "after" in query:
        ids = [item.id for item in items]
        if query["after"] not in ids:
            message = f"Invalid value: '{query['after']}'. No object of the list has this id."
            raise Refused.bad_request(message, param="after", code="invalid_value")
        start = ids.index(query["after"]) + 1
    page = items[start : start + limit]
    return {
        "object": "list",
        "data": [item.document() for item in page],
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
        "has_more": start + limit < len(items),
    }


def file_not_found(file_id: str, param: str = "id") -> Refused:
    """Return the error of a file that does not exist, or not yet."""
    message = f"No such File object: {file_id}"
    return Refused(ErrorResponse(404, "NOT_FOUND", message, param=param))


def batch_not_found(batch_id: str) -> Refused:
    """Return the error of a batch that does not exist."""
    return Refused(ErrorResponse(404, "NOT_FOUND", f"No batch found with id '{batch_id}'."))


def cannot_cancel(status: str) -> Refused:
    """Return the error of a batch that has ended."""
    return Refused(ErrorResponse(409, "CONFLICT", f"Cannot cancel a batch with status '{status}'."))


def _metadata(metadata: object) -> dict[str, str] | None:
    """Return the client's own words; raises `Refused` for too many or too long ones."""
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise _wrong_type("metadata", "an object")
    if len(metadata) > MAX_METADATA:
        raise Refused.bad_request(
            f"Invalid 'metadata': too many properties. Expected an object with at most {MAX_METADATA} properties, but "
            f"got an object with {len(metadata)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in metadata.items():
        _check_string(value, f"metadata.{key}")
        for param, text, longest in (("metadata", key, MAX_KEY), (f"metadata.{key}", value, MAX_VALUE)):
            if len(text) > longest:
                raise Refused.bad_request(
                    f"Invalid '{param}': string too long. Expected a string with maximum length {longest}, but got a "
                    f"string with length {len(text)} instead.",
                    param=param,
                    code="string_above_max_length",
                )
    return metadata


def _check_string(value: object, param: str) -> None:
    if not isinstance(value, str):
        raise _wrong_type(param, "a string")


def _wrong_type(param: str, expected: str) -> Refused:
    return Refused.bad_request(f"Invalid type for '{param}': expected {expected}.", param=param, code="invalid_type")
