"""`preflight`: checks an endpoint before a job runs, from the driver and from an executor."""

import os

from pyspark.sql import SparkSession

from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.readiness.checks import run_driver_checks
from spark_llm.readiness.executor import run_executor_checks
from spark_llm.readiness.report import Report
from spark_llm.readiness.target import TIMEOUT_S, Target, candidate_tasks, printable_name
from spark_llm.udf.lazy_udf import check_session
from spark_llm.udf.model_udf import PROVIDERS, ModelUDF, check_picklable
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.flags import check_flag
from spark_llm.validation.numbers import check_number


@checks_arguments
def preflight(
    endpoint: str | Endpoint | ModelUDF,
    spark: SparkSession | None = None,
    *,
    task: str | None = None,
    timeout_s: float = TIMEOUT_S,
    batch: bool = False,
) -> Report:
    """Check an endpoint before a job runs: its address, its credentials, its state, and one request of one token.

    Problems of the endpoint are in the report and do not raise. After a failed check, those that depend on it are
    skipped. The checks cost one short request, and a second one from the executor; that of the Batch API costs none.

    >>> preflight("my-endpoint")
    >>> preflight(chat_udf("my-endpoint", max_tokens=8), spark)  # the UDF's own parameters, from an executor too
    >>> preflight(chat_udf("https://api.openai.com/v1/chat/completions"), batch=True)  # before a job with Batch()

    Args:
        endpoint: A serving endpoint's name, a URL, an `Endpoint`, or a UDF of this library.
        spark: A session; with it, an executor's packages, its connection to the endpoint and the UDF's cache folder are
            checked too.
        task: "chat", "complete", "embed", "predict" or "rerank". Default: the UDF's task, or the task that the endpoint
            serves.
        timeout_s: Seconds for one request, up to 30.
        batch: Whether it is checked too that the provider has a Batch API: it is asked for its list of batches.

    Returns:
        A report: `ok`, and `checks`, each with its outcome, its finding and what to do. It prints.

    Raises:
        ConfigError: An argument has the wrong type or is out of range, or the token function cannot be pickled.
    """
    udf = endpoint if isinstance(endpoint, ModelUDF) else None
    place = udf.endpoint if udf is not None else Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
    if not isinstance(place, Endpoint):
        raise ConfigError(
            f"An object of type {type(endpoint).__name__} is not an endpoint.",
            "pass an endpoint's name, a URL, an Endpoint or a UDF.",
        )
    if spark is not None:
        check_session(spark, "pass the session, or leave it out.")
        check_picklable(place)
    hint = f"leave it out for {TIMEOUT_S:g} seconds."
    check_number("timeout_s", timeout_s, 0.0, TIMEOUT_S, exclusive_minimum=True, unit="seconds", hint=hint)
    check_flag("batch", batch)
    if udf is not None and task not in (None, udf.task):
        raise ConfigError(f"task={task!r} does not match the UDF, whose task is {udf.task!r}.", "leave task out.")
    tasks = candidate_tasks(place, task if udf is None else udf.task)

    cache = None if udf is None or udf.policy.cache is None else os.fspath(udf.policy.cache)

    def resolve() -> Target:
        if udf is not None:
            return Target(udf.request_spec.route, (udf.request_spec.task,), timeout_s, cache)
        return Target(place.resolve(tasks[0].route, os.environ, PROVIDERS), tasks, timeout_s)

    driver = run_driver_checks(place, tasks[0].route, resolve, os.environ, batch=batch)
    executor = [] if spark is None else run_executor_checks(spark, driver.target, driver.failed)
    return Report(printable_name(place), (*driver.checks, *executor))
