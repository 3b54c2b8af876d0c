"""The credentials in a request's headers; `auth` decides whether they are valid.

A header that cannot be read carries no credential; none raises.
"""

import base64
import binascii
from typing import NamedTuple

TOKEN_USER = "token"  # noqa: S105 -- with this user's name, the password is the token


class BasicCredentials(NamedTuple):
    """The user and the password of HTTP basic authentication (RFC 7617)."""

    user: str
    password: str


def token_of(authorization: str, api_key: str | None = None) -> str | None:
    """Return a request's token: a bearer token, the password of the user `token`, or an API key."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip() or None
    if (credentials := basic_credentials(authorization)) is not None:
        return credentials.password if credentials.user == TOKEN_USER else None
    return api_key or None


def basic_credentials(authorization: str) -> BasicCredentials | None:
    """Return the user and the password of an `Authorization` header, if it has them."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(rest.strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return BasicCredentials(user, password) if colon else None
