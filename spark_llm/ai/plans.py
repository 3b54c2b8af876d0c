"""Plans of the AI functions: the work of each function on one worker."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from spark_llm.ai.catalog import Function
from spark_llm.ai.requests import (
    QUERY_PARAMETERS,
    Requests,
    arrow_requests,
    as_text,
    pandas_requests,
    text_requests,
    without_files,
)
from spark_llm.ai.similarity import similarities
from spark_llm.endpoint.endpoint import is_name
from spark_llm.engine.parallel_columns import ParallelResults, ask_in_parallel
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.engine.row_stream import raise_if_failed
from spark_llm.errors import HINT, InputTypeError
from spark_llm.protocol.canonical import canonical_function, canonical_model
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.predictions.task import Predict
from spark_llm.protocol.urls import CHAT_ROUTE, gateway_url, invocations_url, is_gateway_name, is_serving
from spark_llm.protocol.values import Result, Row, RowError
from spark_llm.text.excerpt import excerpt
from spark_llm.udf.arguments import Arguments, Columns
from spark_llm.udf.plan import Results, answers
from spark_llm.validation.parameter import Parameter

SIMILARITY_PARAMETERS = (Parameter("expr1"), Parameter("expr2"))
_NAME_CHARACTERS = 100  # of a name in an error: it may be any text
MAX_LANES = 16  # endpoints that one task asks in parallel; further endpoints share a lane


class ArgumentsPlan(ABC):
    """Base of the plans: reads a function's arguments and answers them slice by slice."""

    @property
    @abstractmethod
    def signature(self) -> tuple[str, tuple[Parameter, ...]]:
        """The function's name in SQL, and its parameters."""

    def arrow(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in Arrow arrays."""
        return self._results(Arguments(*self.signature).arrow(batches))

    def pandas(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in pandas series."""
        return self._results(Arguments(*self.signature).pandas(batches))

    def _canonical(self, models: dict[str, Any]) -> dict[str, Any]:
        name, parameters = self.signature
        return canonical_function(name, [parameter.name for parameter in parameters], models)

    @abstractmethod
    def _results(self, slices: Iterator[Columns]) -> Results:
        """Yield the results for the rows of all slices, in order."""


@dataclass(frozen=True)
class FunctionPlan(ArgumentsPlan):
    """Plan of a function that the catalog has: each row's arguments become a prompt."""

    spec: RequestSpec
    function: Function

    @property
    def canonical(self) -> dict[str, Any]:
        """The function, its parameters, and the user's choices for its model."""
        return self._canonical(model_words(self.spec))

    @property
    def signature(self) -> tuple[str, tuple[Parameter, ...]]:
        """The name and the parameters that the catalog has."""
        return f"ai_{self.function.name}", self.function.parameters

    def _results(self, slices: Iterator[Columns]) -> Results:
        return answers(self.spec, map(self.function.prompts, slices))


@dataclass(frozen=True)
class SimilarityPlan(ArgumentsPlan):
    """Plan of `ai_similarity`: embeds both texts of a row and compares the vectors."""

    spec: RequestSpec

    signature = "ai_similarity", SIMILARITY_PARAMETERS

    @property
    def canonical(self) -> dict[str, Any]:
        """The function, its parameters, and the user's choices for its model."""
        return self._canonical(model_words(self.spec))

    def _results(self, slices: Iterator[Columns]) -> Results:
        return similarities(answers(self.spec, map(self._texts, slices)))

    def _texts(self, columns: Columns) -> list[Row]:
        """Return the two texts of each row, one after the other; two nulls if the row lacks one of them."""
        skips = self.spec.task.skips
        pairs = (
            pair if all(text is not None and not skips(text) for text in pair) else (None, None)
            for pair in zip(*columns, strict=True)
        )
        return [text for pair in pairs for text in pair]


class _Row(NamedTuple):
    """A request with its endpoint and its lane; without an endpoint it is not sent, and None or an error."""

    lane: int
    name: str | None
    request: Row


class _Slice(NamedTuple):
    """Some rows, the columns of their requests, and the number of lanes: a power of two, to grow in few steps."""

    rows: list[_Row]
    columns: tuple[str, ...]
    lanes: int


class _Run(NamedTuple):
    """Requests to the same endpoint, with the columns of those for a custom model."""

    name: str | None
    columns: tuple[str, ...]
    requests: list[Row]


def _merge_lanes(chunks: Iterator[ParallelResults]) -> Results:
    """Yield the one result of each row from the results of all lanes; an empty chunk passes through."""
    for chunk in chunks:
        yield [next((result for result in row if result is not None), None) for row in zip(*chunk, strict=True)]


@dataclass(frozen=True)
class QueryPlan(ArgumentsPlan):
    """Plan of `ai_query`: each row names the endpoint that it asks.

    Endpoints are asked in parallel, each in its own lane and through its own engine; the rows keep their order. Beyond
    `MAX_LANES` endpoints, several share a lane and take turns.
    """

    known: tuple[tuple[str, RequestSpec], ...]
    workspace: RequestSpec | None  # for any endpoint of the workspace; None without a workspace
    raises: bool
    time_zone: str = "UTC"  # in which pandas has the session's times

    signature = "ai_query", QUERY_PARAMETERS

    @property
    def canonical(self) -> dict[str, Any]:
        """The function, its parameters, and every endpoint that a row may name; files are inputs alone."""
        known = {name: model_words(spec) for name, spec in self.known}
        workspace = (
            None if self.workspace is None else model_words(self.workspace) | {"endpoint": _host(self.workspace)}
        )
        return canonical_function("ai_query", ("endpoint", "request"), {"endpoints": known, "workspace": workspace})

    def arrow(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in Arrow arrays."""
        if custom := self._custom:
            return self._results_of(arrow_requests(batches, custom, self._name_error))
        return super().arrow(batches)

    def pandas(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in pandas series."""
        if custom := self._custom:
            return self._results_of(pandas_requests(batches, custom, self._name_error, self.time_zone))
        return super().pandas(batches)

    @property
    def _custom(self) -> dict[str, Predict]:
        """The tasks of the custom models, by name."""
        return {name: spec.task for name, spec in self.known if isinstance(spec.task, Predict)}

    def _results(self, slices: Iterator[Columns]) -> Results:
        return self._results_of(text_requests(slices))

    def _results_of(self, slices: Iterator[Requests]) -> Results:
        for lanes, group in groupby(self._with_lanes(slices), key=attrgetter("lanes")):
            yield from _merge_lanes(ask_in_parallel(group, [partial(self._lane, lane) for lane in range(lanes)]))

    def _with_lanes(self, slices: Iterator[Requests]) -> Iterator[_Slice]:
        """Yield slices with the lane of each row: an endpoint has its own, as long as there are lanes."""
        lanes: dict[str | None, int] = {}
        for endpoints, requests, columns in slices:
            rows: list[_Row] = []
            for endpoint, request in zip(endpoints, requests, strict=True):
                if request is None or (endpoint is None and not self.raises):
                    rows.append(_Row(0, None, None))
                elif endpoint not in lanes and (error := self._name_error(endpoint)) is not None:
                    if self.raises:
                        raise InputTypeError(error.what, error.hint)
                    rows.append(_Row(0, None, error))
                else:
                    if len(lanes) < MAX_LANES:
                        lanes.setdefault(endpoint, len(lanes))
                    rows.append(_Row(lanes.get(endpoint, hash(endpoint) % MAX_LANES), endpoint, request))
            yield _Slice(rows, columns, 1 << (max(1, len(lanes)) - 1).bit_length())

    def _lane(self, lane: int, slices: Iterator[_Slice]) -> Results:
        """Yield the results of one lane, one endpoint after the other; None for rows of other lanes."""
        for (name, columns), runs in groupby(self._runs(lane, slices), key=itemgetter(0, 1)):
            if name is None:
                for run in runs:
                    yield [Result(error=row) if isinstance(row, RowError) else None for row in run.requests]
                continue
            spec = self._spec_of(name)
            if custom := isinstance(spec.task, Predict):
                spec = replace(spec, task=replace(spec.task, columns=columns))
            takes_files = isinstance(spec.task, Chat)
            requests = (run.requests if takes_files else without_files(run.requests) for run in runs)
            for results in answers(spec, requests):
                if self.raises:
                    raise_if_failed(
                        results, "use try_ai_query, which returns null, or llm_query, which returns the error."
                    )
                yield list(map(as_text, results)) if custom else results

    def _runs(self, lane: int, slices: Iterator[_Slice]) -> Iterator[_Run]:
        """Yield runs of rows with the same endpoint; rows of other lanes join the run before, without a request."""
        name: str | None = None
        for each in slices:
            run: list[Row] = []
            for row in each.rows:
                if row.lane == lane and row.name is not None and row.name != name:
                    if run:
                        yield _Run(name, each.columns, run)
                    name, run = row.name, []
                run.append(row.request if row.lane == lane else None)
            yield _Run(name, each.columns, run)

    def _name_error(self, name: str | None) -> RowError | None:
        """Return the error of a row whose endpoint has no name, or one that cannot be looked up; else None."""
        if name is None:
            problem, hint = "ai_query cannot choose an endpoint: its name is null", self._name_hint
        elif name in dict(self.known):
            return None
        elif self.workspace is None:
            problem = f"ai_query does not know the endpoint {_shown(name)}, and there is no workspace to look it up in"
            hint = self._name_hint
        elif not is_name(name):
            problem = f"{_shown(name)} is not an endpoint's name"
            hint = f"{self._name_hint}, or an endpoint of the workspace"
        else:
            return None
        return RowError("not_found", None, f"{problem}.{HINT}{hint}.", retryable=False)

    @property
    def _name_hint(self) -> str:
        names = ", ".join(repr(name) for name, _ in self.known)
        if names:
            return f"name one of {names}"
        return 'register an endpoint, as in register_ai_functions(spark, endpoints={"my-endpoint": …})'

    def _spec_of(self, name: str) -> RequestSpec:
        known = dict(self.known)
        if name in known or self.workspace is None:
            return known[name]
        host, model = _host(self.workspace), None
        url = invocations_url(host, name, None)
        if is_gateway_name(name):
            url, model = gateway_url(host, CHAT_ROUTE), name
        attributed = self.workspace.route.attributed and is_serving(url)
        return replace(self.workspace, route=replace(self.workspace.route, url=url, model=model, attributed=attributed))


def _shown(name: str) -> str:
    return excerpt(repr(name), _NAME_CHARACTERS)


def _host(workspace: RequestSpec) -> str:
    return workspace.route.url.partition("/serving-endpoints/")[0]


def model_words(spec: RequestSpec) -> dict[str, Any]:
    """Return the user's choices for a model, in the form of `protocol.canonical`."""
    return canonical_model(spec.route.url, spec.route.model, spec.task, spec.prompt)
