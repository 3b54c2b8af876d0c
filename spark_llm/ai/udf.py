"""The AI functions as Spark UDFs, with the types of their results."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from pyspark.sql import Column
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DoubleType,
    FloatType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
)

from spark_llm import schemas
from spark_llm.ai.aggregate_plan import CONTEXT_TOKENS, AggregatePlan, LevelPlan, window_of
from spark_llm.ai.aggregation import Instructions
from spark_llm.ai.catalog import FUNCTIONS
from spark_llm.ai.plans import FunctionPlan, QueryPlan, SimilarityPlan
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.errors import ConfigError
from spark_llm.protocol.chat.task import Chat
from spark_llm.udf.by_task import model_udf
from spark_llm.udf.lazy_udf import LazyUDF
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.udf.plan import Plan
from spark_llm.udf.predict_udf import session_time_zone

SIMILARITY = StructType(
    [StructField("parsed", FloatType()), *(field for field in schemas.EMBED if field.name != "embedding")]
)
LEVEL = StructType(
    [
        StructField("answers", ArrayType(StringType())),
        StructField("cut_rows", ArrayType(LongType())),
        *(field for field in schemas.AGGREGATE if field.name in ("usage", "error")),
    ]
)
_PARSED_TYPES: dict[str, DataType] = {
    "classify": StringType(),
    "classify_multi": ArrayType(StringType()),
    "extract": MapType(StringType(), StringType()),
    "analyze_sentiment": StringType(),
    "filter": BooleanType(),
    "score": DoubleType(),
}
_LAST_FIELDS = {"classify": schemas.LABEL.fields, "classify_multi": schemas.LABEL.fields[1:]}


class AIFunction(LazyUDF):
    """An AI function with its model; call it on a column for each of its parameters."""

    def __init__(self, name: str, returns: DataType, make_plan: Callable[[], Plan], field: str | None = None) -> None:
        """Return structs, or only this `field` of each result."""
        super().__init__(name, field)
        self._returns, self._make_plan = returns, make_plan

    @property
    def returnType(self) -> DataType:  # noqa: N802 -- PySpark's name
        """The type of the result column."""
        return self._returns

    def plan(self) -> Plan:
        """Return the plan that workers run."""
        return self._make_plan()

    def __repr__(self) -> str:
        """Show the function's name in SQL and its result type."""
        return f"AIFunction({self.__name__!r}, {self._returns.simpleString()!r})"

    def __call__(self, *columns: Column) -> Column:
        """Return the result column."""
        return self.tagged_column(*columns)

    def field(self, name: str) -> "AIFunction":
        """Return the function that gives only this field of the struct."""
        data_type = next(each.dataType for each in self._returns if each.name == name)  # type: ignore[attr-defined]  # a struct
        return AIFunction(self.__name__, data_type, self._make_plan, name)


def chat_function(name: str, chat: ModelUDF, options: Collection[str] = ()) -> AIFunction:
    """Return `ai_<name>` as structs, with the model of `chat`; raises `ConfigError` for an unsuitable UDF.

    It takes the function's parameters in order; of the `extra` ones those among `options`.
    """
    function, task = FUNCTIONS[name].with_options(options), plain_task(chat)
    schema = schemas.with_parsed(schemas.CHAT, _PARSED_TYPES[name]) if function.typed else schemas.CHAT
    schema = StructType([*schema.fields, *_LAST_FIELDS.get(name, ())])

    def make_plan() -> FunctionPlan:
        typed = replace(task, output_per_prompt=function.typed, answer_only=True)
        return FunctionPlan(replace(chat.request_spec, task=typed), function)

    return AIFunction(f"llm_{name}", schema, make_plan)


def aggregate_function(chat: ModelUDF, context_tokens: int = CONTEXT_TOKENS, *, summarizes: bool = False) -> AIFunction:
    """Return `ai_agg`, or `ai_summarize_agg`, as structs; raises `ConfigError` for an unsuitable UDF or window."""
    task = plain_task(chat)
    window = window_of(context_tokens, task)

    def make_plan() -> AggregatePlan:
        return AggregatePlan(replace(chat.request_spec, task=replace(task, answer_only=True)), window, summarizes)

    return AIFunction("llm_summarize_agg" if summarizes else "llm_agg", schemas.AGGREGATE, make_plan)


def level_function(chat: ModelUDF, instructions: Instructions, level: int) -> AIFunction:
    """Return the function that asks one level of `functions.aggregate`: texts in, the answers about them out."""

    def make_plan() -> LevelPlan:
        task = replace(plain_task(chat), answer_only=True)
        return LevelPlan(replace(chat.request_spec, task=task), instructions, level)

    return AIFunction("llm_aggregate", LEVEL, make_plan)


def query_function(
    endpoints: Mapping[str, ModelUDF],
    workspace: RequestSpec | None,
    schema: StructType = schemas.CHAT,
    *,
    raises: bool,
) -> AIFunction:
    """Return `ai_query` as structs; with `raises`, a failed row fails the query.

    An endpoint's name is looked up in `endpoints`, else in a workspace, of which `workspace` is any endpoint's spec.
    """

    def make_plan() -> QueryPlan:
        known = tuple((name, _answer_only(udf.request_spec)) for name, udf in endpoints.items())
        return QueryPlan(known, workspace and _answer_only(workspace), raises, session_time_zone())

    return AIFunction("llm_query_or_fail" if raises else "llm_query", schema, make_plan)


def similarity_function(embed: ModelUDF) -> AIFunction:
    """Return `ai_similarity` as structs, with the model of `embed`."""
    return AIFunction("llm_similarity", SIMILARITY, lambda: SimilarityPlan(embed.request_spec))


def known_endpoints(endpoints: Mapping[str, str | Endpoint | ModelUDF]) -> dict[str, ModelUDF]:
    """Return the UDF of each endpoint that `ai_query` may name; raises `ConfigError` for an unsuitable one."""
    known = {}
    for name, model in endpoints.items():
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"endpoints= has the name {name!r}.", 'write it as endpoints={"my-endpoint": …}.')
        udf = model if isinstance(model, ModelUDF) else model_udf("chat", model)
        if (unfit := _unfit(udf)) is not None:
            raise ConfigError(
                f"endpoints[{name!r}] is a UDF {unfit}, but ai_query in SQL returns one text for one request.",
                "pass it to register(spark, …) for a function of its own.",
            )
        known[name] = udf
    return known


def _unfit(udf: ModelUDF) -> str | None:
    """Return why a UDF does not take one text and return one; None where it does."""
    if udf.task == "embed":
        return "for embeddings"
    if udf.task == "rerank":
        return "for rerankings"
    if udf.prompt is not None:
        return "with a template"
    return "with tools" if udf.has_tools else None


def _answer_only(spec: RequestSpec) -> RequestSpec:
    """Return the spec with texts that leave out the reasoning in front of the answer."""
    return replace(spec, task=replace(spec.task, answer_only=True)) if isinstance(spec.task, Chat) else spec


def plain_task(chat: ModelUDF, parameter: str = "chat", why: str = "the AI functions set themselves") -> Chat:
    """Return the task of a UDF that a user passed as `parameter`.

    Raises `ConfigError` if it has instructions, a type or several answers of its own; `why` ends the sentence.
    """
    if not chat.has_type and not chat.prompt:
        task = chat.codec
        if isinstance(task, Chat) and task.system is None and task.n == 1 and not task.tools:
            return task
    raise ConfigError(
        f"{parameter}= got a UDF with system=, template=, returns=, tools= or n=, which {why}.",
        "build the UDF without them; only its endpoint, its parameters and its policy are used.",
    )
