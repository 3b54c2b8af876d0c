"""Delta Lake for an open-source Spark: which package goes with which version, and the settings it needs."""

import re
from collections.abc import Mapping

_PACKAGES = {  # what was tried; Spark finds them by itself, in a Maven registry
    "3.5": "io.delta:delta-spark_2.12:3.3.3",
    "4.0": "io.delta:delta-spark_4.0_2.13:4.4.0",
    "4.1": "io.delta:delta-spark_4.1_2.13:4.4.0",
    "4.2": "io.delta:delta-spark_4.2_2.13:4.4.0",
}


def delta_settings(spark_version: str) -> Mapping[str, str]:
    """Return the settings of a session with Delta Lake; none where no package is known for this Spark."""
    found = re.match(r"\d+\.\d+", spark_version)
    package = _PACKAGES.get(found[0]) if found else None
    if package is None:
        return {}
    return {
        "spark.jars.packages": package,
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    }
