"""Around a job: UDFs older than their session, sign-in, and cancelled jobs."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_llm import Endpoint, Policy, chat_udf, embed_udf
from spark_llm.auth.databricks_runtime import TOKEN_PROPERTY, TaskToken
from spark_llm.cli.local.spark import job_session
from spark_llm.serving import LocalEndpoints
from tests.conftest import ROOT, SessionKind
from tests.integration.spark.asking import endpoint, run_alone
from tests.support.waiting import settled_requests

Looks = subprocess.CompletedProcess[str]

MODULE_LEVEL = """
import os, sys
from spark_llm import ConfigError, Endpoint, chat_udf
CHAT = chat_udf(Endpoint(os.environ["URL"], token=os.environ["TOKEN"]))  # no session yet, and no pyspark.sql in use
WRONG = chat_udf("https://host/invocations", returns="nonsense")
from pyspark.sql import SparkSession
from tests.support.small_spark import SETTINGS
builder = SparkSession.builder.config("spark.log.level", "OFF").config(map=SETTINGS)
builder = builder.remote("local[1]") if sys.argv[1] == "connect" else builder.master("local[1]")
spark = builder.getOrCreate()
print("ANSWER", spark.sql("SELECT 'early bird' AS p").select(CHAT("p").alias("r")).select("r.text").first()[0])
rows = spark.range(2_000, numPartitions=1).selectExpr("concat('row ', id) AS p")
for udf in (CHAT, CHAT.for_version("3.5.0")):  # Arrow, then pandas
    rows.select(udf("p").alias("r")).where("r.error IS NULL").select("r.text").show(3)
try:
    WRONG("p")
except ConfigError as error:
    print("REFUSED", error)
spark.stop()
"""


@pytest.fixture(scope="module")
def looks(spark: SparkSession, session_kind: SessionKind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looks]:
    """The output of a program that reads a few of its answers, several times."""
    assert spark is not None  # the session finds its Java
    with LocalEndpoints(latency_s=0.005) as endpoints:
        url, token = endpoints.invocations("chat"), endpoints.token
        yield run_alone(MODULE_LEVEL, session_kind, tmp_path_factory.mktemp("looks"), URL=url, TOKEN=token)


@pytest.mark.on_connect
def test_a_udf_may_be_older_than_its_session(looks: Looks) -> None:
    """A UDF built at module level, before any session exists, works in the later session."""
    assert "ANSWER early bird" in looks.stdout, looks.stderr


@pytest.mark.on_connect
def test_ddl_of_a_udf_without_a_session_is_read_at_the_call(looks: Looks) -> None:
    """Only Spark can parse it."""
    assert "REFUSED returns='nonsense' is not valid DDL: " in looks.stdout, looks.stderr


@pytest.mark.on_connect
def test_reading_a_few_rows_ends_quietly(looks: Looks) -> None:
    """Spark closes the worker's pipe when it has its rows, and stderr shows no failure."""
    assert 2 == looks.stdout.count("only showing top 3 rows"), looks.stderr
    assert "Traceback" not in looks.stderr
    assert "BrokenPipeError" not in looks.stderr


def test_a_command_leaves_the_session_of_another_thread(spark: SparkSession) -> None:
    """A session is active in the thread that made it alone; a command in another uses it too, and does not stop it."""

    def count() -> int:
        with job_session({}) as session:
            return session.range(7).count()

    with ThreadPoolExecutor() as other:
        assert 7 == other.submit(count).result()
    assert 3 == spark.range(3).count()


def test_a_call_without_a_session_raises() -> None:
    """The hint says how to make one."""
    code = "from spark_llm import chat_udf, Endpoint; chat_udf(Endpoint('http://127.0.0.1:1/v1', model='m'))('p')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert "ConfigError: There is no Spark session yet to use the UDF in. Hint: " in done.stderr


PROFILE = """
import os, sys
from spark_llm import Endpoint, chat_udf
udf = chat_udf("chat")  # neither the workspace nor a token is known yet, and the profile does not sign in
print("BUILT", udf)
from pyspark.sql import SparkSession
builder = SparkSession.builder.config("spark.ui.enabled", "false").config("spark.log.level", "OFF")
builder = builder.remote("local[1]") if sys.argv[1] == "connect" else builder.master("local[1]")
spark = builder.getOrCreate()
print("ANSWER", spark.sql("SELECT 'hello' AS p").select(udf("p").alias("r")).select("r.text").first()[0])
spark.stop()
"""


@pytest.mark.slow  # it starts a session of its own, and does not depend on the kind of Spark
@pytest.mark.usefixtures("spark")  # the session finds the Java
def test_a_profile_signs_in_when_the_udf_is_used(
    session_kind: SessionKind, endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    """Building a UDF needs no network; the first call on a column signs in."""
    client = f"client_id = {endpoints.client_id}\nclient_secret = {endpoints.client_secret}\n"
    (tmp_path / ".databrickscfg").write_text(f"[DEFAULT]\nhost = {endpoints.url}\n{client}")
    done = run_alone(PROFILE, session_kind, tmp_path, HOME=str(tmp_path))

    assert "ANSWER hello" in done.stdout, done.stderr
    assert "BUILT chat_udf(Chat(" in done.stdout
    assert "Endpoint('chat')" in done.stdout


def test_a_task_on_databricks_uses_its_own_token(
    spark: SparkSession, session_kind: SessionKind, endpoints: LocalEndpoints
) -> None:
    """The runtime gives each task a token; without one, the driver's is used."""
    if session_kind == "connect":
        pytest.skip("A Connect client sets no properties of tasks; Databricks' own server does.")
    answered, refused = (
        chat_udf(Endpoint(endpoints.invocations("chat"), token=TaskToken("of-the-driver")))("p").alias("r")
        for _ in range(2)
    )
    rows = spark.sql("SELECT 'hello' AS p")
    spark.sparkContext.setLocalProperty(TOKEN_PROPERTY, endpoints.token)
    try:
        assert ("hello",) == rows.select(answered).select("r.text").first()
    finally:
        spark.sparkContext.setLocalProperty(TOKEN_PROPERTY, "")

    assert ("unauthorized",) == rows.select(refused).select("r.error.kind").first()


@pytest.mark.parametrize("make", [chat_udf, pytest.param(embed_udf, marks=pytest.mark.slow)])
def test_a_cancelled_job_leaves_nothing_in_flight(
    spark: SparkSession, session_kind: SessionKind, make: type, endpoints: LocalEndpoints
) -> None:
    """An interrupt cancels the requests in flight, and no more are sent."""
    name = "chat" if make is chat_udf else "embed"
    udf = make(endpoint(endpoints, name), policy=Policy(batch_size=4))
    endpoints.hold("held")
    failed = threading.Event()

    def job() -> None:
        try:
            spark.range(200).selectExpr("concat(if(id < 20, 'now ', 'held '), id) AS p").select(udf("p")).collect()
        except Exception:  # noqa: BLE001 -- whatever Spark says to a cancelled job
            failed.set()

    running = threading.Thread(target=job, daemon=True)
    running.start()
    # Then only held requests are in flight, and only a cancellation can end them.
    endpoints.wait_for(lambda stats: stats.rows_answered == 20 and stats.in_flight > 0, timeout_s=60)
    if session_kind == "connect":
        spark.interruptAll()
    else:
        spark.sparkContext.cancelAllJobs()  # a classic session of Spark 3.5 has nothing else
    running.join(timeout=60)
    assert failed.is_set()
    requests = settled_requests(endpoints)
    spark.range(10).collect()  # time for a worker that goes on to show it

    assert requests == endpoints.stats.requests
