"""How a worker keeps its token fresh: got once, renewed in time and after a refusal, for all engines together."""

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
    """A function that gives out tokens, and counts how often it was asked."""

    def __init__(self, *tokens: str) -> None:
        """Give out these, one after the other."""
        self._tokens = list(tokens)
        self.asked = 0

    def __call__(self) -> str:
        """Return the next token."""
        self.asked += 1
        return self._tokens.pop(0)


def web_token(**claims: object) -> str:
    """Return a JSON web token with these claims; nobody signed it."""
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{body}.signature"


def keeper_of(source: Any) -> TokenKeeper:  # noqa: ANN401 -- a string, a function or None
    """Return a keeper of a token, or of the function that gives one."""
    return TokenKeeper(Bearer.of(source))


def with_token(source: Callable[[], str]) -> TokenKeeper:
    """Return a keeper that has got its first token."""
    keeper = keeper_of(source)
    keeper.renew_if_needed()
    return keeper


@given(TIMES, st.floats(0, 1e7))
def test_a_token_is_renewed_before_its_end_and_not_at_once(now: float, seconds: float) -> None:
    """Five minutes before, or a fifth of its life; never later than its end, but for one that lasts no second."""
    token = Token.with_lifetime("t", seconds, now)

    assert now + 1 <= token.renew_at <= max(token.expires_at, now + 1)
    assert token.expires_at - token.renew_at <= RENEW_BEFORE_S + 1e-3


@given(TIMES, st.integers(0, 10**10))
def test_a_web_token_tells_its_end(now: float, expires_at: int) -> None:
    """A function may return one, and it is asked again before that end."""
    token = Token.parse(web_token(sub="me", exp=expires_at), now)

    assert expires_at == pytest.approx(token.expires_at)
    assert token.renew_at >= now + 1


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1) | st.binary().map(repr))
def test_any_other_token_lasts(value: str) -> None:
    """What is no web token has no end that we could know."""
    assert Token(value) == Token.parse(value, 0.0)


@pytest.mark.parametrize("exp", ["soon", None, True, [1], 1e300, {}])
def test_an_end_that_is_no_time_is_none(exp: object) -> None:
    """A claim of another type is not read."""
    value = web_token(exp=exp)

    assert Token(value) == Token.parse(value, 0.0)


def test_a_token_is_kept_as_it_is() -> None:
    """A string is never renewed: after a 401 there is no other to try."""
    keeper = keeper_of(SECRET)

    assert [False, SECRET] == [keeper.needs_renewal(time.time()), keeper.token]
    assert [False, SECRET] == [keeper.replace(SECRET), keeper.token]


def test_no_token_stays_no_token() -> None:
    """Who asks without one goes on so."""
    keeper = keeper_of(None)

    assert [False, False, None] == [keeper.needs_renewal(time.time()), keeper.replace(None), keeper.token]


def test_a_function_is_asked_once_for_many_requests() -> None:
    """A hundred requests that start together, in many threads, share the first token."""
    source = Source("first")
    keeper = keeper_of(source)
    with ThreadPoolExecutor(20) as threads:
        for each in [threads.submit(keeper.renew_if_needed) for _ in range(100)]:
            each.result()

    assert ("first", 1) == (keeper.token, source.asked)


def test_a_refused_token_is_replaced_once_for_all_who_had_it() -> None:
    """A hundred 401s of one token cost one renewal, and all of them have the new token."""
    source = Source("first", "second")
    keeper = with_token(source)
    with ThreadPoolExecutor(20) as threads:
        replaced = [each.result() for each in [threads.submit(keeper.replace, "first") for _ in range(100)]]

    assert ([True] * 100, "second", 2) == (replaced, keeper.token, source.asked)


def test_a_token_that_never_worked_is_replaced_once() -> None:
    """Who is refused with two new tokens in a row is refused for good."""
    source = Source("first", "second", "third")
    keeper = with_token(source)

    assert [True, False, 2] == [keeper.replace("first"), keeper.replace("second"), source.asked]


def test_a_token_that_worked_is_replaced_again() -> None:
    """A job may outlive many tokens, as long as each brings an answer before it ends."""
    source = Source("first", "second", "third")
    keeper = with_token(source)
    keeper.replace("first")
    keeper.record_success("first")  # an answer that was under way says nothing of the second

    assert not keeper.replace("second")
    keeper.record_success("second")
    assert keeper.replace("second")
    assert "third" == keeper.token


