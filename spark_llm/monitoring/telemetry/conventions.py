"""The names of everything that is exported: of OpenTelemetry's semantic conventions, and our own under `spark_llm`.

All names of the conventions for generative AI are at the stage Development, so they may change. 1.41.1 is the last
release that has them. They have moved to the repository semantic-conventions-genai, which has no release.
"""

from typing import Literal, NamedTuple

VERSION = "1.41.1"
SCHEMA_URL = f"https://opentelemetry.io/schemas/{VERSION}"
SCOPE = "spark_llm"


class Metric(NamedTuple):
    """A metric: its name, its unit, what it counts, and the kind of its points."""

    name: str
    unit: str
    description: str
    kind: Literal["histogram", "counter", "gauge"]


DURATION = Metric("gen_ai.client.operation.duration", "s", "GenAI operation duration.", "histogram")
TOKENS = Metric("gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", "histogram")
ROWS = Metric("spark_llm.rows", "{row}", "Rows that were answered, and rows that failed.", "counter")
REQUESTS = Metric("spark_llm.requests", "{request}", "HTTP requests, retries among them.", "counter")
RETRIES = Metric("spark_llm.retries", "{request}", "HTTP requests that did not end their row.", "counter")
REFUSALS = Metric("spark_llm.refusals", "{response}", "HTTP responses of 400 and above.", "counter")
WINDOW = Metric("spark_llm.window", "{request}", "Requests that may be in flight, of all hosts.", "gauge")
IN_FLIGHT = Metric("spark_llm.in_flight", "{request}", "Requests in flight, of all hosts.", "gauge")
# In a program's own provider, which takes no histogram that is ready.
OPERATIONS = Metric("spark_llm.operations", "{operation}", "GenAI operations.", "counter")
OPERATION_TIME = Metric("spark_llm.operation.time", "s", "Sum of the durations of GenAI operations.", "counter")
TOKEN_SUM = Metric("spark_llm.tokens", "{token}", "Sum of input and output tokens used.", "counter")

OPERATION_NAME = "gen_ai.operation.name"
OPERATION_NAMES = {"chat": "chat", "complete": "text_completion", "embed": "embeddings"}  # by the name of the task
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 -- a name
USAGE = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"
STATUS_CODE = "http.response.status_code"
INSTANCE = "service.instance.id"
RUN = "spark_llm.run"
TABLE = "spark_llm.table"
COLUMN = "spark_llm.column"
UDF = "spark_llm.udf"
ATTEMPTS = "spark_llm.attempts"
JOB_ASKED = "spark_llm.job.asked"
JOB_FAILED = "spark_llm.job.failed"
JOB_REQUESTS = "spark_llm.job.requests"
