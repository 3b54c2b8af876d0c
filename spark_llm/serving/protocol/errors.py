"""Error responses, in the three shapes that the services send.

Databricks sends `{"error_code", "message"}`, OpenAI `{"error": {"message", "type", "param", "code"}}`, and Azure's
gateway in front of OpenAI `{"error": {"code", "message"}}`. An `ErrorResponse` carries the fields of all three; the
request's path decides which shape is sent. Knows no HTTP library.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Dialect = Literal["databricks", "openai", "azure"]

_MAX_WAIT_S = 1e9


@dataclass(frozen=True)
class ErrorResponse:
    """The response to a refused request, in every dialect.

    Attributes:
        status: The HTTP status.
        error_code: Databricks' code: a word, or for some gateways a number.
        message: The message, the same in all dialects.
        type: OpenAI's `type`.
        code: OpenAI's `code`.
        param: The request field that is wrong, if one is.
        body: The whole body, for a service with a shape of its own; it is sent in every dialect.
        stack_trace: Where a custom model's own code failed; only Databricks' dialect has it.
    """

    status: int
    error_code: str | int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    body: Mapping[str, Any] | None = None
    stack_trace: str | None = None

    def body_in(self, dialect: Dialect) -> Mapping[str, Any]:
        """Return the body in one dialect."""
        if self.body is not None:
            return self.body
        if dialect == "databricks":
            trace = {} if self.stack_trace is None else {"stack_trace": self.stack_trace}
            return {"error_code": self.error_code, "message": self.message, **trace}
        if dialect == "azure" and self.status != 400:  # a 400 comes from the model: Azure's gateway passes it on
            return {"error": {"code": str(self.status), "message": self.message}}
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @property
    def has_wait_in_body(self) -> bool:
        """Whether the service sends the wait in the body and not in a header."""
        return self.body is not None and isinstance(self.body.get("error"), Mapping)

    def check_retry_after(self, retry_after: str) -> None:
        """Raise `ValueError` for a wait that this response cannot carry."""
        if not re.fullmatch(r"[!-~]+", retry_after):
            raise ValueError(f"{retry_after!r} is not a header value. Hint: write the wait as 1.5, 250ms or +90.")
        # A body or a date needs a number of seconds; a Retry-After header may hold any word, as some services send.
        if (self.has_wait_in_body or retry_after.startswith("+")) and not _is_seconds(retry_after):
            raise ValueError(f"{retry_after!r} is not a number of seconds. Hint: write it as 15, or +90 for a date.")


def _is_seconds(text: str) -> bool:
    try:
        return 0 <= float(text) <= _MAX_WAIT_S
    except ValueError:
        return False


class Refused(Exception):
    """The request gets this error response; models raise it as the application does."""

    def __init__(self, refusal: ErrorResponse, *, retry_after: str | None = None) -> None:
        """Keep the error response, and the wait that it tells the client."""
        super().__init__(refusal.message)
        if retry_after is not None:
            refusal.check_retry_after(retry_after)
        self.refusal = refusal
        self.retry_after = retry_after

    @classmethod
    def bad_request(cls, message: str, *, param: str | None = None, code: str | None = None) -> "Refused":
        """Return the error of a wrong request, with status 400."""
        return cls(ErrorResponse(400, "BAD_REQUEST", message, param=param, code=code))


# Errors of the token: missing or of an unsupported type, wrong, expired, or issued for another scope.
NO_CREDENTIAL = ErrorResponse(
    401,
    "UNAUTHENTICATED",
    "Credential was not sent or was of an unsupported type for this API.",
    code="invalid_api_key",
)
UNAUTHENTICATED = ErrorResponse(401, "UNAUTHENTICATED", "Invalid access token.", code="invalid_api_key")
INVALID_TOKEN = ErrorResponse(403, 403, "Invalid Token", code="invalid_api_key")
OUT_OF_SCOPE = ErrorResponse(403, 403, "Provided OAuth token does not have required scopes: model-serving")

STOPPED = ErrorResponse(400, "BAD_REQUEST", "The given endpoint is stopped, please retry after starting the endpoint.")
INTERNAL_ERROR = ErrorResponse(500, "INTERNAL_ERROR", "The model failed on this request.", type="server_error")
HOST_NOT_ALLOWED = ErrorResponse(421, "MISDIRECTED_REQUEST", "This server is 127.0.0.1, and answers to no other name.")
ORIGIN_NOT_ALLOWED = ErrorResponse(403, "PERMISSION_DENIED", "Pages of other origins may not ask this server.")
AZURE_NOT_FOUND = ErrorResponse(404, "NOT_FOUND", "Resource not found")

_NO_ENDPOINT = (
    "The given endpoint does not exist, please retry after checking the specified model and version deployment exists."
)
_NO_DEPLOYMENT = {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}


def too_large(megabytes: int) -> ErrorResponse:
    """Return the 413 of a body above its limit."""
    return ErrorResponse(413, "REQUEST_ENTITY_TOO_LARGE", f"The request body is larger than {megabytes} MB.")


def model_failed(stack_trace: str) -> ErrorResponse:
    """Return the 400 of a custom model whose own code raised."""
    message = (
        "Encountered an unexpected error while evaluating the model. Verify that the serialized input Dataframe is "
        "compatible with the model for inference."
    )
    return ErrorResponse(400, "BAD_REQUEST", message, stack_trace=stack_trace)


def unknown_value(value: str, supported: Sequence[str], param: str) -> Refused:
    """Return the error of a value that is none of those supported, in OpenAI's words."""
    *others, last = (f"'{each}'" for each in supported)
    comma = "," if len(others) > 1 else ""
    message = f"Invalid value: '{value}'. Supported values are: {', '.join(others)}{comma} and {last}."
    return Refused.bad_request(message, param=param, code="invalid_value")


