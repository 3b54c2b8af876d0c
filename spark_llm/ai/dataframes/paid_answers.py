"""Answers that were paid for, kept: in Spark's storage, or in a folder that a later call reads.

A folder has `rows/<run>`: the rows of a call; and `<name>-<digest of the request>`: answers, by the digest of the text,
in one partition for each run.
"""

import uuid
from dataclasses import dataclass
from typing import NamedTuple

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType
from pyspark.sql.utils import is_remote

from spark_llm.schemas import USAGE


class Request(NamedTuple):
    """What a model is asked about each text: the name and the column of its answers, and the digest of the request."""

    name: str
    answer: Column
    digest: str


@dataclass(frozen=True)
class PaidAnswers:
    """Keeps what was evaluated, in this folder; without one in the storage of Spark's executors."""

    folder: str | None

    def keep_rows(self, rows: DataFrame) -> DataFrame:
        """Evaluate rows once, and return them as they were then."""
        if self.folder is None:
            return _checkpoint(rows)
        path = f"{self.folder}/rows/{uuid.uuid4().hex}"
        rows.write.parquet(path)
        return rows.sparkSession.read.schema(rows.schema).parquet(path)

    def ask(self, texts: DataFrame, request: Request) -> DataFrame:
        """Return texts with their answers.

        With a folder its answers without an error are reused, with a null for their usage; the others are asked now,
        and added to it. Without a folder the result is not evaluated yet.
        """
        name, answer, digest = request
        asked = texts.withColumn(name, answer)
        if self.folder is None:
            return asked
        path = f"{self.folder}/{name}-{digest}"
        schema = StructType([*asked.select("digest", name).schema, StructField("run", StringType())])
        run, spark = uuid.uuid4().hex, texts.sparkSession
        known = _of_earlier_runs(_stored(texts, path, schema), name)
        new = texts if known is None else texts.join(known, "digest", "left_anti")
        written = new.withColumn(name, answer).select("digest", name, F.lit(run).alias("run"))
        written.write.mode("append").partitionBy("run").parquet(path)
        answers = spark.read.schema(schema).parquet(path).where(F.col("run") == run).drop("run")
        return texts.join(answers if known is None else answers.unionByName(known), "digest", "left")

    def keep(self, answers: DataFrame) -> DataFrame:
        """Evaluate answers of `ask` once, and return them; those of a folder cost no money the next time."""
        return _checkpoint(answers) if self.folder is None else answers


def _checkpoint(rows: DataFrame) -> DataFrame:
    """Evaluate rows once, into the storage of the executors.

    A Connect client releases a checkpoint when Python frees the DataFrame, by a request that may wait forever: at the
    end of the process, or where garbage is collected during another request. So it is released here, and a temporary
    view keeps the rows.
    """
    checkpoint = rows.localCheckpoint()
    if not is_remote():
        return checkpoint
    view = f"spark_llm_{uuid.uuid4().hex}"
    checkpoint.createTempView(view)
    del checkpoint
    return rows.sparkSession.table(view)


def _stored(texts: DataFrame, path: str, schema: StructType) -> DataFrame | None:
    try:
        stored = texts.sparkSession.read.schema(schema).parquet(path)
        _ = stored.columns  # Connect looks at the path only now
    except AnalysisException as error:
        if "PATH_NOT_FOUND" in str(error):
            return None
        raise
    return stored


def _of_earlier_runs(stored: DataFrame | None, name: str) -> DataFrame | None:
    """Return the answers without an error, one for each text; runs that begin later do not change them."""
    runs = [] if stored is None else [row["run"] for row in stored.select("run").distinct().collect()]
    if stored is None or not runs:
        return None
    answers = stored.where(F.col("run").isin(runs) & F.col(name)["error"].isNull())
    free = F.col(name).withField("usage", F.lit(None).cast(USAGE))
    return answers.dropDuplicates(["digest"]).select("digest", free.alias(name))
