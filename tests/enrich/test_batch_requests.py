"""The requests that rows of a job in batches need, as lines have them, and the tasks that write them."""

import json
import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm import Batch, Endpoint, chat_udf
from spark_llm.enrich.batch_jobs.replayed import requests_of
from spark_llm.enrich.batch_jobs.sending import file_tasks

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


@given(rows=st.integers(1, 10**7), tasks=st.integers(1, 500), max_requests=st.integers(1, 50_000))
def test_tasks_that_write_files_end_together(rows: int, tasks: int, max_requests: int) -> None:
    """They fill the cores once or several times, unless files would be small; one file is enough for each."""
    writing = file_tasks(rows, Batch(max_requests=max_requests), tasks)

    assert 1 <= writing <= math.ceil(rows / 2_000)
    assert writing % tasks == 0 or writing == math.ceil(rows / 2_000)
    assert rows / writing <= max(max_requests, 2_000)
