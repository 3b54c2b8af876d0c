"""Table jobs that fail: the next run merges their staged answers, and no row is paid twice."""

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import JobFailedError, Policy, chat_udf
from spark_llm.enrich.lease import Lease
from spark_llm.enrich.staging import Staging, lease_table
from spark_llm.enrich.table import Table
from spark_llm.serving import Faults, LocalEndpoints
from tests.conftest import SessionKind
from tests.integration.spark.asking import Run, chat, endpoint, run_alone, texts


def questions(spark: SparkSession, count: int = 20) -> DataFrame:
    """Return rows that all ask something, nine of every ten ids."""
    return texts(spark, count).where("text IS NOT NULL")


@contextmanager
def at(message: str, act: Callable[[], object]) -> Iterator[None]:
    """Act when a job in the block logs a message; an error of `act` is raised in the job."""

    class ActingHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if message in record.getMessage():
                act()

    logger, handler = logging.getLogger("spark_llm.enrich"), ActingHandler()
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def interrupt() -> None:
    """Raise `KeyboardInterrupt`, as Ctrl-C does."""
    raise KeyboardInterrupt


def right_answers(spark: SparkSession, target: str) -> int:
    """Return how many rows of a table have the answer of their own text."""
    return spark.table(target).where("answer.text = concat('row ', id)").count()


@pytest.fixture(params=["path", pytest.param("catalog", marks=pytest.mark.slow)])
def target(request: pytest.FixtureRequest, spark: SparkSession, place: Callable[[str], str]) -> Iterator[str]:
    """A table that is not there yet, of a path and of a catalog."""
    if request.param == "path":
        yield place("target")
        return
    yield "failing"
    left = {row["tableName"] for row in spark.sql("SHOW TABLES LIKE 'failing*'").collect()}
    for name in left:
        spark.sql(f"DROP TABLE {name}")
    assert left <= {"failing"}


@pytest.mark.on_connect
def test_answers_outlive_a_merge_that_fails(
    spark: SparkSession, endpoints: LocalEndpoints, target: str, run: Run
) -> None:
    """The error has the cause and their location; without the cause the next run merges them, and asks nothing."""
    columns = {"answer": chat(endpoints)("text")}
    spark.sql(f"CREATE TABLE {target} (id BIGINT) USING delta")
    spark.sql(f"ALTER TABLE {target} ADD CONSTRAINT low CHECK (id < 10)")
    with pytest.raises(JobFailedError, match=r"CHECK constraint low[^\n]* Hint: the answers are kept in .*__spark_llm"):
        run(questions(spark), target, columns)
    assert 18 == endpoints.stats.requests
    spark.sql(f"ALTER TABLE {target} DROP CONSTRAINT low")

    requests, report = run(questions(spark), target, columns)
    assert (0, 0, 18, 18) == (requests, report.asked, report.recovered, report.rows)
    assert 18 == right_answers(spark, target) == spark.table(target).count()


@pytest.mark.on_connect
def test_rows_that_a_stopped_task_did_not_send_are_asked_by_the_next_run(
    spark: SparkSession, endpoints: LocalEndpoints, target: str, run: Run
) -> None:
    """A request that is refused as a whole stops the run; the next one asks exactly the other rows."""
    columns = {"answer": chat(endpoints)("text")}
    endpoints.faults = Faults("400", cycle=True)
    _, stopped = run(questions(spark, 100), target, columns)
    refused = stopped.failed["invalid_request"]
    assert (refused, 90 - refused, 0) == (stopped.asked, stopped.left, stopped.still_failed)
    assert f"{90 - refused} more were not asked (the task stopped before this row was answered" in str(stopped.stopped)

    endpoints.faults = Faults("")
    requests, report = run(questions(spark, 100), target, columns)
    assert (90 - refused, 90 - refused, True) == (requests, report.answered, report.done)
    assert 90 - refused == right_answers(spark, target)

    requests, report = run(questions(spark, 100), target, columns)
    assert (0, refused) == (requests, report.still_failed)
    assert f"still failed  {refused} with the error of an earlier run" in str(report)


