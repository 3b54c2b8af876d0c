"""What a request brings to show who is asking: read from its headers, and judged elsewhere.

A header that cannot be read brings nothing; none raises.
"""

import base64
import binascii
from typing import NamedTuple

TOKEN_USER = "token"  # noqa: S105 -- with this user's name, the password is the token


class Pair(NamedTuple):
    """The user and the password of basic authentication."""

    user: str
    password: str


def token_of(authorization: str, api_key: str | None = None) -> str | None:
    """Return the token that a request brings: as a bearer, as the password of the user `token`, or as an API key."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip() or None
    if (pair := basic(authorization)) is not None:
        return pair.password if pair.user == TOKEN_USER else None
    return api_key or None


def basic(authorization: str) -> Pair | None:
    """Read the user and the password of an `Authorization` header, where it has any."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(rest.strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return Pair(user, password) if colon else None
