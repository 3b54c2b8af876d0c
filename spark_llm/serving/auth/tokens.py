"""The valid tokens: the plain one, and those issued to OAuth clients.

The time is an argument. A token is never printed, and none is compared character by character.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection
from math import ceil

from spark_llm.serving.protocol.errors import INVALID_TOKEN, NO_CREDENTIAL, OUT_OF_SCOPE, UNAUTHENTICATED, ErrorResponse
from spark_llm.serving.scenario.capacity import After

IssuedTokenExpiry = After | None | Callable[[int], After | None]

HOUR_S = 3600
MAX_KEPT = 10_000  # issued tokens; an older one is refused like an unknown one


class Token:
    """A token and its expiry.

    Attributes:
        value: The token; it is never printed.
        expires: The moment of expiry, counted from its creation and by the requests that bring it. None: never.
        endpoint_ids: The endpoints whose data plane it is for; None for a token of the workspace.
    """

    def __init__(
        self, value: str, *, expires: After | None, now: float, endpoint_ids: Collection[str] | None = None
    ) -> None:
        self.value = value
        self.expires = expires
        self.endpoint_ids = endpoint_ids
        self._created_at = now
        self._uses = 0
        self._is_revoked = False

    def is_valid(self, now: float) -> bool:
        """Return whether it is neither expired nor revoked."""
        expires, elapsed_s = self.expires, now - self._created_at
        has_expired = expires is not None and expires.reached(elapsed_s=elapsed_s, requests=self._uses)
        return not has_expired and not self._is_revoked

    def use(self, now: float) -> bool:
        """Count a request that brings the token, and return whether it is valid for that one."""
        was_valid = self.is_valid(now)
        self._uses += 1
        return was_valid

    def revoke(self) -> None:
        """Make the token invalid."""
        self._is_revoked = True

    @property
    def lifetime_s(self) -> int:
        """The `expires_in` of a token response: whole seconds, or an hour if it does not expire by time."""
        elapsed_s = None if self.expires is None else self.expires.elapsed_s
        return HOUR_S if elapsed_s is None else ceil(min(elapsed_s, 2**31 - 1))


class TokenStore:
    """All tokens that a request may bring, with their scopes.

    Attributes:
        plain: The token that the user of the endpoints sets, like a personal access token.
        issued_count: The number of issued tokens.
    """

    def __init__(self, plain: Token, *, issued_expire: IssuedTokenExpiry) -> None:
        self.plain = plain
        self.issued_count = 0
        self._issued_expire = issued_expire
        self._issued: dict[bytes, Token] = {}

    def issue(self, now: float, endpoint_ids: Collection[str] | None = None) -> Token:
        """Return a new token: for the workspace, or for the data plane of these endpoints only."""
        expires = self._issued_expire(self.issued_count) if callable(self._issued_expire) else self._issued_expire
        token = Token(secrets.token_urlsafe(32), expires=expires, now=now, endpoint_ids=endpoint_ids)
        self._issued[_digest(token.value)] = token
        self.issued_count += 1
        if len(self._issued) > MAX_KEPT:
            del self._issued[next(iter(self._issued))]
        return token

    def find_issued(self, value: str) -> Token | None:
        """Return the issued token with this value; the lookup by hash leaks nothing by its timing."""
        return self._issued.get(_digest(value))

    def authorize(self, presented: str | None, now: float, *, endpoint_id: str | None = None) -> ErrorResponse | None:
        """Count a request that brings the token `presented`; return None if it is authorized, else its refusal.

        With `endpoint_id` the request is for that endpoint's data plane, which takes only tokens issued for it. All
        other routes take the plain token and tokens issued for the workspace.
        """
        if presented is None:
            return NO_CREDENTIAL
        if hmac.compare_digest(_bytes(presented), _bytes(self.plain.value)):
            if endpoint_id is not None:
                return NO_CREDENTIAL
            return None if self.plain.use(now) else UNAUTHENTICATED
        token = self.find_issued(presented)
        if token is None:
            return UNAUTHENTICATED
        if not token.use(now):
            return INVALID_TOKEN
        ids = token.endpoint_ids
        is_in_scope = ids is None if endpoint_id is None else ids is not None and endpoint_id in ids
        return None if is_in_scope else OUT_OF_SCOPE

    def is_valid(self, presented: str | None, now: float) -> bool:
        """Return whether a token is still valid for the workspace, without counting a request."""
        if presented is None:
            return False
        is_plain = hmac.compare_digest(_bytes(presented), _bytes(self.plain.value))
        token = self.plain if is_plain else self.find_issued(presented)
        return token is not None and token.endpoint_ids is None and token.is_valid(now)

    def revoke(self) -> None:
        """Revoke all tokens; those set or issued from now on are valid."""
        self.plain.revoke()
        for token in self._issued.values():
            token.revoke()

    def reset(self) -> None:
        """Count the issued tokens from zero again; each stays as valid as it is."""
        self.issued_count = 0


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")  # a header may hold anything


def _digest(value: str) -> bytes:
    return hashlib.sha256(_bytes(value)).digest()
