"""The AI functions as Spark's UDFs: what a worker does for each, and the types that they give."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from pyspark.sql import Column
from pyspark.sql.types import DataType, FloatType, MapType, StringType, StructField, StructType

from spark_llm import schemas
from spark_llm.ai.arguments import Arguments, Columns
from spark_llm.ai.catalog import FUNCTIONS, Function, Parameter
from spark_llm.ai.similarity import in_pairs
from spark_llm.endpoint.endpoint import Endpoint, is_name
from spark_llm.engine.engine import raise_if_failed
from spark_llm.engine.parallel_columns import ParallelResults, ask_in_parallel
from spark_llm.engine.registry import engine_for
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.errors import ConfigError, InputTypeError
from spark_llm.protocol.canonical import canonical_function, canonical_model
from spark_llm.protocol.chat import Chat
from spark_llm.protocol.urls import invocations_url
from spark_llm.protocol.values import Row
from spark_llm.udf.factories import model_udf
from spark_llm.udf.lazy_udf import LazyUDF, Plan, Results
from spark_llm.udf.model_udf import ModelUDF

SIMILARITY = StructType([StructField("parsed", FloatType()), *(f for f in schemas.EMBED if f.name != "embedding")])
_PARSED: dict[str, DataType] = {
    "classify": StringType(),
    "extract": MapType(StringType(), StringType()),
    "analyze_sentiment": StringType(),
}
PAIR = (Parameter("expr1"), Parameter("expr2"))
QUERY = (Parameter("endpoint"), Parameter("request"))
NAMES_AT_ONCE = 16  # endpoints that one task asks at the same time; further names take turns


class AIFunction(LazyUDF):
    """One of the AI functions with the model that it asks; it is called on a column for each of its parameters."""

    def __init__(self, name: str, returns: DataType, plan: Callable[[], Plan], field: str | None = None) -> None:
        """Give structs, or of each result only the field that is the function's value."""
        super().__init__(name, field)
        self._returns, self._made_plan = returns, plan

    @property
    def returnType(self) -> DataType:  # noqa: N802 -- PySpark's name
        """The type of its column."""
        return self._returns

    def plan(self) -> Plan:
        """Return what travels to the workers."""
        return self._made_plan()

    def __repr__(self) -> str:
        """Show the name that SQL has for it, and what it gives."""
        return f"AIFunction({self.__name__!r}, {self._returns.simpleString()!r})"

    def __call__(self, *columns: Column) -> Column:
        """Return the column of answers."""
        return self.called_on(*columns)

    def value(self, field: str) -> "AIFunction":
        """Return the function that gives one field of the struct alone."""
        kind = next(each.dataType for each in self._returns if each.name == field)  # type: ignore[attr-defined]  # a struct
        return AIFunction(self.__name__, kind, self._made_plan, field)


class ArgumentsPlan(ABC):
    """Read a function's arguments, and answer them slice by slice."""

    def arrow(self, batches: Iterator[Any]) -> Results:
        """Answer the rows of Arrow arrays."""
        return self._answers(self._arguments.arrow(batches))

    def pandas(self, batches: Iterator[Any]) -> Results:
        """Answer the rows of pandas series."""
        return self._answers(self._arguments.pandas(batches))

    @property
    @abstractmethod
    def _arguments(self) -> Arguments:
        """How the arguments are read."""

    @abstractmethod
    def _answers(self, slices: Iterator[Columns]) -> Results:
        """Answer the rows of all slices, in order."""


@dataclass(frozen=True)
class FunctionPlan(ArgumentsPlan):
    """Ask what a function asks about its arguments."""

    recipe: RequestSpec
    function: Function

    @property
    def canonical(self) -> dict[str, Any]:
        """The function, its arguments, and what of its model the user chose."""
        return canonical_function(f"ai_{self.function.name}", _names(self.function.parameters), _words(self.recipe))

    @property
    def _arguments(self) -> Arguments:
        return Arguments(f"ai_{self.function.name}", self.function.parameters)

    def _answers(self, slices: Iterator[Columns]) -> Results:
        return engine_for(self.recipe).stream(self.recipe.task, map(self.function.asked, slices))


