"""An engine with a cache does not ask again for cached answers, and goes on without a folder that fails."""

import contextlib
import logging
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_llm import Endpoint, Policy
from spark_llm.cache.answer_cache import Cache, WriteBehindStore
from spark_llm.cache.entry import FORMAT, Keys
from spark_llm.cache.sqlite_store import Store
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.predictions.task import Predict
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Field, Scalar, Struct
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Item, Result, Usage
from spark_llm.serving import Faults, LocalEndpoints
from tests.conftest import ROOT
from tests.support.asking import CHAT, ask, distinct, engine, engine_at, kinds, texts
from tests.support.keeping import files, key

SAMPLED = Chat(parameters=b'{"temperature":1.0}')


def results_of_a_task(
    endpoints: LocalEndpoints, folder: Path, rows: list[Item | None], task: Task = CHAT, policy: Policy = Policy()
) -> list[Result | None]:
    """Ask rows in a task of its own on a worker of its own, and return their results."""
    return ask(engine(endpoints, task.name, replace(policy, cache=folder), task), [rows], task)


def answers_of(results: list[Result | None]) -> list[object]:
    """Return the answers of results, without their cost."""
    return [
        result
        and (result.text, result.choices, result.embedding, result.finish_reason, result.model, result.request_id)
        for result in results
    ]


def total_tokens(results: list[Result | None]) -> int:
    """Return the sum of the rows' tokens."""
    return sum(result.usage.total_tokens or 0 for result in results if result is not None and result.usage is not None)


def warning_messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages of the warnings that were logged."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.waits
@pytest.mark.parametrize(
    "task",
    [CHAT, Chat(system="Be brief.", parameters=b'{"n":3}', n=3), Complete(), Embed()],
    ids=lambda task: task.name,
)
def test_a_cached_answer_is_not_asked_again(endpoints: LocalEndpoints, tmp_path: Path, task: Task) -> None:
    """A second task on another worker sends nothing, and its rows are the same; nulls are null."""
    rows = [*distinct(100), None, "row 7", *distinct(3)]
    first = results_of_a_task(endpoints, tmp_path, rows, task)
    before = endpoints.stats.requests
    second = results_of_a_task(endpoints, tmp_path, rows, task)

    assert (True, 0) == (before > 0, endpoints.stats.requests - before)
    assert answers_of(first) == answers_of(second)
    assert [None] == [result for result in second if result is None or result.error is not None]


