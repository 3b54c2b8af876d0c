"""Tokens on the workers: they are requested with a credential before the first request, and renewed before they expire.

A token request blocks, so the engine sends it in a thread beside its event loop. A worker has one `TokenKeeper` for a
credential, shared by its engines.

The exception of a token function may have a secret in its text. Rows and reports have its type only; its text goes to
the logger `spark_llm.auth`, at DEBUG.
"""

import base64
import binascii
import logging
import math
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode, urlsplit

from spark_llm.auth.credentials import ClientCredentials, Credential, is_valid_token, valid_secret
from spark_llm.errors import ConfigError
from spark_llm.protocol.failures import failure_of
from spark_llm.protocol.json_codec import read_object
from spark_llm.protocol.masking import without_secrets
from spark_llm.protocol.values import Failure, Response, RowError
from spark_llm.transport.blocking import send_once
from spark_llm.validation.numbers import is_number

RENEW_BEFORE_S = 300.0  # before its expiry a token is renewed, or a fifth of its lifetime if that is shorter
RENEWAL_RETRY_S = 30.0  # after a renewal that failed, while the token is still valid
TIMEOUT_S = 30.0
_TRANSIENT = ("rate_limited", "unavailable", "timeout", "connection")

_logger = logging.getLogger("spark_llm.auth")


class Token(NamedTuple):
    """A token, and the times of its renewal and its expiry, in seconds since 1970."""

    value: str | None
    renew_at: float = math.inf
    expires_at: float = math.inf

    @classmethod
    def with_lifetime(cls, value: str, lifetime_s: float, now: float) -> "Token":
        """Return a token that expires after `lifetime_s`; it is renewed once a second at most."""
        return cls(value, now + max(1.0, lifetime_s - min(RENEW_BEFORE_S, lifetime_s / 5)), now + lifetime_s)

    @classmethod
    def parse(cls, value: str, now: float) -> "Token":
        """Return a token with the expiry of a JSON web token (RFC 7519); any other token does not expire."""
        parts = value.split(".")
        try:
            claims = read_object(base64.urlsafe_b64decode(parts[1] + "==") if len(parts) == 3 else b"")
        except (ValueError, binascii.Error):
            return cls(value)
        expires_at = _seconds(claims.get("exp"))
        return cls(value) if expires_at is None else cls.with_lifetime(value, expires_at - now, now)


class SignInError(Exception):
    """No token could be obtained; `failure` has the reason."""

    def __init__(self, failure: Failure) -> None:
        """Carry the failure of the request that needed the token."""
        super().__init__(failure.error.message)
        self.failure = failure


class TokenKeeper:
    """The current token of one credential, and its renewal; safe for threads."""

    def __init__(self, credential: Credential, ca_bundle: str | None = None) -> None:
        """Request no token yet."""
        self._credential = credential
        self._ca_bundle = ca_bundle
        source = "" if isinstance(credential, ClientCredentials) else credential.source
        self.is_renewable = source == "" or callable(source)  # whether a refused token can be replaced
        self._token = Token(None, 0.0, 0.0) if source == "" or callable(source) else Token(source)
        self._unused_renewals = 0  # renewals since the last answer
        self._renewal_was_futile = False  # a 403 may be about the prompt
        self._lock = threading.Lock()

    @property
    def token(self) -> str | None:
        """The current token; None if there is none, or none yet."""
        return self._token.value

    @property
    def expires_at(self) -> float:
        """The expiry in seconds since 1970, as the server or the token states it; else infinity."""
        return self._token.expires_at

    def needs_renewal(self, now: float) -> bool:
        """Return whether a token should be requested or renewed; while the old one is valid, requests go on."""
        return now >= self._token.renew_at

    def has_expired(self, now: float) -> bool:
        """Return whether there is no valid token: none was requested yet, or it has expired."""
        return now >= self._token.expires_at

    def renew_if_needed(self) -> None:
        """Renew the token if it needs it. A renewal that fails is tried again later, while the old token is valid.

        Raises `SignInError`, and `ConfigError` for a bundle of certificates that cannot be read.
        """
        with self._lock:
            if not self.needs_renewal(time.time()):
                return
            try:
                self._renew()
            except Exception as error:
                now, old = time.time(), self._token
                if self.has_expired(now):
                    raise
                self._token = old._replace(renew_at=min(now + RENEWAL_RETRY_S, old.expires_at))
                message = "early renewal failed (%s; %s); the old token is valid for another %.0f s"
                _logger.info(message, self._credential.origin, type(error).__name__, old.expires_at - now)

    def replace(self, refused: str | None, decisive: bool = True) -> bool:  # noqa: FBT001, FBT002 -- passed by position to a thread
        """Replace a token that the server refused, once for all its requests; return whether there is a new one.

        A new token that is refused before its first answer is not replaced. After a futile renewal, and until a renewal
        has helped a refused request, only a `decisive` refusal, which every request would get, replaces the token.
        Raises `SignInError`.
        """
        with self._lock:
            if self._token.value == refused:
                if not self.is_renewable or self._unused_renewals or (self._renewal_was_futile and not decisive):
                    return False
                self._unused_renewals += 1
                self._renewal_was_futile = not decisive
                self._renew()
            return self._token.value != refused

    def record_futile_renewal(self) -> None:
        """Record that a request was refused with the new token too."""
        self._renewal_was_futile = True

    def record_success(self, token: str | None, *, was_refused: bool = False) -> None:
        """Record that a request with this token was answered; `was_refused` with an earlier token."""
        if self._unused_renewals and token == self._token.value:
            self._unused_renewals = 0
        if was_refused:
            self._renewal_was_futile = False

    def _renew(self) -> None:
        now = time.time()
        if isinstance(self._credential, ClientCredentials):
            self._token = _token_for_client(self._credential, self._ca_bundle, now)
        else:
            self._token = _token_from_function(self._credential.source, now)
        _logger.info("got a token (%s), valid for %.0f s", self._credential.origin, self._token.expires_at - now)