@dataclass(frozen=True)
class SimilarityPlan(ArgumentsPlan):
    """Compare two texts by the vectors of both."""

    recipe: RequestSpec

    @property
    def canonical(self) -> dict[str, Any]:
        """The function, its arguments, and what of its model the user chose."""
        return canonical_function("ai_similarity", _names(PAIR), _words(self.recipe))

    @property
    def _arguments(self) -> Arguments:
        return Arguments("ai_similarity", PAIR)

    def _answers(self, slices: Iterator[Columns]) -> Results:
        return in_pairs(engine_for(self.recipe).stream(self.recipe.task, map(self._both, slices)))

    def _both(self, columns: Columns) -> list[Row]:
        """Return the two texts of each row, one after the other; of a row that lacks one, none is asked."""
        nothing = self.recipe.task.skips
        pairs = zip(*columns, strict=True)
        asked = (
            pair if all(text is not None and not nothing(text) for text in pair) else (None, None) for pair in pairs
        )
        return [text for pair in asked for text in pair]


class _Row(NamedTuple):
    """A request, where it goes, and in which lane; a row without one asks nothing."""

    lane: int
    name: str | None
    request: str | None


class _Slice(NamedTuple):
    """Some rows, and how many lanes there are: a power of two, so that few slices find too few of them."""

    rows: list[_Row]
    lanes: int


def _joined(chunks: Iterator[ParallelResults]) -> Results:
    """Yield the one result of each row from those of all lanes; a beat is passed on."""
    for chunk in chunks:
        yield [next((result for result in row if result is not None), None) for row in zip(*chunk, strict=True)]


@dataclass(frozen=True)
class QueryPlan(ArgumentsPlan):
    """Ask the endpoint that each row names.

    Names are asked at the same time, each in a lane of its own through its own engine; the rows keep their order. Of
    more names than `NAMES_AT_ONCE` some share a lane, where they take turns.
    """

    known: tuple[tuple[str, RequestSpec], ...]
    workspace: RequestSpec | None  # how any endpoint there is asked
    raises: bool

    @property
    def canonical(self) -> dict[str, Any]:
        """The function, its arguments, and every endpoint that a row may name."""
        known = {name: _words(recipe) for name, recipe in self.known}
        workspace = None if self.workspace is None else _words(self.workspace) | {"endpoint": _host(self.workspace)}
        return canonical_function("ai_query", _names(QUERY), {"endpoints": known, "workspace": workspace})

    @property
    def _arguments(self) -> Arguments:
        return Arguments("ai_query", QUERY)

    def _answers(self, slices: Iterator[Columns]) -> Results:
        for lanes, some in groupby(self._spread(slices), key=attrgetter("lanes")):
            yield from _joined(ask_in_parallel(some, [partial(self._lane, lane) for lane in range(lanes)]))

    def _spread(self, slices: Iterator[Columns]) -> Iterator[_Slice]:
        """Yield slices with the lane of each row: each name has its own, as long as there are lanes."""
        lanes: dict[str, int] = {}
        for endpoints, requests in slices:
            rows: list[_Row] = []
            for wanted, request in zip(endpoints, requests, strict=True):
                if request is None:
                    rows.append(_Row(0, None, None))
                    continue
                name = wanted if wanted in lanes else self._checked(wanted)
                if len(lanes) < NAMES_AT_ONCE:
                    lanes.setdefault(name, len(lanes))
                rows.append(_Row(lanes.get(name, hash(name) % NAMES_AT_ONCE), name, request))
            yield _Slice(rows, 1 << (max(1, len(lanes)) - 1).bit_length())

    def _lane(self, lane: int, slices: Iterator[_Slice]) -> Results:
        """Ask the rows of one lane, one name after the other; the others have no result here."""
        for name, runs in groupby(self._runs(lane, slices), key=itemgetter(0)):
            requests = (run for _, run in runs)
            if name is None:
                for run in requests:
                    yield [None for _ in run]
                continue
            recipe = self._recipe(name)
            for results in engine_for(recipe).stream(recipe.task, requests):
                if self.raises:
                    raise_if_failed(results, "use try_ai_query, which gives null, or llm_query, which says why.")
                yield results

    def _runs(self, lane: int, slices: Iterator[_Slice]) -> Iterator[tuple[str | None, list[str | None]]]:
        """Yield neighbours that name the same endpoint; a row that is not asked here goes with those before it."""
        name: str | None = None
        for each in slices:
            run: list[str | None] = []
            for row in each.rows:
                if row.lane == lane and row.name is not None and row.name != name:
                    if run:
                        yield name, run
                    name, run = row.name, []
                run.append(row.request if row.lane == lane else None)
            yield name, run

    def _checked(self, name: str | None) -> str:
        if name is None:
            raise InputTypeError("ai_query was called on no endpoint: its name is null.", f"{self._choose()}.")
        if self.workspace is None and name not in dict(self.known):
            raise InputTypeError(
                f"ai_query knows no endpoint {name!r}, and no workspace to look it up at.", f"{self._choose()}."
            )
        return name

    def _choose(self) -> str:
        names = ", ".join(repr(name) for name, _ in self.known)
        return f"name one of {names}" if names else 'register_ai_functions(spark, endpoints={"my-endpoint": …})'

    def _recipe(self, name: str) -> RequestSpec:
        known = dict(self.known)
        if name in known or self.workspace is None:
            return known[name]
        if not is_name(name):
            raise InputTypeError(f"{name!r} is no name of an endpoint.", f"{self._choose()}, or one of the workspace.")
        url = invocations_url(_host(self.workspace), name, None)
        return replace(self.workspace, route=replace(self.workspace.route, url=url))