@pytest.mark.waits
def test_a_run_counts_the_tokens_that_it_was_billed(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """A cached row has 0 tokens and 0 attempts; the others have their cost."""
    bill = [total_tokens(results_of_a_task(endpoints, tmp_path, distinct(count))) for count in (30, 30, 50)]
    found, *_ = results_of_a_task(endpoints, tmp_path, distinct(1))

    assert [30 * 4, 0, 20 * 4] == bill
    assert 50 == endpoints.stats.requests
    assert found is not None
    assert (Usage(0, 0, 0), 0, None) == (found.usage, found.attempts, found.latency_ms)


def test_the_file_has_the_original_usage(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """The file has the tokens that an answer was billed when it was asked."""
    results_of_a_task(endpoints, tmp_path, ["three words here"])
    [path] = files(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        [[answer]] = connection.execute("SELECT answer FROM answers")

    assert b'["three words here",null,"stop",[3,3,6,null,null,null,null,null,null],"echo",' in answer


def test_an_error_is_not_cached(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """Only answers are cached: a row that failed is asked again by the next task."""
    endpoints.faults = Faults("ok*9 400 ok*10")
    first = results_of_a_task(endpoints, tmp_path, distinct(20))
    again = results_of_a_task(endpoints, tmp_path, distinct(20))

    assert 1 == kinds(first).count("invalid_request")
    assert [None] * 20 == kinds(again)
    assert 21 == endpoints.stats.requests


def test_an_answer_to_a_duplicate_is_cached(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """If the first of several equal rows fails, the answer of another one is cached for all."""
    endpoints.faults = Faults("ok 400")
    rows: list[Item | None] = ["first", *["same"] * 3]
    first = results_of_a_task(endpoints, tmp_path, rows)
    before = endpoints.stats.requests

    assert 1 == kinds(first).count("invalid_request")
    assert ["first", "same", "same", "same"] == texts(results_of_a_task(endpoints, tmp_path, rows))
    assert before == endpoints.stats.requests


def test_an_answer_cut_by_max_tokens_is_cached(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """The same request would be cut again; the cached row has the finish reason "length"."""
    task = Chat(parameters=b'{"max_tokens":2}')
    rows: list[Item | None] = ["one two three"]
    results_of_a_task(endpoints, tmp_path, rows, task)
    [found] = results_of_a_task(endpoints, tmp_path, rows, task)

    assert found is not None
    assert ("one two", "length", 1) == (found.text, found.finish_reason, endpoints.stats.requests)


STARS = Chat(output=StructuredOutput("review", Struct((Field("stars", Scalar("byte")),))))


@pytest.mark.parametrize(
    ("task", "item", "text", "fits"),
    [
        (STARS, "Why?", '{"stars": 300}', False),
        (STARS, "Why?", '{"stars": 3}', True),
        (Chat(answer_only=True), "Why?", "<think>So", False),
        (Predict(Scalar("byte")), b"[1]", "300", False),
        (Predict(Scalar("byte")), b"[1]", "3", True),
    ],
)
def test_an_answer_that_the_task_cannot_read_is_asked_again(
    tmp_path: Path, task: Task, item: Item, text: str, *, fits: bool
) -> None:
    """It was kept under another reading; its row would have an error for as long as the entry lives."""
    keys = Keys(task, "https://host/v1/chat/completions", "m")
    store = WriteBehindStore(str(tmp_path))
    store.keep([(keys.of(item) or b"", Result(text))])
    store.close()
    with contextlib.closing(Cache(str(tmp_path), keys)) as cache:
        to_ask, found = cache.find([(7, item)])

    assert ([], [7]) == (to_ask, [number for number, _ in found]) if fits else ([(7, item)], []) == (to_ask, found)


@pytest.mark.waits
def test_cached_embeddings_are_found_whatever_the_batch_size(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """Vectors of batches of 7 are found by a task with batches of 64."""
    task = Embed()
    first = results_of_a_task(endpoints, tmp_path, distinct(50), task, Policy(batch_size=7))
    before = endpoints.stats.requests
    second = results_of_a_task(endpoints, tmp_path, [*reversed(distinct(60))], task)

    assert answers_of(first) == answers_of(second)[:9:-1]
    assert 1 == endpoints.stats.requests - before
    assert 60 == endpoints.stats.rows_answered


@pytest.mark.parametrize(
    ("task", "dedupe", "requests"), [(CHAT, None, 1), (CHAT, True, 1), (SAMPLED, None, 4), (SAMPLED, True, 1)]
)
def test_sampled_answers_are_cached_only_with_dedupe(
    endpoints: LocalEndpoints, tmp_path: Path, task: Task, requests: int, *, dedupe: bool | None
) -> None:
    """The rule is that of equal rows: an answer that may serve another row may serve another task."""
    for _ in range(2):
        results_of_a_task(endpoints, tmp_path, ["a", "a"], task, Policy(dedupe=dedupe))

    assert requests == endpoints.stats.requests
    assert (requests == 1) == bool(files(tmp_path))


@pytest.mark.parametrize(("query", "headers"), [("?variant=b", {}), ("", {"X-Variant": "b"})])
def test_another_query_or_header_is_another_request(
    endpoints: LocalEndpoints, tmp_path: Path, query: str, headers: dict[str, str]
) -> None:
    """Two endpoints that differ in the query or in a header share no answers."""
    one = Endpoint(endpoints.invocations("chat"), token=endpoints.token)
    other = Endpoint(endpoints.invocations("chat") + query, token=endpoints.token, headers=headers)
    for each in (one, other, one, other):
        ask(engine_at(each, Policy(cache=tmp_path)), [["a"]])

    assert 2 == endpoints.stats.requests


def test_a_renewed_token_finds_the_cached_answers(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """The token is not part of the key, and cached rows need none."""
    for token in (endpoints.token, "another"):
        endpoint = Endpoint(endpoints.invocations("chat"), token=token)
        assert ["a"] == texts(ask(engine_at(endpoint, Policy(cache=tmp_path)), [["a"]]))

    assert 1 == endpoints.stats.requests


def test_the_files_hold_no_secret_and_no_input(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """Of a request the files hold a hash only: no token, header, query, parameter or prompt."""
    secrets = {name: f"5ecret-{name}" for name in ("header", "query", "parameter", "input")} | {
        "token": endpoints.token
    }
    endpoint = Endpoint(
        f"{endpoints.invocations('embed')}?sig={secrets['query']}",
        token=secrets["token"],
        headers={"X-Key": secrets["header"]},
    )
    task = Embed(parameters=b'{"user":"%s"}' % secrets["parameter"].encode())
    with contextlib.closing(Store(tmp_path)):  # an open cache has a write-ahead log
        ask(engine_at(endpoint, Policy(cache=tmp_path), task), [[f"{secrets['input']} {n}" for n in range(50)]], task)
        contents = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    contents |= {f"{file.name} after closing": file.read_bytes() for file in tmp_path.iterdir()}

    assert 6 == len(contents)
    assert b"echo" in b"".join(contents.values())  # the answers are there
    assert [] == [
        (name, file) for file, content in contents.items() for name, word in secrets.items() if word.encode() in content
    ]


def test_answers_that_nobody_read_are_cached(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """If the reader of a stream stops, the answers that it did not read are in the cache."""
    endpoints.hold("held")
    rows = [*distinct(20), "held"]
    stream = engine(endpoints, policy=Policy(cache=tmp_path, max_in_flight=1)).stream(CHAT, iter([rows]))
    next(chunk for chunk in stream if chunk)
    endpoints.wait_for(lambda stats: (stats.rows_answered, stats.in_flight) == (20, 1))
    stream.close()  # type: ignore[attr-defined]
    endpoints.release()

    assert rows == texts(results_of_a_task(endpoints, tmp_path, rows))
    assert 20 + 2 == endpoints.stats.requests


def test_answers_of_a_failed_task_are_cached(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """After an input that broke off, the second attempt of the task asks only for the new rows."""

    def broken() -> Iterator[list[Item | None]]:
        yield distinct(20)
        endpoints.wait_for(lambda stats: stats.rows_answered == 20)
        raise LookupError("upstream")

    worker = engine(endpoints, policy=Policy(cache=tmp_path, max_in_flight=1))
    with pytest.raises(LookupError):
        ask(worker, broken())
    before = endpoints.stats.requests
    results = results_of_a_task(endpoints, tmp_path, distinct(30))

    assert distinct(30) == texts(results)
    assert endpoints.stats.requests - before in (10, 11)  # one answer may have been on its way


@pytest.mark.waits
def test_without_a_cache_sqlite_is_not_imported() -> None:
    """The engine imports neither SQLite nor the cache."""
    unwanted = ("sqlite3", "spark_llm.cache.answer_cache")
    program = f"import sys, spark_llm.engine.engine; print([name for name in sys.modules if name in {unwanted}])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "[]\n" == done.stdout


@contextlib.contextmanager
def blocked_by_a_file(folder: Path) -> Iterator[None]:
    """Put a file where the folder would be."""
    folder.write_text("")
    yield


@contextlib.contextmanager
def blocked_by_a_folder(folder: Path) -> Iterator[None]:
    """Put a folder where the cache file would be."""
    (folder / f"answers-{FORMAT}-1.sqlite3").mkdir(parents=True)
    yield


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the file, so that nobody else can write."""
    Store(folder).close()
    [path] = files(folder)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.waits
@pytest.mark.parametrize(
    "trouble", [blocked_by_a_file, blocked_by_a_folder, pytest.param(locked, marks=pytest.mark.slow)]
)
def test_an_unusable_folder_costs_one_warning_and_no_row(
    endpoints: LocalEndpoints,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    trouble: Callable[[Path], AbstractContextManager[None]],
) -> None:
    """Every row is asked as without a cache, and one warning names the next step."""
    folder = tmp_path / "cache"
    with trouble(folder):
        results = results_of_a_task(endpoints, folder, distinct(100))

    assert distinct(100) == texts(results)
    assert 100 == endpoints.stats.requests
    [warning] = warning_messages(caplog)
    assert str(folder) in warning
    assert " Hint: " in warning
    assert endpoints.token not in caplog.text


@pytest.mark.waits
def test_after_damage_the_process_goes_on_without_a_cache(
    endpoints: LocalEndpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is moved aside, one warning has its new path, and every later row of this process is asked."""
    results_of_a_task(endpoints, tmp_path, distinct(200))
    [path] = files(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:4_096] + b"\xff" * (len(content) - 4_096))
    for _ in range(2):
        assert distinct(200) == texts(results_of_a_task(endpoints, tmp_path, distinct(200)))

    assert 600 == endpoints.stats.requests
    [warning] = warning_messages(caplog)
    assert f"{path} is damaged" in warning
    assert f"was moved to {path}.corrupt. " in warning
    assert [Path(f"{path}.corrupt")] == files(tmp_path)


NEXT_PROCESS = """
import sys
from spark_llm.cache.answer_cache import WriteBehindStore
from spark_llm.protocol.values import Result
for text in (None, "kept"):
    store = WriteBehindStore(sys.argv[1])
    assert text == store.find([b"a" * 32]).get(b"a" * 32, Result()).text
    store.keep([(b"a" * 32, Result(text="kept"))])
    store.close()
"""


def test_the_next_process_begins_a_new_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """This process has found the damage and uses the folder no more; another one uses a new file there."""
    (tmp_path / f"answers-{FORMAT}-1.sqlite3").write_bytes(b"damaged")
    store = WriteBehindStore(str(tmp_path))
    assert {} == store.find([key(1)])
    store.close()
    subprocess.run(
        [sys.executable, "-c", NEXT_PROCESS, str(tmp_path)], env={**os.environ, "PYTHONPATH": ROOT}, check=True
    )
    store = WriteBehindStore(str(tmp_path))

    assert {} == store.find([b"a" * 32])
    store.close()
    assert 1 == len(warning_messages(caplog))
    assert ["answers-1-1.sqlite3", "answers-1-1.sqlite3.corrupt"] == [file.name for file in files(tmp_path)]


def test_a_deleted_folder_is_created_again(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """Later answers are cached, and no row fails."""
    folder = tmp_path / "cache"
    later: list[Item | None] = [f"later {number}" for number in range(50)]

    def deleting() -> Iterator[list[Item | None]]:
        yield distinct(50)
        endpoints.wait_for(lambda stats: stats.rows_answered == 50)
        shutil.rmtree(folder, ignore_errors=True)  # a file may be gone, or come, in this moment
        yield later

    results = ask(engine(endpoints, policy=Policy(cache=folder)), deleting())
    again = results_of_a_task(endpoints, folder, later)

    assert [*distinct(50), *later] == texts(results)
    assert later == texts(again)
    assert 100 == endpoints.stats.requests


LIMITED = """
import logging, resource, sys
from spark_llm.cache.answer_cache import WriteBehindStore
from spark_llm.protocol.values import Result
logging.basicConfig(format="%(message)s")
store = WriteBehindStore(sys.argv[1], flush_interval_s=0.01)
store.keep([(b"a" * 32, Result(text="kept"))])
store.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store = WriteBehindStore(sys.argv[1], flush_interval_s=0.01)
assert "kept" == store.find([b"a" * 32])[b"a" * 32].text
store.keep([(number.to_bytes(32, "big"), Result(text="x" * 1_000)) for number in range(1_000)])
store.close()
store.keep([(b"b" * 32, Result(text="late"))])
store = WriteBehindStore(sys.argv[1], flush_interval_s=0.01)
print(store.find([b"a" * 32])[b"a" * 32].text)
store.close()
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="this system does not limit files")
def test_a_full_disk_costs_one_warning(tmp_path: Path) -> None:
    """Earlier answers are still found."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert "kept\n" == done.stdout
    assert 1 == done.stderr.count("Hint:"), done.stderr


@pytest.mark.waits
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.lists(st.integers(0, 20), max_size=8), max_size=8))
def test_a_task_finds_the_answers_of_those_before(tmp_path: Path, rounds: list[list[int]]) -> None:
    """Each task finds every answer that earlier ones kept, and no other."""
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    known: dict[bytes, Result] = {}
    for numbers in rounds:
        store = WriteBehindStore(str(folder), flush_interval_s=0.001)
        found = store.find([key(number) for number in range(21)])
        answers = {key(number): Result(text=f"answer {number}", usage=Usage(1, 2, 3)) for number in numbers}
        store.keep(answers.items())
        store.close()

        assert known == found
        known |= answers


def test_answers_are_written_while_the_task_runs(tmp_path: Path) -> None:
    """Another process finds an answer before the task that kept it has ended."""
    writer, reader = WriteBehindStore(str(tmp_path), flush_interval_s=0.01), WriteBehindStore(str(tmp_path))
    writer.keep([(key(1), Result(text="answer"))])
    deadline = time.monotonic() + 10
    while not (found := reader.find([key(1)])):
        assert time.monotonic() < deadline
    writer.close()
    reader.close()

    assert {key(1): Result(text="answer")} == found
