"""What a column of answers used: `usage_report` of a table, and `observe_usage` of an action."""

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from spark_llm.errors import ConfigError
from spark_llm.metering.prices import OnePrice, Price, parse_prices
from spark_llm.protocol.identifiers import named, parse_table_name, quoted
from spark_llm.udf.lazy_udf import active_session
from spark_llm.usage.answers import AnswerColumn
from spark_llm.usage.counts import report_aggregates, report_of
from spark_llm.usage.observed import ObservedUsage
from spark_llm.usage.report import UsageReport
from spark_llm.validation.arguments import checks_arguments


@checks_arguments
def usage_report(df_or_table: DataFrame | str, column: str, *, prices: OnePrice | None = None) -> UsageReport:
    """Return what a column of answers used: rows, errors, tokens, attempts, latency and cost.

    >>> usage_report("reviews_enriched", "mood", prices=(0.5, 1.5))
    >>> usage_report(spark.read.parquet("answers"), "mood").total_tokens

    It reads the rows once. Name a table, or a DataFrame that was written: a DataFrame that still calls the UDF sends
    its requests again. Columns of older versions of this library are read too.

    Args:
        df_or_table: A DataFrame, or a table's name as Spark SQL writes it.
        column: The column that a UDF filled, or a field of a struct, `"answers.mood"`: the whole struct of the UDF.
        prices: US dollars per million tokens: one number, `(prompt, completion)`, `(prompt, completion, cached)`, or a
            `Price`. Without them there is no cost.

    Raises:
        ConfigError: There is no such table or column, or no UDF of this library filled the column.
    """
    rows = _table(df_or_table) if isinstance(df_or_table, str) else df_or_table
    answers, price = _arguments(rows, column, prices)
    [values] = rows.agg(*map(F.expr, named(report_aggregates(answers, price)))).collect()
    return report_of(column, answers, price, values.asDict())


@checks_arguments
def observe_usage(df: DataFrame, column: str, *, prices: OnePrice | None = None) -> tuple[DataFrame, ObservedUsage]:
    """Return the DataFrame, and what one of its columns will have used when an action on it has ended.

    >>> answers, usage = observe_usage(df.withColumn("mood", chat("review")), "mood", prices=(0.5, 1.5))
    >>> answers.write.saveAsTable("moods")
    >>> usage.report()

    Spark counts while the action reads the rows, so nothing is sent twice. The numbers are those of the first action on
    the returned DataFrame. They leave out rows that Spark has asked and not read, and attempts of tasks that failed.

    Args:
        df: A DataFrame that is not a stream.
        column: As in `usage_report`.
        prices: As in `usage_report`.

    Raises:
        ConfigError: There is no such column, or no UDF of this library filled it.
    """
    answers, price = _arguments(df, column, prices)
    observation = Observation()
    rows = df.observe(observation, *map(F.expr, named(report_aggregates(answers, price))))
    return rows, ObservedUsage(column, answers, price, observation)


def _arguments(rows: DataFrame, column: str, prices: OnePrice | None) -> tuple[AnswerColumn, Price | None]:
    if not isinstance(rows, DataFrame):
        raise ConfigError(f"{rows!r} is not a DataFrame.", "pass a DataFrame, or to usage_report a table's name.")
    if rows.isStreaming:
        raise ConfigError("A stream has no end to report on.", "write it, and call usage_report on the table.")
    answers = AnswerColumn.find(rows, column)
    tokenless = [] if answers.has("usage") else [column]
    return answers, parse_prices(None if prices is None else {column: prices}, [column], None, tokenless).get(column)


def _table(name: str) -> DataFrame:
    table = quoted(*parse_table_name("df_or_table=", name))
    try:
        rows = active_session().table(table)
        _ = rows.schema  # Connect resolves the name only now
    except AnalysisException as error:
        raise ConfigError(f"There is no table {table} that can be read.", "check its name and your access.") from error
    return rows
