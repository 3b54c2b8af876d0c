"""Long texts as a column of chunks."""

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import embed_udf, schemas
from spark_llm.functions import split_text
from spark_llm.serving import LocalEndpoints
from tests.integration.spark.asking import endpoint

pytestmark = pytest.mark.on_connect

PAGES = [(1, "# One\n\nIt is short.\n\n# Two\n\nIt is, too."), (2, None), (3, " "), (4, "Naïve 👩‍🚀 text.")]


def test_chunks_are_rows_to_embed(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Each chunk is a row with its heading, and `substring` finds it in its text; a null and a blank have none."""
    pages = spark.createDataFrame(PAGES, "id INT, body STRING")
    split = pages.withColumn("chunks", split_text("body", 20, by="markdown"))
    chunks = split.select("id", "body", F.explode("chunks").alias("chunk"))
    found = chunks.withColumn("part", F.expr("substring(body, chunk.start + 1, length(chunk.text))"))
    rows = (
        found.withColumn("vector", embed_udf(endpoint(endpoints, "embed"))("chunk.text"))
        .orderBy("id", "chunk")
        .collect()
    )

    assert schemas.TEXT_CHUNKS.simpleString() == split.schema["chunks"].dataType.simpleString()
    assert [(1, "One"), (1, "Two"), (4, None)] == [(row["id"], row["chunk"]["heading"]) for row in rows]
    assert [row["part"] for row in rows] == [row["chunk"]["text"] for row in rows]
    assert all(row["vector"]["embedding"] for row in rows)
    assert {2: None, 3: 0} == {
        row["id"]: row["n"]
        for row in split.selectExpr("id", "if(chunks IS NULL, NULL, size(chunks)) AS n").where("id IN (2, 3)").collect()
    }
