"""Secrets reach the workers and nothing else: a job with every kind of them, and a search of all that it leaves."""

import base64
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_llm.serving import LocalEndpoints
from tests.conftest import SessionKind
from tests.integration.spark.asking import run_alone
from tests.support.stub_server import stub_server

pytestmark = pytest.mark.slow

# Every Python of the job, the workers too, logs all that any library says; what sign-ins say has files of its own.
EVERYTHING_IS_LOGGED = """
import logging, os
path = os.path.join(os.environ["LOGS"], f"{{}}-{os.getpid()}.log")
logging.basicConfig(level=logging.DEBUG, filename=path.format("python"))
auth = logging.getLogger("spark_llm.auth")
auth.addHandler(logging.FileHandler(path.format("auth")))
auth.propagate = False
"""
JOB = """
import logging, os, sys
from pyspark.sql import SparkSession
from spark_llm import Endpoint, Policy, chat_udf, preflight, progress, register, register_ai_functions
from spark_llm.auth.credentials import ClientCredentials
from spark_llm.livecounts.counts import process_secret

builder = SparkSession.builder
for setting in os.environ["SETTINGS"].split():
    builder = builder.config(*setting.split("=", 1))
builder = builder.remote("local[1]") if sys.argv[1] == "connect" else builder.master("local[1]")
spark = builder.getOrCreate()
URL, TOKEN = os.environ["URL"], os.environ["TOKEN"]

def give_token():
    logging.getLogger("job").debug("a worker asked for a token")
    return TOKEN

def break_off():
    raise OSError(f"no vault at https://me:{os.environ['FUNCTION_SECRET']}@host")

client, stranger = (
    ClientCredentials(os.environ["CLIENT"], os.environ[secret], os.environ["TOKEN_URL"])
    for secret in ("CLIENT_SECRET", "WRONG_TOKEN")
)
endpoints = {
    "plain": Endpoint(f"{URL}?sig={os.environ['QUERY_SECRET']}", token=TOKEN),
    "function": Endpoint(URL, token=give_token),
    "broken function": Endpoint(URL, token=break_off),
    "client": Endpoint(URL, token=client),
    "headers": Endpoint(URL, headers={"Authorization": f"Bearer {TOKEN}", "X-Key": os.environ["HEADER_SECRET"]}),
    "wrong": Endpoint(URL, token=os.environ["WRONG_TOKEN"]),
    "wrong client": Endpoint(URL, token=stranger),
    "repeats a token": Endpoint(os.environ["REPEATS"], token=TOKEN),
    "repeats a header": Endpoint(os.environ["REPEATS"], headers={"Authorization": f"Bearer {TOKEN}"}),
    "repeats a key": Endpoint(f"{os.environ['REPEATS']}?api-key={os.environ['QUERY_SECRET']}"),
    "by a proxy": Endpoint("https://model.invalid/v1", model="m"),
}
for name, endpoint in endpoints.items():
    udf = chat_udf(endpoint, policy=Policy(give_up_after_s=5, max_tries=2))
    df = spark.sql("SELECT 'text' AS p").withColumn("r", udf("p"))
    df.explain(True)
    print(name, endpoint, udf, df, df.schema, df.select("r.*").collect())
    print(preflight(udf, spark), repr(preflight(endpoint)), preflight(udf)._repr_html_())
    try:
        df.withColumn("r", chat_udf(endpoint, policy=Policy(on_error="raise", max_tries=1))("p")).collect()
    except Exception as error:
        print(name, "raised", error)
    if name not in ("plain", "client"):  # what follows is the same for all of a kind
        continue
    register(spark, chat=udf, prefix="secret_")
    spark.sql("SELECT secret_chat('x')").explain("extended")
    register_ai_functions(spark, chat=udf, prefix="secret_")
    for function in ("secret_chat", "secret_ai_gen", "secret_llm_gen"):
        spark.sql(f"DESCRIBE FUNCTION EXTENDED {function}").show(truncate=False)
    spark.sql("SELECT secret_ai_gen('x')").explain("extended")
    try:
        spark.range(1).select(udf("id")).collect()
    except Exception as error:
        print(name, "raised", error)
with progress(spark) as watched:
    df = spark.sql("SELECT 'watched' AS p").withColumn("r", chat_udf(endpoints["plain"])("p"))
    df.explain(True)
    print(df.collect(), watched, spark.conf.get("spark.spark_llm.progress"))
print("WATCHED", watched.rows)
with open(os.environ["SIGNING"], "wb") as file:
    file.write(process_secret())
spark.stop()
print("DONE")
"""


