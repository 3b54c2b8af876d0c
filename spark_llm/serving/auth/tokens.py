"""The tokens that are good here: the plain one, and those that are issued to OAuth clients.

The time is an argument. A token is never printed, and none is compared letter by letter.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection
from math import ceil

from spark_llm.serving.protocol.errors import INVALID_TOKEN, NO_CREDENTIAL, OUT_OF_SCOPE, UNAUTHENTICATED, Refusal
from spark_llm.serving.scenario.capacity import After

IssuedTokensExpire = After | None | Callable[[int], After | None]

AN_HOUR_S = 3600
MOST_KEPT = 10_000  # issued tokens; older ones are forgotten, and then refused like any that never was


class Token:
    """A token from the moment when it was set.

    Attributes:
        value: The token; it is never printed.
        expires: When it is good no longer, counted from its setting and the requests that brought it. None: never.
        endpoint_ids: The endpoints whose data plane it is for; None for one that is for the workspace.
    """

    def __init__(
        self, value: str, *, expires: After | None, now: float, endpoint_ids: Collection[str] | None = None
    ) -> None:
        self.value = value
        self.expires = expires
        self.endpoint_ids = endpoint_ids
        self._set_at = now
        self._uses = 0
        self._revoked = False

    def is_good(self, now: float) -> bool:
        """Tell whether it is neither expired nor revoked."""
        expired = self.expires is not None and self.expires.reached(elapsed_s=now - self._set_at, requests=self._uses)
        return not expired and not self._revoked

    def use(self, now: float) -> bool:
        """Count a request that brings it, and tell whether it is good for that one."""
        good = self.is_good(now)
        self._uses += 1
        return good

    def revoke(self) -> None:
        """Make it good no longer."""
        self._revoked = True

    @property
    def lifetime_s(self) -> int:
        """What a client is told of its lifetime: whole seconds, or an hour where it does not end by time."""
        elapsed_s = None if self.expires is None else self.expires.elapsed_s
        return AN_HOUR_S if elapsed_s is None else ceil(min(elapsed_s, 2**31 - 1))


class Tokens:
    """All that may be brought, and what it is good for.

    Attributes:
        plain: The one that is set from outside, like a personal access token.
        issued: How many have been issued.
    """

    def __init__(self, plain: Token, *, issued_expire: IssuedTokensExpire) -> None:
        self.plain = plain
        self.issued = 0
        self._issued_expire = issued_expire
        self._kept: dict[bytes, Token] = {}

    def issue(self, now: float, endpoint_ids: Collection[str] | None = None) -> Token:
        """Issue a new token: for the workspace, or for the data plane of some endpoints only."""
        expires = self._issued_expire(self.issued) if callable(self._issued_expire) else self._issued_expire
        token = Token(secrets.token_urlsafe(32), expires=expires, now=now, endpoint_ids=endpoint_ids)
        self._kept[_digest(token.value)] = token
        self.issued += 1
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return token

    def find_issued(self, value: str) -> Token | None:
        """Return the issued token that this is; looked up by its hash, which tells an onlooker nothing."""
        return self._kept.get(_digest(value))

    def refusal(self, given: str | None, now: float, *, endpoint_id: str | None = None) -> Refusal | None:
        """Count a request that brings `given`, and return its refusal where that is not good for it.

        `endpoint_id` names the endpoint whose data plane is asked, which takes only tokens that are issued for it; any
        other route takes the plain token, and those that are issued for the workspace.
        """
        if given is None:
            return NO_CREDENTIAL
        if hmac.compare_digest(_bytes(given), _bytes(self.plain.value)):
            if endpoint_id is not None:
                return NO_CREDENTIAL
            return None if self.plain.use(now) else UNAUTHENTICATED
        token = self.find_issued(given)
        if token is None:
            return UNAUTHENTICATED
        if not token.use(now):
            return INVALID_TOKEN
        ids = token.endpoint_ids
        fits = ids is None if endpoint_id is None else ids is not None and endpoint_id in ids
        return None if fits else OUT_OF_SCOPE

    def revoke(self) -> None:
        """Make all of them good no longer; those that are set or issued from now on are good."""
        self.plain.revoke()
        for token in self._kept.values():
            token.revoke()

    def reset(self) -> None:
        """Count the issued tokens from zero again; each stays as good as it is."""
        self.issued = 0


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")  # whatever a header had


def _digest(value: str) -> bytes:
    return hashlib.sha256(_bytes(value)).digest()
