"""The OAuth token endpoint: RFC 6749, with authorization details (RFC 9396).

It serves two grants. By `client_credentials` a program signs in; by `jwt-bearer` it exchanges its token for one of an
endpoint's data plane. Requests and responses are values; no HTTP library.
"""

import hmac
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from spark_llm.serving.auth.tokens import Token, TokenStore
from spark_llm.serving.protocol.credentials import basic_credentials

FORM = "application/x-www-form-urlencoded"
CLIENT_CREDENTIALS = "client_credentials"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ALL_APIS = "all-apis"
QUERY_ACTION = "query_inference_endpoint"

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_MAX_FIELDS = 100
_CLIENT_ID = re.compile(r"[ -9;-~]+")  # RFC 6749's characters, without the colon that ends a user's name
_CLIENT_SECRET = re.compile(r"[ -~]+")


def authorization_detail(endpoint_id: str) -> dict[str, Any]:
    """Return the authorization detail (RFC 9396) that lets a client query one endpoint on its data plane."""
    return {
        "type": "workspace_permission",
        "object_type": "serving-endpoints",
        "object_path": f"/serving-endpoints/{endpoint_id}",
        "actions": [QUERY_ACTION],
    }


class TokenResponse(NamedTuple):
    """The response of the token endpoint."""

    status: int
    document: Mapping[str, Any]
    headers: Mapping[str, str]


class _TokenError(Exception):
    def __init__(self, error: str, description: str, *, status: int = 400, challenge: bool = False) -> None:
        super().__init__(description)
        self.response = TokenResponse(
            status,
            {"error": error, "error_description": description},
            {**_NO_STORE, "WWW-Authenticate": 'Basic realm="oidc"'} if challenge else _NO_STORE,
        )


class TokenEndpoint:
    """Issues tokens to clients.

    Attributes:
        clients: The clients' secrets, by their ids.
    """

    def __init__(self, clients: Mapping[str, str], tokens: TokenStore, endpoints: Mapping[str, str]) -> None:
        """Serve these clients with tokens of this store, for endpoints by their ids.

        Raises `ValueError` without a client, or for an id or a secret that no header can hold.
        """
        if not clients:
            raise ValueError("clients={} has no client. Hint: omit it for one that is made here.")
        if wrong := [
            name
            for name, secret in clients.items()
            if not (_CLIENT_ID.fullmatch(name) and _CLIENT_SECRET.fullmatch(secret))
        ]:
            raise ValueError(
                f"The ids or secrets of the clients {wrong} do not fit into a header. "
                "Hint: write ids and secrets in printable ASCII, ids without a colon."
            )
        self.clients = dict(clients)
        self._tokens = tokens
        self._endpoints = endpoints

    @staticmethod
    def metadata(base_url: str) -> dict[str, Any]:
        """Return the metadata of the authorization server (RFC 8414)."""
        return {
            "issuer": f"{base_url}/oidc",
            "authorization_endpoint": f"{base_url}/oidc/v1/authorize",
            "token_endpoint": f"{base_url}/oidc/v1/token",
            "scopes_supported": [ALL_APIS],
            "response_types_supported": [],  # there is no sign-in by a browser
            "grant_types_supported": [CLIENT_CREDENTIALS, JWT_BEARER],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "authorization_details_types_supported": ["workspace_permission"],
        }

    def respond(self, body: bytes, content_type: str, authorization: str, now: float) -> TokenResponse:
        """Return the response to one token request."""
        try:
            form = _parse_form(body, content_type)
            self._check_grant(form, authorization, now)
            return self._issue(form, now)
        except _TokenError as error:
            return error.response

    def _check_grant(self, form: Mapping[str, str], authorization: str, now: float) -> None:
        grant = _required(form, "grant_type")
        if grant == CLIENT_CREDENTIALS:
            self._check_client(form, authorization)
        elif grant == JWT_BEARER:
            self._check_assertion(_required(form, "assertion"), now)
            _required(form, "authorization_details")
        else:
            raise _TokenError("unsupported_grant_type", f"Grants served here: {CLIENT_CREDENTIALS}, {JWT_BEARER}.")

    def _check_client(self, form: Mapping[str, str], authorization: str) -> None:
        basic = basic_credentials(authorization)
        if basic is not None and "client_secret" in form:
            raise _TokenError("invalid_request", "The client authenticates in two ways. Hint: send one of them.")
        presented = basic if basic is not None else (form.get("client_id", ""), form.get("client_secret", ""))
        user, password = (part.encode("utf-8", "surrogatepass") for part in presented)
        # Every secret is compared, for an unknown client too, so that the timing does not tell which clients exist.
        matches = [
            hmac.compare_digest(user, name.encode()) & hmac.compare_digest(password, secret.encode())
            for name, secret in self.clients.items()
        ]
        if not any(matches):
            raise _TokenError("invalid_client", "Client authentication failed", status=401, challenge=basic is not None)

    def _check_assertion(self, assertion: str, now: float) -> None:
        token: Token | None = self._tokens.find_issued(assertion)
        if token is None or not token.is_valid(now) or token.endpoint_ids is not None:
            raise _TokenError("invalid_grant", "The assertion is no valid token of this workspace.")

    def _issue(self, form: Mapping[str, str], now: float) -> TokenResponse:
        details = form.get("authorization_details")
        endpoint_ids = None if details is None else self._endpoint_ids(details)
        token = self._tokens.issue(now, endpoint_ids)
        document: dict[str, Any] = {
            "access_token": token.value,
            "token_type": "Bearer",
            "expires_in": token.lifetime_s,
            "scope": form.get("scope", ALL_APIS),
        }
        if endpoint_ids is not None:
            document["authorization_details"] = [authorization_detail(each) for each in endpoint_ids]
        return TokenResponse(200, document, _NO_STORE)

    def _endpoint_ids(self, details: str) -> list[str]:
        """Return the ids of the endpoints in these authorization details."""
        try:
            requested = msgspec.json.decode(details.encode("utf-8", "replace"))
        except (msgspec.MsgspecError, RecursionError):
            requested = None
        known = {endpoint_id: authorization_detail(endpoint_id) for endpoint_id in self._endpoints}
        found = [each for each, detail in known.items() if isinstance(requested, list) and detail in requested]
        if not found or len(found) < len(requested):
            raise _TokenError(
                "invalid_authorization_details",
                "The details are no list of permissions for endpoints that are here. "
                "Hint: send data_plane_info.query_info.authorization_details of the endpoint's description.",
            )
        return found


def _parse_form(body: bytes, content_type: str) -> dict[str, str]:
    if content_type != FORM:
        raise _TokenError("invalid_request", f"The body is not {FORM}.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError:
        raise _TokenError("invalid_request", "The body is no form that can be read.") from None
    form = dict(pairs)
    if len(form) < len(pairs):
        raise _TokenError("invalid_request", "A parameter is there more than once.")
    return {name: value for name, value in form.items() if value}  # RFC 6749, 3.2: a parameter without value is omitted


def _required(form: Mapping[str, str], name: str) -> str:
    if name not in form:
        raise _TokenError("invalid_request", f"The parameter {name} is missing.")
    return form[name]
