"""Merges a file of mails into the table `mails`: python load.py mails/2026-03-02.csv."""

import sys
from pathlib import Path

from pyspark.sql import SparkSession

_COLUMNS = "mail_id BIGINT, customer STRING, status STRING, received_at TIMESTAMP, body STRING"
_TABLE = f"CREATE TABLE IF NOT EXISTS mails ({_COLUMNS}, body_changed_at TIMESTAMP) USING delta"
_MERGE = """\
MERGE INTO mails USING night ON mails.mail_id = night.mail_id
WHEN MATCHED AND mails.body IS DISTINCT FROM night.body THEN UPDATE SET *
WHEN MATCHED THEN UPDATE SET customer = night.customer, status = night.status, received_at = night.received_at
WHEN NOT MATCHED THEN INSERT *"""


def main(file: str) -> None:
    """Merge the file, and print how many mails it has and how many the table has now."""
    spark = SparkSession.builder.getOrCreate()
    spark.sql(_TABLE)
    night = spark.read.csv(str(Path(file).resolve()), schema=_COLUMNS, header=True, mode="FAILFAST")
    night.selectExpr("*", "current_timestamp() AS body_changed_at").createOrReplaceTempView("night")
    [merged] = spark.sql(_MERGE).collect()
    print(f"{file}: {merged['num_inserted_rows']} mails inserted, {merged['num_updated_rows']} updated.")
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
