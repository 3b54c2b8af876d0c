"""schemathesis against the description that the local endpoints serve: every answer fits it, and none is a 500."""

import json
import subprocess
from pathlib import Path

import pytest
import requests

from spark_llm.serving import Echo, LocalEndpoints, PredictFunction
from tests.integration.clients.environment import fuzzer

EXAMPLES = 100  # for each operation and each way to make them
# An undeclared method is the 404 of an unknown path, as at the service. Azure's routes take a token in either header,
# so a wrong one in the other is no error. JSON Schema takes 64.0 for an integer, and the server does not.
LEFT_OUT = "unsupported_method,ignored_auth,positive_data_acceptance"


@pytest.mark.slow
def test_every_answer_fits_its_description(tmp_path: Path) -> None:
    """Requests made from the description, valid and invalid ones, get answers of its statuses, types and schemas."""
    models: dict[str, Echo | PredictFunction] = {"all": Echo(), "score": lambda _: [0.5], "a.b.c": Echo()}
    with LocalEndpoints(models) as endpoints:
        document = requests.get(f"{endpoints.url}/openapi.json", timeout=10).json()
        # The description is the same on every machine, so it names no endpoint; this one's names lead past the 404.
        parameters, schemas = document["components"]["parameters"], document["components"]["schemas"]
        for schema, name in {
            "name": parameters["name"]["schema"],
            "served": parameters["served"]["schema"],
            "model": schemas["WithModel"]["properties"]["model"],
        }.items():
            name["enum"] = ["all-1"] if schema == "served" else [*models, "nobody"]
        parameters["file"]["schema"]["enum"] = ["app.js", "page.css", "icon.svg", "nobody.js"]
        description = tmp_path / "openapi.json"
        description.write_text(json.dumps(document), encoding="utf-8")
        ran = subprocess.run(
            [
                *(
                    fuzzer(),
                    "run",
                    description,
                    "--url",
                    endpoints.url,
                    "--header",
                    f"Authorization: Bearer {endpoints.token}",
                ),
                *(
                    "--max-examples",
                    str(EXAMPLES),
                    "--seed",
                    "1",
                    "--generation-database",
                    "none",
                    "--no-color",
                    "--exclude-checks",
                    LEFT_OUT,
                ),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=1_200,
            check=False,
        )
        stats = endpoints.stats

    assert 0 == ran.returncode, ran.stdout[-20_000:]
    assert not {status for status in stats.by_status if status >= 500}
    assert stats.by_status[200] > 1_000