@pytest.mark.slow
@pytest.mark.on_connect
def test_a_policy_that_stops_a_run_is_named(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """The reason has the setting, the rate, and the rows that were not asked; all counts of the report add up."""
    endpoints.faults = Faults(poison="row 1")
    answers = chat_udf(endpoint(endpoints), policy=Policy(max_failure_rate=0.02, max_in_flight=2))("text")
    requests, report = run(questions(spark, 300), place("target"), {"answer": answers})
    reason, failed = str(report.stopped), report.failed["invalid_request"]

    assert (requests, 270) == (report.asked, report.asked + report.left)
    assert (report.asked, report.left) == (report.answered + failed, report.cancelled)
    assert (
        f"{failed} of {report.asked} rows failed in column 'answer' ({failed} invalid_request), a rate of 0." in reason
    )
    assert (
        f", and {report.left} more were not asked (not sent: max_failure_rate=0.02 allows fewer than 20 fai" in reason
    )


FIRST_LOOK = """
from pathlib import Path
from pyspark.sql import SparkSession
from spark_llm.enrich.staging import Staging
from spark_llm.enrich.table import Table
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
spark.range(1).write.parquet("t__spark_llm/rows/abc/answers")
for name in ("t", "missing"):
    staging = Staging(spark, Table(spark, ("delta", str(Path.cwd() / name))), None, "own")
    print("FOUND", name, [each.location("answers")[-12:] for each in staging.abandoned()])
spark.stop()
"""


@pytest.mark.on_connect
@pytest.mark.slow
def test_the_first_run_into_a_path_logs_no_missing_folder(spark: SparkSession, tmp_path: Path) -> None:
    """Spark warns, with a trace, of one path that it cannot find; the staging of earlier runs is found all the same."""
    assert spark is not None  # the session finds its Java
    done = run_alone(FIRST_LOOK, "classic", tmp_path)

    assert "FOUND t ['abc/answers`']\nFOUND missing []\n" == done.stdout, done.stderr
    assert "FileNotFoundException" not in done.stderr
    assert "FileStreamSink" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["chunk 2: 9 of 9 rows answered", "chunk 2: merged"])
def test_staged_answers_outlive_ctrl_c(
    spark: SparkSession, endpoints: LocalEndpoints, target: str, run: Run, moment: str
) -> None:
    """After Ctrl-C before a MERGE, or after it, the next run begins at once, asks nothing, and merges nothing twice."""
    columns = {"answer": chat(endpoints)("text")}
    with at(moment, interrupt), pytest.raises(KeyboardInterrupt):
        run(questions(spark), target, columns, chunk_rows=9)
    with at("; waiting", lambda: pytest.fail("the lease was not released")):
        requests, report = run(questions(spark), target, columns, chunk_rows=9)

    assert (0, 0 if moment.endswith("merged") else 9) == (requests, report.recovered)
    assert 18 == right_answers(spark, target) == spark.table(target).count()


def cancel(spark: SparkSession, session_kind: SessionKind) -> None:
    """Cancel all Spark jobs, as a person does in the Spark UI."""
    if session_kind == "connect":
        spark.interruptAll()
    else:
        spark.sparkContext.cancelAllJobs()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C", "cancelled"])
