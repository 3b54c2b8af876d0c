"""Cohere's own client gets its rankings from the local endpoints, at both versions of its route."""

import json
import subprocess

import pytest

from spark_llm.serving import LocalEndpoints
from tests.integration.clients.environment import cohere_python

PROGRAM = """
import json, sys
import cohere

url, token = sys.argv[1:]
query, documents = "red fox", ["a dog", "a red car", "the red fox"]
found = {}
for name, kind in (("v1", cohere.Client), ("v2", cohere.ClientV2)):
    client = kind(api_key=token, base_url=url)
    answer = client.rerank(model="embed", query=query, documents=documents, top_n=2)
    found[name] = [[each.index, each.relevance_score] for each in answer.results]
try:
    client.rerank(model="nobody", query=query, documents=documents)
except cohere.NotFoundError as error:
    found["error"] = error.status_code
print(json.dumps(found))
"""


@pytest.mark.slow
def test_the_client_of_cohere_gets_its_rankings(endpoints: LocalEndpoints) -> None:
    """The best documents first, as many as are wanted; an unknown model is the client's own error."""
    command = [str(cohere_python()), "-c", PROGRAM, endpoints.url, endpoints.token]
    ran = subprocess.run(command, capture_output=True, timeout=120, check=False)

    assert 0 == ran.returncode, ran.stderr.decode()
    best = [[2, 1.0], [1, 0.5]]
    assert {"v1": best, "v2": best, "error": 404} == json.loads(ran.stdout)
