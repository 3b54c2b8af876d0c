"""SQL written for Databricks, run with the AI functions on open-source Spark.

The statements and their facts are in `ai_functions.sql`. They run with models whose answers fit each schema, and, as
slow tests, with small real ones. Those are weak, so the tests check the form of their answers and not the quality.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyspark
import pytest
from pyspark.sql import SparkSession

from spark_llm import Policy, chat_udf
from spark_llm.ai.sql import register_ai_functions
from spark_llm.serving import Echo, LocalEndpoints
from spark_llm.udf.lazy_udf import is_at_least
from tests.integration.spark.asking import endpoint
from tests.support.reply_model import ReplyModel, schema_example

pytestmark = pytest.mark.one_kind

PAGE = Path(__file__).with_name("ai_functions.sql")
FACTS = ("gives", "rows", "asks", "holds", "since", "runs", "needs")


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


def cases() -> Iterator[Any]:
    """Yield each query with the kind of models that answer it."""
    for kind in ("fitting", "real"):
        for statement in STATEMENTS:
            if statement.runs_here and not statement.makes_view and statement.facts.get("needs", kind) == kind:
                marks = [pytest.mark.models] if kind == "real" else []
                marks += [pytest.mark.slow] if kind == "real" or "runs" in statement.facts else []
                yield pytest.param(kind, statement, id=f"{kind}: {statement.sentence}", marks=marks)


@pytest.fixture(scope="module")
def models(spark: SparkSession, request: pytest.FixtureRequest) -> Iterator[LocalEndpoints]:
    """Models behind the AI functions, and the page's views."""
    fitting = LocalEndpoints({"chat": ReplyModel(schema_example), "embed": Echo()})
    with LocalEndpoints.real() if request.param == "real" else fitting as endpoints:
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


@pytest.mark.parametrize(("models", "statement"), list(cases()), indirect=["models"])
def test_a_statement_for_databricks_runs(models: LocalEndpoints, statement: Statement, spark: SparkSession) -> None:
    """It has the expected columns, rows and values, and sends exactly the expected requests."""
    models.reset()
    answers = spark.sql(statement.sql)
    assert statement.facts["gives"] == ", ".join(f"{name} {kind}" for name, kind in answers.dtypes)

    rows = answers.selectExpr("*", f"{statement.facts.get('holds', 'TRUE')} AS holds").collect()

    assert int(statement.facts["asks"]) == models.stats.rows_asked
    assert int(statement.facts.get("rows", len(rows))) == len(rows)
    assert [True] * len(rows) == [row["holds"] for row in rows], rows


def test_every_function_is_on_the_page() -> None:
    """The page has every registered function, and every fact has a known name."""
    names = set(re.findall(r"\b(?:try_)?ai_\w+(?=\()", " ".join(statement.sql for statement in STATEMENTS)))
    functions = ("gen", "classify", "extract", "summarize", "translate", "analyze_sentiment", "fix_grammar", "mask")
    others = ("classify_multi", "filter", "score", "similarity", "query", "agg", "summarize_agg")

    assert {f"ai_{name}" for name in (*functions, *others)} | {"try_ai_query"} == names
    assert set(FACTS) == {name for statement in STATEMENTS for name in statement.facts}