def test_after_a_renewal_in_vain_it_takes_a_decisive_refusal() -> None:
    """What was asked may be why: a token is replaced again only where all would be refused, and then as ever."""
    keeper = with_token(Source("first", "second", "third", "fourth"))
    replaced = [keeper.replace("first", decisive=False)]
    keeper.record_futile_renewal()
    keeper.record_success("second")
    replaced += [keeper.replace("second", decisive=decisive) for decisive in (False, True)]
    keeper.record_success("third")

    assert [True, False, True, True] == [*replaced, keeper.replace("third", decisive=False)]


def test_a_token_that_comes_back_the_same_is_no_renewal() -> None:
    """A function that has nothing new says so, and the request is not sent again."""
    assert not with_token(Source("first", "first")).replace("first")


def test_a_renewal_that_fails_is_forgiven_while_the_old_token_is_good() -> None:
    """The login server may be down for a moment: it is asked again later, and no row notices."""
    expires_at = time.time() + 2 * RENEW_BEFORE_S
    first = web_token(exp=expires_at)
    source = Source(first)
    keeper = with_token(source)
    keeper._token = keeper._token._replace(renew_at=0.0)  # noqa: SLF001 -- the time has come

    keeper.renew_if_needed()  # raises in `Source`, which has no further token

    assert (first, 2) == (keeper.token, source.asked)
    assert not keeper.needs_renewal(time.time())
    assert keeper.needs_renewal(time.time() + RENEWAL_RETRY_S + 1)


def test_without_a_good_token_a_failure_is_told() -> None:
    """The first token, and one whose time is over, cannot be done without."""
    ended = with_token(Source(web_token(exp=time.time() - 9)))
    ended._token = ended._token._replace(renew_at=0.0)  # noqa: SLF001 -- as if the second after it had passed

    for keeper in (keeper_of(Source()), ended):
        with pytest.raises(SignInError) as raised:
            keeper.renew_if_needed()
        assert "unauthorized" == raised.value.failure.error.kind


@pytest.mark.parametrize("token", [f"{SECRET}\n", "", None, 7, len])
def test_what_a_function_returns_is_checked(token: Any) -> None:  # noqa: ANN401 -- every wrong type
    """Only a token that a header can hold is sent; anything else is an error that does not print it."""
    with pytest.raises(SignInError, match=r" Hint: .+\.$") as raised:
        keeper_of(lambda: token).renew_if_needed()

    assert ("unauthorized", False) == (raised.value.failure.error.kind, raised.value.failure.error.retryable)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("error", [OSError, SystemExit, CancelledError])
def test_a_function_that_raises_is_named(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """The row's error has its type; its text may hold the secret, and goes to the log at DEBUG alone."""

    def broken() -> str:
        raise error(f"no vault at https://me:{SECRET}@host")

    caplog.set_level("DEBUG", "spark_llm.auth")
    with pytest.raises(SignInError, match=rf"The token function raised {error.__name__}\. Hint: .+\.$") as raised:
        keeper_of(broken).renew_if_needed()

    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert [("spark_llm.auth", 10)] == [(each.name, each.levelno) for each in caplog.records]
    assert SECRET in caplog.text


def test_a_renewal_that_fails_late_is_tried_at_the_end_of_the_token() -> None:
    """The next try is never later than the end of the old token: only one that has ended blocks requests."""
    source = Source(web_token(exp=time.time() + RENEWAL_RETRY_S / 2))
    keeper = with_token(source)
    keeper._token = keeper._token._replace(renew_at=0.0)  # noqa: SLF001 -- as if the time to renew had come
    keeper.renew_if_needed()

    assert 2 == source.asked
    assert not keeper.needs_renewal(time.time())
    assert keeper.needs_renewal(keeper.expires_at)


def test_engines_that_ask_together_wait_for_one() -> None:
    """While one thread gets the token, others wait for it and do not get their own."""
    entered, gate = threading.Event(), threading.Event()
    asked = []

    def slow() -> str:
        asked.append(1)
        entered.set()
        return "late" if gate.wait(10) else "never let go"

    keeper = keeper_of(slow)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(keeper.renew_if_needed)
        entered.wait(10)
        second = threads.submit(keeper.renew_if_needed)
        gate.set()
        first.result()
        second.result()

    assert ("late", [1]) == (keeper.token, asked)
