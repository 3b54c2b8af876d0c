"""What a request's headers bring, however they are written."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving.protocol.credentials import BasicCredentials, basic_credentials, token_of

# What a header can hold, and what a decoder makes of bytes that are no UTF-8.
TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)
HEADERS = st.text(st.characters(max_codepoint=0x2FF, exclude_characters="\r\n\0")) | st.binary().map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)


@given(token=TOKENS, scheme=st.sampled_from(["Bearer", "bearer", "BEARER"]), blanks=st.sampled_from([" ", "  "]))
def test_a_bearer_brings_its_token(token: str, scheme: str, blanks: str) -> None:
    """The token comes behind the word bearer, whose case does not matter."""
    assert token == token_of(f"{scheme}{blanks}{token}")
    assert token == token_of(f"{scheme}{blanks}{token}", api_key="another")


@given(token=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_the_user_token_brings_it_as_a_password(token: str) -> None:
    """Whatever letters a password has, colons too, it is the token where the user's name is `token`."""
    header = f"Basic {base64.b64encode(f'token:{token}'.encode()).decode()}"

    assert BasicCredentials("token", token) == basic_credentials(header)
    assert token == token_of(header)
    assert None is token_of(f"Basic {base64.b64encode(f'me:{token}'.encode()).decode()}")


@given(key=TOKENS)
def test_an_api_key_stands_alone(key: str) -> None:
    """A key is the token where the header `Authorization` brings none."""
    assert key == token_of("", key) == token_of("Digest x", key)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic", "Basic ===", "Basic dG9rZW4=", "token", "Basic é"]
)
def test_a_header_that_cannot_be_read_brings_nothing(header: str) -> None:
    """No scheme, no token, no base64, no colon: nothing."""
    assert (None, None) == (token_of(header), basic_credentials(header))


@given(header=HEADERS, key=st.none() | HEADERS)
def test_no_header_raises(header: str, key: str | None) -> None:
    """Whatever letters come, what they bring is a text that has letters, or nothing."""
    assert token_of(header, key) != ""
    assert token_of(f"Basic {header}", key) != ""
    assert token_of(f"Bearer {header}", key) != ""
