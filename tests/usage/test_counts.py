"""The tally of the values that Spark counts."""

from spark_llm import schemas
from spark_llm.metering.tally import Tally
from spark_llm.usage.answers import AnswerColumn
from spark_llm.usage.counts import tally_aggregates, tally_of


def test_cancelled_rows_were_not_asked() -> None:
    """Spark counts them with the rows that have a prompt; they are neither asked nor failed."""
    counts = {"asked": 300, "failed invalid_request": 206, "failed cancelled": 94}
    values = dict.fromkeys(tally_aggregates(AnswerColumn("answer", schemas.CHAT))) | counts

    assert Tally(206, {"invalid_request": 206}, cancelled=94) == tally_of(values)