def _host(workspace: RequestSpec) -> str:
    return workspace.route.url.partition("/serving-endpoints/")[0]


def _names(parameters: tuple[Parameter, ...]) -> list[str]:
    return [parameter.name for parameter in parameters]


def _words(recipe: RequestSpec) -> dict[str, Any]:
    return canonical_model(recipe.route.url, recipe.route.model, recipe.task, recipe.prompt)


def chat_function(name: str, chat: ModelUDF) -> AIFunction:
    """Return the AI function `ai_<name>` as structs, asked of the model of `chat`."""
    function, task = FUNCTIONS[name], _plain(chat)
    schema = schemas.with_parsed(schemas.CHAT, _PARSED[name]) if function.typed else schemas.CHAT

    def plan() -> FunctionPlan:
        asked = replace(task, output_per_prompt=function.typed, answer_only=True)
        return FunctionPlan(replace(chat.recipe, task=asked), function)

    return AIFunction(f"llm_{name}", schema, plan)


def query_function(endpoints: Mapping[str, ModelUDF], workspace: RequestSpec | None, *, raises: bool) -> AIFunction:
    """Return `ai_query` as structs, or as one that `raises` where a row fails.

    An endpoint's name is looked up in `endpoints`, else at the workspace that `workspace`, any endpoint there, is of.
    """

    def plan() -> QueryPlan:
        known = tuple((name, _without_thoughts(udf.recipe)) for name, udf in endpoints.items())
        return QueryPlan(known, workspace and _without_thoughts(workspace), raises)

    return AIFunction("llm_query_or_fail" if raises else "llm_query", schemas.CHAT, plan)


def _without_thoughts(recipe: RequestSpec) -> RequestSpec:
    """Return a recipe whose texts come without what a model thought in front of them."""
    return replace(recipe, task=replace(recipe.task, answer_only=True)) if isinstance(recipe.task, Chat) else recipe


def known_endpoints(endpoints: Mapping[str, str | Endpoint | ModelUDF]) -> dict[str, ModelUDF]:
    """Return the UDF of each endpoint that `ai_query` may name; raises `ConfigError` for what it cannot ask."""
    known = {}
    for name, model in endpoints.items():
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"endpoints= has {name!r} for a name.", 'write it as endpoints={"my-endpoint": …}.')
        udf = model if isinstance(model, ModelUDF) else model_udf("chat", model)
        if udf.task == "embed" or udf.prompt is not None:
            raise ConfigError(
                f"endpoints= has a UDF of {'embeddings' if udf.task == 'embed' else 'a template'} as {name!r}, and"
                " ai_query asks one text and gives a text.",
                "pass it to register(spark, …) for a function of its own.",
            )
        known[name] = udf
    return known


def similarity_function(embed: ModelUDF) -> AIFunction:
    """Return `ai_similarity` as structs, asked of the model of `embed`."""
    return AIFunction("llm_similarity", SIMILARITY, lambda: SimilarityPlan(embed.recipe))


def _plain(chat: ModelUDF) -> Chat:
    """Return the task, to which a function can give instructions and types of its own."""
    task = chat.codec
    if not isinstance(task, Chat) or task.system is not None or task.output is not None or task.n > 1 or chat.prompt:
        raise ConfigError(
            "chat= was given a UDF with system=, template=, returns= or n=, and the AI functions have their own.",
            "leave them out: its endpoint, its parameters and its policy are what the functions use.",
        )
    return task
