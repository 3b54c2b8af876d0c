"""The most that a row may cost, guessed from its length before any row was asked."""

from collections.abc import Mapping

from spark_llm.engine.request_spec import request_specs
from spark_llm.enrich.plan import FilledColumn, RunPlan
from spark_llm.metering.chunking import PerRow
from spark_llm.metering.prices import Price
from spark_llm.metering.tally import Tally
from spark_llm.protocol.json_codec import read_json
from spark_llm.protocol.task import Task

BYTES_PER_TOKEN = (
    4  # of English, as a rule of thumb; few languages and tokenizers have more tokens than one for 2 bytes
)
_MAX_TOKENS = ("max_tokens", "max_completion_tokens")


def row_cost(plan: RunPlan, bytes_per_row: float, prices: Mapping[str, Price]) -> PerRow:
    """Return the tokens of a row with inputs this long, over all columns, and their cost; None for no limit."""
    tallies = {}
    for each in plan.filled:
        tally = _tally(each, bytes_per_row / len(plan.filled))
        if tally is None:
            return PerRow()
        tallies[each.name] = tally
    tokens = sum(tally.total_tokens for tally in tallies.values())
    usd = sum(prices[name].cost(tally) for name, tally in tallies.items()) if prices else None
    return PerRow(tokens, usd)


def _tally(each: FilledColumn, input_bytes: float) -> Tally | None:
    """Return the tokens of one column of a row; None where the answer has no limit."""
    task = next(request_specs(each.call.udf.plan())).task
    answer_tokens = max_answer_tokens(task)
    if answer_tokens is None:
        return None
    prompt_tokens = int((input_bytes + instruction_bytes(task)) / BYTES_PER_TOKEN) + 1
    return Tally(
        asked=1,
        prompt_tokens=prompt_tokens,
        completion_tokens=answer_tokens,
        total_tokens=prompt_tokens + answer_tokens,
    )


def instruction_bytes(task: Task) -> int:
    """Return how many bytes each request has besides its text: the instructions, and the type of the answer."""
    return 0 if task.name == "embed" else len(task.encode([""], None, 0))


def max_answer_tokens(task: Task) -> int | None:
    """Return the most tokens that an answer may have; None where it has no limit."""
    if task.name == "embed":
        return 0
    parameters = read_json(getattr(task, "parameters", b"{}"))
    maximum = next((parameters[name] for name in _MAX_TOKENS if isinstance(parameters.get(name), int)), None)
    return None if maximum is None else maximum * getattr(task, "n", 1)
