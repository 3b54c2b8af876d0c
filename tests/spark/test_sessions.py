"""What must hold around a job: UDFs older than their session, secrets, and jobs that are ended."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_llm import Endpoint, Policy, chat_udf, embed_udf, register
from spark_llm.serving import LocalEndpoints
from tests.conftest import ROOT, SessionKind
from tests.spark.asking import chat, endpoint

MODULE_LEVEL = """
import os, sys
from spark_llm import Endpoint, chat_udf
CHAT = chat_udf(Endpoint(os.environ["URL"], token=os.environ["TOKEN"]))  # no session yet, and no pyspark.sql in use
from pyspark.sql import SparkSession
builder = SparkSession.builder.config("spark.ui.enabled", "false").config("spark.log.level", "OFF")
builder = builder.remote("local[1]") if sys.argv[1] == "connect" else builder.master("local[1]")
spark = builder.getOrCreate()
print("ANSWER", spark.sql("SELECT 'early bird' AS p").select(CHAT("p").alias("r")).select("r.text").first()[0])
spark.stop()
"""


def test_a_udf_may_be_older_than_its_session(
    spark: SparkSession, session_kind: SessionKind, endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    """A UDF built at module level, before any session exists, works in the session that comes."""
    job = tmp_path / "job.py"
    job.write_text(MODULE_LEVEL)
    environ = os.environ | {
        "URL": endpoints.invocations("chat"),
        "TOKEN": endpoints.token,
        "PYTHONPATH": ROOT,
        "SPARK_TESTING": "1",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
    }
    for name in ("SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED", "SPARK_LOCAL_REMOTE", "PYSPARK_GATEWAY_PORT"):
        environ.pop(name, None)
    done = subprocess.run(
        [sys.executable, str(job), session_kind],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert spark is not None  # it finds its Java
    assert "ANSWER early bird" in done.stdout, done.stderr


def test_without_a_session_the_next_step_is_said() -> None:
    """Called on a column where there is no session, the UDF says to make one."""
    code = "from spark_llm import chat_udf, Endpoint; chat_udf(Endpoint('http://127.0.0.1:1/v1', model='m'))('p')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert "ConfigError: There is no Spark session yet to use the UDF in. Hint: " in done.stderr


def test_the_token_is_in_nothing_that_is_printed_or_logged(
    spark: SparkSession,
    event_log_dir: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Plans, explain, the event log, errors, results and reprs: the token is in none of them."""
    secret = "dapi-5ecret-that-must-not-be-seen"
    caplog.set_level(logging.DEBUG)
    with LocalEndpoints(token=secret) as endpoints:
        udf, wrong = chat(endpoints), chat_udf(Endpoint(endpoints.invocations("chat"), token=secret + "-wrong"))
        df = spark.range(3).selectExpr("concat('row ', id) AS p").withColumn("r", udf("p"))
        df.explain(True)
        shown = [repr(thing) for thing in (df, udf, wrong, endpoint(endpoints), df.schema)]
        rows = df.collect() + spark.sql("SELECT 'x' AS p").withColumn("r", wrong("p")).collect()
        shown.append(repr(rows))
        register(spark, chat=udf, prefix="secret_")
        spark.sql("SELECT secret_chat('x')").explain("extended")
        spark.sql("DESCRIBE FUNCTION EXTENDED secret_chat").show(truncate=False)
        with pytest.raises(Exception, match="takes") as raised:
            spark.range(1).select(udf("id")).collect()
        shown.append(str(raised.value))
    out, err = capfd.readouterr()
    assert "chat_udf" in out  # the plans were printed
    assert ["unauthorized"] == [row["r"]["error"]["kind"] for row in rows if row["r"]["error"] is not None]
    logs = [file.read_text(errors="replace") for file in event_log_dir.rglob("*") if file.is_file()]

    assert any("chat_udf" in log for log in logs)  # the event log has these very plans
    for text in (out, err, caplog.text, *shown, *logs):
        assert secret not in text


@pytest.mark.parametrize("make", [chat_udf, embed_udf])
def test_a_job_that_is_cancelled_leaves_nothing_in_flight(
    spark: SparkSession, make: type, endpoints: LocalEndpoints
) -> None:
    """When the user interrupts a job, its requests are called off and no more are sent."""
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
    endpoints.wait_for(lambda stats: stats.rows_answered > 0 and stats.in_flight > 0, timeout_s=60)
    spark.interruptAll()
    running.join(timeout=60)
    assert failed.is_set()
    over = endpoints.wait_for(lambda stats: stats.in_flight == 0, timeout_s=30)
    spark.range(10).collect()  # time for a worker that had gone on to be seen

    assert over.requests == endpoints.stats.requests
