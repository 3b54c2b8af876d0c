"""The most that a row may cost, guessed from its length before any row was asked."""

from collections.abc import Mapping

from spark_llm.engine.request_spec import request_specs
from spark_llm.enrich.plan import FilledColumn, RunPlan
from spark_llm.errors import ConfigError
from spark_llm.metering.chunking import PerRow
from spark_llm.metering.prices import Price, total_cost, total_cost_by_batch
from spark_llm.metering.tally import Tally
from spark_llm.protocol.batches.urls import batch_urls
from spark_llm.protocol.chat.content import BYTES_PER_TOKEN
from spark_llm.protocol.json_codec import read_json
from spark_llm.protocol.task import Task

_MAX_TOKENS = ("max_tokens", "max_completion_tokens")
_WITHOUT_TEXT = ("embed", "rerank")  # tasks whose answers have no tokens


def row_cost(plan: RunPlan, bytes_per_row: float, prices: Mapping[str, Price], *, by_batch: bool = False) -> PerRow:
    """Return the tokens of a row with inputs this long, over all columns, and their cost; None for no limit.

    `by_batch`: they have the price of batches.
    """
    tallies = {}
    for each in plan.filled:
        tally = guessed_tally(task_of(each), 1, bytes_per_row / len(plan.filled))
        if tally is None:
            return PerRow()
        tallies[each.name] = tally
    tokens = sum(tally.total_tokens for tally in tallies.values())
    return PerRow(tokens, (total_cost_by_batch if by_batch else total_cost)(prices, tallies))


def task_of(each: FilledColumn) -> Task:
    """Return the task that fills a column."""
    return next(request_specs(each.call.udf.plan())).task


def may_be_batched(each: FilledColumn) -> bool:
    """Return whether a column could go through a Batch API, as far as its address tells: one model fills it."""
    specs = list(request_specs(each.call.udf.plan()))
    try:
        return len(specs) == 1 and bool(batch_urls(specs[0].route.url))
    except ConfigError:
        return False


def guessed_tally(task: Task, rows: int, input_bytes: float) -> Tally | None:
    """Return the tokens of rows whose inputs have this length in all; None where the answer has no limit."""
    if not task.reports_tokens:
        return Tally(rows)
    answer_tokens = max_answer_tokens(task)
    if answer_tokens is None:
        return None
    prompt, completion = guessed_prompt_tokens(task, rows, input_bytes), rows * answer_tokens
    return Tally(rows, {}, prompt, completion, 0, prompt + completion)


def guessed_prompt_tokens(task: Task, rows: int, input_bytes: float) -> int:
    """Return the tokens of the prompts of rows whose inputs have this length in all."""
    return int((input_bytes + rows * instruction_bytes(task)) / BYTES_PER_TOKEN) + rows


def instruction_bytes(task: Task) -> int:
    """Return how many bytes each request has besides its text: the instructions, and the type of the answer."""
    return 0 if task.name in _WITHOUT_TEXT else len(task.encode([""], None, 0))


def max_answer_tokens(task: Task) -> int | None:
    """Return the most tokens that an answer may have; None where it has no limit."""
    if task.name in _WITHOUT_TEXT:
        return 0
    parameters = read_json(task.parameters)
    maximum = next((parameters[name] for name in _MAX_TOKENS if isinstance(parameters.get(name), int)), None)
    return None if maximum is None else maximum * getattr(task, "n", 1)
