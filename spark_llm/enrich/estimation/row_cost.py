"""What a row may cost at most, guessed from its length before any was asked."""

from collections.abc import Mapping, Sequence

from spark_llm.engine.request_spec import request_specs
from spark_llm.enrich.changes import Asking
from spark_llm.metering.chunking import PerRow
from spark_llm.metering.prices import Price
from spark_llm.metering.tally import Tally
from spark_llm.protocol.json_codec import read_json
from spark_llm.protocol.task import Task

BYTES_A_TOKEN = 4  # of English, as a rule of thumb; few languages and tokenizers have more tokens than one for 2 bytes
_MOST = ("max_tokens", "max_completion_tokens")


def cost_of_a_row(asking: Sequence[Asking], bytes_a_row: float, prices: Mapping[str, Price]) -> PerRow:
    """Return the tokens of a row with inputs this long, over all columns, and what they cost; None for what is open."""
    tallies = {}
    for each in asking:
        tally = _tally(each, bytes_a_row / len(asking))
        if tally is None:
            return PerRow()
        tallies[each.name] = tally
    tokens = sum(tally.total_tokens for tally in tallies.values())
    usd = sum(prices[name].cost(tally) for name, tally in tallies.items()) if prices else None
    return PerRow(tokens, usd)


def _tally(each: Asking, size: float) -> Tally | None:
    """Return the tokens of one column of a row; None where nothing says how long the answer may be."""
    task = next(request_specs(each.call.udf.plan())).task
    answer = longest_answer(task)
    if answer is None:
        return None
    question = int((size + envelope_of(task)) / BYTES_A_TOKEN) + 1
    return Tally(asked=1, prompt_tokens=question, completion_tokens=answer, total_tokens=question + answer)


def envelope_of(task: Task) -> int:
    """Return how many bytes go with each text: the instructions, and the type of the answer."""
    return 0 if task.name == "embed" else len(task.encode([""], None, 0))


def longest_answer(task: Task) -> int | None:
    """Return the most tokens that an answer may have; None where nothing says so."""
    if task.name == "embed":
        return 0
    parameters = read_json(getattr(task, "parameters", b"{}"))
    most = next((parameters[name] for name in _MOST if isinstance(parameters.get(name), int)), None)
    return None if most is None else most * getattr(task, "n", 1)
