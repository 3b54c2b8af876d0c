"""The tokens: their scopes, expiry and revocation."""

from math import inf

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import After, LocalEndpoints
from spark_llm.serving.auth.tokens import MAX_KEPT, IssuedTokenExpiry, Token, TokenStore
from spark_llm.serving.protocol.errors import INVALID_TOKEN, NO_CREDENTIAL, OUT_OF_SCOPE, UNAUTHENTICATED
from tests.support.local_client import Client, connected


def token_store(*, expires: After | None = None, issued_expire: IssuedTokenExpiry = None) -> TokenStore:
    """Return a store whose plain token is "sesame", created at 0."""
    return TokenStore(Token("sesame", expires=expires, now=0), issued_expire=issued_expire)


# --- On a simulated clock ---


def test_a_token_expires_with_time() -> None:
    """A token is valid for its seconds."""
    token = Token("sesame", expires=After(elapsed_s=60), now=100)

    assert [True, True, False, False] == [token.use(now) for now in (100, 159.9, 160, 161)]


@given(limit=st.integers(0, 20), uses=st.integers(0, 40))
def test_a_token_expires_with_use(limit: int, uses: int) -> None:
    """A token is valid for its number of requests; `is_valid` does not count as one."""
    token = Token("sesame", expires=After(requests=limit), now=0)

    assert [number < limit for number in range(uses)] == [token.is_valid(0) and token.use(0) for _ in range(uses)]


def test_the_validity_of_a_token_is_read_without_a_request() -> None:
    """Of the plain token and those issued for the workspace, while they last; no other token is valid there."""
    store = token_store(expires=After(elapsed_s=60), issued_expire=After(elapsed_s=90))
    issued, narrow = store.issue(0).value, store.issue(0, endpoint_ids=["1"]).value

    def valid(now: float) -> list[bool]:
        return [store.is_valid(token, now) for token in ("sesame", issued, narrow, "wrong", "\udcff", None)]

    assert [True, True, False, False, False, False] == valid(59) == valid(59)
    assert [False, True, False, False, False, False] == valid(60)
    store.revoke()
    assert not any(valid(0))


def test_requests_with_another_token_do_not_count() -> None:
    """Only requests with the token count towards its expiry."""
    store = token_store(expires=After(requests=2))
    brought = ["sesame", "wrong", None, "sesame", "sesame"]

    assert [None, UNAUTHENTICATED, NO_CREDENTIAL, None, UNAUTHENTICATED] == [
        store.authorize(each, now=0) for each in brought
    ]


def test_a_token_does_not_print() -> None:
    """No `repr` has a token."""
    store = token_store()
    issued = store.issue(0)

    assert not [word for word in ("sesame", issued.value) if word in f"{store!r}{issued!r}{store.plain!r}"]


@pytest.mark.parametrize(
    ("ids", "on_workspace", "on_a", "on_b"),
    [
        (None, None, OUT_OF_SCOPE, OUT_OF_SCOPE),
        (["a"], OUT_OF_SCOPE, None, OUT_OF_SCOPE),
        (["a", "b"], OUT_OF_SCOPE, None, None),
    ],
)
def test_an_issued_token_is_valid_in_its_scope_only(
    ids: list[str] | None, on_workspace: object, on_a: object, on_b: object
) -> None:
    """A workspace token opens no data plane, and a data plane token opens only the data planes of its endpoints."""
    store = token_store()
    value = store.issue(0, ids).value

    assert (on_workspace, on_a, on_b) == (
        store.authorize(value, 0),
        store.authorize(value, 0, endpoint_id="a"),
        store.authorize(value, 0, endpoint_id="b"),
    )


def test_a_data_plane_does_not_count_the_plain_token() -> None:
    """A data plane refuses the plain token as an unsupported credential, which does not count as a use."""
    store = token_store(expires=After(requests=1))

    assert NO_CREDENTIAL == store.authorize("sesame", 0, endpoint_id="a")
    assert None is store.authorize("sesame", 0)


