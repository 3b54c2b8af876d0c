"""The token endpoint: who gets a token, and for what. RFC 6749, with the details of RFC 9396.

Two grants are served: `client_credentials`, by which a program signs in, and `jwt-bearer`, by which it turns its token
into one for the data plane of an endpoint. A request is read and judged here; it comes in and goes out as values.
"""

import hmac
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from spark_llm.serving.auth.tokens import Token, Tokens
from spark_llm.serving.http.descriptions import permission
from spark_llm.serving.protocol.credentials import basic

FORM = "application/x-www-form-urlencoded"
CLIENT_CREDENTIALS = "client_credentials"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ALL_APIS = "all-apis"

_NOT_KEPT = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_MOST_FIELDS = 100
_ID = re.compile(r"[ -9;-~]+")  # what RFC 6749 allows, less the colon that ends a user's name
_SECRET = re.compile(r"[ -~]+")


class TokenAnswer(NamedTuple):
    """What the token endpoint answers."""

    status: int
    document: Mapping[str, Any]
    headers: Mapping[str, str]


class _Denied(Exception):
    def __init__(self, error: str, description: str, *, status: int = 400, challenge: bool = False) -> None:
        super().__init__(description)
        self.answer = TokenAnswer(
            status,
            {"error": error, "error_description": description},
            {**_NOT_KEPT, "WWW-Authenticate": 'Basic realm="oidc"'} if challenge else _NOT_KEPT,
        )


class TokenEndpoint:
    """Gives tokens to clients.

    Attributes:
        clients: The clients' secrets, by their ids.
    """

    def __init__(self, clients: Mapping[str, str], tokens: Tokens, endpoints: Mapping[str, str]) -> None:
        """Know these clients, give out these tokens, and know the names of endpoints by these ids.

        Raises `ValueError` where nobody could sign in, or not with that id and that secret.
        """
        if not clients:
            raise ValueError("clients={} lets nobody sign in. Hint: leave it out for one that is made here.")
        if wrong := [
            name for name, secret in clients.items() if not (_ID.fullmatch(name) and _SECRET.fullmatch(secret))
        ]:
            raise ValueError(
                f"The clients {wrong} cannot sign in. "
                "Hint: write ids and secrets in printable ASCII, ids without a colon."
            )
        self.clients = dict(clients)
        self._tokens = tokens
        self._endpoints = endpoints

    @staticmethod
    def described(base: str) -> dict[str, Any]:
        """Describe the authorization server, as RFC 8414 has it; `base` is the address that it is asked at."""
        return {
            "issuer": f"{base}/oidc",
            "authorization_endpoint": f"{base}/oidc/v1/authorize",
            "token_endpoint": f"{base}/oidc/v1/token",
            "scopes_supported": [ALL_APIS],
            "response_types_supported": [],  # nobody signs in by a browser here
            "grant_types_supported": [CLIENT_CREDENTIALS, JWT_BEARER],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "authorization_details_types_supported": ["workspace_permission"],
        }

    def answer(self, body: bytes, content_type: str, authorization: str, now: float) -> TokenAnswer:
        """Answer one request for a token."""
        try:
            form = _read_form(body, content_type)
            self._check_grant(form, authorization, now)
            return self._issue(form, now)
        except _Denied as denied:
            return denied.answer

    def _check_grant(self, form: Mapping[str, str], authorization: str, now: float) -> None:
        grant = _needed(form, "grant_type")
        if grant == CLIENT_CREDENTIALS:
            self._check_client(form, authorization)
        elif grant == JWT_BEARER:
            self._check_assertion(_needed(form, "assertion"), now)
            _needed(form, "authorization_details")
        else:
            raise _Denied("unsupported_grant_type", f"Grants served here: {CLIENT_CREDENTIALS}, {JWT_BEARER}.")

    def _check_client(self, form: Mapping[str, str], authorization: str) -> None:
        pair = basic(authorization)
        if pair is not None and "client_secret" in form:
            raise _Denied("invalid_request", "The client authenticates in two ways. Hint: send one of them.")
        given = pair if pair is not None else (form.get("client_id", ""), form.get("client_secret", ""))
        user, password = (part.encode("utf-8", "surrogatepass") for part in given)
        # Every secret is compared, known client or not, so that the time tells nothing of who is known.
        known = [
            hmac.compare_digest(user, name.encode()) & hmac.compare_digest(password, secret.encode())
            for name, secret in self.clients.items()
        ]
        if not any(known):
            raise _Denied("invalid_client", "Client authentication failed", status=401, challenge=pair is not None)

    def _check_assertion(self, assertion: str, now: float) -> None:
        token: Token | None = self._tokens.find_issued(assertion)
        if token is None or not token.is_good(now) or token.endpoint_ids is not None:
            raise _Denied("invalid_grant", "The assertion is no valid token of this workspace.")

    def _issue(self, form: Mapping[str, str], now: float) -> TokenAnswer:
        details = form.get("authorization_details")
        endpoint_ids = None if details is None else self._read_details(details)
        token = self._tokens.issue(now, endpoint_ids)
        document: dict[str, Any] = {
            "access_token": token.value,
            "token_type": "Bearer",
            "expires_in": token.lifetime_s,
            "scope": form.get("scope", ALL_APIS),
        }
        if endpoint_ids is not None:
            document["authorization_details"] = [permission(each) for each in endpoint_ids]
        return TokenAnswer(200, document, _NOT_KEPT)

    def _read_details(self, details: str) -> list[str]:
        """Return the ids of the endpoints that these details are for."""
        try:
            asked = msgspec.json.decode(details.encode("utf-8", "replace"))
        except (msgspec.MsgspecError, RecursionError):
            asked = None
        permissions = {number: permission(number) for number in self._endpoints}
        found = [number for number, each in permissions.items() if isinstance(asked, list) and each in asked]
        if not found or len(found) < len(asked):
            raise _Denied(
                "invalid_authorization_details",
                "The details are no list of permissions for endpoints that are here. "
                "Hint: send data_plane_info.query_info.authorization_details of the endpoint's description.",
            )
        return found


def _read_form(body: bytes, content_type: str) -> dict[str, str]:
    if content_type != FORM:
        raise _Denied("invalid_request", f"The body is not {FORM}.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise _Denied("invalid_request", "The body is no form that can be read.") from None
    form = dict(pairs)
    if len(form) < len(pairs):
        raise _Denied("invalid_request", "A parameter is there more than once.")
    return {name: value for name, value in form.items() if value}  # RFC 6749, 3.2: one without a value is left out


def _needed(form: Mapping[str, str], name: str) -> str:
    if name not in form:
        raise _Denied("invalid_request", f"The parameter {name} is missing.")
    return form[name]
