"""What a check asks: the address, who is asking, and the tasks that come into question."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from spark_llm.auth.credentials import Bearer, Credential, CredentialsProvider
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.endpoint.route import Route
from spark_llm.errors import ConfigError
from spark_llm.protocol.chat import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.task import Task
from spark_llm.protocol.urls import host_url, masked_url
from spark_llm.readiness.report import Check
from spark_llm.readiness.workspace import API

TIMEOUT_S = 30.0
TASKS: tuple[Task, ...] = (Chat(), Embed(), Complete())  # in the order in which they are tried
TASK_NAMES = tuple(task.name for task in TASKS)


class Target(NamedTuple):
    """What is asked: where and as whom, and the tasks that come into question; travels to executors.

    Attributes:
        route: Where the first of the tasks is posted to.
        tasks: The task; or several, of which the first that is answered is the one.
        timeout_s: How long one request may take.
    """

    route: Route
    tasks: tuple[Task, ...]
    timeout_s: float = TIMEOUT_S

    def only(self, task: Task) -> "Target":
        """Return the same with one of its tasks: under an OpenAI-style base each has a path of its own."""
        parts = urlsplit(self.route.url)
        route, first = self.route, self.tasks[0].route
        if len(self.tasks) > 1 and parts.path.endswith(first):
            route = replace(route, url=urlunsplit(parts._replace(path=parts.path.removesuffix(first) + task.route)))
        return self._replace(route=route, tasks=(task,))


def tasks_of(endpoint: Endpoint, told: str | None) -> tuple[Task, ...]:
    """Return the tasks that come into question: the one that is told or that the URL's path names, else all.

    Raises `ConfigError` for a task that there is not.
    """
    if told is not None and told not in TASK_NAMES:
        raise ConfigError(f"task={told!r} is no task.", f"pass one of {', '.join(TASK_NAMES)}, or leave it out.")
    path = urlsplit(endpoint.target).path.rstrip("/") if endpoint.is_url else ""
    named = max((task for task in TASKS if path.endswith(task.route)), key=lambda task: len(task.route), default=None)
    if told is None and named is not None:
        return (named,)
    return tuple(task for task in TASKS if told in (None, task.name))


def shown(endpoint: Endpoint) -> str:
    """Return the endpoint's name or URL, fit to print."""
    return masked_url(endpoint.target) if endpoint.is_url else endpoint.target


def locate(
    endpoint: Endpoint, path: str, resolve: Callable[[], Target], environ: Mapping[str, str]
) -> tuple[list[Check], Target | None]:
    """Check the address: `resolve` finds out where the endpoint is, and who is asking; `path` is its task's.

    Returns the checks, and what there is to ask; None where that is not known. Where it is the credentials that are
    wrong, and not the address, it is their check that fails.
    """
    try:
        target = resolve()
    except ConfigError as error:
        failed = Check("credentials", "driver", "failed", error.what, error.hint)
        try:
            address = replace(endpoint, token=Bearer.of("anybody's")).resolve(path, environ, ()).shown
        except ConfigError:
            return [failed._replace(name="address")], None
        return [Check("address", "driver", "passed", address), failed], None
    return [Check("address", "driver", "passed", target.route.shown)], target


def workspace(
    environ: Mapping[str, str],
    providers: Sequence[CredentialsProvider],
    token: Credential | None = None,
    *,
    ca_bundle: str | None = None,
    allow_http: bool = False,
) -> Route:
    """Return where the workspace that the environment or a login names lists its endpoints, and who is asking.

    `token` goes before what is found there. Raises `ConfigError` where there is none.
    """
    host = host_url(environ.get("DATABRICKS_HOST", ""))
    if not host:
        here = (login.workspace(environ) for login in providers if login.is_available(environ))
        found = next(filter(None, here), None)
        if found is None:
            raise ConfigError(
                "DATABRICKS_HOST does not say at which workspace.",
                "set DATABRICKS_HOST and DATABRICKS_TOKEN, or DATABRICKS_CONFIG_PROFILE.",
            )
        host, token = found.host, token or found.credential
    # A base is asked for a model, and a list has none: it is named, and not sent.
    asked = Endpoint(host + API, model="any", token=token, ca_bundle=ca_bundle, allow_http=allow_http)
    return replace(asked.resolve("", environ, providers), model=None)
