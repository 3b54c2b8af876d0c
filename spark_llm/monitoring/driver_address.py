"""Where the workers of a session's queries find this process."""

from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from spark_llm.livecounts.counts import local_address_for


def driver_host(spark: SparkSession) -> str:
    """Return the driver's address, or this client's on its way to the server; "" where there is no route."""
    return local_address_for(spark.client.host) if is_remote() else spark.conf.get("spark.driver.host") or ""
