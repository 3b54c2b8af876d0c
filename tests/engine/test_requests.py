"""What rows say of the requests that were sent for them, against what the server counted; no Spark."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.auth.credentials import ClientCredentials
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Field, Scalar, Struct
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Item, Result
from spark_llm.serving import After, Faults, LocalEndpoints
from tests.support.asking import ask, distinct, engine, engine_at, kinds
from tests.support.raw_server import RawServer, post
from tests.support.reply_model import ReplyModel

EMBED, COMPLETE = Embed(), Complete()
TYPED = Chat(output=StructuredOutput("review", Struct((Field("stars", Scalar("integer")),))))


def requests(results: Sequence[Result | None]) -> list[int]:
    """Return how many requests each row accounts for; a null for none."""
    return [0 if result is None else result.requests for result in results]


@pytest.mark.waits
@pytest.mark.parametrize("faults", ["", "429*2 503 ok cut", "ok 500 garbage html", "503@0.05 ok*3 half"])
@pytest.mark.parametrize(("name", "task"), [("chat", Chat()), ("complete", COMPLETE), ("embed", EMBED)])
def test_the_sum_over_the_rows_is_what_the_server_counted(
    name: str, task: Task, faults: str, endpoints: LocalEndpoints
) -> None:
    """Every attempt is counted once, whichever rows it carried; nulls and equal rows count nothing."""
    endpoints.faults = Faults(faults)
    rows: list[Item | None] = [*distinct(90), None, *distinct(40)]
    results = ask(engine(endpoints, name, task=task), [rows], task)

    assert [None] * len(rows) == kinds(results)
    assert endpoints.stats.requests == sum(requests(results))
    assert [0] * 41 == requests(results)[90:]


def test_a_batch_is_one_request(endpoints: LocalEndpoints) -> None:
    """The first row of a batch accounts for it, and the others for nothing."""
    results = ask(engine(endpoints, "embed", task=EMBED), [distinct(128)], EMBED)

    assert [1, *[0] * 63] * 2 == requests(results)
    assert 2 == endpoints.stats.requests


@pytest.mark.waits
def test_halves_of_a_refused_batch_are_counted(endpoints: LocalEndpoints) -> None:
    """Bad inputs among good ones: the search for them is in the sum."""
    endpoints.faults = Faults(poison="cyanide")
    rows: list[Item | None] = [f"cyanide {row}" if row in (3, 70, 71) else f"row {row}" for row in range(200)]
    results = ask(engine(endpoints, "embed", task=EMBED), [rows], EMBED)

    assert 3 == sum(kind is not None for kind in kinds(results))
    assert 20 < endpoints.stats.requests == sum(requests(results))


def test_the_duplicates_of_a_failed_row_count_their_own(endpoints: LocalEndpoints) -> None:
    """A row that is sent after all, because an equal one failed, accounts for its own request."""
    endpoints.faults = Faults(poison="cyanide")
    results = ask(engine(endpoints), [["a", "cyanide", "b", "cyanide", "b"]])

    assert [1, 1, 1, 1, 0] == requests(results)
    assert 4 == endpoints.stats.requests


def test_a_reask_is_counted() -> None:
    """An answer that did not fit, and the one after it, are two requests; so is a row that never fits."""
    with LocalEndpoints({"chat": ReplyModel(lambda request: '{"stars": "three"}')}) as endpoints:
        results = ask(engine(endpoints, policy=Policy(reask=2), task=TYPED), [["a", "b", "a"]], TYPED)
        counted = endpoints.stats.requests

    assert ["schema_mismatch"] * 3 == kinds(results)
    assert [3, 3, 3] == requests(results)
    assert 9 == counted


def test_the_request_after_a_new_token_is_counted(endpoints: LocalEndpoints) -> None:
    """A request that is refused for its token is one, and so is the one with the new token."""
    tokens = iter(["stale", endpoints.token])
    results = ask(engine_at(Endpoint(endpoints.invocations("chat"), token=lambda: next(tokens))), [["a", "b"]])

    assert endpoints.stats.requests == sum(requests(results)) == 3


def test_tokens_that_end_are_counted() -> None:
    """Tokens that are good for a few requests each, and are renewed: every refusal is in the sum."""
    with LocalEndpoints(issued_tokens_expire=After(requests=20)) as endpoints:
        login = ClientCredentials(
            endpoints.client_id, endpoints.client_secret, token_url=f"{endpoints.url}/oidc/v1/token"
        )
        results = ask(engine_at(Endpoint(endpoints.invocations("chat"), token=login)), [distinct(70)])

        assert [None] * 70 == kinds(results)
        assert 70 < endpoints.stats.requests == sum(requests(results))


def test_an_unsent_row_counts_nothing(endpoints: LocalEndpoints) -> None:
    """Where three refusals end the task the other rows have their error, and no request."""
    results = ask(engine(endpoints, "nobody"), [distinct(50)])

    assert [*[0] * 47, 1, 1, 1] == sorted(requests(results))


def test_without_a_token_nothing_was_sent(endpoints: LocalEndpoints) -> None:
    """A sign-in that fails sends no request; the row's attempts do not count as one."""

    def broken() -> str:
        raise LookupError("no vault")

    results = ask(engine_at(Endpoint(endpoints.invocations("chat"), token=broken)), [["a", "b"]])

    assert [0, 0] == requests(results)
    assert 0 == endpoints.stats.requests


def test_an_answer_from_the_cache_counts_nothing(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """A row that was answered in another task is not sent again."""
    policy = Policy(cache=str(tmp_path))
    first = ask(engine(endpoints, policy=policy), [["a", "b"]])
    second = ask(engine(endpoints, policy=policy), [["a", "b", "c"]])

    assert ([1, 1], [0, 0, 1]) == (requests(first), requests(second))
    assert 3 == endpoints.stats.requests


def test_a_redirect_takes_no_credential_to_another_host() -> None:
    """It is not followed: the other host gets no request, and each row names the address that it leads to."""
    other = RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    server = RawServer(f"HTTP/1.1 307 Moved\r\nLocation: {other.url}/v1\r\nContent-Length: 0\r\n\r\n".encode())
    endpoint = Endpoint(f"{server.url}/v1", model="m", token="dapi-s3cret", headers={"X-Key": "s3cret"})
    [result] = ask(engine_at(endpoint, Policy(max_tries=1)), [["row"]])
    assert result is not None
    assert result.error is not None

    assert ("not_found", 307) == (result.error.kind, result.error.status)
    assert f"(redirects to {other.url}/v1)" in result.error.message
    assert b"dapi-s3cret" in server.received
    assert b"" == other.received
    server.close()
    post(other.url)  # so that it can close
    other.close()
