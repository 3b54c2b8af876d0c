"""What the tests on Spark share: endpoints, both kinds of UDF, and a UDF that was built before any session."""

from collections.abc import Callable

from pyspark.sql import Column

from spark_llm import Endpoint, chat_udf
from spark_llm.serving import LocalEndpoints
from spark_llm.udfs import ModelUDF

Ask = Callable[[ModelUDF], Callable[[str | Column], Column]]


def endpoint(endpoints: LocalEndpoints, name: str = "chat") -> Endpoint:
    """Return one of the local endpoints as a user would name it."""
    return Endpoint(endpoints.invocations(name), token=endpoints.token)


def chat(endpoints: LocalEndpoints) -> ModelUDF:
    """Return the plainest chat UDF."""
    return chat_udf(endpoint(endpoints))
