"""The secrets of a request, and excerpts of failures in which they are masked. Answers are never masked."""

import base64
import binascii
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from spark_llm.text.excerpt import READ_FACTOR, excerpt

_MIN_CHARACTERS = 8  # a shorter text may be any word, so it is not masked
_MAX_SPELLING = 12  # characters of one in a secret: four bytes, percent-encoded
_MASK = "***"
_MAX_PAGE_CHARACTERS = 20_000  # of an HTML page; the rest is not read
_NOT_TEXT = re.compile(r"(?is)<(script|style)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)|<[^<>]*>")
_SECRET_PARAMETER = re.compile(r"key|token|secret|sig|pass|pwd|auth|cred|code", re.IGNORECASE)


def secrets_of(url: str, headers: Iterable[tuple[str, str]], proxy_password: str | None = None) -> tuple[str, ...]:
    """Return the secrets of a request: header values, the credentials in them, and keys in the URL's query."""
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
    return tuple(sorted(text for text in found if len(text) >= _MIN_CHARACTERS))


def _basic(credentials: str) -> Iterator[str]:
    """Yield the decoded user and password of basic authentication, then the password, or the user without one."""
    try:
        pair = base64.b64decode(credentials).decode("utf-8", "replace")
    except binascii.Error:
        return
    user, _, password = pair.partition(":")
    yield pair
    yield password or user


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return a text in which secrets are `***`, also where they are percent-encoded, or escaped as in JSON or HTML."""
    pattern = _pattern_of(secrets)
    return text if pattern is None else pattern.sub(_MASK, text)


def masked_beginning(text: str, length: int, secrets: Sequence[str]) -> str:
    """Return the beginning of a text as `without_secrets` does, without reading the rest.

    It is as long as the masked text, or `length` characters of the unmasked one. What may be a part of a secret at the
    place of the cut is left out.
    """
    margin = _MAX_SPELLING * max(map(len, secrets), default=0)
    pattern = _pattern_of(secrets)
    if pattern is None or len(text) <= length + margin:
        return without_secrets(text, secrets)
    *before, last = pattern.split(text[: length + margin])
    return _MASK.join((*before, last[: max(0, len(last) - margin)]))


def _pattern_of(secrets: Iterable[str]) -> re.Pattern[str] | None:
    """Return the regular expression of secrets in all their spellings; None where there are none."""
    patterns = ["".join(map(_spellings, secret)) for secret in sorted(secrets, key=len, reverse=True)]
    return re.compile("|".join(patterns), re.IGNORECASE) if patterns else None


def _spellings(character: str) -> str:
    """Return a regular expression of the ways to write one character."""
    if character.isalnum():
        return character
    number = ord(character)
    escaped = (f"\\{character}", f"\\u{number:04x}", html.escape(character), f"&#{number};", f"&#x{number:x};")
    return f"(?:{'|'.join(map(re.escape, (character, quote(character, safe=''), *escaped)))})"


def readable_excerpt(text: str, max_characters: int = 200, secrets: Sequence[str] = ()) -> str:
    """Return the beginning of a body for a message, without secrets.

    Of an HTML page it is the title, or else the text between the tags.
    """
    if re.search(r"<[\w!]", text[:_MAX_PAGE_CHARACTERS]):
        page = text[:_MAX_PAGE_CHARACTERS]
        title = re.search(r"(?i)<title[^<>]*>([^<]*)</title", page)
        text = html.unescape(title[1] if title and title[1].strip() else _NOT_TEXT.sub(" ", page))
    return excerpt(masked_beginning(text, READ_FACTOR * max_characters, secrets), max_characters)
