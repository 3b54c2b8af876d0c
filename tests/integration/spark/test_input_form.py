"""The form of a model's input on real Spark: golden values, and another form for each other value."""

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm.enrich.fingerprints.input_form import row_form

pytestmark = pytest.mark.one_kind

GOLDEN = {
    "true": "o-6698625589789238999:",
    "1Y": "i1:",
    "-9223372036854775808L": "i-9223372036854775808:",
    "FLOAT('0.1')": "f-7604770425485878823:",
    "0.1D": "d-4684694357984311926:",
    "DOUBLE('NaN')": "d-3127944061524951246:",
    "1.10BD": "x1.10:",
    "1.1BD": "x1.1:",
    "-1234567890123456789012345678.90BD": "x-1,234,567,890,123,456,789,012,345,678.90:",
    "'é'": "t2:é",
    "X'00FF'": "b2:06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8",
    "DATE'2024-02-29'": "D4183429117450946631:",
    "TIMESTAMP'2024-02-29 12:00:00Z'": "T2906971207710284459:",
    "TIMESTAMP_NTZ'2024-02-29 12:00:00'": "N2906971207710284459:",
    "array(1, null)": "a2:i1:n",
    "array(1)": "a1:i1:",
    "named_struct('a', 1, 'A', null)": "s2:t1:ai1:t1:An",
    "array(named_struct('a', 1, 'A', array('x')))": "a1:s2:t1:ai1:t1:Aa1:t1:x",
    "map('b', 1, 'a', null)": "k2:t1:ant1:bi1:",
    "map('a', null, 'b', 1)": "k2:t1:ant1:bi1:",
    "named_struct('a', named_struct('b', INT(null)))": "s1:t1:as1:t1:bn",
}


def forms(spark: SparkSession) -> dict[str, str | None]:
    """Return the form of each value."""
    found = {}
    for value in GOLDEN:
        frame = spark.range(1).select(F.expr(value).alias("v"))
        found[value] = frame.select(row_form(F.col("v"), frame.schema["v"].dataType)).collect()[0][0]
    return found


def test_forms_are_the_same_in_every_version_and_zone(spark: SparkSession) -> None:
    """Each value has its golden form, whatever the session's time zone is; a map's order is none of its value."""
    zone = spark.conf.get("spark.sql.session.timeZone") or "UTC"
    assert forms(spark) == GOLDEN
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        assert forms(spark) == GOLDEN
    finally:
        spark.conf.set("spark.sql.session.timeZone", zone)
    assert len(GOLDEN) - 1 == len(set(GOLDEN.values()))


@pytest.mark.parametrize("value", ["INT(null)", "named_struct('a', INT(null), 'b', STRING(null))", "null"])
def test_nothing_but_nulls_asks_nothing(spark: SparkSession, value: str) -> None:
    """Its form is null; one null among other values is not."""
    frame = spark.range(1).select(F.expr(value).alias("v"))

    assert [(None,)] == frame.select(row_form(F.col("v"), frame.schema["v"].dataType)).collect()
