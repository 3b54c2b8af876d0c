"""The requests that rows of a job in batches need, as lines have them."""

import json

import pyarrow as pa
import pytest

from spark_llm import Endpoint, chat_udf
from spark_llm.enrich.batch_jobs.replayed import requests_of

DEPLOYMENT = "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21"


@pytest.mark.parametrize(
    ("endpoint", "model"),
    [
        (Endpoint(DEPLOYMENT, token="key"), "d"),
        (Endpoint(DEPLOYMENT, model="other", token="key"), "other"),
        (Endpoint("https://api.openai.com/v1", model="m", token="key"), "m"),
    ],
    ids=["deployment", "deployment and model", "base"],
)
def test_a_line_names_its_model(endpoint: Endpoint, model: str) -> None:
    """A file has one URL for all lines, so the deployment in the URL of single requests becomes the model."""
    arguments = pa.array(["hello", None]), pa.nulls(2, pa.list_(pa.string())), pa.array([True, True])
    [[request, nothing]] = requests_of(chat_udf(endpoint).plan(), iter([arguments]))

    assert request is not None
    assert isinstance(request.body, bytes)
    assert (model, None) == (json.loads(request.body)["model"], nothing)