def _token_from_function(source: Any, now: float) -> Token:  # noqa: ANN401 -- the user's function
    """Return the checked token of a token function; raise `SignInError` if it fails."""
    try:
        return Token.parse(valid_secret(_returned_text(source), "The token that the token function returned"), now)
    except ConfigError as error:
        failure = Failure(RowError("unauthorized", None, str(error), retryable=False), never_sent=True)
        raise SignInError(failure) from None


def _returned_text(source: Any) -> str:  # noqa: ANN401 -- the user's function
    """Call a token function, and return its text; raise `ConfigError` if it raises, or returns something else."""
    try:
        value = source()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 -- sys.exit() in it would end the engine's thread
        _logger.debug("the token function raised %s: %s", type(error).__name__, error)
        raise ConfigError(
            f"The token function raised {type(error).__name__}.",
            "call it alone on a worker; the logger spark_llm.auth has the text of the error, at DEBUG.",
        ) from None
    if not isinstance(value, str):
        raise ConfigError(f"The token function returned a {type(value).__name__}.", "return the token as a string.")
    return value


def _token_for_client(client: ClientCredentials, ca_bundle: str | None, now: float) -> Token:
    """Return a token for an OAuth client; a route-optimised endpoint needs one with rights for it alone."""
    token = _requested_token(client, {}, ca_bundle, now)
    if client.description_url is None:
        return token
    response = send_once(
        "GET", client.description_url, headers={"Authorization": f"Bearer {token.value}"}, ca_bundle=ca_bundle
    )
    details = _authorization_details(response)
    if details is None:
        raise _token_failure(response, client.description_url, client)
    return _requested_token(client, {"authorization_details": details}, ca_bundle, now)


def _requested_token(client: ClientCredentials, fields: Mapping[str, str], ca_bundle: str | None, now: float) -> Token:
    """Return a token by the client credentials grant; `fields` are added to the request."""
    url = str(client.token_url)
    response = send_once(
        "POST",
        url,
        headers={
            "Authorization": f"Basic {_basic_credentials(client)}",
            "Content-Type": "application/x-www-form-urlencoded",
        },
        body=urlencode({"grant_type": "client_credentials", "scope": client.scope, **fields}).encode(),
        ca_bundle=ca_bundle,
    )
    document = read_object(response.body) if response.succeeded else {}
    value, lifetime_s = document.get("access_token"), _seconds(document.get("expires_in"))
    if not isinstance(value, str) or not is_valid_token(value):
        if document and "error" not in document:  # it may hold a token under another name, so it is not quoted
            response = Response(200, b"the answer has no access_token that a header can hold")
        raise _token_failure(response, url, client)
    return Token.parse(value, now) if lifetime_s is None else Token.with_lifetime(value, lifetime_s, now)


def _basic_credentials(client: ClientCredentials) -> str:
    """Return a client's id and secret, encoded for HTTP basic authentication."""
    return base64.b64encode(f"{client.client_id}:{client.client_secret}".encode()).decode("ascii")


def _authorization_details(response: Response) -> str | None:
    """Return the `authorization_details` of an endpoint's description, or None."""
    node: Any = read_object(response.body) if response.succeeded else {}
    for name in ("data_plane_info", "query_info", "authorization_details"):
        node = node.get(name) if isinstance(node, dict) else None
    return node if isinstance(node, str) else None


def _seconds(value: object) -> float | None:
    """Return a finite number of seconds, or None."""
    return float(value) if is_number(value) and abs(value) < 1e12 else None


def _token_failure(response: Response, url: str, client: ClientCredentials) -> SignInError:
    """Return the error of a failed token request: transient kinds stay, any other becomes `unauthorized`."""
    failure = failure_of(response)
    secrets = (client.client_secret, quote_plus(client.client_secret), _basic_credentials(client))
    place = urlsplit(url)._replace(query="").geturl()
    reason = without_secrets(failure.error.message, secrets)
    error = failure.error._replace(message=f"requesting a token at {place}: {reason}")
    if error.kind in _TRANSIENT:
        return SignInError(Failure(error, failure.throttled, failure.retry_after_s))
    return SignInError(Failure(error._replace(kind="unauthorized", retryable=False), never_sent=True))
