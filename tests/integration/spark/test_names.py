"""Names of tables and columns, compared with Spark's own parsers."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_llm.errors import ConfigError
from spark_llm.protocol.identifiers import parse_column_name, parse_table_name

pytestmark = pytest.mark.one_kind

PIECES = ["a", "B1", "_", "1", "1a", "1e5", "1d", "2L", "select", "é", *".....", *"`````", "``", " ", "\n", *"-'\";@*+"]
COUNT = 300


@pytest.fixture
def jvm(spark: SparkSession, session_kind: str) -> Any:  # noqa: ANN401 -- the bridge to Java
    """Java's side of the session, which Spark Connect lacks."""
    if session_kind == "connect":
        pytest.skip("Spark Connect has no door to Spark's parsers; they are the same")
    return spark._jvm  # noqa: SLF001 -- Spark's own parsers are what this file compares with


def names() -> Iterator[str]:
    """Yield names made of pieces that matter to a parser; none has a comment, which the library refuses."""
    dice = random.Random(7)
    made = ("".join(dice.choices(PIECES, k=dice.randint(1, 7))) for _ in range(COUNT))
    return (name for name in made if "--" not in name)


def spark_parts(parts_of: Callable[[str], Any], name: str) -> tuple[str, ...] | None:
    """Return the parts of a name in one of Spark's parsers; None if it refuses the name."""
    try:
        parts = parts_of(name)
    except Exception:  # noqa: BLE001 -- Spark's refusals, or Java's
        return None
    return tuple(parts.apply(place) for place in range(parts.size()))


def table_parts(name: str) -> tuple[str, ...] | None:
    """Return the parts of a table's name in this library; None if it refuses the name."""
    try:
        return parse_table_name("source=", name)
    except ConfigError:
        return None


def column_part(name: str) -> tuple[str, ...] | None:
    """Return a column's bare name in this library; None if it refuses the name."""
    try:
        return (parse_column_name("key=", name),)
    except ConfigError:
        return None


def test_table_names_are_read_as_spark_does(spark: SparkSession, jvm: Any) -> None:  # noqa: ANN401 -- the bridge to Java
    """For hundreds of names both give the same parts, or both refuse."""
    parser = spark._jsparkSession.sessionState().sqlParser()  # noqa: SLF001 -- see above
    theirs = {name: spark_parts(parser.parseMultipartIdentifier, name) for name in names()}

    assert theirs == {name: table_parts(name) for name in theirs}
    assert {True, False} == {parts is None for parts in theirs.values()}


def test_column_names_are_read_as_spark_does(jvm: Any) -> None:  # noqa: ANN401 -- the bridge to Java
    """A name of one part is that part; all others are refused, also `*`."""
    spark_reads = jvm.org.apache.spark.sql.catalyst.analysis.UnresolvedAttribute.parseAttributeName
    theirs = {name: spark_parts(spark_reads, name) for name in names() if name != "*"}

    assert {name: parts if parts and len(parts) == 1 else None for name, parts in theirs.items()} == {
        name: column_part(name) for name in theirs
    }
