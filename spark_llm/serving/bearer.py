"""The token that requests must bring, and how long it is good."""

import hmac

from spark_llm.serving.limits import After


class BearerToken:
    """A token from the moment when it was set; reads no clock.

    Attributes:
        value: The token; it is never printed.
        expires: When it is good no longer, counted from its setting and the requests that brought it. None: never.
    """

    def __init__(self, value: str, *, expires: After | None, now: float) -> None:
        self.value = value
        self.expires = expires
        self._set_at = now
        self._uses = 0

    def admits(self, authorization: str, now: float) -> bool:
        """Tell whether this `Authorization` header brings the token while it is good."""
        scheme, _, token = authorization.partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self.value.encode()):
            return False
        expired = self.expires is not None and self.expires.reached(elapsed_s=now - self._set_at, requests=self._uses)
        self._uses += 1
        return not expired
