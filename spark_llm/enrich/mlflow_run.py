"""The MLflow run of a table job: the recipe as parameters, the report as metrics and as a page.

A thread of its own talks to the tracking server, from the job's beginning to its end. So the run is there while the job
goes on, and a server that is slow or down costs the job at most `WAIT_S`. No row and no credential goes to MLflow.
"""

import importlib.util
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from spark_llm._version import __version__
from spark_llm.enrich.report import BATCH_NUMBERS, EnrichReport
from spark_llm.errors import ConfigError
from spark_llm.protocol.urls import masked_url
from spark_llm.text.excerpt import excerpt
from spark_llm.udf.lazy_udf import Call

WAIT_S = 20.0  # at the job's end, for a tracking server that is slow or down
MAX_PARAM_BYTES = 6_000  # of one value; the whole recipe is an artifact
_MAX_NAME = 200  # characters of a column's name in a parameter's or a metric's
_NOT_IN_NAMES = re.compile(r"[^\w.\- ]")
_USER = re.compile(r"//[^/@\s]+@")

_logger = logging.getLogger("spark_llm.enrich")


def check_installed() -> None:
    """Raise `ConfigError` where MLflow is not installed."""
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigError(
            "mlflow=True needs MLflow, which is not installed.", "pip install 'spark-llm-endpoints[mlflow]'."
        )


def recorded(
    target: str, run: str, recipe: Mapping[str, Any], job: Callable[[], EnrichReport], wait_s: float = WAIT_S
) -> EnrichReport:
    """Run a job beside an MLflow run, and return its report; what goes wrong with MLflow is one warning.

    The MLflow run is a child of the caller's active one, if there is one. It has failed where the job raises or stops
    early. `run` is the ID of the job's own run, and `recipe` is from `recipe_of`.
    """
    active_run = getattr(sys.modules.get("mlflow"), "active_run", None)
    parent = None if active_run is None else active_run()  # of this thread
    outcome: Future[EnrichReport] = Future()
    warned = threading.Event()
    tags = {"spark_llm.run": run, "spark_llm.target": target, "spark_llm.version": __version__}
    arguments = (tags, recipe, parent, outcome, warned)
    recorder = threading.Thread(target=_record, args=arguments, name="spark_llm mlflow", daemon=True)
    recorder.start()
    try:
        report = job()
    except BaseException as error:
        outcome.set_exception(error)
        raise
    else:
        outcome.set_result(report)
        return report
    finally:
        recorder.join(wait_s)
        if recorder.is_alive():
            _warn(f"MLflow did not answer within {wait_s:g} s of the job's end, and its run may be incomplete", warned)


def recipe_of(key: Sequence[str], calls: Mapping[str, Call]) -> dict[str, Any]:
    """Return what decides a job's answers, as JSON: the key, and for each column what its fingerprint is made of."""
    return {"key": list(key), "columns": {name: _masked(call.udf.plan().canonical) for name, call in calls.items()}}


def _record(
    tags: dict[str, str],
    recipe: Mapping[str, Any],
    parent: Any,  # noqa: ANN401 -- an mlflow.ActiveRun
    outcome: "Future[EnrichReport]",
    warned: threading.Event,
) -> None:
    nested = {} if parent is None else {"parent_run_id": parent.info.run_id, "experiment_id": parent.info.experiment_id}
    try:
        import mlflow

        with mlflow.start_run(run_name=f"enrich {tags['spark_llm.target']}", nested=True, tags=tags, **nested):
            mlflow.log_params(dict(parameters_of(recipe)))
            report = outcome.result()  # raises the job's own error, with which the run fails
            mlflow.log_metrics(dict(metrics_of(report)))
            if report.stopped is not None:
                mlflow.set_tag("spark_llm.stopped", report.stopped)
            mlflow.log_dict(dict(recipe), "recipe.json")
            mlflow.log_text(report._repr_html_(), "report.html")
            mlflow.end_run("FINISHED" if report.done else "FAILED")
    except BaseException as error:  # noqa: BLE001 -- the job goes on, whatever MLflow raises
        if not outcome.done() or error is not outcome.exception():
            reason = excerpt(_USER.sub("//***@", str(error)), 300).rstrip(".")
            _warn(f"MLflow has no complete run of this job: {type(error).__name__}: {reason}", warned)


def _warn(message: str, warned: threading.Event) -> None:
    """Log a warning, once for a job."""
    if not warned.is_set():
        warned.set()
        _logger.warning("%s. Hint: MLFLOW_TRACKING_URI names the server; the job itself is not affected.", message)


def parameters_of(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the parameters of an MLflow run: the key, and each part of each column's recipe, cut where it is long."""
    yield "key", _cut(", ".join(recipe["key"]))
    for column, parts in recipe["columns"].items():
        for part, value in parts.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{_name(column)}.{part}", _cut(text)


def metrics_of(report: EnrichReport) -> Iterator[tuple[str, float]]:
    """Yield the metrics of an MLflow run: the report's numbers, errors by kind, and each column's numbers.

    `failed` counts rows; `failed.<kind>` counts errors, of which a row has one for each column that failed.
    """
    row = report.row()
    columns: Any = row["columns"]  # numbers by name
    numbers = {name: value for name, value in row.items() if isinstance(value, (int, float))}
    yield from {**numbers, "failed": report.asked - report.answered}.items()
    yield from ((name, value) for name in BATCH_NUMBERS if (value := getattr(report, name)))
    yield from ((f"failed.{kind}", count) for kind, count in report.failed.items())
    for column, tally in columns.items():
        yield from ((f"{_name(column)}.{name}", count) for name, count in tally.items())


def _name(column: str) -> str:
    """Return a column's name with those characters only that MLflow takes."""
    return _NOT_IN_NAMES.sub("_", column[:_MAX_NAME])


def _cut(text: str) -> str:
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= MAX_PARAM_BYTES else f"{raw[: MAX_PARAM_BYTES - 3].decode('utf-8', 'ignore')}…"


def _masked(spec: Any) -> Any:  # noqa: ANN401 -- what JSON holds
    """Return a canonical spec with its URLs masked: a query may hold a key."""
    if isinstance(spec, Mapping):
        return {
            name: masked_url(value) if name == "endpoint" and isinstance(value, str) else _masked(value)
            for name, value in spec.items()
        }
    return spec
