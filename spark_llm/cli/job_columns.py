"""Reads a column of a job's file: builds its UDF, and makes the column once there is a session.

Building the UDF checks its parameters. The keys of a column are the keyword parameters of its UDF, read off the
signature, and for an AI function those of the function.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from inspect import Parameter as Argument
from inspect import signature
from typing import Any, NamedTuple

from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_llm import functions
from spark_llm.ai.catalog import FUNCTIONS
from spark_llm.ai.extract import extract_udf
from spark_llm.auth.credentials import SignInDeferredError
from spark_llm.cli.config_errors import ConfigErrors
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.policy import Policy
from spark_llm.protocol.identifiers import quoted
from spark_llm.udf.by_task import FACTORIES
from spark_llm.udf.factories import chat_udf, embed_udf
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.udf.rerank_udf import RerankUDF
from spark_llm.validation.parameter import PARAMETER_KINDS, Parameter
from spark_llm.validation.suggestion import did_you_mean

MakeColumn = Callable[[], Column]  # to be called once there is a session

TASKS = (*FACTORIES, *FUNCTIONS, "similarity")
_SET_BY_FUNCTION = (
    "system",
    "template",
    "returns",
    "tools",
    "tool_choice",
    "n",
)  # parameters of chat_udf that each AI function sets itself
IN_LABELS = "descriptions"  # a parameter in SQL alone: elsewhere labels may be a map to them
_ENDPOINT = 'write a serving endpoint\'s name, a URL, or a name of [endpoints], as in endpoint = "my-endpoint".'
_RETURNS = 'write the type of a prediction, as in returns = "DOUBLE".'

_PAIRS = {  # by task, the two inputs that it takes
    "similarity": ("two texts", '["question", "answer"]'),
    "rerank": ("a query and its documents", '["question", "passages"]'),
}


class _Keys(NamedTuple):
    """The keys of a task's column, by where their values go."""

    make_udf: Callable[..., ModelUDF]
    parameters: Sequence[str]  # of `make_udf`
    options: Sequence[Parameter]  # of the AI function
    of_fields: Sequence[str]  # of `extract_udf`

    @classmethod
    def of(cls, task: str) -> "_Keys":
        """Return those of a known task."""
        make_udf = FACTORIES.get(task, embed_udf if task == "similarity" else chat_udf)
        if task not in FUNCTIONS:
            return cls(make_udf, keyword_parameters(make_udf), (), ())
        parameters = [name for name in keyword_parameters(make_udf) if name not in _SET_BY_FUNCTION]
        options = [option for option in FUNCTIONS[task].parameters[1:] if option.name != IN_LABELS]
        return cls(make_udf, parameters, options, keyword_parameters(extract_udf) if task == "extract" else ())

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all keys."""
        options = (option.name for option in self.options)
        return "task", "endpoint", "input", *options, *self.of_fields, *self.parameters


def read_column(
    errors: ConfigErrors, place: str, table: object, endpoints: Mapping[str, Endpoint], hints: Mapping[str, str]
) -> MakeColumn | None:
    """Return the column that a table describes; None if it has errors. `hints` are those for keys with secrets."""
    task = table.get("task") if isinstance(table, Mapping) else "chat"
    if task not in TASKS:
        what = "the key 'task' is missing." if task is None else f"unknown task {task!r}."
        errors.add(place, what, did_you_mean(task, TASKS, otherwise=f"the tasks are {', '.join(TASKS)}."))
        of_any_task = dict.fromkeys((name for each in TASKS for name in _Keys.of(each).names), Any)
        errors.entries(place, table, {**of_any_task, "endpoint": str}, required={"endpoint": _ENDPOINT}, hints=hints)
        return None
    make_udf, parameters, options, of_fields = keys = _Keys.of(task)
    set_by_function = _SET_BY_FUNCTION if task in FUNCTIONS else ()
    entries = errors.entries(
        place,
        table,
        {**dict.fromkeys(keys.names, Any), "endpoint": str},
        required={"endpoint": _ENDPOINT, **({"returns": _RETURNS} if task == "predict" else {})},
        hints={**hints, **dict.fromkeys(set_by_function, f'{task} sets it; with task = "chat" you write it yourself.')},
    )
    if "policy" in entries:
        entries["policy"] = errors.build(f"{place}.policy", entries["policy"], Policy) or Policy()
    if "endpoint" not in entries:
        return None
    with errors.at(place):
        extracts_fields = not entries.keys().isdisjoint(of_fields)
        if extracts_fields:
            _check_fields(entries)
        values = {} if extracts_fields else _options(task, options, entries)
        endpoint = _endpoint(entries["endpoint"], endpoints)
        udf = make_udf(endpoint, **{name: entries[name] for name in parameters if name in entries})
        if extracts_fields:
            udf = extract_udf(udf, **{name: entries[name] for name in of_fields if name in entries})
        return _call("chat" if extracts_fields else task, udf, values, entries.get("input"))
    return None


def keyword_parameters(function: Callable[..., object]) -> tuple[str, ...]:
    """Return the names of a function's keyword-only parameters."""
    return tuple(each.name for each in signature(function).parameters.values() if each.kind is Argument.KEYWORD_ONLY)


