"""A UDF's plan with its counts; outside a task of Spark it is the plan as it is."""

import pickle

import pyarrow as pa

from spark_llm import Endpoint, chat_udf
from spark_llm.serving import LocalEndpoints
from spark_llm.udf.plan import WatchedPlan


def test_a_watched_plan_prints_no_secret(endpoints: LocalEndpoints) -> None:
    """It can be pickled, and it has the canonical form of its plan."""
    plan = chat_udf(Endpoint(endpoints.invocations("chat"), token=endpoints.token)).plan()
    watched = WatchedPlan("chat_udf", plan, b"sixteen letters!")

    assert watched == pickle.loads(pickle.dumps(watched))  # noqa: S301 -- our own
    assert plan.canonical == watched.canonical
    assert "sixteen" not in repr(watched)
    assert "chat_udf" in repr(watched)


def test_without_a_task_nothing_is_counted(endpoints: LocalEndpoints) -> None:
    """The rows are answered."""
    plan = chat_udf(Endpoint(endpoints.invocations("chat"), token=endpoints.token)).plan()
    chunks = WatchedPlan("chat_udf", plan, b"sixteen letters!").arrow(iter([pa.array(["a", None])]))

    assert ["a", None] == [result and result.text for results in chunks for result in results]
