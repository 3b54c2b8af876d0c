"""What a refused request is told, in the two shapes that clients meet.

Databricks answers `{"error_code", "message"}`, OpenAI `{"error": {"message", "type", "param", "code"}}`. A refusal
carries what both need; the path that was asked decides which one goes out. Knows no HTTP library.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Dialect = Literal["databricks", "openai"]


@dataclass(frozen=True)
class Refusal:
    """One refusal, ready to be told in either dialect.

    Attributes:
        status: The HTTP status.
        error_code: Databricks' code: a word, or for some gateways a number.
        message: The sentence, the same in both dialects.
        type: OpenAI's `type`.
        code: OpenAI's `code`.
        param: The request's field that is at fault, where one is.
        body: The whole body, where a service has a third shape of its own; it is sent in both dialects.
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
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class Refused(Exception):
    """The request is answered with this refusal; a model raises it as the application does."""

    def __init__(self, refusal: Refusal, *, retry_after: str | None = None) -> None:
        """Carry `refusal`, and how long the client shall wait, if it is told."""
        super().__init__(refusal.message)
        self.refusal = refusal
        self.retry_after = retry_after

    @classmethod
    def bad_request(cls, message: str, *, param: str | None = None, code: str | None = None) -> "Refused":
        """Refuse what the client sent, with status 400."""
        return cls(Refusal(400, "BAD_REQUEST", message, param=param, code=code))


UNAUTHENTICATED = Refusal(401, "UNAUTHENTICATED", "Invalid access token.", code="invalid_api_key")
TOO_LARGE = Refusal(413, "REQUEST_ENTITY_TOO_LARGE", "The request body is larger than 16 MB.")
INTERNAL_ERROR = Refusal(500, "INTERNAL_ERROR", "The model failed on this request.", type="server_error")
NO_SUCH_ROUTE = Refusal(404, "NOT_FOUND", "No API is served at this path.", code="unknown_url")

_NO_ENDPOINT = (
    "The given endpoint does not exist, please retry after checking the specified model and version deployment exists."
)


def no_such_endpoint(name: str, dialect: Dialect) -> Refused:
    """Refuse a request for an endpoint that is not here, in the words of that dialect's service."""
    message = _NO_ENDPOINT if dialect == "databricks" else f"The model `{name}` does not exist."
    return Refused(Refusal(404, "ENDPOINT_NOT_FOUND", message, code="model_not_found", param="model"))