def test_an_interrupted_chunk_costs_its_own_requests(  # noqa: PLR0917 -- fixtures and a parameter
    spark: SparkSession, session_kind: SessionKind, endpoints: LocalEndpoints, target: str, run: Run, how: str
) -> None:
    """After Ctrl-C while Spark works, or a cancelled job, only the rows in flight are asked again.

    Classic Spark does not find a job that creates a Delta table by its session: it goes on to its end, and the next run
    merges its answers.
    """
    text = F.concat(F.when(F.col("id") < 9, "open ").otherwise("held "), "id")
    rows = spark.range(18).select("id", text.alias("text"))
    columns = {"answer": chat(endpoints)("text")}

    def interrupt_job() -> None:
        endpoints.wait_for(lambda stats: stats.rows_answered == 9 and stats.in_flight > 0, timeout_s=120)
        if how == "cancelled":
            cancel(spark, session_kind)
        else:
            os.kill(os.getpid(), signal.SIGINT)

    endpoints.hold("held")
    interrupter = threading.Thread(target=interrupt_job, daemon=True)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt if how == "Ctrl-C" else Exception):
        run(rows, target, columns, chunk_rows=9)
    interrupter.join()
    endpoints.release()
    endpoints.wait_for(lambda stats: stats.in_flight == 0, timeout_s=60)
    assert 9 == spark.table(target).where("answer.text = text").count()

    requests, report = run(rows, target, columns, chunk_rows=9)
    goes_on = how == "Ctrl-C" and session_kind == "classic" and target == "failing"
    assert ((0, 9) if goes_on else (9, 0)) == (requests, report.recovered)
    assert 18 == spark.table(target).where("answer.text = text").count()


@pytest.mark.slow
def test_a_run_that_lost_its_lease_touches_nothing(spark: SparkSession, endpoints: LocalEndpoints, run: Run) -> None:
    """It merges nothing, and leaves the staging of the next holder; a later run merges its answers."""
    columns = {"answer": chat(endpoints)("text")}
    spark.sql("CREATE OR REPLACE TABLE taken (id BIGINT) USING delta")
    winner = Staging(spark, Table.named(spark, "target=", "taken"), "delta", "winner")

    lease = lease_table(spark, Table.named(spark, "target=", "taken"))

    def take_over() -> None:
        holder = spark.table(lease.name).columns[0]
        spark.sql(f"ALTER TABLE {lease.name} RENAME COLUMN {holder} TO held_by_winner")
        winner.write("answers", spark.range(3), {})

    with at("chunk 1: 18 of 18 rows answered", take_over), pytest.raises(JobFailedError, match="held_by_winner"):
        run(questions(spark), "taken", columns)
    kept = winner.read("answers")
    assert kept is not None
    assert (3, 0) == (kept.count(), spark.table("taken").count())

    winner.clear()
    spark.sql(f"DROP TABLE {lease.name}")
    requests, report = run(questions(spark), "taken", columns)
    assert (0, 18) == (requests, report.recovered)
    assert ["taken"] == [row["tableName"] for row in spark.sql("SHOW TABLES LIKE 'taken*'").collect()]
    spark.sql("DROP TABLE taken")