def test_a_secret_is_nowhere_but_on_the_wire(spark: SparkSession, session_kind: SessionKind, tmp_path: Path) -> None:
    """Plans, explain, event log, worker logs at DEBUG, error rows, reports, reprs: no secret is in any of them.

    But for the text of a token function's exception, which is for the log of sign-ins at DEBUG and for nothing else.
    """
    secrets = {
        name: f"dapi-5ecret-{name.lower().replace('_', '-')}"
        for name in (
            *("TOKEN", "CLIENT_SECRET", "QUERY_SECRET", "HEADER_SECRET"),
            *("WRONG_TOKEN", "FUNCTION_SECRET", "PROXY_PASSWORD"),
        )
    }
    logs, events = tmp_path / "logs", tmp_path / "events"
    logs.mkdir()
    events.mkdir()
    (tmp_path / "sitecustomize.py").write_text(EVERYTHING_IS_LOGGED, encoding="utf-8")
    settings = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.compress": "false",
        "spark.eventLog.dir": events.as_uri(),
        "spark.ui.enabled": "false",
        "spark.log.level": "DEBUG" if session_kind == "classic" else "INFO",
        "spark.sql.warehouse.dir": tmp_path.as_uri(),
    }
    repeats = {
        f"POST /invocations{query}": (200, {"error": {"message": f"No key is like {secrets[name]}."}})
        for query, name in (("", "TOKEN"), (f"?api-key={secrets['QUERY_SECRET']}", "QUERY_SECRET"))
    }
    with (
        LocalEndpoints(token=secrets["TOKEN"], clients={"my-client": secrets["CLIENT_SECRET"]}) as endpoints,
        stub_server(repeats) as repeating,
    ):
        job = run_alone(
            JOB,
            session_kind,
            tmp_path,
            **secrets,
            URL=endpoints.invocations("chat"),
            CLIENT="my-client",
            TOKEN_URL=f"{endpoints.url}/oidc/v1/token",
            REPEATS=f"{repeating.url}/invocations",
            HTTPS_PROXY=f"http://user:{secrets['PROXY_PASSWORD']}@127.0.0.1:9",
            LOGS=str(logs),
            SIGNING=str(tmp_path / "signing"),
            SETTINGS=" ".join(f"{name}={value}" for name, value in settings.items()),
            PYTHONASYNCIODEBUG="1",
        )
        statuses = endpoints.stats.by_status

    assert job.stdout.endswith("DONE\n"), job.stderr[-3000:]
    assert statuses[200] >= 10
    assert statuses[401] >= 2
    left = {"stdout": job.stdout, "stderr": job.stderr}
    for file in [*logs.rglob("*"), *events.rglob("*")]:
        if file.is_file():
            left[str(file.relative_to(tmp_path))] = file.read_text(encoding="utf-8", errors="replace")
    signing = (tmp_path / "signing").read_bytes()
    secrets |= {"hex": signing.hex(), "base64": base64.b64encode(signing).decode(), "repr": repr(signing)[2:-1]}
    assert "WATCHED 1\n" in job.stdout
    assert any("spark.spark_llm.progress" in text for name, text in left.items() if name.startswith("events"))
    assert [] == [
        file for file in [*logs.rglob("*"), *events.rglob("*")] if file.is_file() and signing in file.read_bytes()
    ]
    assert any("a worker asked for a token" in text for text in left.values())  # the workers' logs are among them
    assert any("chat_udf" in text for name, text in left.items() if name.startswith("events"))  # and the plans
    assert "kind='unauthorized'" in job.stdout  # and the error rows
    assert job.stdout.count("No key is like ***") >= 9  # of three endpoints: a row, an exception and reports
    assert "no connection to the proxy 127.0.0.1:9" in job.stdout

    found = [(name, where) for where, text in left.items() for name, secret in secrets.items() if secret in text]
    assert {"FUNCTION_SECRET"} == {name for name, where in found if where.startswith("logs/auth-")}  # at DEBUG, alone
    assert [] == [(name, where) for name, where in found if not where.startswith("logs/auth-")]
