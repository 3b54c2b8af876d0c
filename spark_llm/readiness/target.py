"""The target of the checks: the address, the credential and the candidate tasks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from spark_llm.auth.credentials import Bearer, Credential, CredentialsProvider
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.endpoint.route import Route
from spark_llm.errors import ConfigError
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.predictions.task import Predict
from spark_llm.protocol.rerank import Rerank
from spark_llm.protocol.structured.schema import Nullable, Scalar
from spark_llm.protocol.task import Task
from spark_llm.protocol.urls import RERANK_ROUTE, SCORE_ROUTE, host_url, masked_url
from spark_llm.readiness.report import Check
from spark_llm.readiness.workspace import API

TIMEOUT_S = 30.0
TASKS: tuple[Task, ...] = (Chat(), Embed(), Complete())  # in the order of the attempts
CUSTOM = Predict(Nullable(Scalar("string")))  # any answer shows that a custom model is there, so it is never guessed
RERANKS = (Rerank(route=RERANK_ROUTE), Rerank(route=SCORE_ROUTE))  # as above: each is at a route of its own
TASK_NAMES = (*(task.name for task in TASKS), CUSTOM.name, Rerank.name)


class Target(NamedTuple):
    """The route and the candidate tasks of the checks; it is pickled for executors.

    Attributes:
        route: The route of the first task.
        tasks: One task, or several candidates; the first that the endpoint answers is the endpoint's task.
        timeout_s: Seconds for one request.
        cache: The folder of the UDF's cache, if it has one.
    """

    route: Route
    tasks: tuple[Task, ...]
    timeout_s: float = TIMEOUT_S
    cache: str | None = None

    def with_task(self, task: Task) -> "Target":
        """Return the target with one of its tasks; under an OpenAI-style base each task has its own path."""
        parts = urlsplit(self.route.url)
        route, first = self.route, self.tasks[0].route
        if len(self.tasks) > 1 and parts.path.endswith(first):
            route = replace(route, url=urlunsplit(parts._replace(path=parts.path.removesuffix(first) + task.route)))
        return self._replace(route=route, tasks=(task,))


def candidate_tasks(endpoint: Endpoint, name: str | None) -> tuple[Task, ...]:
    """Return the tasks that the endpoint may serve: the named one, or the one of the URL's path or `api`, else all.

    Raises `ConfigError` for an unknown task.
    """
    if name is not None and name not in TASK_NAMES:
        raise ConfigError(f"Unknown task {name!r}.", f"pass one of {', '.join(TASK_NAMES)}, or leave it out.")
    if name == CUSTOM.name:
        return (CUSTOM,)
    if name == Rerank.name:
        return (Rerank(route=endpoint.rerank_route),)
    if name is None and endpoint.chat_api is not None:
        return (Chat(),)
    path = urlsplit(endpoint.target).path.rstrip("/") if endpoint.is_url else ""
    of_path = max(
        (task for task in (*TASKS, *RERANKS) if path.endswith(task.route)),
        key=lambda task: len(task.route),
        default=None,
    )
    if name is None and of_path is not None:
        return (of_path,)
    return tuple(task for task in TASKS if name in (None, task.name))


def printable_name(endpoint: Endpoint) -> str:
    """Return the endpoint's name, or its URL without secrets."""
    return masked_url(endpoint.target) if endpoint.is_url else endpoint.target


def check_address(
    endpoint: Endpoint, path: str, resolve: Callable[[], Target], environ: Mapping[str, str]
) -> tuple[list[Check], Target | None]:
    """Check the address: `resolve` finds the endpoint's URL and its credential; `path` is the route of its task.

    Returns the checks and the target, or None if `resolve` fails. If the credential is at fault and not the address,
    the check of the credentials fails.
    """
    try:
        target = resolve()
    except ConfigError as error:
        failed = Check("credentials", "driver", "failed", error.what, error.hint)
        try:
            address = replace(endpoint, token=Bearer.of("unused")).resolve(path, environ, ()).shown
        except ConfigError:
            return [failed._replace(name="address")], None
        return [Check("address", "driver", "passed", address), failed], None
    return [Check("address", "driver", "passed", target.route.shown)], target


def workspace_route(
    environ: Mapping[str, str],
    providers: Sequence[CredentialsProvider],
    token: Credential | None = None,
    *,
    ca_bundle: str | None = None,
    allow_http: bool = False,
) -> Route:
    """Return the route of the endpoint list in the workspace that the environment or a credentials provider names.

    `token` takes precedence over the credential found there. Raises `ConfigError` without a workspace.
    """
    host = host_url(environ.get("DATABRICKS_HOST", ""))
    if not host:
        workspaces = (provider.workspace(environ) for provider in providers if provider.is_available(environ))
        workspace = next(filter(None, workspaces), None)
        if workspace is None:
            raise ConfigError(
                "DATABRICKS_HOST names no workspace.",
                "set DATABRICKS_HOST and DATABRICKS_TOKEN, or DATABRICKS_CONFIG_PROFILE.",
            )
        host, token = workspace.host, token or workspace.credential
    # A base URL needs a model, but a list has none: the route leaves it out.
    endpoint = Endpoint(host + API, model="any", token=token, ca_bundle=ca_bundle, allow_http=allow_http)
    return replace(endpoint.resolve("", environ, providers), model=None)
