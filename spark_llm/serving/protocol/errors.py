"""What a refused request is told, in the three shapes that clients meet.

Databricks answers `{"error_code", "message"}`, OpenAI `{"error": {"message", "type", "param", "code"}}`, and Azure's
gateway in front of OpenAI `{"error": {"code", "message"}}`. A refusal carries what all need; the path that was asked
decides which one goes out. Knows no HTTP library.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Dialect = Literal["databricks", "openai", "azure"]

_LONGEST_WAIT_S = 1e9


@dataclass(frozen=True)
class Refusal:
    """One refusal, ready to be told in any dialect.

    Attributes:
        status: The HTTP status.
        error_code: Databricks' code: a word, or for some gateways a number.
        message: The sentence, the same in all dialects.
        type: OpenAI's `type`.
        code: OpenAI's `code`.
        param: The request's field that is at fault, where one is.
        body: The whole body, where a service has a shape of its own; it is sent in every dialect.
    """

    status: int
    error_code: str | int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    body: Mapping[str, Any] | None = None

    def told(self, dialect: Dialect) -> Mapping[str, Any]:
        """Return the body to send."""
        if self.body is not None:
            return self.body
        if dialect == "databricks":
            return {"error_code": self.error_code, "message": self.message}
        if dialect == "azure" and self.status != 400:  # a 400 is the model's own, and comes through as it is
            return {"error": {"code": str(self.status), "message": self.message}}
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @property
    def tells_wait_in_body(self) -> bool:
        """Whether its service tells how long to wait in the body, and not in a header."""
        return self.body is not None and isinstance(self.body.get("error"), Mapping)

    def check_wait(self, wait: str) -> None:
        """Raise `ValueError` for a wait that this refusal cannot tell."""
        if not re.fullmatch(r"[!-~]+", wait):
            raise ValueError(f"{wait!r} cannot stand in a header. Hint: write the wait as 1.5, 250ms or +90.")
        # In a body and in a date it is a number that is told; in a header it may be any word, as in the field.
        if (self.tells_wait_in_body or wait.startswith("+")) and not _is_seconds(wait):
            raise ValueError(f"{wait!r} is no number of seconds. Hint: write it as 15, or +90 for a date.")


def _is_seconds(wait: str) -> bool:
    try:
        return 0 <= float(wait) <= _LONGEST_WAIT_S
    except ValueError:
        return False


class Refused(Exception):
    """The request is answered with this refusal; a model raises it as the application does."""

    def __init__(self, refusal: Refusal, *, retry_after: str | None = None) -> None:
        """Carry `refusal`, and how long the client shall wait, if it is told."""
        super().__init__(refusal.message)
        if retry_after is not None:
            refusal.check_wait(retry_after)
        self.refusal = refusal
        self.retry_after = retry_after

    @classmethod
    def bad_request(cls, message: str, *, param: str | None = None, code: str | None = None) -> "Refused":
        """Refuse what the client sent, with status 400."""
        return cls(Refusal(400, "BAD_REQUEST", message, param=param, code=code))


# The token: not there or of the wrong kind, wrong, lapsed, or good for something else.
NO_CREDENTIAL = Refusal(
    401,
    "UNAUTHENTICATED",
    "Credential was not sent or was of an unsupported type for this API.",
    code="invalid_api_key",
)
UNAUTHENTICATED = Refusal(401, "UNAUTHENTICATED", "Invalid access token.", code="invalid_api_key")
INVALID_TOKEN = Refusal(403, 403, "Invalid Token", code="invalid_api_key")
OUT_OF_SCOPE = Refusal(403, 403, "Provided OAuth token does not have required scopes: model-serving")

STOPPED = Refusal(400, "BAD_REQUEST", "The given endpoint is stopped, please retry after starting the endpoint.")
TOO_LARGE = Refusal(413, "REQUEST_ENTITY_TOO_LARGE", "The request body is larger than 16 MB.")
INTERNAL_ERROR = Refusal(500, "INTERNAL_ERROR", "The model failed on this request.", type="server_error")
STRANGE_HOST = Refusal(421, "MISDIRECTED_REQUEST", "This server is 127.0.0.1, and answers to no other name.")
STRANGE_ORIGIN = Refusal(403, "PERMISSION_DENIED", "Pages of other origins may not ask this server.")
AZURE_NOT_FOUND = Refusal(404, "NOT_FOUND", "Resource not found")

_NO_ENDPOINT = (
    "The given endpoint does not exist, please retry after checking the specified model and version deployment exists."
)
_NO_DEPLOYMENT = {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}


def no_such_endpoint(name: str, dialect: Dialect) -> Refused:
    """Refuse a request for an endpoint that is not here, in the words of that dialect's service."""
    message = f"The model `{name}` does not exist." if dialect == "openai" else _NO_ENDPOINT
    body = {"error": _NO_DEPLOYMENT} if dialect == "azure" else None
    return Refused(Refusal(404, "ENDPOINT_NOT_FOUND", message, code="model_not_found", param="model", body=body))


def no_such_resource(name: str, request_id: str) -> Refusal:
    """Refuse to describe an endpoint that is not here, as the control plane does, with the request's id."""
    message = f"Endpoint with name '{name}' does not exist."
    info = {"@type": "type.googleapis.com/google.rpc.RequestInfo", "request_id": request_id, "serving_data": ""}
    body = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": message, "details": [info]}
    return Refusal(404, "RESOURCE_DOES_NOT_EXIST", message, body=body)


def no_such_route(method: str, path: str) -> Refusal:
    """Refuse a path, or a method of it, that is not served."""
    if path.startswith("/openai/"):
        return AZURE_NOT_FOUND
    if path.startswith("/v1/"):
        return Refusal(404, "NOT_FOUND", f"Unknown request URL: {method} {path}.", code="unknown_url")
    return Refusal(404, "ENDPOINT_NOT_FOUND", f"No API found for '{method} {path}'")


def dialect_of(path: str) -> Dialect:
    """Tell the dialect by the path, where no route does."""
    return "openai" if path.startswith("/v1/") else "azure" if path.startswith("/openai/") else "databricks"
