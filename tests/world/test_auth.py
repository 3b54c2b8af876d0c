"""Who is asking: which token goes where, and how a worker keeps it fresh."""

import asyncio
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from spark_llm.auth import Bearer, TokenKeeper, from_environment, host_url, is_databricks
from spark_llm.errors import ConfigError

SECRET = "dapi-s3cret"
ENVIRON = {"DATABRICKS_TOKEN": "of databricks", "OPENAI_API_KEY": "of openai"}
DATABRICKS_URLS = [
    "https://adb-984752964297111.11.azuredatabricks.net/serving-endpoints/e/invocations",
    "https://adb-1.2.databricks.azure.us/serving-endpoints/e/invocations",
    "https://adb-1.2.databricks.azure.cn/serving-endpoints/e/invocations",
    "https://dbc-a1b2.cloud.databricks.com/serving-endpoints/e/invocations",
    "https://dbc-a1b2.cloud.databricks.us/serving-endpoints/e/invocations",
    "https://dbc-a1b2.cloud.databricks.mil/serving-endpoints/e/invocations",
    "https://1234.5.gcp.databricks.com/serving-endpoints/e/invocations",
    "https://1a2b.serving.cloud.databricks.com/1234/serving-endpoints/e/invocations",
    "https://DBC-A1B2.Cloud.Databricks.COM:443/serving-endpoints/e/invocations",
]
STRANGERS = [
    "https://example.com/v1",
    "https://databricks.com.evil.net/invocations",
    "https://evil-databricks.com/invocations",
    "https://evilazuredatabricks.net/invocations",
    "https://adb-1.2.azuredatabricks.cn/invocations",
    "https://adb-1.2.azuredatabricks.us/invocations",
    "https://dbc-a1b2.cloud.databricks.evil/invocations",
    "https://evil.net/?host=x.cloud.databricks.com",
    "https://evil.net/x.cloud.databricks.com/invocations",
    "https://evil.net/#@x.cloud.databricks.com",
    "https://openai.com.evil.net/v1",
    "https://notopenai.com/v1",
    "https://x.openai.azure.com/openai",
    "http://127.0.0.1:8000/v1",
    "http://localhost/v1",
    "not a url",
    "",
]


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


@pytest.mark.parametrize("url", DATABRICKS_URLS)
def test_a_workspace_gets_its_token(url: str) -> None:
    """Every cloud's workspaces are known by their hosts."""
    assert "of databricks" == from_environment(url, ENVIRON)
    assert is_databricks(url)


def test_openai_gets_its_key() -> None:
    """And nobody else's."""
    assert "of openai" == from_environment("https://api.openai.com/v1", ENVIRON)
    assert "of openai" == from_environment("https://eu.api.openai.com/v1", ENVIRON)


@pytest.mark.parametrize("url", STRANGERS)
def test_a_stranger_gets_no_secret(url: str) -> None:
    """A host that only looks like one of ours is sent no token from the environment."""
    workspace = {"DATABRICKS_HOST": "https://adb-1.2.azuredatabricks.net"}

    assert [None, None] == [from_environment(url, ENVIRON), from_environment(url, ENVIRON | workspace)]
    assert not is_databricks(url)


@pytest.mark.parametrize("host", ["https://ml.corp.example", "ml.corp.example", "https://ml.corp.example/"])
def test_a_workspace_of_ones_own_name_gets_its_token(host: str) -> None:
    """Where DATABRICKS_HOST names it, the token goes there, and no further."""
    environ = ENVIRON | {"DATABRICKS_HOST": host}

    assert "of databricks" == from_environment("https://ml.corp.example/serving-endpoints/e/invocations", environ)
    assert None is from_environment("https://sub.ml.corp.example/e/invocations", environ)
    assert None is from_environment("https://corp.example/e/invocations", environ)


@pytest.mark.parametrize("environ", [{}, {"DATABRICKS_TOKEN": "", "OPENAI_API_KEY": ""}])
def test_an_empty_secret_is_none(environ: dict[str, str]) -> None:
    """A variable that is set to nothing holds nothing."""
    assert None is from_environment(DATABRICKS_URLS[0], environ)
    assert None is from_environment("https://api.openai.com/v1", environ)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("", ""),
        ("  ", ""),
        ("h", "https://h"),
        ("h/", "https://h"),
        (" https://h/ ", "https://h"),
        ("http://h:80//", "http://h:80"),
    ],
)
def test_a_host_is_written_in_many_ways(host: str, expected: str) -> None:
    """With a scheme or without, with a slash at the end or blanks around: it is one host."""
    assert expected == host_url(host)


