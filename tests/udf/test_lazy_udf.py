"""What is no session, and what is no column, is an error with a next step where it is given."""

from collections.abc import Callable
from typing import Any

import pytest

from spark_llm import ConfigError, chat_udf, embed_udf, enrich_stream, enrich_table, estimate, register
from spark_llm import register_ai_functions as register_ai

URL = "https://host/serving-endpoints/llama/invocations"
CALLS: tuple[Callable[[Any], object], ...] = (
    lambda spark: register(spark, chat=URL),
    lambda spark: register_ai(spark, chat=URL),
    lambda spark: enrich_table(spark, "source", "target", "id", {}),
    lambda spark: enrich_stream(spark, "source", "target", "id", {}, "checkpoint"),
    lambda spark: estimate(spark, "source", "target", "id", {}),
)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("given", [None, "spark", 7])
def test_what_is_no_session_is_named(call: Callable[[Any], object], given: object) -> None:
    """A notebook without a session has None, and a name in quotes is a text."""
    with pytest.raises(
        ConfigError, match=rf"^An object of type {type(given).__name__} is not a Spark session\. Hint: "
    ):
        call(given)


@pytest.mark.parametrize("udf", [chat_udf(URL), embed_udf(URL)], ids=str)
@pytest.mark.parametrize("given", [5, 0.5, b"text", ["text"]])
def test_what_is_no_column_is_named(udf: Callable[[Any], object], given: object) -> None:
    """A value is not taken for a column; a text is a column's name."""
    with pytest.raises(ConfigError, match=r"_udf was called on .*, which is not a column\. Hint: .*F\.lit\(value\)\.$"):
        udf(given)
