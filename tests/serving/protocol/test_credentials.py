"""Credentials in headers: bearer tokens, basic authentication, API keys."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving.protocol.credentials import BasicCredentials, basic_credentials, token_of

# The characters that a header can hold, and those that a decoder makes of invalid UTF-8.
TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)
HEADERS = st.text(st.characters(max_codepoint=0x2FF, exclude_characters="\r\n\0")) | st.binary().map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)


@given(token=TOKENS, scheme=st.sampled_from(["Bearer", "bearer", "BEARER"]), blanks=st.sampled_from([" ", "  "]))
def test_a_bearer_header_has_its_token(token: str, scheme: str, blanks: str) -> None:
    """The token follows the scheme `Bearer`, in any case."""
    assert token == token_of(f"{scheme}{blanks}{token}")
    assert token == token_of(f"{scheme}{blanks}{token}", api_key="another")


@given(token=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_the_password_of_the_user_token_is_the_token(token: str) -> None:
    """The password of the user `token` is the token, also with colons in it."""
    header = f"Basic {base64.b64encode(f'token:{token}'.encode()).decode()}"

    assert BasicCredentials("token", token) == basic_credentials(header)
    assert token == token_of(header)
    assert None is token_of(f"Basic {base64.b64encode(f'me:{token}'.encode()).decode()}")


@given(key=TOKENS)
def test_an_api_key_is_used_without_another_credential(key: str) -> None:
    """An API key is the token if the header `Authorization` has none."""
    assert key == token_of("", key) == token_of("Digest x", key)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic", "Basic ===", "Basic dG9rZW4=", "token", "Basic é"]
)
def test_an_invalid_header_has_no_credential(header: str) -> None:
    """A header without a scheme, token, base64 or colon has no credential."""
    assert (None, None) == (token_of(header), basic_credentials(header))


@given(header=HEADERS, key=st.none() | HEADERS)
def test_no_header_raises(header: str, key: str | None) -> None:
    """Any header has a credential that is not empty, or none."""
    assert token_of(header, key) != ""
    assert token_of(f"Basic {header}", key) != ""
    assert token_of(f"Bearer {header}", key) != ""