def only_responses(name: str, dialect: Dialect) -> ErrorResponse:
    """Return the error of a chat request to a model that only the Responses API serves."""
    if dialect == "azure":
        message = (
            f"The chatCompletion operation does not work with the specified model, {name}. Please choose different "
            "model and try again. You can learn more about which models can be used with each operation here: "
            "https://go.microsoft.com/fwlink/?linkid=2197993."
        )
        body = {"error": {"code": "OperationNotSupported", "message": message}}
        return ErrorResponse(400, "BAD_REQUEST", message, body=body)
    message = "This model is only supported in v1/responses and not in v1/chat/completions."
    return ErrorResponse(404 if dialect == "openai" else 400, "BAD_REQUEST", message, param="model")


def endpoint_not_found(name: str, dialect: Dialect) -> ErrorResponse:
    """Return the 404 of an unknown endpoint, in the words of the dialect's service."""
    message = f"The model `{name}` does not exist." if dialect == "openai" else _NO_ENDPOINT
    body = {"error": _NO_DEPLOYMENT} if dialect == "azure" else None
    return ErrorResponse(404, "ENDPOINT_NOT_FOUND", message, code="model_not_found", param="model", body=body)


def resource_not_found(kind: str, name: str, request_id: str) -> ErrorResponse:
    """Return the 404 that the control plane sends when it has no such resource to describe."""
    message = f"{kind} with name '{name}' does not exist."
    info = {"@type": "type.googleapis.com/google.rpc.RequestInfo", "request_id": request_id, "serving_data": ""}
    body = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": message, "details": [info]}
    return ErrorResponse(404, "RESOURCE_DOES_NOT_EXIST", message, body=body)


def route_not_found(method: str, path: str) -> ErrorResponse:
    """Return the 404 of an unknown path, or of a method that the path does not have."""
    if path.startswith("/openai/"):
        return AZURE_NOT_FOUND
    if path.startswith("/v1/"):
        return ErrorResponse(404, "NOT_FOUND", f"Unknown request URL: {method} {path}.", code="unknown_url")
    return ErrorResponse(404, "ENDPOINT_NOT_FOUND", f"No API found for '{method} {path}'")


def dialect_of(path: str) -> Dialect:
    """Return the dialect of a path that matched no route."""
    return "openai" if path.startswith("/v1/") else "azure" if path.startswith("/openai/") else "databricks"
