"""The token: what brings it, and when it is good no longer."""

import pytest
import requests

from spark_llm.serving import After, LocalEndpoints
from spark_llm.serving.bearer import BearerToken
from tests.serving.client import Client, connected


@pytest.mark.parametrize(
    ("header", "admitted"),
    [("Bearer sesame", True), ("bearer  sesame", True), ("Bearer Sesame", False), ("sesame", False), ("", False)],
)
def test_a_header_brings_the_token(header: str, *, admitted: bool) -> None:
    """The token comes behind the word bearer, whose case does not matter."""
    assert admitted == BearerToken("sesame", expires=None, now=0).admits(header, now=10**9)


def test_a_token_expires_with_time() -> None:
    """A token is good for its seconds since it was set."""
    token = BearerToken("sesame", expires=After(elapsed_s=60), now=100)

    assert [True, True, False, False] == [token.admits("Bearer sesame", now) for now in (100, 159.9, 160, 161)]


def test_a_token_expires_with_use() -> None:
    """A token is good for so many requests; those with another token do not count."""
    token = BearerToken("sesame", expires=After(requests=2), now=0)
    headers = ["Bearer sesame", "Bearer wrong", "Bearer sesame", "Bearer sesame", "Bearer sesame"]

    assert [True, False, True, False, False] == [token.admits(header, now=0) for header in headers]


def test_a_token_does_not_print() -> None:
    """What holds the token shows nothing of it."""
    assert "sesame" not in repr(BearerToken("sesame", expires=After(requests=2), now=0))


def test_an_expired_token_is_refused_until_it_is_set_anew() -> None:
    """Requests with the expired token get 401, and the new one is good for as long again."""
    with connected(LocalEndpoints(token="old", token_expires=After(requests=2))) as client:
        assert [200, 200, 401] == [client.say("a").status_code for _ in range(3)]
        client.endpoints.token = "new"

        assert [200, 200, 401] == [client.say("a").status_code for _ in range(3)]
        assert {200: 4, 401: 2} == client.endpoints.stats.by_status


def test_the_expiry_can_be_set_anew(client: Client) -> None:
    """An expiry that is set on running endpoints counts from then, for every route that wants the token."""
    token = client.endpoints.token
    assert (None, 200) == (client.endpoints.token_expires, client.say("a").status_code)
    client.endpoints.token_expires = After(elapsed_s=0)
    headers = {"Authorization": f"Bearer {token}"}

    assert (token, After(elapsed_s=0)) == (client.endpoints.token, client.endpoints.token_expires)
    assert 401 == client.say("a").status_code
    assert 401 == requests.get(f"{client.endpoints.openai_url}/models", headers=headers, timeout=10).status_code
    client.endpoints.token_expires = None
    assert 200 == client.say("a").status_code
