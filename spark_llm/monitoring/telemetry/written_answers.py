"""What telemetry reads of a job's written answers: operations, and failed rows without content, keys and messages.

Each is a small Spark job, and most chunks need none: live counts say the same, and few rows fail.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pyspark.sql import DataFrame, Row

from spark_llm.metering.operations import ANSWERED, BUCKETS, DURATION_BOUNDS_MS, TOKEN_BOUNDS, Histogram, Operations
from spark_llm.monitoring.telemetry import conventions
from spark_llm.monitoring.telemetry.failures import FailedRow
from spark_llm.protocol.identifiers import quoted
from spark_llm.usage.answers import AnswerColumn

_TOKENS = tuple(conventions.USAGE)
_DURATION, *_COUNTED = "latency_ms", "prompt_tokens", "completion_tokens"


def operations(answers: DataFrame, columns: Iterable[str]) -> dict[str, Operations]:
    """Return the operations of each column, as workers count them, but for refusals: written answers have none."""
    return {column: _operations(answers, column) for column in columns}


def failed_rows(answers: DataFrame, wanted: Mapping[str, int]) -> Iterator[FailedRow]:
    """Yield at most so many failed rows of each column."""
    for column, count in wanted.items():
        if count:
            result = _result(answers, column)
            fields = {
                **{name: result.field("error", name) for name in ("kind", "status")},
                **{
                    name: result.field(name) for name in ("attempts", _DURATION, "model", "request_id", "finish_reason")
                },
                **{name: result.field("usage", name) for name in _TOKENS},
            }
            failed = answers.where(f"{fields['kind']} IS NOT NULL").limit(count)
            for row in failed.selectExpr(*(f"{sql} AS {name}" for name, sql in fields.items())).collect():
                yield _failed_row(column, row)


def _operations(answers: DataFrame, column: str) -> Operations:
    """Group the rows by ending and buckets, and add the groups up here."""
    result = _result(answers, column)
    requests, attempts = quoted("requests", column), result.field("attempts")
    numbers = {_DURATION: f"CASE WHEN {requests} > 0 THEN CAST({result.field(_DURATION)} AS DOUBLE) END"}
    numbers |= {name: f"CASE WHEN {attempts} > 0 THEN {result.tokens(name)} END" for name in _COUNTED}
    buckets = [
        f"{_bucket(number, DURATION_BOUNDS_MS if name == _DURATION else TOKEN_BOUNDS)} AS `{name} bucket`"
        for name, number in numbers.items()
    ]
    values = [f"{number} AS {name}" for name, number in numbers.items()]
    ending = f"coalesce({result.field('error', 'kind')}, '{ANSWERED}') AS ending"
    rows = answers.selectExpr(ending, *buckets, *values)
    groups = rows.groupBy("ending", *(f"{name} bucket" for name in numbers))
    found = groups.agg({"*": "count", **dict.fromkeys(numbers, "sum")}).collect()
    durations = {each: [row for row in found if row["ending"] == each] for each in {row["ending"] for row in found}}
    by_ending = {each: _histogram(rows, _DURATION) for each, rows in durations.items()}
    prompt, completion = (_histogram(found, name) for name in _COUNTED)
    return Operations({each: histogram for each, histogram in by_ending.items() if histogram.count}, prompt, completion)


def _bucket(number: str, bounds: Sequence[float]) -> str:
    return " + ".join(f"CAST({number} > {bound}D AS INT)" for bound in bounds)


def _histogram(groups: Iterable[Row], name: str) -> Histogram:
    counts, total = Counter[int](), 0
    for row in groups:
        if row[f"{name} bucket"] is not None:
            counts[row[f"{name} bucket"]] += row["count(1)"]
            total += row[f"sum({name})"]
    return Histogram(tuple(counts[bucket] for bucket in range(BUCKETS)), total)


def _result(answers: DataFrame, column: str) -> AnswerColumn:
    return AnswerColumn.find(answers, quoted("result", column))


def _failed_row(column: str, row: Row) -> FailedRow:
    values = row.asDict()
    usage = {name: count for name in _TOKENS if (count := values.pop(name)) is not None}
    return FailedRow(column, usage=usage, **values)