def _endpoint(name: str, endpoints: Mapping[str, Endpoint]) -> Endpoint:
    """Return the endpoint of the file or of the environment; one that neither has may be a misspelt one of the file."""
    if name in endpoints:
        return endpoints[name]
    suggestion = did_you_mean(name, list(endpoints), otherwise="")
    try:
        endpoint = Endpoint(name)
        if suggestion and not endpoint.is_url:
            with suppress(SignInDeferredError):
                endpoint.resolve("", os.environ, allow_sign_in=False)
    except ConfigError as error:
        raise ConfigError(error.what, f"{suggestion} Else {error.hint}" if suggestion else error.hint) from None
    return endpoint


def _check_fields(entries: Mapping[str, Any]) -> None:
    """Raise `ConfigError` unless the entries have the fields to extract, and no labels."""
    if "labels" in entries:
        raise ConfigError(
            "extract has labels, and fields or citations too.",
            "leave out labels: fields have names and types; or leave out the others, for a map of strings.",
        )
    if not isinstance(entries.get("fields"), str):
        raise ConfigError(
            f"fields = {entries['fields']!r} is not DDL." if "fields" in entries else "the key 'fields' is missing.",
            'write the names and types, as in fields = "name STRING, total DOUBLE".',
        )


def _options(task: str, options: Sequence[Parameter], entries: Mapping[str, Any]) -> dict[str, object]:
    """Return the arguments of an AI function, the same for every row; raises `ConfigError` if one is not valid."""
    values = {option.name: _option(task, option, entries) for option in options}
    if values and (error := FUNCTIONS[task].option_error(values)) is not None:
        raise ConfigError(error.what, error.hint)
    return values


def _option(task: str, option: Parameter, entries: Mapping[str, Any]) -> object:
    """Return one of them as the file has it."""
    value = entries.get(option.name, option.default)
    if not option.accepts(value):
        kind = PARAMETER_KINDS[option.kind]
        raise ConfigError(
            f"the key {option.name!r} is missing." if value is None else f"{option.name} = {value!r} is not {kind}.",
            f"{task} takes {option.name}, {kind}.",
        )
    return value


def _call(task: str, udf: ModelUDF, options: Mapping[str, object], value: object) -> MakeColumn:
    """Return the call of a task's function on `input`, whose value in the file is `value`."""
    if task in _PAIRS:
        what, example = _PAIRS[task]
        if not isinstance(value, list) or len(value) != 2:
            raise ConfigError(f"input is not a list of {what}.", f"write both, as in input = {example}.")
        one, other = (_expression("input", text) for text in value)
        if isinstance(udf, RerankUDF):
            return lambda: udf(F.expr(one), F.expr(other))
        return lambda: functions.llm_similarity(F.expr(one), F.expr(other), embed=udf)
    if task not in FUNCTIONS and udf.prompt is not None and not isinstance(value, str):
        return _call_template(udf, udf.prompt.fields, {} if value is None else value)
    if task == "predict" and isinstance(value, Mapping):
        expressions = {name: _expression(f"input.{name}", text) for name, text in value.items()}
        return lambda: udf(**{name: F.expr(text) for name, text in expressions.items()})
    expression = _expression("input", value)
    if task in FUNCTIONS:
        function: Callable[..., Column] = getattr(functions, f"llm_{task}")
        return lambda: function(F.expr(expression), **options, chat=udf)
    return lambda: udf(F.expr(expression))


def _call_template(udf: ModelUDF, fields: tuple[str, ...], value: object) -> MakeColumn:
    """Return the call of a UDF with a template; a field without an expression is the column of the same name."""
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"input = {value!r} is not a table of the template's fields.",
            'write an expression for each, as in input = {title = "title", body = "upper(body)"}; or leave input out'
            " where columns have the fields' names.",
        )
    expressions = {name: _expression(f"input.{name}", text) for name, text in value.items()}
    for name in expressions:
        if name not in fields:
            raise ConfigError(
                f"input has {name!r}, which is not a field of the template.", f"the fields are {', '.join(fields)}."
            )
    return lambda: udf(**{name: F.expr(expressions.get(name, quoted(name))) for name in fields})


def _expression(key: str, text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(
            f"the key {key!r} is missing." if text is None else f"{key} = {text!r} is not an expression of Spark SQL.",
            f'write a column, as in {key} = "review", or an expression: {key} = "trim(review)".',
        )
    return text
