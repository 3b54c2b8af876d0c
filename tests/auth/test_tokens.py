"""Tokens on a worker: requested once, and renewed before they expire and after a refusal, for all engines."""

import base64
import json
import threading
import time
import traceback
from asyncio import CancelledError
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.auth.credentials import Bearer
from spark_llm.auth.tokens import RENEW_BEFORE_S, RENEWAL_RETRY_S, SignInError, Token, TokenKeeper

SECRET = "dapi-s3cret"
TIMES = st.floats(0, 4e9)


class Source:
    """A token function that counts its calls."""

    def __init__(self, *tokens: str) -> None:
        """Return these tokens, one after the other."""
        self._tokens = list(tokens)
        self.calls = 0

    def __call__(self) -> str:
        """Return the next token."""
        self.calls += 1
        return self._tokens.pop(0)


def web_token(**claims: object) -> str:
    """Return an unsigned JSON web token with these claims."""
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{body}.signature"


def keeper_of(source: Any) -> TokenKeeper:  # noqa: ANN401 -- a string, a function or None
    """Return the keeper of a token or of a token function."""
    return TokenKeeper(Bearer.of(source))


def with_token(source: Callable[[], str]) -> TokenKeeper:
    """Return a keeper with its first token."""
    keeper = keeper_of(source)
    keeper.renew_if_needed()
    return keeper


@given(TIMES, st.floats(0, 1e7))
def test_a_token_is_renewed_before_it_expires_and_not_at_once(now: float, seconds: float) -> None:
    """The renewal is five minutes or a fifth of its lifetime before the expiry, and at least a second from now."""
    token = Token.with_lifetime("t", seconds, now)

    assert now + 1 <= token.renew_at <= max(token.expires_at, now + 1)
    assert token.expires_at - token.renew_at <= RENEW_BEFORE_S + 1e-3


@given(TIMES, st.integers(0, 10**10))
def test_a_web_token_has_its_expiry(now: float, expires_at: int) -> None:
    """A function may return one, and is called again before it expires."""
    token = Token.parse(web_token(sub="me", exp=expires_at), now)

    assert expires_at == pytest.approx(token.expires_at)
    assert token.renew_at >= now + 1


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1) | st.binary().map(repr))
def test_any_other_token_does_not_expire(value: str) -> None:
    """Its expiry is unknown."""
    assert Token(value) == Token.parse(value, 0.0)


@pytest.mark.parametrize("exp", ["soon", None, True, [1], 1e300, {}])
def test_an_invalid_expiry_is_ignored(exp: object) -> None:
    """A claim of another type or beyond all times counts as missing."""
    value = web_token(exp=exp)

    assert Token(value) == Token.parse(value, 0.0)


def test_a_fixed_token_is_never_renewed() -> None:
    """After a 401 there is no other token to try."""
    keeper = keeper_of(SECRET)

    assert [False, SECRET] == [keeper.needs_renewal(time.time()), keeper.token]
    assert [False, SECRET] == [keeper.replace(SECRET), keeper.token]


def test_requests_without_a_token_stay_without_one() -> None:
    """None is never renewed."""
    keeper = keeper_of(None)

    assert [False, False, None] == [keeper.needs_renewal(time.time()), keeper.replace(None), keeper.token]


def test_a_function_is_called_once_for_many_requests() -> None:
    """A hundred requests in many threads share the first token."""
    source = Source("first")
    keeper = keeper_of(source)
    with ThreadPoolExecutor(20) as threads:
        for each in [threads.submit(keeper.renew_if_needed) for _ in range(100)]:
            each.result()

    assert ("first", 1) == (keeper.token, source.calls)


def test_a_refused_token_is_replaced_once_for_all_its_requests() -> None:
    """A hundred 401s of one token cost one renewal, and all of them have the new token."""
    source = Source("first", "second")
    keeper = with_token(source)
    with ThreadPoolExecutor(20) as threads:
        replaced = [each.result() for each in [threads.submit(keeper.replace, "first") for _ in range(100)]]

    assert ([True] * 100, "second", 2) == (replaced, keeper.token, source.calls)


def test_a_second_token_without_an_answer_is_not_replaced() -> None:
    """After two refused tokens in a row, the refusal is final."""
    source = Source("first", "second", "third")
    keeper = with_token(source)

    assert [True, False, 2] == [keeper.replace("first"), keeper.replace("second"), source.calls]


def test_a_token_that_brought_an_answer_is_replaced_again() -> None:
    """A job may need many tokens, if each brings an answer before it expires."""
    source = Source("first", "second", "third")
    keeper = with_token(source)
    keeper.replace("first")
    keeper.record_success("first")  # an answer to the first token

    assert not keeper.replace("second")
    keeper.record_success("second")
    assert keeper.replace("second")
    assert "third" == keeper.token


