"""Language models over Spark tables: vectorised UDFs for model-serving endpoints.

>>> from spark_llm import chat_udf
>>> chat = chat_udf("my-endpoint", system="Answer in one word.", max_tokens=8)
>>> df.withColumn("mood", chat("review")).select("review", "mood.text", "mood.error")

Names are loaded on first use, so that `import spark_llm` loads no Spark, no pandas and no sockets.
"""

import importlib
from typing import TYPE_CHECKING, Any

from spark_llm._version import __version__ as __version__

_NAMES_OF = {  # the names that each module defines
    "ai.extract": "extract_udf",
    "ai.sql": "register register_ai_functions",
    "batches.settings": "Batch",
    "endpoint.endpoint": "Endpoint",
    "enrich.api": "enrich_stream enrich_table",
    "enrich.estimation.estimate": "estimate",
    "enrich.report": "EnrichReport",
    "errors": "ConfigError InputTypeError JobFailedError RowFailedError SampleError SparkLLMError",
    "metering.budget": "Budget",
    "metering.prices": "Price",
    "monitoring.progress": "progress",
    "policy": "Policy",
    "readiness.api": "preflight",
    "udf.by_url": "by_url",
    "udf.factories": "chat_udf complete_udf embed_udf",
    "udf.predict_udf": "predict_udf",
    "udf.rerank_udf": "rerank_udf",
    "usage.api": "observe_usage usage_report",
    "usage.report": "UsageReport",
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names.split()}
_MODULES = ("functions", "schemas", "serving")
_NAMES = (*_MODULE_OF, *_MODULES, "__version__")

if TYPE_CHECKING:
    from spark_llm import functions as functions
    from spark_llm import schemas as schemas
    from spark_llm import serving as serving
    from spark_llm.ai.extract import extract_udf as extract_udf
    from spark_llm.ai.sql import register as register
    from spark_llm.ai.sql import register_ai_functions as register_ai_functions
    from spark_llm.batches.settings import Batch as Batch
    from spark_llm.endpoint.endpoint import Endpoint as Endpoint
    from spark_llm.enrich.api import enrich_stream as enrich_stream
    from spark_llm.enrich.api import enrich_table as enrich_table
    from spark_llm.enrich.estimation.estimate import estimate as estimate
    from spark_llm.enrich.report import EnrichReport as EnrichReport
    from spark_llm.errors import ConfigError as ConfigError
    from spark_llm.errors import InputTypeError as InputTypeError
    from spark_llm.errors import JobFailedError as JobFailedError
    from spark_llm.errors import RowFailedError as RowFailedError
    from spark_llm.errors import SampleError as SampleError
    from spark_llm.errors import SparkLLMError as SparkLLMError
    from spark_llm.metering.budget import Budget as Budget
    from spark_llm.metering.prices import Price as Price
    from spark_llm.monitoring.progress import progress as progress
    from spark_llm.policy import Policy as Policy
    from spark_llm.readiness.api import preflight as preflight
    from spark_llm.udf.by_url import by_url as by_url
    from spark_llm.udf.factories import chat_udf as chat_udf
    from spark_llm.udf.factories import complete_udf as complete_udf
    from spark_llm.udf.factories import embed_udf as embed_udf
    from spark_llm.udf.predict_udf import predict_udf as predict_udf
    from spark_llm.udf.rerank_udf import rerank_udf as rerank_udf
    from spark_llm.usage.api import observe_usage as observe_usage
    from spark_llm.usage.api import usage_report as usage_report
    from spark_llm.usage.report import UsageReport as UsageReport
else:  # a type checker has the names above
    __all__ = list(_NAMES)


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
    return sorted(_NAMES)
