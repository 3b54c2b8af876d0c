"""The secrets of a request, and texts in which they are masked."""

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.protocol.masking import masked_beginning, secrets_of, without_secrets
from tests.support.strategies import TEXTS

SECRETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=40)
ESCAPES: list[Callable[[str], str]] = [
    str,
    str.upper,
    lambda text: quote(text, safe=""),
    lambda text: quote(text).lower(),
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
    html.escape,
    lambda text: "".join(f"&#{ord(character)};" if character in "'\"<>&/" else character for character in text),
]


@given(SECRETS, st.sampled_from(ESCAPES), TEXTS, TEXTS)
def test_a_secret_is_masked_in_every_spelling(
    secret: str, escape: Callable[[str], str], before: str, after: str
) -> None:
    """It may be plain, or escaped for a URL, JSON or HTML."""
    assert escape(secret) not in without_secrets(f"{before}{escape(secret)}{after}", [secret])


@given(TEXTS)
def test_other_text_is_unchanged(text: str) -> None:
    """Nothing changes without secrets, or where the text has none."""
    assert text == without_secrets(text, []) == without_secrets(text, ["dapi-0123456789-abcdef"])


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    """Where one secret is the beginning of another, no part of either is left."""
    assert "a *** b" == without_secrets("a secret-and-more b", ["secret-a", "secret-and-more"])


@given(SECRETS, st.sampled_from(ESCAPES), st.lists(TEXTS, max_size=3), st.integers(0, 60))
def test_the_beginning_of_a_text_is_masked_as_the_whole(
    secret: str, escape: Callable[[str], str], parts: list[str], length: int
) -> None:
    """A secret at the place of the cut leaves no part of itself, and what is left begins the masked text."""
    text = escape(secret).join(["", *parts, "."])
    beginning = masked_beginning(text, length, [secret])
    whole = without_secrets(text, [secret])

    assert whole.startswith(beginning)
    assert beginning == whole or len(text) > length


def test_nearly_a_whole_secret_at_the_cut_is_left_out() -> None:
    """With any length that is asked for."""
    text = f"{'x' * 95}sk-0123456789{'y' * 1_000}"

    assert "x" * 95 + "***" == masked_beginning(text, 108, ["sk-0123456789"])
    assert all("sk-0" not in masked_beginning(text, length, ["sk-0123456789"]) for length in range(200))


PAIR = base64.b64encode(b"robot:pass-w0rd").decode()
KEY_ALONE = base64.b64encode(b"sk-0123456789:").decode()


@pytest.mark.parametrize(
    ("name", "value", "secrets"),
    [
        ("X-Key", "0123456789", {"0123456789"}),
        ("X-Team", "data", set()),
        ("Authorization", "Bearer 0123456789", {"Bearer 0123456789", "0123456789"}),
        ("authorization", "0123456789", {"0123456789"}),
        ("Proxy-Authorization", f"Basic {PAIR}", {f"Basic {PAIR}", PAIR, "robot:pass-w0rd", "pass-w0rd"}),
        ("Authorization", f"Basic {KEY_ALONE}", {f"Basic {KEY_ALONE}", KEY_ALONE, "sk-0123456789:", "sk-0123456789"}),
        ("Authorization", "Basic no/base64=at=all", {"Basic no/base64=at=all", "no/base64=at=all"}),
    ],
)
def test_a_header_has_its_value_and_its_credentials_as_secrets(name: str, value: str, secrets: set[str]) -> None:
    """These are the part after a scheme and the password of basic authentication; a short value may be any word."""
    assert secrets == set(secrets_of("https://host/v1", [(name, value)]))


@pytest.mark.parametrize(
    ("query", "secrets"),
    [
        ("api-version=2024-10-21", set()),
        ("api-key=0123456789&api-version=2024-10-21", {"0123456789"}),
        ("sig=0123%2F456789", {"0123%2F456789", "0123/456789"}),
        ("access_token=0123+456789", {"0123+456789", "0123 456789"}),
        ("code=0123456789&key&=&&token=short", {"0123456789"}),
    ],
)
def test_a_url_has_parameters_like_keys_as_secrets(query: str, secrets: set[str]) -> None:
    """Other parameters, such as a version, may be needed in a message."""
    assert secrets == set(secrets_of(f"https://host/v1?{query}", []))
