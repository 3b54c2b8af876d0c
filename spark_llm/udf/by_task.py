"""The UDF factory of each task."""

from collections.abc import Callable, Mapping

from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.udf.factories import chat_udf, complete_udf, embed_udf
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.udf.predict_udf import predict_udf
from spark_llm.udf.rerank_udf import rerank_udf

FACTORIES: Mapping[str, Callable[..., ModelUDF]] = {
    "chat": chat_udf,
    "complete": complete_udf,
    "embed": embed_udf,
    "predict": predict_udf,
    "rerank": rerank_udf,
}

TOKENLESS = ("predict",)
"""Tasks whose answers report no tokens: their results have no `usage`."""


def model_udf(task: str, model: str | Endpoint | ModelUDF) -> ModelUDF:
    """Return a model's UDF, with the task's defaults for an endpoint.

    Raises `ConfigError` for another task's UDF, and for the endpoint of a custom model, whose type has no default.
    """
    if task == "predict" and not isinstance(model, ModelUDF):
        raise ConfigError(
            "predict= got an endpoint, but the type of its predictions is not known.",
            'pass a UDF, as in predict=predict_udf("my-endpoint", returns="DOUBLE").',
        )
    udf = model if isinstance(model, ModelUDF) else FACTORIES[task](model)
    if udf.task != task:
        raise ConfigError(f"{task}= got a UDF for the task {udf.task!r}.", f"pass it as {udf.task}=.")
    return udf
