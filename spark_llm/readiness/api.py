"""`preflight`: what can be known about an endpoint before a job, from the driver and from an executor."""

import os

from pyspark.sql import SparkSession

from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.readiness.checks import check_here
from spark_llm.readiness.executor import look
from spark_llm.readiness.report import Report
from spark_llm.readiness.target import TIMEOUT_S, Target, shown, tasks_of
from spark_llm.udf.model_udf import PROVIDERS, ModelUDF, check_travels
from spark_llm.validation.numbers import check_number


def preflight(
    endpoint: str | Endpoint | ModelUDF,
    spark: SparkSession | None = None,
    *,
    task: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Report:
    """Check an endpoint before a job does: its address, the credentials, its state, and one request of one token.

    What is wrong with the endpoint is in the report and is not raised. A check that cannot be done because another one
    failed is skipped. It costs one short question, and one more from the executor.

    >>> preflight("my-endpoint")
    >>> preflight(chat_udf("my-endpoint", max_tokens=8), spark)  # the UDF's own parameters, from an executor too

    Args:
        endpoint: A serving endpoint's name, a URL, an `Endpoint`, or a UDF of this library.
        spark: A session: then an executor is looked at as well, for its packages and its way to the endpoint.
        task: "chat", "complete" or "embed". Default: the UDF's, or the one that the endpoint is found to serve.
        timeout_s: Seconds for one request, up to 30.

    Returns:
        A report: `ok`, and `checks`, each with its outcome, what was found and what to do. It prints.

    Raises:
        ConfigError: An argument has the wrong type or is out of range, or the token function cannot be pickled.
    """
    udf = endpoint if isinstance(endpoint, ModelUDF) else None
    place = udf.endpoint if udf is not None else Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
    if not isinstance(place, Endpoint):
        raise ConfigError(
            f"An object of type {type(endpoint).__name__} is no endpoint.",
            "pass an endpoint's name, a URL, an Endpoint or a UDF.",
        )
    if spark is not None and not hasattr(spark, "range"):
        raise ConfigError(
            f"An object of type {type(spark).__name__} is no Spark session.", "pass the session, or leave it out."
        )
    if spark is not None:
        check_travels(place)
    hint = f"leave it out for {TIMEOUT_S:g} seconds."
    check_number("timeout_s", timeout_s, 0.0, TIMEOUT_S, exclusive_minimum=True, unit="seconds", hint=hint)
    if udf is not None and task not in (None, udf.task):
        raise ConfigError(f"task={task!r} goes with no UDF that asks for {udf.task}.", "leave task out.")
    tasks = tasks_of(place, task if udf is None else udf.task)

    def resolve() -> Target:
        if udf is not None:
            return Target(udf.recipe.route, (udf.recipe.task,), timeout_s)
        return Target(place.resolve(tasks[0].route, os.environ, PROVIDERS), tasks, timeout_s)

    here = check_here(place, tasks[0].route, resolve, os.environ)
    there = [] if spark is None else look(spark, here.target, here.failed)
    return Report(shown(place), (*here.checks, *there))