@pytest.mark.parametrize("source", [SECRET, Source(SECRET)], ids=["a string", "a function"])
def test_a_bearer_does_not_print(source: Any) -> None:  # noqa: ANN401 -- a string or a function
    """It says that there is a token, and not which."""
    bearer = Bearer.of(source)

    assert ["'***'"] * 2 == [repr(bearer), str(bearer)]
    assert "None" == repr(Bearer.of(None))


def test_a_bearer_is_the_same_wherever_it_travels() -> None:
    """Copies are equal and one key; another token is another, and so is another function."""
    text, function = Bearer.of(SECRET), Bearer.of(Source(SECRET))
    copies = pickle.loads(pickle.dumps((text, function)))  # noqa: S301 -- our own bytes

    assert (text, function) == copies
    assert {text: 1, function: 2} == dict(zip(copies, (1, 2), strict=True))
    assert len({text, function, Bearer.of("another"), Bearer.of(Source(SECRET)), Bearer.of(None)}) == 5


@pytest.mark.parametrize(
    "token", ["", " ", f"{SECRET}\n", f" {SECRET}", f"{SECRET}\0", "dapi-é", "dapi\N{EM DASH}x", 7, b"dapi", ["x"]]
)
def test_a_token_that_no_header_can_hold_is_refused(token: Any) -> None:  # noqa: ANN401 -- every wrong type
    """At once, with a next step, and without printing it."""
    with pytest.raises(ConfigError, match=r" Hint: .+\.$") as raised:
        Bearer.of(token)

    assert SECRET not in str(raised.value)


def kept(source: Any, scene: Callable[[TokenKeeper], Any]) -> Any:  # noqa: ANN401 -- whatever the scene returns
    """Play a scene with a keeper on an event loop of its own."""

    async def play() -> Any:  # noqa: ANN401 -- whatever the scene returns
        return await scene(TokenKeeper(Bearer.of(source)))

    return asyncio.run(play())


def test_a_token_is_kept_as_it_is() -> None:
    """A string is never renewed: after a 401 there is no other to try."""

    async def scene(keeper: TokenKeeper) -> list[object]:
        return [await keeper.get(), await keeper.renewed(SECRET), await keeper.get()]

    assert [SECRET, False, SECRET] == kept(SECRET, scene)


def test_no_token_stays_no_token() -> None:
    """Who asks without one goes on so."""

    async def scene(keeper: TokenKeeper) -> list[object]:
        return [await keeper.get(), await keeper.renewed(None)]

    assert [None, False] == kept(None, scene)


def test_a_function_is_asked_once_for_many_requests() -> None:
    """A hundred requests that start together share the first token."""
    source = Source("first")

    async def scene(keeper: TokenKeeper) -> list[str | None]:
        return await asyncio.gather(*(keeper.get() for _ in range(100)))

    assert ["first"] * 100 == kept(source, scene)
    assert 1 == source.asked


def test_a_refused_token_is_renewed_once_for_all_who_had_it() -> None:
    """A hundred 401s of one token cost one renewal, and all of them have the new token."""
    source = Source("first", "second")

    async def scene(keeper: TokenKeeper) -> list[object]:
        first = await keeper.get()
        renewals = await asyncio.gather(*(keeper.renewed(first) for _ in range(100)))
        return [set(renewals), await keeper.get()]

    assert [{True}, "second"] == kept(source, scene)
    assert 2 == source.asked


def test_a_token_that_comes_back_the_same_is_no_renewal() -> None:
    """A function that has nothing new says so, and the request is not sent again."""

    async def scene(keeper: TokenKeeper) -> bool:
        return await keeper.renewed(await keeper.get())

    assert False is kept(Source("first", "first"), scene)


def test_asking_for_a_token_does_not_block_the_loop() -> None:
    """A function that takes its time holds up nobody: the loop goes on, and here it is what lets the function end."""
    gate = threading.Event()

    def slow() -> str:
        return "late" if gate.wait(10) else "the loop was blocked"

    async def scene(keeper: TokenKeeper) -> str | None:
        waiting = asyncio.ensure_future(keeper.get())
        await asyncio.sleep(0)
        gate.set()
        return await waiting

    assert "late" == kept(slow, scene)


@pytest.mark.parametrize("token", [f"{SECRET}\n", "", None, 7, len])
def test_what_a_function_returns_is_checked(token: Any) -> None:  # noqa: ANN401 -- every wrong type
    """Only a token that a header can hold is sent; anything else is an error that does not print it."""

    async def scene(keeper: TokenKeeper) -> str | None:
        return await keeper.get()

    with pytest.raises(ConfigError, match=r" Hint: .+\.$") as raised:
        kept(lambda: token, scene)

    assert SECRET not in str(raised.value)
