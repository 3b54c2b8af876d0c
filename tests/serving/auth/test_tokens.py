"""The tokens: what each is good for, and for how long."""

from math import inf

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import After, LocalEndpoints
from spark_llm.serving.auth.tokens import MAX_KEPT, IssuedTokenExpiry, Token, TokenStore
from spark_llm.serving.protocol.errors import INVALID_TOKEN, NO_CREDENTIAL, OUT_OF_SCOPE, UNAUTHENTICATED
from tests.support.local_client import Client, connected


def tokens(*, expires: After | None = None, issued_expire: IssuedTokenExpiry = None) -> TokenStore:
    """Make tokens of which the plain one is "sesame", set at 0."""
    return TokenStore(Token("sesame", expires=expires, now=0), issued_expire=issued_expire)


# --- The rule, on a made-up clock ---


def test_a_token_expires_with_time() -> None:
    """A token is good for its seconds since it was set."""
    token = Token("sesame", expires=After(elapsed_s=60), now=100)

    assert [True, True, False, False] == [token.use(now) for now in (100, 159.9, 160, 161)]


@given(good=st.integers(0, 20), asked=st.integers(0, 40))
def test_a_token_expires_with_use(good: int, asked: int) -> None:
    """A token is good for so many requests, and looking at it is none."""
    token = Token("sesame", expires=After(requests=good), now=0)

    assert [number < good for number in range(asked)] == [token.is_valid(0) and token.use(0) for _ in range(asked)]


def test_requests_with_another_token_do_not_count() -> None:
    """Only what brings the token wears it out."""
    plain = tokens(expires=After(requests=2))
    brought = ["sesame", "wrong", None, "sesame", "sesame"]

    assert [None, UNAUTHENTICATED, NO_CREDENTIAL, None, UNAUTHENTICATED] == [
        plain.authorize(each, now=0) for each in brought
    ]


def test_a_token_does_not_print() -> None:
    """What holds a token shows nothing of it."""
    kept = tokens()
    issued = kept.issue(0)

    assert not [word for word in ("sesame", issued.value) if word in f"{kept!r}{issued!r}{kept.plain!r}"]


@pytest.mark.parametrize(
    ("ids", "on_workspace", "on_a", "on_b"),
    [
        (None, None, OUT_OF_SCOPE, OUT_OF_SCOPE),
        (["a"], OUT_OF_SCOPE, None, OUT_OF_SCOPE),
        (["a", "b"], OUT_OF_SCOPE, None, None),
    ],
)
def test_an_issued_token_is_good_for_what_it_was_issued_for(
    ids: list[str] | None, on_workspace: object, on_a: object, on_b: object
) -> None:
    """One for the workspace is not for a data plane, and one for an endpoint's data plane is for nothing else."""
    kept = tokens()
    value = kept.issue(0, ids).value

    assert (on_workspace, on_a, on_b) == (
        kept.authorize(value, 0),
        kept.authorize(value, 0, endpoint_id="a"),
        kept.authorize(value, 0, endpoint_id="b"),
    )


def test_the_plain_token_is_of_the_wrong_kind_for_a_data_plane() -> None:
    """A data plane refuses it in the words for a credential that is not supported, and it is not worn out by that."""
    kept = tokens(expires=After(requests=1))

    assert NO_CREDENTIAL == kept.authorize("sesame", 0, endpoint_id="a")
    assert None is kept.authorize("sesame", 0)


def test_each_issued_token_may_expire_at_its_own_time() -> None:
    """A function of the token's number, 0 first, says when it is good no longer."""
    kept = tokens(issued_expire=lambda number: None if number == 1 else After(requests=number + 1))
    values = [kept.issue(0).value for _ in range(3)]
    refusals = [[kept.authorize(value, now=10**9) for _ in range(4)] for value in values]

    assert [1, 4, 3] == [row.count(None) for row in refusals]
    assert {INVALID_TOKEN} == {each for row in refusals for each in row if each is not None}
    assert 3 == kept.issued_count


@pytest.mark.parametrize(
    ("expires", "told"),
    [
        (None, 3600),
        (After(requests=5), 3600),
        (After(elapsed_s=60), 60),
        (After(elapsed_s=0.2), 1),
        (After(elapsed_s=0), 0),
        (After(elapsed_s=inf), 2**31 - 1),
    ],
)
def test_a_lifetime_is_told_in_whole_seconds(expires: After | None, told: int) -> None:
    """A client reads an integer, and an hour where the token does not end by time."""
    assert told == Token("sesame", expires=expires, now=0).lifetime_s


def test_what_is_revoked_stays_so_and_what_is_new_is_good() -> None:
    """After a revocation the old ones are refused, each in its own words; a new plain one and a new issued one pass."""
    kept = tokens()
    old = kept.issue(0).value
    kept.revoke()
    assert [UNAUTHENTICATED, INVALID_TOKEN] == [kept.authorize("sesame", 0), kept.authorize(old, 0)]
    kept.plain = Token("sesame", expires=None, now=0)

    assert [None, None, INVALID_TOKEN] == [kept.authorize(each, 0) for each in ("sesame", kept.issue(0).value, old)]


def test_the_oldest_tokens_are_forgotten() -> None:
    """However many are asked for, the memory of them is bounded."""
    kept = tokens()
    first, *_, last = [kept.issue(0).value for _ in range(MAX_KEPT + 1)]

    assert [UNAUTHENTICATED, None] == [kept.authorize(first, 0), kept.authorize(last, 0)]


# --- Over a socket ---


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


def test_a_revoked_token_is_refused_until_it_is_set_anew(client: Client) -> None:
    """`revoke` ends every token at once; the plain one is good again when it is set, though it be the same."""
    assert 200 == client.say("a").status_code
    client.endpoints.revoke()
    assert [401, 401] == [client.say("a").status_code, client.get("/stats").status_code]
    client.endpoints.token = client.endpoints.token

    assert [200, 200] == [client.say("a").status_code, client.get("/stats").status_code]
