"""What was answered before is not asked again: the engine with a cache, and what may go wrong with its folder."""

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
from spark_llm.cache.answer_cache import Disk
from spark_llm.cache.entry import FORMAT
from spark_llm.cache.sqlite_store import Store
from spark_llm.protocol.chat import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Item, Result, Usage
from spark_llm.serving import Faults, LocalEndpoints
from tests.conftest import ROOT
from tests.support.asking import CHAT, ask, distinct, engine, engine_at, kinds, texts
from tests.support.keeping import files, key

DRAWN = Chat(parameters=b'{"temperature":1.0}')


def asked(
    endpoints: LocalEndpoints, folder: Path, rows: list[Item | None], task: Task = CHAT, policy: Policy = Policy()
) -> list[Result | None]:
    """Ask rows in a task of its own on a worker of its own."""
    return ask(engine(endpoints, task.name, replace(policy, cache=folder), task), [rows], task)


def plain(results: list[Result | None]) -> list[object]:
    """Return what results say, without what they cost now."""
    return [
        result
        and (result.text, result.choices, result.embedding, result.finish_reason, result.model, result.request_id)
        for result in results
    ]


def tokens(results: list[Result | None]) -> int:
    """Return the sum of the rows' tokens."""
    return sum(result.usage.total_tokens or 0 for result in results if result is not None and result.usage is not None)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was warned of."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "task",
    [CHAT, Chat(system="Be brief.", parameters=b'{"n":3}', n=3), Complete(), Embed()],
    ids=lambda task: task.name,
)
def test_what_was_answered_is_not_asked_again(endpoints: LocalEndpoints, tmp_path: Path, task: Task) -> None:
    """A second task on another worker sends nothing, and its rows say the same; nulls are null."""
    rows = [*distinct(100), None, "row 7", *distinct(3)]
    first = asked(endpoints, tmp_path, rows, task)
    before = endpoints.stats.requests
    second = asked(endpoints, tmp_path, rows, task)

    assert (True, 0) == (before > 0, endpoints.stats.requests - before)
    assert plain(first) == plain(second)
    assert [None] == [result for result in second if result is None or result.error is not None]


