"""Table jobs: columns of a table filled from an endpoint, each row paid for once.

No requests, which the UDFs send.
Begin with `api`, then `runner`.
"""

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["enrich_stream", "enrich_table"]

if TYPE_CHECKING:
    from spark_llm.enrich.api import enrich_stream, enrich_table


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever the name stands for
    """Load the functions when they are first asked for: Spark comes with them."""
    if name in __all__:
        return getattr(importlib.import_module("spark_llm.enrich.api"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
