"""Failed rows of a table job's chunk, read from its written answers: without their content, keys and messages."""

from collections.abc import Iterator, Mapping

from pyspark.sql import DataFrame, Row
from pyspark.sql.types import StructType

from spark_llm.monitoring.telemetry.failures import FailedRow
from spark_llm.protocol.identifiers import quoted
from spark_llm.protocol.values import Usage
from spark_llm.usage.answers import AnswerColumn

_TOKENS = Usage._fields[:-1]


def failed_rows(answers: DataFrame, wanted: Mapping[str, int]) -> Iterator[FailedRow]:
    """Yield at most so many failed rows of each column; one small Spark job for each column that has some."""
    kinds = answers.schema["result"].dataType
    for column, count in wanted.items():
        if count and isinstance(kinds, StructType) and isinstance(kind := kinds[column].dataType, StructType):
            result = AnswerColumn(quoted(("result", column)), kind)
            fields = {
                **{name: result.field("error", name) for name in ("kind", "status")},
                **{
                    name: result.field(name)
                    for name in ("attempts", "latency_ms", "model", "request_id", "finish_reason")
                },
                **{name: result.field("usage", name) for name in _TOKENS},
            }
            failed = answers.where(f"{fields['kind']} IS NOT NULL").limit(count)
            for row in failed.selectExpr(*(f"{sql} AS {name}" for name, sql in fields.items())).collect():
                yield _failed_row(column, row)


def _failed_row(column: str, row: Row) -> FailedRow:
    values = row.asDict()
    usage = {name: count for name in _TOKENS if (count := values.pop(name)) is not None}
    return FailedRow(column, usage=usage, **values)
