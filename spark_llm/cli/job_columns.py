"""A column of a job's file: the UDF that its table stands for, and what that is called on.

The UDF is built when the file is read, so its parameters are checked before there is a session; columns of Spark are
made when there is one. The keys are the parameters of the function that a task stands for, read off its signature.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from inspect import Parameter as Argument
from inspect import signature
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_llm import functions
from spark_llm.ai.catalog import FUNCTIONS, PARAMETER_KINDS, Function, Parameter
from spark_llm.cli.config_errors import ConfigErrors
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.policy import Policy
from spark_llm.protocol.identifiers import quoted
from spark_llm.protocol.values import RowError
from spark_llm.text.suggestion import did_you_mean
from spark_llm.udf.factories import chat_udf, complete_udf, embed_udf
from spark_llm.udf.model_udf import ModelUDF

LateColumn = Callable[[], Column]  # to be called when there is a session

_OWN = ("task", "endpoint", "input")
_UDFS: Mapping[str, Callable[..., ModelUDF]] = {"chat": chat_udf, "complete": complete_udf, "embed": embed_udf}
_SIMILARITY = "similarity"
TASKS = (*_UDFS, *FUNCTIONS, _SIMILARITY)
_OF_THE_FUNCTION = ("system", "template", "returns", "n")  # of chat_udf, and each AI function has its own


@dataclass(frozen=True)
class _Task:
    """What a task's table may hold, and what comes of it."""

    udf: Callable[..., ModelUDF]
    parameters: tuple[str, ...]  # of the UDF
    options: tuple[Parameter, ...]  # of the AI function, after its text
    call: Callable[[ModelUDF, Mapping[str, Any], object], LateColumn]  # the UDF, the options and the input


def read_column(
    faults: ConfigErrors,
    place: str,
    table: Mapping[str, Any],
    endpoints: Mapping[str, Endpoint],
    instead: Mapping[str, str],
) -> LateColumn | None:
    """Return the column that a table describes; None where a fault is in the way.

    `instead` has the next step for keys that no table of a file may have.
    """
    name = table.get("task")
    if name not in TASKS:
        shown = "it has no task." if name is None else f"task = {name!r} is no task."
        faults.add(place, shown, did_you_mean(name, TASKS, otherwise=f"write one of {', '.join(TASKS)}."))
        return None
    task = _task(str(name))
    keys = (*_OWN, *(option.name for option in task.options), *task.parameters)
    own = dict.fromkeys(_OF_THE_FUNCTION, f'{name} has its own; with task = "chat" you write it yourself.')
    given = faults.known(place, table, keys, instead if name in _UDFS else {**instead, **own})
    if "policy" in given:
        given["policy"] = _policy(faults, f"{place}.policy", given["policy"])
    with faults.at(place):
        options = {option.name: _option(str(name), option, given) for option in task.options}
        parameters = {key: value for key, value in given.items() if key in task.parameters}
        return task.call(task.udf(_endpoint(given, endpoints), **parameters), options, given.get("input"))
    return None


def keyword_parameters(function: Callable[..., object]) -> tuple[str, ...]:
    """Return the names of a function's parameters that are given by name alone."""
    return tuple(each.name for each in signature(function).parameters.values() if each.kind is Argument.KEYWORD_ONLY)


def _task(name: str) -> _Task:
    if name in _UDFS:
        return _Task(_UDFS[name], keyword_parameters(_UDFS[name]), (), _call_model)
    if name == _SIMILARITY:
        return _Task(embed_udf, keyword_parameters(embed_udf), (), _call_similarity)
    own = tuple(key for key in keyword_parameters(chat_udf) if key not in _OF_THE_FUNCTION)
    return _Task(chat_udf, own, FUNCTIONS[name].parameters[1:], partial(_call_function, name))


def _endpoint(given: Mapping[str, Any], endpoints: Mapping[str, Endpoint]) -> str | Endpoint:
    name = given.get("endpoint")
    if not isinstance(name, str):
        raise ConfigError(
            "it has no endpoint." if name is None else f"endpoint = {name!r} is no name.",
            'write a serving endpoint\'s name, a URL, or a name of [endpoints], as in endpoint = "my-endpoint".',
        )
    return endpoints.get(name, name)


def _policy(faults: ConfigErrors, place: str, value: object) -> Policy:
    with faults.at(place):
        return Policy(**faults.known(place, faults.table(place, value), (field.name for field in fields(Policy))))
    return Policy()


def _option(name: str, option: Parameter, given: Mapping[str, Any]) -> object:
    """Return an argument of an AI function that is the same for every row; raises `ConfigError` for a wrong one."""
    value = given.get(option.name, option.default)
    if not option.accepts(value):
        kind = PARAMETER_KINDS[option.kind]
        raise ConfigError(
            f"it has no {option.name}." if value is None else f"{option.name} = {value!r} is not {kind}.",
            f"{name} takes {option.name}, {kind}.",
        )
    function: Function = FUNCTIONS[name]
    wrong = function.make_prompt("", value)
    if isinstance(wrong, RowError):
        raise ConfigError(wrong.what, wrong.hint)
    return value


def _call_model(udf: ModelUDF, _: Mapping[str, Any], given: object) -> LateColumn:
    if udf.prompt is None or isinstance(given, str):
        expression = _expression("input", given)
        return lambda: udf(F.expr(expression))
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(
            f"input = {given!r} says nothing of the template's fields.",
            'write a table of them, as in input = {title = "title", body = "upper(body)"}, or leave it out where the'
            " columns have the fields' names.",
        )
    names = udf.prompt.fields
    texts = {name: _expression(f"input.{name}", text) for name, text in (given or {}).items()}
    if strange := [name for name in texts if name not in names]:
        raise ConfigError(f"input has {strange[0]!r}, no field of the template.", f"its fields are {', '.join(names)}.")
    return lambda: udf(**{name: F.expr(texts.get(name, quoted((name,)))) for name in names})


def _call_function(name: str, udf: ModelUDF, options: Mapping[str, Any], given: object) -> LateColumn:
    expression = _expression("input", given)
    function: Callable[..., Column] = getattr(functions, f"llm_{name}")
    return lambda: function(F.expr(expression), *options.values(), chat=udf)


def _call_similarity(udf: ModelUDF, _: Mapping[str, Any], given: object) -> LateColumn:
    if not isinstance(given, list) or len(given) != 2:
        raise ConfigError(
            "similarity compares two texts." if given is None else f"input = {given!r} is not two texts.",
            'write both, as in input = ["question", "answer"].',
        )
    one, other = (_expression("input", text) for text in given)
    return lambda: functions.llm_similarity(F.expr(one), F.expr(other), embed=udf)


def _expression(key: str, text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(
            f"it has no {key}." if text is None else f"{key} = {text!r} is no expression of Spark SQL.",
            f'write the column that is asked about, as in {key} = "review", or an expression: {key} = "trim(review)".',
        )
    return text