@pytest.mark.slow
def test_a_merge_that_conflicts_with_another_writer_is_retried(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """The job does not fail, the other writer's change stays, and nothing is asked again."""
    target, columns = place("target"), {"answer": chat(endpoints)("text")}
    spark.sql(f"CREATE TABLE {target} (id BIGINT, note STRING) USING delta")
    spark.sql(f"INSERT INTO {target} SELECT id, 'old' FROM range(9)")
    met, writing = threading.Event(), threading.Event()

    def write() -> None:
        for number in range(1_000):
            if met.is_set():
                return
            with suppress(Exception):  # this writer may be the slower one
                spark.sql(f"UPDATE {target} SET note = 'new {number}'")
            writing.set()

    writer = threading.Thread(target=write, daemon=True)

    def begin() -> None:
        writer.start()
        writing.wait()

    with at("chunk 1: 18 of 18 rows answered", begin), at("; the next comes in", met.set):
        requests, report = run(questions(spark), target, columns)
    met.set()
    writer.join()

    assert (18, 18, 18) == (requests, report.answered, right_answers(spark, target))
    assert 9 == spark.table(target).where("note LIKE 'new%'").count()


@pytest.mark.slow
def test_answers_are_merged_into_a_target_that_was_altered(
    spark: SparkSession, endpoints: LocalEndpoints, target: str, run: Run
) -> None:
    """Columns that it no longer has are left out; a target that was dropped begins empty."""
    columns = {"answer": chat(endpoints)("text"), "other": chat(endpoints)("text")}
    by_name = "TBLPROPERTIES ('delta.columnMapping.mode' = 'name')"
    spark.sql(f"CREATE TABLE {target} (id BIGINT, team STRING) USING delta {by_name}")
    with at("chunk 1: 18 of 18 rows answered", interrupt), pytest.raises(KeyboardInterrupt):
        run(questions(spark), target, columns)
    for name in ("team", "other", "other_fingerprint"):
        spark.sql(f"ALTER TABLE {target} DROP COLUMN {name}")
    requests, report = run(questions(spark), target, {"answer": columns["answer"]})
    assert (0, 18, 18) == (requests, report.recovered, right_answers(spark, target))

    spark.sql(f"UPDATE {target} SET answer_fingerprint = NULL")
    with at("chunk 1: 18 of 18 rows answered", interrupt), pytest.raises(KeyboardInterrupt):
        run(questions(spark), target, {"answer": columns["answer"]})
    path = Table.named(spark, "target=", target).path
    if path is None:
        spark.sql(f"DROP TABLE {target}")
    else:
        shutil.rmtree(path)
    requests, report = run(questions(spark, 10), target, {"answer": columns["answer"]})
    assert (9, 0, 9) == (requests, report.recovered, spark.table(target).count())


@pytest.mark.slow
@pytest.mark.on_connect
def test_a_lease_keeps_its_log_short(spark: SparkSession, place: Callable[[str], str]) -> None:
    """Heartbeats of some days ago are gone from the log, although the table is never dropped."""
    table = Table.named(spark, "target=", place("lease"))
    assert table.path is not None
    with Lease(spark, table, ["delta"], "run", print):
        for number in range(12):
            spark.sql(f"ALTER TABLE {table.name} SET TBLPROPERTIES ('spark_llm.sign' = 'old {number}')")
        log = Path(table.path) / "_delta_log"
        days_ago_s = time.time() - 4 * 86_400
        for number, file in enumerate(sorted(log.iterdir())):
            os.utime(file, (days_ago_s + number, days_ago_s + number))
        for number in range(10):
            spark.sql(f"ALTER TABLE {table.name} SET TBLPROPERTIES ('spark_llm.sign' = 'new {number}')")
        commits = [int(commit.stem) for commit in log.glob("*.json")]

    assert 10 == min(commits)  # the last checkpoint of those days


DEAD_SESSION = """
import logging
import sys

from spark_llm import Endpoint, chat_udf
from spark_llm.enrich.api import enrich_table
from tests.integration.kills.job import session

url, token, folder = sys.argv[1].split()
spark = session({"folder": folder})


class TheRealError(Exception):
    pass


class Dies(logging.Handler):
    def emit(self, record):
        if "rows answered" in record.getMessage():
            spark.stop()
            raise TheRealError


logger = logging.getLogger("spark_llm.enrich")
logger.setLevel(logging.INFO)
logger.addHandler(Dies())
chat = chat_udf(Endpoint(url, token=token))
rows = spark.range(5).selectExpr("id", "concat('row ', id) AS text")
try:
    enrich_table(spark, rows, f"delta.`{folder}/target`", "id", {"answer": chat("text")}, progress=False)
except TheRealError:
    print("the real error")
"""


@pytest.mark.slow
@pytest.mark.on_connect
def test_a_clean_up_that_fails_hides_no_error(
    endpoints: LocalEndpoints, tmp_path: Path, place: Callable[[str], str]
) -> None:
    """Where the session died with the job, the user sees the job's error."""
    arguments = f"{endpoints.invocations('chat')} {endpoints.token} {tmp_path}"
    ended = run_alone(DEAD_SESSION, arguments, tmp_path)

    assert "the real error" in ended.stdout, ended.stderr[-2_000:]
