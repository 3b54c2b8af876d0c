"""A UDF before there is a session: errors when it is built, and pickling."""

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
    """A client that holds a lock, which cannot be pickled."""

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


class LeakyToken:
    """A token function whose pickling error quotes a secret."""

    def __call__(self) -> str:
        """Return a token."""
        return "token"

    def __reduce__(self) -> str:
        """Refuse to be pickled."""
        raise ValueError("dapi-secret")


def token_of(client: Client) -> str:
    """Return a client's token."""
    return client.token()


def closure_over(client: Client) -> Callable[[], str]:
    """Return a function that holds a client."""
    return lambda: f"{client.token()}"


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (Client().token, r"Client\.token"),
        (Client(), "Client"),
        (closure_over(Client()), r"closure_over\.<locals>\.<lambda>"),
        (partial(token_of, Client()), "partial"),
        (Bearer.of(Client().token), r"Client\.token"),
    ],
    ids=["a method", "an object", "a lambda", "a partial", "a bearer"],
)
def test_an_unpicklable_token_function_raises_when_the_udf_is_built(
    token: Callable[[], str] | Bearer, name: str
) -> None:
    """The message names the function, the object that cannot be pickled and the next step; no session is needed."""
    endpoint = Endpoint(URL, model="m", token=token)

    with pytest.raises(ConfigError, match=rf"function {name} cannot be sent .*'_thread\.lock' object.* Hint: .+\.$"):
        chat_udf(endpoint)


def test_a_secret_in_the_pickling_error_does_not_print() -> None:
    """The message quotes only Python's own errors."""
    with pytest.raises(ConfigError, match=r"function LeakyToken cannot be sent to the workers \(ValueError\)\."):
        chat_udf(Endpoint(URL, model="m", token=LeakyToken()))


@pytest.mark.parametrize("token", [lambda: "token", partial(str, "token"), "token", None])
def test_lambdas_and_partials_can_be_token_functions(token: Callable[[], str] | str | None) -> None:
    """Spark's pickler sends lambdas by value; Python's own pickler cannot."""
    assert "chat" == chat_udf(Endpoint(URL, model="m", token=token)).task


def test_a_udf_can_be_pickled() -> None:
    """Functions of a streaming query on Connect hold UDFs; the unpickled copy has the same request spec."""
    udf = chat_udf(Endpoint(URL, model="m", token="token"), returns="mood STRING", template="{a}")
    sent: bytes = cloudpickle.dumps(udf)  # type: ignore[no-untyped-call]  # PySpark gives it no types
    copy = pickle.loads(sent)  # noqa: S301 -- our own bytes

    assert repr(udf) == repr(copy)


def test_preflight_refuses_an_unpicklable_token_function() -> None:
    """Checks on an executor send the token function there; checks on the driver alone do not."""
    endpoint = Endpoint(URL, model="m", token=Client().token)

    with pytest.raises(ConfigError, match=r"Client\.token cannot be sent"):
        preflight(endpoint, spark=_Session())  # type: ignore[arg-type]  # its methods are not called


class _Session:
    def range(self) -> None:
        """Exist, as a session's method does."""
