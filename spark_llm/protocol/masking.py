"""The secrets that a request carries, and their masking in words about its failure. An answer is never masked."""

import base64
import binascii
import html
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote, unquote_plus, urlsplit

_LEAST_CHARACTERS = 8  # a shorter text is not taken for a secret: it may be any word
_SECRET_PARAMETER = re.compile(r"key|token|secret|sig|pass|pwd|auth|cred|code", re.IGNORECASE)


def secrets_of(url: str, headers: Iterable[tuple[str, str]], proxy_password: str | None = None) -> tuple[str, ...]:
    """Return the texts that must not be read: header values and the credentials in them, keys in the URL's query."""
    found = {proxy_password or ""}
    for name, value in headers:
        found.add(value)
        scheme, _, credentials = value.partition(" ")
        if "authorization" in name.lower():
            found.add(credentials.strip())
            found.update(_basic(credentials) if scheme.lower() == "basic" else ())
    for parameter in urlsplit(url).query.split("&"):
        name, _, value = parameter.partition("=")
        if _SECRET_PARAMETER.search(name):
            found |= {value, unquote(value), unquote_plus(value)}
    return tuple(sorted(text for text in found if len(text) >= _LEAST_CHARACTERS))


def _basic(credentials: str) -> Iterator[str]:
    """Yield the decoded pair of basic authentication, and its password; its user where there is no password."""
    try:
        pair = base64.b64decode(credentials).decode("utf-8", "replace")
    except binascii.Error:
        return
    user, _, password = pair.partition(":")
    yield pair
    yield password or user


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """Mask the secrets in a text, also where they are percent-encoded, or escaped as in JSON or HTML."""
    patterns = ["".join(map(_spellings, secret)) for secret in sorted(secrets, key=len, reverse=True)]
    return re.sub("|".join(patterns), "***", text, flags=re.IGNORECASE) if patterns else text


def _spellings(character: str) -> str:
    """Return a pattern of the ways to write a character."""
    if character.isalnum():
        return character
    number = ord(character)
    escaped = (f"\\{character}", f"\\u{number:04x}", html.escape(character), f"&#{number};", f"&#x{number:x};")
    return f"(?:{'|'.join(map(re.escape, (character, quote(character, safe=''), *escaped)))})"