def test_the_tokens_of_a_run_are_those_that_it_was_billed(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """A row that was found carries zeros and no tries; the others carry what they cost."""
    bill = [tokens(asked(endpoints, tmp_path, distinct(count))) for count in (30, 30, 50)]
    found, *_ = asked(endpoints, tmp_path, distinct(1))

    assert [30 * 4, 0, 20 * 4] == bill
    assert 50 == endpoints.stats.requests
    assert found is not None
    assert (Usage(0, 0, 0), 0, None) == (found.usage, found.attempts, found.latency_ms)


def test_what_it_cost_is_kept(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """The file tells what an answer was billed when it was asked."""
    asked(endpoints, tmp_path, ["three words here"])
    [path] = files(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        [[answer]] = connection.execute("SELECT answer FROM answers")

    assert b'["three words here",null,"stop",[3,3,6,null,null],"echo",' in answer


def test_an_error_is_asked_again(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """Only what was answered is kept: a row that failed, or was cut before it began, may fare better next time."""
    endpoints.faults = Faults("ok*9 400 ok*10")
    first = asked(endpoints, tmp_path, distinct(20))
    again = asked(endpoints, tmp_path, distinct(20))

    assert 1 == kinds(first).count("invalid_request")
    assert [None] * 20 == kinds(again)
    assert 21 == endpoints.stats.requests


def test_a_twin_that_was_asked_after_all_is_kept(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """Where the row that asked for several failed, the answer of another one is kept for all."""
    endpoints.faults = Faults("ok 400")
    rows: list[Item | None] = ["first", *["same"] * 3]
    first = asked(endpoints, tmp_path, rows)
    before = endpoints.stats.requests

    assert 1 == kinds(first).count("invalid_request")
    assert ["first", "same", "same", "same"] == texts(asked(endpoints, tmp_path, rows))
    assert before == endpoints.stats.requests


def test_an_answer_that_was_cut_by_max_tokens_is_an_answer(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """The same request would be cut again: it is kept, and says so."""
    task = Chat(parameters=b'{"max_tokens":2}')
    rows: list[Item | None] = ["one two three"]
    asked(endpoints, tmp_path, rows, task)
    [found] = asked(endpoints, tmp_path, rows, task)

    assert found is not None
    assert ("one two", "length", 1) == (found.text, found.finish_reason, endpoints.stats.requests)


def test_embeddings_are_found_however_they_travelled(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """Which texts shared a request has no part in it: those of seven are found by requests of sixty-four."""
    task = Embed()
    first = asked(endpoints, tmp_path, distinct(50), task, Policy(batch_size=7))
    before = endpoints.stats.requests
    second = asked(endpoints, tmp_path, [*reversed(distinct(60))], task)

    assert plain(first) == plain(second)[:9:-1]
    assert 1 == endpoints.stats.requests - before
    assert 60 == endpoints.stats.rows_answered


@pytest.mark.parametrize(
    ("task", "dedupe", "requests"), [(CHAT, None, 1), (CHAT, True, 1), (DRAWN, None, 4), (DRAWN, True, 1)]
)
def test_where_chance_is_wanted_nothing_is_kept(
    endpoints: LocalEndpoints, tmp_path: Path, task: Task, requests: int, *, dedupe: bool | None
) -> None:
    """It is the rule of equal rows: an answer that may serve another row may serve another task."""
    for _ in range(2):
        asked(endpoints, tmp_path, ["a", "a"], task, Policy(dedupe=dedupe))

    assert requests == endpoints.stats.requests
    assert (requests == 1) == bool(files(tmp_path))


@pytest.mark.parametrize(("query", "headers"), [("?variant=b", {}), ("", {"X-Variant": "b"})])
def test_another_endpoint_is_another_request(
    endpoints: LocalEndpoints, tmp_path: Path, query: str, headers: dict[str, str]
) -> None:
    """What one was answered is not what another would say."""
    one = Endpoint(endpoints.invocations("chat"), token=endpoints.token)
    other = Endpoint(endpoints.invocations("chat") + query, token=endpoints.token, headers=headers)
    for each in (one, other, one, other):
        ask(engine_at(each, Policy(cache=tmp_path)), [["a"]])

    assert 2 == endpoints.stats.requests


def test_another_token_is_the_same_request(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """A renewed token finds what the old one was answered; found rows need none at all."""
    for token in (endpoints.token, "another"):
        endpoint = Endpoint(endpoints.invocations("chat"), token=token)
        assert ["a"] == texts(ask(engine_at(endpoint, Policy(cache=tmp_path)), [["a"]]))

    assert 1 == endpoints.stats.requests


def test_no_secret_and_no_input_is_in_the_files(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """Of a request the files hold a hash: no token, no header, no query, no parameter, no text that was asked."""
    secrets = {name: f"5ecret-{name}" for name in ("header", "query", "parameter", "input")} | {
        "token": endpoints.token
    }
    endpoint = Endpoint(
        f"{endpoints.invocations('embed')}?sig={secrets['query']}",
        token=secrets["token"],
        headers={"X-Key": secrets["header"]},
    )
    task = Embed(parameters=b'{"user":"%s"}' % secrets["parameter"].encode())
    with contextlib.closing(Store(tmp_path)):  # an open file is in parts
        ask(engine_at(endpoint, Policy(cache=tmp_path), task), [[f"{secrets['input']} {n}" for n in range(50)]], task)
        left = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    left |= {f"{file.name} in the end": file.read_bytes() for file in tmp_path.iterdir()}

    assert 4 == len(left)
    assert b"echo" in b"".join(left.values())  # the answers are there
    assert [] == [
        (name, where) for where, held in left.items() for name, word in secrets.items() if word.encode() in held
    ]


def test_a_reader_that_goes_has_paid_for_nothing_twice(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """What was answered when it went is kept, though it was never read."""
    endpoints.hold("held")
    rows = [*distinct(20), "held"]
    stream = engine(endpoints, policy=Policy(cache=tmp_path, max_in_flight=1)).stream(CHAT, iter([rows]))
    next(chunk for chunk in stream if chunk)
    endpoints.wait_for(lambda stats: (stats.rows_answered, stats.in_flight) == (20, 1))
    stream.close()  # type: ignore[attr-defined]
    endpoints.release()

    assert rows == texts(asked(endpoints, tmp_path, rows))
    assert 20 + 2 == endpoints.stats.requests


def test_a_failed_task_has_paid_for_nothing_twice(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """Where the input breaks off, the task that is tried again asks for what is new."""

    def broken() -> Iterator[list[Item | None]]:
        yield distinct(20)
        endpoints.wait_for(lambda stats: stats.rows_answered == 20)
        raise LookupError("upstream")

    worker = engine(endpoints, policy=Policy(cache=tmp_path, max_in_flight=1))
    with pytest.raises(LookupError):
        ask(worker, broken())
    before = endpoints.stats.requests
    results = asked(endpoints, tmp_path, distinct(30))

    assert distinct(30) == texts(results)
    assert endpoints.stats.requests - before in (10, 11)  # one answer may have been on its way


def test_without_a_cache_nothing_is_loaded() -> None:
    """Who asks for none pays for none: not even SQLite is imported."""
    unwanted = ("sqlite3", "spark_llm.cache.answer_cache")
    program = f"import sys, spark_llm.engine.engine; print([name for name in sys.modules if name in {unwanted}])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "[]\n" == done.stdout


@contextlib.contextmanager
def in_the_way(folder: Path) -> Iterator[None]:
    """A file stands where the folder would be."""
    folder.write_text("")
    yield


@contextlib.contextmanager
def not_ours(folder: Path) -> Iterator[None]:
    """Something else has the name of the file."""
    (folder / f"answers-{FORMAT}-1.sqlite3").mkdir(parents=True)
    yield


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Somebody holds the file, so that nobody else can write."""
    Store(folder).close()
    [path] = files(folder)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.waits
@pytest.mark.parametrize("trouble", [in_the_way, not_ours, locked])
def test_a_folder_that_cannot_be_used_costs_a_warning_and_no_row(
    endpoints: LocalEndpoints,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    trouble: Callable[[Path], AbstractContextManager[None]],
) -> None:
    """Every row is asked as without a cache, and one warning says what to do."""
    folder = tmp_path / "cache"
    with trouble(folder):
        results = asked(endpoints, folder, distinct(100))

    assert distinct(100) == texts(results)
    assert 100 == endpoints.stats.requests
    [warning] = warnings(caplog)
    assert str(folder) in warning
    assert " Hint: " in warning
    assert endpoints.token not in caplog.text


def test_a_damaged_file_is_moved_aside_and_begun_anew(
    endpoints: LocalEndpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows are asked again, once; one warning tells the file's new name."""
    asked(endpoints, tmp_path, distinct(200))
    [path] = files(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:4_096] + b"\xff" * (len(content) - 4_096))
    for _ in range(2):
        assert distinct(200) == texts(asked(endpoints, tmp_path, distinct(200)))

    assert 400 == endpoints.stats.requests
    [warning] = warnings(caplog)
    assert f"{path} is damaged" in warning
    assert [True, True] == [file.name in warning or file.name.endswith("-2.sqlite3") for file in files(tmp_path)]


def test_a_folder_that_is_deleted_meanwhile_is_made_again(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """What is answered after that is kept, and no row suffers."""
    folder = tmp_path / "cache"
    later: list[Item | None] = [f"later {number}" for number in range(50)]

    def deleting() -> Iterator[list[Item | None]]:
        yield distinct(50)
        endpoints.wait_for(lambda stats: stats.rows_answered == 50)
        shutil.rmtree(folder, ignore_errors=True)  # a file may be gone, or come, in this moment
        yield later

    results = ask(engine(endpoints, policy=Policy(cache=folder)), deleting())
    again = asked(endpoints, folder, later)

    assert [*distinct(50), *later] == texts(results)
    assert later == texts(again)
    assert 100 == endpoints.stats.requests


LIMITED = """
import logging, resource, sys
from spark_llm.cache.answer_cache import Disk
from spark_llm.protocol.values import Result
logging.basicConfig(format="%(message)s")
disk = Disk(sys.argv[1], gather_s=0.01)
disk.keep([(b"a" * 32, Result(text="kept"))])
disk.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
disk = Disk(sys.argv[1], gather_s=0.01)
assert "kept" == disk.find([b"a" * 32])[b"a" * 32].text
disk.keep([(number.to_bytes(32, "big"), Result(text="x" * 1_000)) for number in range(1_000)])
disk.close()
disk.keep([(b"b" * 32, Result(text="late"))])
disk = Disk(sys.argv[1], gather_s=0.01)
print(disk.find([b"a" * 32])[b"a" * 32].text)
disk.close()
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="this system does not limit files")
def test_a_disk_that_takes_no_more_costs_a_warning(tmp_path: Path) -> None:
    """What was kept before can be found all the same."""
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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.lists(st.integers(0, 20), max_size=8), max_size=8))
def test_what_was_kept_is_found_when_it_is_written(tmp_path: Path, rounds: list[list[int]]) -> None:
    """Task after task, each finds all that those before it have kept, and nothing else."""
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    known: dict[bytes, Result] = {}
    for numbers in rounds:
        disk = Disk(str(folder), gather_s=0.001)
        found = disk.find([key(number) for number in range(21)])
        answers = {key(number): Result(text=f"answer {number}", usage=Usage(1, 2, 3)) for number in numbers}
        disk.keep(answers.items())
        disk.close()

        assert known == found
        known |= answers


def test_answers_are_written_while_the_task_goes_on(tmp_path: Path) -> None:
    """A worker that is killed has lost no more than the last moment's."""
    writing, looking = Disk(str(tmp_path), gather_s=0.01), Disk(str(tmp_path))
    writing.keep([(key(1), Result(text="answer"))])
    deadline = time.monotonic() + 10
    while not (found := looking.find([key(1)])):
        assert time.monotonic() < deadline
    writing.close()
    looking.close()

    assert {key(1): Result(text="answer")} == found
