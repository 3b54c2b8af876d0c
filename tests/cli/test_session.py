"""Which Spark gets Java, Delta Lake and this Python from us, and which is left as somebody has set it up."""

import pytest

from spark_llm.cli.local.delta import delta_settings
from spark_llm.cli.session import bare_settings, is_single_field


@pytest.mark.parametrize(
    ("settings", "environ", "expected"),
    [
        ({}, {}, True),
        ({"spark.master": "local[4]"}, {}, True),
        ({}, {"SPARK_REMOTE": "local[2]"}, True),
        ({}, {"SPARK_HOME": ""}, True),
        ({"spark.master": "spark://host:7077"}, {}, False),
        ({"spark.master": "yarn"}, {}, False),
        ({"spark.remote": "sc://host"}, {}, False),
        ({}, {"SPARK_REMOTE": "sc://host"}, False),
        ({}, {"SPARK_HOME": "/opt/spark"}, False),
        ({}, {"SPARK_CONF_DIR": "/etc/spark"}, False),
        ({}, {"PYSPARK_SUBMIT_ARGS": "--packages a:b:1 pyspark-shell"}, False),
        ({}, {"PYSPARK_GATEWAY_PORT": "41234"}, False),
        ({}, {"DATABRICKS_RUNTIME_VERSION": "17.3"}, False),
    ],
)
def test_a_spark_that_somebody_has_set_up_is_left_alone(
    settings: dict[str, str], environ: dict[str, str], *, expected: bool
) -> None:
    """Only one that would run on this machine, with no home and no settings of its own, is ours to equip."""
    assert expected == is_single_field(settings, environ)


def test_a_bare_spark_gets_delta_lake() -> None:
    """And no second bar on the terminal."""
    assert {"spark.ui.showConsoleProgress": "false", **delta_settings("4.2.1")} == bare_settings({}, "4.2.1")


@pytest.mark.parametrize(
    "name", ["spark.jars", "spark.jars.packages", "spark.sql.extensions", "spark.sql.catalog.spark_catalog"]
)
def test_a_file_that_says_where_tables_come_from_gets_nothing_besides(name: str) -> None:
    """All of it is the file's own affair then: two halves would not fit together."""
    assert {"spark.ui.showConsoleProgress": "false"} == bare_settings({name: "its own"}, "4.2.1")
