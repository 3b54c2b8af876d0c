"""Language models over Spark tables: vectorised UDFs for model-serving endpoints.

>>> from spark_llm import chat_udf
>>> chat = chat_udf("my-endpoint", system="Answer in one word.", max_tokens=8)
>>> df.withColumn("mood", chat("review")).select("review", "mood.text", "mood.error")

Names are loaded on first use, so that `import spark_llm` loads no Spark, no pandas and no sockets.
"""

import importlib
from typing import TYPE_CHECKING, Any

from spark_llm._version import __version__

_NAMES_OF = {  # the names that each module defines
    "ai.sql": "register register_ai_functions",
    "endpoint.endpoint": "Endpoint",
    "enrich.api": "enrich_stream enrich_table",
    "enrich.estimation.estimate": "estimate",
    "enrich.report": "EnrichReport",
    "errors": "ConfigError InputTypeError JobFailedError RowFailedError SparkLLMError",
    "metering.budget": "Budget",
    "policy": "Policy",
    "readiness.api": "preflight",
    "udf.factories": "chat_udf complete_udf embed_udf",
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names.split()}
_MODULES = ("functions", "schemas", "serving")

__all__ = [
    "Budget",
    "ConfigError",
    "Endpoint",
    "EnrichReport",
    "InputTypeError",
    "JobFailedError",
    "Policy",
    "RowFailedError",
    "SparkLLMError",
    "__version__",
    "chat_udf",
    "complete_udf",
    "embed_udf",
    "enrich_stream",
    "enrich_table",
    "estimate",
    "functions",
    "preflight",
    "register",
    "register_ai_functions",
    "schemas",
    "serving",
]

if TYPE_CHECKING:
    from spark_llm import functions, schemas, serving
    from spark_llm.ai.sql import register, register_ai_functions
    from spark_llm.endpoint.endpoint import Endpoint
    from spark_llm.enrich.api import enrich_stream, enrich_table
    from spark_llm.enrich.estimation.estimate import estimate
    from spark_llm.enrich.report import EnrichReport
    from spark_llm.errors import ConfigError, InputTypeError, JobFailedError, RowFailedError, SparkLLMError
    from spark_llm.metering.budget import Budget
    from spark_llm.policy import Policy
    from spark_llm.readiness.api import preflight
    from spark_llm.udf.factories import chat_udf, complete_udf, embed_udf


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- any public name
    """Load a public name on first use (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted(__all__)
