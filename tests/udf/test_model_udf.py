"""A UDF before there is a session: what is refused where it is built, and how it travels."""

import pickle
import threading
from collections.abc import Callable
from functools import partial

import pytest
from pyspark import cloudpickle

from spark_llm import ConfigError, Endpoint, chat_udf, preflight
from spark_llm.auth.credentials import Bearer

URL = "http://127.0.0.1:9/v1"


class Client:
    """What a user signs in with: it holds a lock, which no process can hand to another."""

    def __init__(self) -> None:
        """Make the lock."""
        self.lock = threading.Lock()

    def token(self) -> str:
        """Return a token."""
        with self.lock:
            return "token"

    def __call__(self) -> str:
        """Return a token."""
        return self.token()


class Sealed:
    """A token function that says a secret when it is pickled."""

    def __call__(self) -> str:
        """Return a token."""
        return "token"

    def __reduce__(self) -> str:
        """Refuse to be pickled."""
        raise ValueError("dapi-secret")


def of_client(client: Client) -> str:
    """Return a client's token."""
    return client.token()


def bound(client: Client) -> Callable[[], str]:
    """Return a function that holds a client."""
    return lambda: f"{client.token()}"


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (Client().token, r"Client\.token"),
        (Client(), "Client"),
        (bound(Client()), r"bound\.<locals>\.<lambda>"),
        (partial(of_client, Client()), "partial"),
        (Bearer.of(Client().token), r"Client\.token"),
    ],
    ids=["a method", "an object", "a lambda", "a partial", "a bearer"],
)
def test_a_token_function_that_cannot_travel_is_refused_where_the_udf_is_built(
    token: Callable[[], str] | Bearer, name: str
) -> None:
    """It is named, with what in it cannot be pickled and the next step; no session is needed to find out."""
    endpoint = Endpoint(URL, model="m", token=token)

    with pytest.raises(ConfigError, match=rf"function {name} cannot be sent .*'_thread\.lock' object.* Hint: .+\.$"):
        chat_udf(endpoint)


def test_a_secret_in_the_reason_is_not_repeated() -> None:
    """Only Python's own words on why something cannot be pickled are shown."""
    with pytest.raises(ConfigError, match=r"function Sealed cannot be sent to the workers \(ValueError\)\."):
        chat_udf(Endpoint(URL, model="m", token=Sealed()))


@pytest.mark.parametrize("token", [lambda: "token", partial(str, "token"), "token", None])
def test_what_spark_can_pickle_is_no_trouble(token: Callable[[], str] | str | None) -> None:
    """Spark's pickler sends lambdas by value, which Python's own cannot."""
    assert "chat" == chat_udf(Endpoint(URL, model="m", token=token)).task


def test_a_udf_can_be_pickled() -> None:
    """Functions of a streaming query on Connect take their UDFs along; the copy asks the same."""
    udf = chat_udf(Endpoint(URL, model="m", token="token"), returns="mood STRING", template="{a}")
    sent: bytes = cloudpickle.dumps(udf)  # type: ignore[no-untyped-call]  # PySpark gives it no types
    copy = pickle.loads(sent)  # noqa: S301 -- our own bytes

    assert repr(udf) == repr(copy)


def test_preflight_refuses_what_cannot_travel_to_an_executor() -> None:
    """A look from an executor takes the token there; one from the driver alone does not."""
    endpoint = Endpoint(URL, model="m", token=Client().token)

    with pytest.raises(ConfigError, match=r"Client\.token cannot be sent"):
        preflight(endpoint, spark=_Session())  # type: ignore[arg-type]  # nothing is asked of it


class _Session:
    def range(self) -> None:
        """Be there: a session has it."""
