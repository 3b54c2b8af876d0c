"""Several columns of a row asked in parallel on Spark, as an Arrow UDF and as a pandas UDF."""

from threading import Event, Thread

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from spark_llm import chat_udf, embed_udf
from spark_llm.ai.udf import chat_function
from spark_llm.enrich.multi_udf import LiveReporting, MultiUDF, Part
from spark_llm.livecounts.counts import LiveCounts
from spark_llm.serving import Echo, LocalEndpoints, echo_vector
from tests.integration.spark.asking import Ask, chat, endpoint

pytestmark = pytest.mark.one_kind


def test_columns_of_every_kind_in_one(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """A chat, a vector, a typed answer, a template and a function of two arguments keep their nulls and requests."""
    typed = chat_udf(endpoint(endpoints), returns="n int, tags array<string>")
    brief = chat_udf(endpoint(endpoints), template="{id}: {text}")
    parts = [
        Part("chat", chat(endpoints), 1),
        Part("vector", embed_udf(endpoint(endpoints, "embed")), 1),
        Part("typed", typed, 1),
        Part("a brief", brief, 1),
        Part("french", chat_function("translate", chat(endpoints)), 2),
    ]
    df = spark.range(40).select(
        "id",
        F.when(F.col("id") % 4 != 0, F.concat(F.lit("row "), "id")).alias("text"),
        F.concat(F.lit('{"n": '), "id", F.lit(', "tags": ["a"]}')).alias("json"),
    )
    call = ask(MultiUDF(parts))  # type: ignore[arg-type]  # it is called as any UDF is
    column = call("text", "text", "json", brief.argument(id="id", text="text"), "text", F.lit("fr"))  # type: ignore[call-arg]
    rows = {row["id"]: row["r"] for row in df.select("id", column.alias("r")).collect()}

    assert 40 == len(rows)
    for number, row in rows.items():
        text = None if number % 4 == 0 else f"row {number}"
        brief_said = None if text is None else f"{number}: {text}"
        assert (text, brief_said) == (text_of(row["chat"]), text_of(row["a brief"]))
        assert (None if text is None else [pytest.approx(part) for part in echo_vector(text)]) == (
            row["vector"] and row["vector"]["embedding"]
        )
        assert Row(n=number, tags=["a"]) == row["typed"]["parsed"]
        assert (text is None) == (text_of(row["french"]) is None)
    assert endpoints.stats.requests == sum(part["requests"] for row in rows.values() for part in row if part)


def text_of(answer: Row | None) -> str | None:
    """Return the text of an answer."""
    return None if answer is None else answer["text"]


def test_a_wrong_type_raises(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """The exception has the part's own message."""
    call = ask(MultiUDF([Part("a", chat(endpoints), 1), Part("b", chat(endpoints), 1)]))  # type: ignore[arg-type]

    with pytest.raises(PySparkException, match="takes one string column"):
        spark.range(3).select(call("id", "id")).collect()  # type: ignore[call-arg]
    assert 0 == endpoints.stats.requests


def test_both_endpoints_are_asked_in_parallel(spark: SparkSession) -> None:
    """Each endpoint holds its answer until both have a request in flight."""
    with LocalEndpoints({"mood": Echo(), "topic": Echo()}) as endpoints:
        endpoints.hold("why")

        def release() -> None:
            try:
                endpoints.wait_for(lambda stats: stats.in_flight == 2, timeout_s=60)
            finally:
                endpoints.release()

        waiting = Thread(target=release)
        waiting.start()
        both = MultiUDF([Part(name, chat_udf(endpoint(endpoints, name)), 1) for name in ("mood", "topic")])
        spark.range(1).select(both(F.lit("why"), F.lit("why"))).collect()
        waiting.join()

        assert (2, 2) == (endpoints.stats.requests, endpoints.stats.max_in_flight)


def test_each_task_reports_for_its_partition(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """The driver adds the counts of all partitions' tasks."""
    with LiveCounts("127.0.0.1") as live:
        assert live.address is not None
        live.begin(3)
        parts = [Part(name, chat(endpoints), 1) for name in ("mood", "topic")]
        both = MultiUDF(parts, LiveReporting(live.address, 3))
        text = F.col("id").cast("string")
        spark.range(0, 30, 1, 3).select(both(text, F.concat(text, F.lit("!")))).collect()
        patience = Event()
        heard = (live.counts() for _ in range(1_000) if not patience.wait(0.01))
        counts = next((each for each in heard if [30, 30] == [tally.asked for tally in each.values()]), live.counts())

    assert {"mood": 30, "topic": 30} == {name: tally.requests for name, tally in counts.items()}
