"""Who asks, as a server of Databricks' routes gets it: in the body where it is taken, and nowhere else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spark_llm import Endpoint, Policy
from spark_llm._version import __version__
from spark_llm.endpoint.attribution import Attribution
from spark_llm.engine.registry import EngineRegistry, SharedEngine
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.task import Task
from spark_llm.serving import LocalEndpoints
from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import ChatRequest
from tests.support.asking import CHAT, distinct, kinds
from tests.support.reply_model import ReplyModel, last_message

WHO = Attribution("app-1", run="r1", table="t", column="c")
CONTEXT = {"library": f"spark_llm/{__version__}", "application": "app-1", "run": "r1", "table": "t", "column": "c"}


@pytest.fixture
def engines() -> Iterator[EngineRegistry]:
    """A registry of its own."""
    kept = EngineRegistry()
    yield kept
    kept.close()


def ask(engines: EngineRegistry, endpoint: Endpoint, rows: int, task: Task = CHAT, **options: Any) -> list[str | None]:  # noqa: ANN401 -- of a spec
    """Return the kinds of the rows' errors."""
    spec = RequestSpec(task, endpoint.resolve(task.route, {}), attribution=WHO, **{"policy": Policy(), **options})
    chunks = SharedEngine(engines, spec).stream(task, iter([distinct(rows)]))
    return kinds([result for chunk in chunks for result in chunk])


def bodies(endpoints: LocalEndpoints) -> list[dict[str, Any]]:
    """Return the bodies that the server got."""
    return [dict(request.body or {}) for request in endpoints.requests]


@pytest.mark.parametrize(("name", "task"), [("chat", CHAT), ("complete", Complete()), ("embed", Embed())])
def test_each_task_says_who_asks(endpoints: LocalEndpoints, engines: EngineRegistry, name: str, task: Task) -> None:
    """Every request has both fields, and the library in its User-Agent; headers= go with it."""
    endpoint = Endpoint(endpoints.invocations(name), token=endpoints.token, headers={"X-Team": "data"})

    assert [None] * 20 == ask(engines, endpoint, 20, task)
    assert all((CONTEXT, "r1") == (body["usage_context"], body["client_request_id"]) for body in bodies(endpoints))
    headers = [request.headers for request in endpoints.requests]
    assert {(f"spark_llm/{__version__}", "data")} == {(each["user-agent"], each["x-team"]) for each in headers}


def test_other_routes_and_the_flag_leave_the_body_alone(endpoints: LocalEndpoints, engines: EngineRegistry) -> None:
    """An OpenAI-style server gets no field that it may refuse."""
    openai = Endpoint(endpoints.openai_url, model="chat", token=endpoints.token)
    off = Endpoint(endpoints.invocations("chat"), token=endpoints.token, attribution=False)

    assert [None] * 4 == ask(engines, openai, 2) + ask(engines, off, 2)
    assert {"messages", "model"} >= {field for body in bodies(endpoints) for field in body}


def strict_reply(request: ChatRequest) -> str:
    """Refuse what is unknown, as a server with a strict schema does."""
    if "usage_context" in request.body:
        raise Refused.bad_request("usage_context: Extra inputs are not permitted")
    return last_message(request)


@pytest.mark.waits
def test_a_server_that_refuses_the_fields_costs_three_requests_more(engines: EngineRegistry) -> None:
    """No row fails; a later run of the same worker knows it."""
    with LocalEndpoints({"chat": ReplyModel(strict_reply)}) as endpoints:
        endpoint = Endpoint(endpoints.invocations("chat"), token=endpoints.token)

        assert [None] * 50 == ask(engines, endpoint, 50)
        assert 53 == endpoints.stats.requests
        endpoints.reset()
        assert [None] * 50 == ask(engines, endpoint, 50)
        assert 50 == endpoints.stats.requests


def test_who_asks_is_no_part_of_a_cache_key(endpoints: LocalEndpoints, engines: EngineRegistry, tmp_path: Path) -> None:
    """Another run finds the answers of the first, and so does one without attribution."""
    endpoint = Endpoint(endpoints.invocations("chat"), token=endpoints.token)
    policy = Policy(cache=str(tmp_path))

    assert [None] * 5 == ask(engines, endpoint, 5, policy=policy)
    assert [None] * 5 == ask(engines, replace(endpoint, attribution=False), 5, policy=policy)
    assert 5 == endpoints.stats.requests
