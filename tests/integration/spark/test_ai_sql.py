"""SQL written for Databricks, run with the AI functions on open-source Spark and small real models.

The statements and their facts are in `ai_functions.sql`. The models are weak, so the tests check the form of their
answers and not the quality.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyspark
import pytest
from pyspark.sql import SparkSession

from spark_llm import Policy, chat_udf
from spark_llm.ai.sql import register_ai_functions
from spark_llm.serving import LocalEndpoints
from spark_llm.udf.lazy_udf import is_at_least
from tests.integration.spark.asking import endpoint

pytestmark = pytest.mark.models

PAGE = Path(__file__).with_name("ai_functions.sql")
FACTS = ("gives", "rows", "asks", "holds", "since", "runs")


@dataclass(frozen=True)
class Statement:
    """A statement, the sentence above it, and its facts."""

    sentence: str
    sql: str
    facts: dict[str, str]

    @classmethod
    def parse(cls, written: str) -> "Statement":
        """Read the comments above a statement: `-- name: value` is a fact, anything else the sentence."""
        comments = [line.removeprefix("--").strip() for line in written.splitlines() if line.startswith("--")]
        sql = "\n".join(line for line in written.splitlines() if not line.startswith("--"))
        facts = {match[1]: match[2] for line in comments if (match := re.match(r"(\w+): (.+)", line))}
        sentence = " ".join(line for line in comments if not re.match(r"\w+: ", line))
        return cls(sentence, sql, facts)

    @property
    def makes_view(self) -> bool:
        """Whether other statements need it."""
        return self.sql.startswith("CREATE")

    @property
    def runs_here(self) -> bool:
        """Whether this Spark is new enough."""
        major, minor = map(int, self.facts.get("since", "3.5").split("."))
        return is_at_least(pyspark.__version__, major, minor)


# The head of the page ends at the first blank line.
STATEMENTS = [
    Statement.parse(written.strip())
    for written in PAGE.read_text("utf-8").partition("\n\n")[2].strip().removesuffix(";").split(";\n")
]
QUERIES = [
    pytest.param(statement, id=statement.sentence, marks=[pytest.mark.slow] if "runs" in statement.facts else [])
    for statement in STATEMENTS
    if statement.runs_here and not statement.makes_view
]


@pytest.fixture(scope="module")
def real(spark: SparkSession) -> Iterator[LocalEndpoints]:
    """Real models behind the AI functions, and the page's views."""
    with LocalEndpoints.real() as endpoints:
        chat = partial(chat_udf, endpoint(endpoints), temperature=0, policy=Policy(max_in_flight=4, tasks=2))
        register_ai_functions(
            spark,
            chat=chat(max_tokens=40),
            embed=endpoint(endpoints, "embed"),
            endpoints={"my-endpoint": chat(max_tokens=12)},
        )
        for statement in STATEMENTS:
            if statement.makes_view:
                spark.sql(statement.sql)
        assert 0 == endpoints.stats.requests
        yield endpoints


@pytest.mark.parametrize("statement", QUERIES)
def test_a_statement_for_databricks_runs(statement: Statement, spark: SparkSession, real: LocalEndpoints) -> None:
    """It has the expected columns, rows and values, and sends exactly the expected requests."""
    real.reset()
    answers = spark.sql(statement.sql)
    assert statement.facts["gives"] == ", ".join(f"{name} {kind}" for name, kind in answers.dtypes)

    rows = answers.selectExpr("*", f"{statement.facts.get('holds', 'TRUE')} AS holds").collect()

    assert int(statement.facts["asks"]) == real.stats.rows_asked
    assert int(statement.facts.get("rows", len(rows))) == len(rows)
    assert [True] * len(rows) == [row["holds"] for row in rows], rows


def test_every_function_is_on_the_page() -> None:
    """The page has every registered function, and every fact has a known name."""
    names = set(re.findall(r"\b(?:try_)?ai_\w+(?=\()", " ".join(statement.sql for statement in STATEMENTS)))
    functions = ("gen", "classify", "extract", "summarize", "translate", "analyze_sentiment", "fix_grammar", "mask")
    others = ("classify_multi", "filter", "score", "similarity", "query", "agg", "summarize_agg")

    assert {f"ai_{name}" for name in (*functions, *others)} | {"try_ai_query"} == names
    assert set(FACTS) == {name for statement in STATEMENTS for name in statement.facts}