def test_each_issued_token_may_expire_at_its_own_time() -> None:
    """A function of the token's number, 0 first, returns its expiry."""
    store = token_store(issued_expire=lambda number: None if number == 1 else After(requests=number + 1))
    values = [store.issue(0).value for _ in range(3)]
    refusals = [[store.authorize(value, now=10**9) for _ in range(4)] for value in values]

    assert [1, 4, 3] == [row.count(None) for row in refusals]
    assert {INVALID_TOKEN} == {each for row in refusals for each in row if each is not None}
    assert 3 == store.issued_count


@pytest.mark.parametrize(
    ("expires", "lifetime_s"),
    [
        (None, 3600),
        (After(requests=5), 3600),
        (After(elapsed_s=60), 60),
        (After(elapsed_s=0.2), 1),
        (After(elapsed_s=0), 0),
        (After(elapsed_s=inf), 2**31 - 1),
    ],
)
def test_a_lifetime_is_in_whole_seconds(expires: After | None, lifetime_s: int) -> None:
    """A lifetime is an integer, and an hour for a token that does not expire by time."""
    assert lifetime_s == Token("sesame", expires=expires, now=0).lifetime_s


def test_a_revocation_ends_old_tokens_and_no_new_ones() -> None:
    """After a revocation old tokens get their own errors; a new plain token and a new issued one are valid."""
    store = token_store()
    old = store.issue(0).value
    store.revoke()
    assert [UNAUTHENTICATED, INVALID_TOKEN] == [store.authorize("sesame", 0), store.authorize(old, 0)]
    store.plain = Token("sesame", expires=None, now=0)

    assert [None, None, INVALID_TOKEN] == [store.authorize(each, 0) for each in ("sesame", store.issue(0).value, old)]


@pytest.mark.waits
def test_the_oldest_tokens_are_forgotten() -> None:
    """The store keeps a bounded number of issued tokens."""
    store = token_store()
    first, *_, last = [store.issue(0).value for _ in range(MAX_KEPT + 1)]

    assert [UNAUTHENTICATED, None] == [store.authorize(first, 0), store.authorize(last, 0)]


# --- Over a socket ---


def test_an_expired_token_is_refused_until_it_is_set_again() -> None:
    """Requests with the expired token get 401; a new one has its whole lifetime."""
    with connected(LocalEndpoints(token="old", token_expires=After(requests=2))) as client:
        assert [200, 200, 401] == [client.chat("a").status_code for _ in range(3)]
        client.endpoints.token = "new"

        assert [200, 200, 401] == [client.chat("a").status_code for _ in range(3)]
        assert {200: 4, 401: 2} == client.endpoints.stats.by_status


def test_the_expiry_can_be_set_later(client: Client) -> None:
    """An expiry that is set on running endpoints counts from then, for every route that needs the token."""
    token = client.endpoints.token
    assert (None, 200) == (client.endpoints.token_expires, client.chat("a").status_code)
    client.endpoints.token_expires = After(elapsed_s=0)
    headers = {"Authorization": f"Bearer {token}"}

    assert (token, After(elapsed_s=0)) == (client.endpoints.token, client.endpoints.token_expires)
    assert 401 == client.chat("a").status_code
    assert 401 == requests.get(f"{client.endpoints.openai_url}/models", headers=headers, timeout=10).status_code
    client.endpoints.token_expires = None
    assert 200 == client.chat("a").status_code


def test_a_revoked_token_is_refused_until_it_is_set_again(client: Client) -> None:
    """`revoke` ends every token at once; setting the plain token makes it valid, even with the same value."""
    assert 200 == client.chat("a").status_code
    client.endpoints.revoke()
    assert [401, 401] == [client.chat("a").status_code, client.get("/stats").status_code]
    client.endpoints.token = client.endpoints.token

    assert [200, 200] == [client.chat("a").status_code, client.get("/stats").status_code]
