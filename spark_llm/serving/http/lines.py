"""The requests of batches: each is answered as a request to the route that its batch names.

They count in the statistics, and get the faults by their number and by the poison word. What goes wrong on a connection
cannot go wrong here: in its place is the error of a model that failed. Latency and capacity are those of requests that
somebody waits for, so a batch has neither.
"""

import logging
import secrets
from typing import Any

from spark_llm.serving.batches.job import BatchJob
from spark_llm.serving.batches.worker import LineAnswer
from spark_llm.serving.http.invocations import InvocationHandler, find_task, read_request
from spark_llm.serving.http.responses import PendingResponse, error_response, failed_response, model_response
from spark_llm.serving.protocol.errors import INTERNAL_ERROR, STOPPED, Dialect, Refused, endpoint_not_found
from spark_llm.serving.protocol.requests import parse_object
from spark_llm.serving.protocol.responses_request import ResponsesRequest
from spark_llm.serving.scenario.stats import BatchRequestStats, Recorded

_ANSWERED = ("ok", "drip", "empty")  # the others of the faults that are no refusal end in an error
_TIER = "default"  # as OpenAI writes it in the answers of a batch

_logger = logging.getLogger(__name__)


class LineHandler:
    """Answers the requests of batches with the models, the faults and the counters of `InvocationHandler`."""

    def __init__(self, invocations: InvocationHandler) -> None:
        self._invocations = invocations

    def is_served(self, name: str) -> bool:
        """Return whether there is a model of this name."""
        return name in self._invocations.catalog

    async def answer(self, job: BatchJob, raw: bytes) -> LineAnswer:
        """Return the answer to the body of one request."""
        dialect: Dialect = "azure" if job.is_azure else "openai"
        request_id, stats = secrets.token_hex(12), self._invocations.stats.begin_batch_request()
        name, body = job.model or "", None
        try:
            body = parse_object(raw)
            response = await self._respond(job, body, dialect, request_id, stats)
        except Refused as refused:
            response = error_response(refused, dialect)
        except Exception:
            _logger.exception("A model failed")
            response = error_response(Refused(INTERNAL_ERROR), dialect)
        except BaseException:
            stats.interrupt()  # the request is answered when the endpoints go on
            raise
        stats.end(Recorded(name, body, {}, job.endpoint), len(raw), response.status, response.rows, response.usage)
        return LineAnswer(response.status, request_id, response.body, response.usage)

    async def _respond(
        self, job: BatchJob, body: dict[str, Any], dialect: Dialect, request_id: str, stats: BatchRequestStats
    ) -> PendingResponse:
        invocations, name = self._invocations, job.model or ""
        if (deployment := invocations.catalog.get(name)) is None:
            raise Refused(endpoint_not_found(name, dialect))
        if not deployment.ready:
            raise Refused(STOPPED)
        request = read_request(body, find_task(deployment, body, job.task, dialect), name, dialect)
        stats.rows = request.rows
        await invocations.holds.wait(body)
        fault = invocations.faults.at(stats.number)
        if fault.refusal is not None:
            raise Refused(fault.refusal)
        if (refusal := invocations.faults.poisoned(request.texts)) is not None:
            raise Refused(refusal)
        model = next(iter(deployment.entities.values()))
        if fault.kind == "errorbody" and isinstance(request, ResponsesRequest):
            return failed_response(model, request, request_id)
        if fault.kind not in _ANSWERED:
            raise Refused(INTERNAL_ERROR)
        empty = fault.kind == "empty"
        return await model_response(model, request, {}, request_id, empty=empty, service_tier=_TIER)
