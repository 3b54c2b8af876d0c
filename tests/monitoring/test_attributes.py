"""The attributes of a column: its operation, its provider, its model and its server."""

import pytest

from spark_llm import Endpoint, chat_udf, complete_udf, embed_udf
from spark_llm.engine.request_spec import RequestSpec, request_specs
from spark_llm.monitoring.telemetry.attributes import attributes_of, provider_of
from spark_llm.udf.model_udf import ModelUDF


def specs(*udfs: ModelUDF) -> list[RequestSpec]:
    """Return the request specs of UDFs."""
    return [spec for udf in udfs for spec in request_specs(udf.plan())]


VLLM = Endpoint("http://127.0.0.1:8000/v1", model="smollm2")
SERVED = Endpoint("https://dbc-1.cloud.databricks.com/serving-endpoints/reviews/served-models/b/invocations", token="t")


@pytest.mark.parametrize(
    ("udf", "operation", "provider", "model", "address", "port"),
    [
        (chat_udf(VLLM), "chat", "openai", "smollm2", "127.0.0.1", 8000),
        (complete_udf(VLLM), "text_completion", "openai", "smollm2", "127.0.0.1", 8000),
        (embed_udf(SERVED), "embeddings", "databricks", "b", "dbc-1.cloud.databricks.com", 443),
    ],
)
def test_a_column_says_whom_it_asks(  # noqa: PLR0917 -- parameters of pytest
    udf: ModelUDF, operation: str, provider: str, model: str, address: str, port: int
) -> None:
    """The names are those of the conventions."""
    assert attributes_of(specs(udf)) == {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "server.address": address,
        "server.port": port,
    }


def test_a_column_with_several_endpoints_has_what_they_share() -> None:
    """One without requests has no attributes."""
    other = chat_udf(Endpoint("http://127.0.0.1:8000/v1", model="other"))

    assert {"gen_ai.operation.name", "gen_ai.provider.name", "server.address", "server.port"} == set(
        attributes_of(specs(chat_udf(VLLM), other))
    )
    assert {} == attributes_of([])


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("api.openai.com", "openai"),
        ("x.openai.azure.com", "azure.ai.openai"),
        ("x.services.ai.azure.com", "azure.ai.inference"),
        ("bedrock-runtime.eu-west-1.amazonaws.com", "aws.bedrock"),
        ("api.mistral.ai", "mistral_ai"),
        ("notapi.mistral.ai", "openai"),
        ("adb-1.2.azuredatabricks.net", "databricks"),
        ("gpu-7.internal", "openai"),
    ],
)
def test_the_provider_is_known_by_the_host(host: str, provider: str) -> None:
    """A server that is nobody's has OpenAI's API."""
    assert provider == provider_of(f"https://{host}/v1/chat/completions")


def test_a_serving_endpoint_is_databricks_at_any_host() -> None:
    """A proxy may stand in front of it."""
    assert "databricks" == provider_of("http://127.0.0.1:9/serving-endpoints/chat/invocations")
