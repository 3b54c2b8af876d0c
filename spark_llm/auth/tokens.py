"""Signing in, on the workers: tokens of credentials, got when the first request needs one and renewed in time.

Getting a token blocks, so the engine does it in a thread beside its event loop. A worker has one `TokenKeeper` for a
credential, however many of its engines use it.

A token function may raise an exception whose text holds a secret. Only its type goes into rows and reports; the text
goes to the logger `spark_llm.auth`, at DEBUG.
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

from spark_llm.auth.credentials import ClientCredentials, Credential, checked, is_token
from spark_llm.errors import ConfigError
from spark_llm.protocol.failures import failure_of
from spark_llm.protocol.masking import without_secrets
from spark_llm.protocol.values import Failure, Response, RowError
from spark_llm.protocol.wire import read_object
from spark_llm.transport.http import ask_once
from spark_llm.validation.numbers import is_number

EARLY_S = 300.0  # so long before its end a token is renewed, or a fifth of its life if that is shorter
AGAIN_S = 30.0  # after a renewal that failed, while the token is still good
TIMEOUT_S = 30.0
_TRANSIENT = ("rate_limited", "unavailable", "timeout", "connection")

_logger = logging.getLogger("spark_llm.auth")


class Token(NamedTuple):
    """A token as it is sent; when to renew it and when it ends, in seconds since 1970."""

    value: str | None
    renew_at: float = math.inf
    ends_at: float = math.inf

    @classmethod
    def lasting(cls, value: str, seconds: float, now: float) -> "Token":
        """Return a token that is good for so long, and is not renewed more than once a second."""
        return cls(value, now + max(1.0, seconds - min(EARLY_S, seconds / 5)), now + seconds)

    @classmethod
    def read(cls, value: str, now: float) -> "Token":
        """Return a token with the end that a JSON web token (RFC 7519) tells; any other has none."""
        parts = value.split(".")
        try:
            claims = read_object(base64.urlsafe_b64decode(parts[1] + "==") if len(parts) == 3 else b"")
        except (ValueError, binascii.Error):
            return cls(value)
        ends_at = _seconds(claims.get("exp"))
        return cls(value) if ends_at is None else cls.lasting(value, ends_at - now, now)


class SignInError(Exception):
    """There is no token to ask with; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        """Carry what becomes of the request that needed the token."""
        super().__init__(failure.error.message)
        self.failure = failure


class TokenKeeper:
    """The token of one credential; any thread may use it."""

    def __init__(self, credential: Credential, ca_bundle: str | None = None) -> None:
        """Ask for nothing yet."""
        self._credential = credential
        self._ca_bundle = ca_bundle
        given = "" if isinstance(credential, ClientCredentials) else credential.source
        self.renews = given == "" or callable(given)  # whether there is another token for one that is refused
        self._token = Token(None, 0.0, 0.0) if given == "" or callable(given) else Token(given)
        self._fruitless = 0  # renewals since a token brought an answer
        self._in_vain = False  # whether a renewal did not help: a 403 may be about what was asked
        self._turn = threading.Lock()

    @property
    def token(self) -> str | None:
        """The token at this moment; None asks without one, or says that there is none yet."""
        return self._token.value

    @property
    def ends_at(self) -> float:
        """When the token ends, in seconds since 1970, as far as whoever gave it has told."""
        return self._token.ends_at

    def is_due(self, now: float) -> bool:
        """Return whether a token should be got, or renewed: by the next request, or beside it while the old is good."""
        return now >= self._token.renew_at

    def has_ended(self, now: float) -> bool:
        """Return whether there is no token to send: none was got yet, or its time is over."""
        return now >= self._token.ends_at

    def renew_in_time(self) -> None:
        """Get a token where one is due. A renewal that fails is tried again later, as long as the old token is good.

        Raises `SignInError`, or `ConfigError` where the bundle of certificates cannot be read.
        """
        with self._turn:
            if not self.is_due(time.time()):
                return
            try:
                self._renew()
            except Exception as error:
                now, old = time.time(), self._token
                if self.has_ended(now):
                    raise
                self._token = old._replace(renew_at=min(now + AGAIN_S, old.ends_at))
                words = "early renewal failed (%s; %s); the old token is good for another %.0f s"
                _logger.info(words, self._credential.origin, type(error).__name__, old.ends_at - now)

    def replace(self, refused: str | None, decisive: bool = True) -> bool:  # noqa: FBT001, FBT002 -- run in a thread, by its place
        """Get another token for one that the server refused, once for all who sent it; return whether there is one.

        A token that is refused before it has brought any answer is not replaced a second time; nor is any, once a
        renewal was in vain, before a refusal is `decisive`: all would be. Raises `SignInError`.
        """
        with self._turn:
            if self._token.value == refused:
                if not self.renews or self._fruitless or (self._in_vain and not decisive):
                    return False
                self._fruitless += 1
                self._in_vain = False
                self._renew()
            return self._token.value != refused

    def was_in_vain(self) -> None:
        """Take note that a request was refused with another token as well."""
        self._in_vain = True

    def worked(self, token: str | None) -> None:
        """Take note that this token brought an answer."""
        if self._fruitless and token == self._token.value:
            self._fruitless = 0

    def _renew(self) -> None:
        now = time.time()
        if isinstance(self._credential, ClientCredentials):
            self._token = _granted(self._credential, self._ca_bundle, now)
        else:
            self._token = _called(self._credential.source, now)
        _logger.info("got a token (%s), good for %.0f s", self._credential.origin, self._token.ends_at - now)


