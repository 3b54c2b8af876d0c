"""The table formats that table jobs are tested on: Delta, and Iceberg in a catalog of its own."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

from spark_llm.cli.local.spark import delta_settings

Format = Literal["delta", "iceberg"]
FORMAT = cast("Format", os.environ.get("SPARK_LLM_TEST_FORMAT", "delta"))
ICEBERG = "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0"


def settings(format: Format, spark_version: str, warehouse: Path) -> Mapping[str, str]:  # noqa: A002 -- Spark's own word
    """Return the settings of a session with tables of a format; those of Iceberg's catalog are in `warehouse`."""
    if format == "delta":
        return delta_settings(spark_version)
    return {
        "spark.jars.packages": ICEBERG,
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.ice": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.ice.type": "hadoop",
        "spark.sql.catalog.ice.default-namespace": "default",
        "spark.sql.catalog.ice.warehouse": warehouse.as_uri(),
        "spark.sql.defaultCatalog": "ice",
    }


def table(format: Format, folder: Path, name: str) -> str:  # noqa: A002 -- as above
    """Return a table's name as Spark SQL writes it: a path in a folder, or in a namespace that the folder has alone."""
    if format == "delta":
        return f"delta.`{folder}/{name}`"
    return f"ice.{re.sub(r'[^a-z0-9]+', '_', str(folder).lower())}.`{name}`"
