"""The product's REST page: its documented requests and responses, field by field."""

from typing import Any

import pytest
import requests

from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.serving import LocalEndpoints, echo_vector
from tests.integration.clients.client import ENDPOINTS, TIMEOUT_S
from tests.support.asking import ask, engine

QUESTION = "Which rivers flow through Berlin?"
SAMPLING = {"max_tokens": 64, "temperature": 0.1}
DOCUMENTED: dict[str, dict[str, Any]] = {
    "chat": {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}],
        **SAMPLING,
    },
    "completions": {"prompt": QUESTION, "stop": ["River", "Lake"], "extra_params": {"top_p": 0.9}, **SAMPLING},
    "embeddings": {"input": [QUESTION, "Two rivers do."]},
}
RESPONSES: dict[str, dict[str, Any]] = {
    "chat": {
        "object": "chat.completion",
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": f"Be brief.\n{QUESTION}"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 7, "total_tokens": 14},
    },
    "completions": {
        "object": "text_completion",
        "model": "echo",
        "choices": [{"text": QUESTION, "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
    },
    "embeddings": {
        "object": "list",
        "model": "echo",
        "data": [
            {"object": "embedding", "index": 0, "embedding": echo_vector(QUESTION)},
            {"object": "embedding", "index": 1, "embedding": echo_vector("Two rivers do.")},
        ],
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    },
}
VARIABLE_FIELDS: dict[str, dict[str, type]] = {
    "chat": {"id": str, "created": int},
    "completions": {"id": str, "created": int},
    "embeddings": {},
}


def post(endpoints: LocalEndpoints, task: str) -> requests.Response:
    """Post the documented body to the endpoint of its task."""
    return requests.post(
        endpoints.invocations(ENDPOINTS[task]),
        json=DOCUMENTED[task],
        headers={"Authorization": f"Bearer {endpoints.token}"},
        timeout=TIMEOUT_S,
    )


@pytest.mark.parametrize("task", DOCUMENTED)
def test_a_documented_request_gets_the_documented_response(task: str, endpoints: LocalEndpoints) -> None:
    """The response has exactly the documented fields, each with its value or type."""
    response = post(endpoints, task)
    body = response.json()

    assert (200, "application/json") == (response.status_code, response.headers["Content-Type"].partition(";")[0])
    assert VARIABLE_FIELDS[task] == {name: type(body.pop(name)) for name in VARIABLE_FIELDS[task]}
    assert RESPONSES[task] == body


def test_the_response_names_the_model_that_served_it(endpoints: LocalEndpoints) -> None:
    """A header names the model of the endpoint that answered."""
    assert "chat-1" == post(endpoints, "chat").headers["served-model-name"]


def test_the_library_sends_what_the_page_documents(endpoints: LocalEndpoints) -> None:
    """The library's requests equal the documented bodies, with the nested extra_params."""
    chat = Chat("Be brief.", encode_parameters(SAMPLING, None))
    further = {name: DOCUMENTED["completions"][name] for name in ("extra_params",)}
    complete = Complete(encode_parameters({**SAMPLING, "stop": ["River", "Lake"]}, further))
    ask(engine(endpoints, "chat", task=chat), [[QUESTION]], chat)
    ask(engine(endpoints, "complete", task=complete), [[QUESTION]], complete)
    ask(engine(endpoints, "embed", task=Embed()), [[QUESTION, "Two rivers do."]], Embed())
    sent = [request.body for request in endpoints.requests]

    assert [DOCUMENTED["chat"], DOCUMENTED["completions"]] == sent[:2]
    assert {**DOCUMENTED["embeddings"], "encoding_format": "base64"} == sent[2]