def _called(source: Any, now: float) -> Token:  # noqa: ANN401 -- the user's function
    """Call a token function; what it returns is checked before it is sent anywhere."""
    try:
        value = source()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 -- sys.exit() in it would end the engine's thread
        _logger.debug("the token function raised %s: %s", type(error).__name__, error)
        what = f"The token function raised {type(error).__name__}."
        hint = "call it alone, on a worker, to see why; the logger spark_llm.auth has the text of the error, at DEBUG."
        raise _refused(ConfigError(what, hint)) from None
    if not isinstance(value, str):
        raise _refused(
            ConfigError(f"The token function returned a {type(value).__name__}.", "return the token as a string.")
        )
    try:
        return Token.read(checked(value, "The token that the token function returned"), now)
    except ConfigError as error:
        raise _refused(error) from None


def _refused(error: ConfigError) -> SignInError:
    return SignInError(Failure(RowError("unauthorized", None, str(error), retryable=False), unasked=True))


def _granted(client: ClientCredentials, ca_bundle: str | None, now: float) -> Token:
    """Get a token for an OAuth client; for a route-optimised endpoint one that is good for it alone."""
    token = _grant(client, {}, ca_bundle, now)
    if client.description_url is None:
        return token
    response = ask_once(
        "GET", client.description_url, headers={"Authorization": f"Bearer {token.value}"}, ca_bundle=ca_bundle
    )
    details = _described(response)
    if details is None:
        raise _no_token(response, client.description_url, client)
    return _grant(client, {"authorization_details": details}, ca_bundle, now)


def _grant(client: ClientCredentials, more: Mapping[str, str], ca_bundle: str | None, now: float) -> Token:
    url = str(client.token_url)
    response = ask_once(
        "POST",
        url,
        headers={"Authorization": f"Basic {_login(client)}", "Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode({"grant_type": "client_credentials", "scope": client.scope, **more}).encode(),
        ca_bundle=ca_bundle,
    )
    document = read_object(response.body) if response.succeeded else {}
    value, seconds = document.get("access_token"), _seconds(document.get("expires_in"))
    if not isinstance(value, str) or not is_token(value):
        if document and "error" not in document:  # it may hold a token all the same, so it is not quoted
            response = Response(200, b"the answer has no access_token that a header can hold")
        raise _no_token(response, url, client)
    return Token.read(value, now) if seconds is None else Token.lasting(value, seconds, now)


def _login(client: ClientCredentials) -> str:
    """Return a client's id and secret as HTTP's basic authentication writes them."""
    return base64.b64encode(f"{client.client_id}:{client.client_secret}".encode()).decode("ascii")


def _described(response: Response) -> str | None:
    """Return the rights that a described endpoint asks for; None where the description has none."""
    place: Any = read_object(response.body) if response.succeeded else {}
    for name in ("data_plane_info", "query_info", "authorization_details"):
        place = place.get(name) if isinstance(place, dict) else None
    return place if isinstance(place, str) else None


def _seconds(value: object) -> float | None:
    return float(value) if is_number(value) and abs(value) < 1e12 else None


def _no_token(response: Response, url: str, client: ClientCredentials) -> SignInError:
    """Say why there is no token; what may pass is a failure of that kind, anything else a refusal."""
    failure = failure_of(response)
    kind, status, words, _ = failure.error
    words = without_secrets(words, (client.client_secret, quote_plus(client.client_secret), _login(client)))
    where = f"signing in at {urlsplit(url)._replace(query='').geturl()}: {words}"
    if kind in _TRANSIENT:
        return SignInError(Failure(failure.error._replace(message=where), failure.told_to_wait, failure.retry_after_s))
    return SignInError(Failure(RowError("unauthorized", status, where, retryable=False), unasked=True))
