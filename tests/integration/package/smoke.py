"""A first job, as a user writes it: prints the answers of three rows. It runs without the checkout."""

from pyspark.sql import SparkSession

from spark_llm import Endpoint, chat_udf, embed_udf, register_ai_functions
from spark_llm.serving import LocalEndpoints

with LocalEndpoints() as endpoints:
    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    chat = chat_udf(Endpoint(endpoints.invocations("chat"), token=endpoints.token))
    embed = embed_udf(Endpoint(endpoints.invocations("embed"), token=endpoints.token))
    df = spark.createDataFrame([("good",), ("bad",), (None,)], "review string")
    rows = df.select("review", chat("review").alias("c"), embed("review").alias("e")).collect()
    assert [row.review for row in rows] == [row.c.text if row.c else None for row in rows]
    assert [bool(row.e and row.e.embedding) for row in rows] == [True, True, False]
    register_ai_functions(spark, chat=chat)
    print(*(row.a for row in spark.sql("SELECT ai_gen('hello') AS a").collect()))  # noqa: T201 -- its output