def test_until_a_renewal_has_helped_only_a_decisive_refusal_renews() -> None:
    """Answers to requests that were never refused do not show that the new token helped the one that was."""
    keeper = with_token(Source("first", "second", "third"))
    replaced = [keeper.replace("first", decisive=False)]
    keeper.record_success("second")
    replaced.append(keeper.replace("second", decisive=False))
    keeper.record_success("second", was_refused=True)
    replaced.append(keeper.replace("second", decisive=False))

    assert ([True, False, True], "third") == (replaced, keeper.token)


def test_after_a_futile_renewal_only_a_decisive_refusal_renews() -> None:
    """The prompt may be the reason: the token is replaced once every request would be refused, and then as before."""
    keeper = with_token(Source("first", "second", "third", "fourth"))
    replaced = [keeper.replace("first", decisive=False)]
    keeper.record_futile_renewal()
    keeper.record_success("second")
    replaced += [keeper.replace("second", decisive=decisive) for decisive in (False, True)]
    keeper.record_success("third")

    assert [True, False, True, True] == [*replaced, keeper.replace("third", decisive=False)]


def test_the_same_token_again_is_no_renewal() -> None:
    """The request is not sent again with the token that was refused."""
    assert not with_token(Source("first", "first")).replace("first")


def test_a_failed_renewal_is_ignored_while_the_old_token_is_valid() -> None:
    """The token server may be down for a moment: the renewal is retried later, and no row fails."""
    expires_at = time.time() + 2 * RENEW_BEFORE_S
    first = web_token(exp=expires_at)
    source = Source(first)
    keeper = with_token(source)
    keeper._token = keeper._token._replace(renew_at=0.0)  # noqa: SLF001 -- as if the time to renew had come

    keeper.renew_if_needed()  # raises in `Source`, which has no further token

    assert (first, 2) == (keeper.token, source.calls)
    assert not keeper.needs_renewal(time.time())
    assert keeper.needs_renewal(time.time() + RENEWAL_RETRY_S + 1)


def test_without_a_valid_token_a_failed_renewal_raises() -> None:
    """This holds for the first token and for an expired one."""
    expired = with_token(Source(web_token(exp=time.time() - 9)))
    expired._token = expired._token._replace(renew_at=0.0)  # noqa: SLF001 -- as if the second after it had passed

    for keeper in (keeper_of(Source()), expired):
        with pytest.raises(SignInError) as raised:
            keeper.renew_if_needed()
        assert "unauthorized" == raised.value.failure.error.kind


@pytest.mark.parametrize("token", [f"{SECRET}\n", "", None, 7, len])
def test_the_token_of_a_function_is_checked(token: Any) -> None:  # noqa: ANN401 -- every wrong type
    """Anything that a header cannot hold is an error, which does not print it."""
    with pytest.raises(SignInError, match=r" Hint: .+\.$") as raised:
        keeper_of(lambda: token).renew_if_needed()

    assert ("unauthorized", False) == (raised.value.failure.error.kind, raised.value.failure.error.retryable)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("error", [OSError, SystemExit, CancelledError])
def test_an_exception_is_named_by_its_type(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """Its text may have a secret, and goes only to the log, at DEBUG."""

    def broken() -> str:
        raise error(f"no vault at https://me:{SECRET}@host")

    caplog.set_level("DEBUG", "spark_llm.auth")
    with pytest.raises(SignInError, match=rf"The token function raised {error.__name__}\. Hint: .+\.$") as raised:
        keeper_of(broken).renew_if_needed()

    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert [("spark_llm.auth", 10)] == [(each.name, each.levelno) for each in caplog.records]
    assert SECRET in caplog.text


def test_a_late_failed_renewal_is_retried_at_the_expiry() -> None:
    """The next attempt is not later than the expiry: only an expired token blocks requests."""
    source = Source(web_token(exp=time.time() + RENEWAL_RETRY_S / 2))
    keeper = with_token(source)
    keeper._token = keeper._token._replace(renew_at=0.0)  # noqa: SLF001 -- as if the time to renew had come
    keeper.renew_if_needed()

    assert 2 == source.calls
    assert not keeper.needs_renewal(time.time())
    assert keeper.needs_renewal(keeper.expires_at)


def test_threads_share_one_renewal() -> None:
    """While one thread requests a token, others wait for it."""
    entered, gate = threading.Event(), threading.Event()
    calls = []

    def slow() -> str:
        calls.append(1)
        entered.set()
        return "late" if gate.wait(10) else "never released"

    keeper = keeper_of(slow)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(keeper.renew_if_needed)
        entered.wait(10)
        second = threads.submit(keeper.renew_if_needed)
        gate.set()
        first.result()
        second.result()

    assert ("late", [1]) == (keeper.token, calls)
