"""The checks of an endpoint, one after the other, from the driver, the command line or an executor.

A failed check has the message that a row would get. A problem of the endpoint never raises, and each request has a
time limit.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from spark_llm.auth.credentials import ClientCredentials
from spark_llm.auth.tokens import SignInError
from spark_llm.batches.calls import BatchRequestError
from spark_llm.batches.client import BatchClient
from spark_llm.batches.settings import Batch
from spark_llm.endpoint.client import BlockingClient, run_outside_loop
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.endpoint.route import Route
from spark_llm.errors import ConfigError, Kind
from spark_llm.policy import Policy
from spark_llm.protocol.failures import failure_of
from spark_llm.protocol.json_codec import read_object
from spark_llm.protocol.task import RESPONSES, Task, UnsendableError
from spark_llm.protocol.urls import is_azure, is_route_optimised, masked_url, responses_url
from spark_llm.protocol.values import Answer, Failure, Response, RowError
from spark_llm.readiness.probe import SAMPLE, is_about_format, is_answered, probes, sample_inputs
from spark_llm.readiness.report import Check, Outcome, Where
from spark_llm.readiness.target import TIMEOUT_S, Target, check_address
from spark_llm.readiness.workspace import Description, Subject, read_descriptions, unknown_name_hint
from spark_llm.text.format import span

DESCRIBE_TIMEOUT_S = 10.0  # a description needs no model, and the checks can do without it
BATCHES = "batches"
NETWORK_CHECKS = ("credentials", "description", "request")
_TASK_ERRORS: tuple[Kind, ...] = ("invalid_request", "invalid_response", "not_found")  # perhaps the wrong task
_URL_ERRORS: tuple[Kind, ...] = ("invalid_request", "unauthorized", "not_found")  # perhaps the wrong URL
_MAYBE_CUSTOM = (
    "if it serves a custom model, check it with preflight(predict_udf(…)), or `spark-llm check NAME --task predict`;"
    " else see what the message names."
)
_FOUND_ROUTE = 'it is served at /responses only; Endpoint(…, api="responses") saves each worker a refused request.'
_UNREACHABLE: tuple[Kind, ...] = ("connection", "timeout")


class CheckRun:
    """The network checks of an endpoint from one place, in order; each uses the findings of those before it.

    Attributes:
        target: The target; of several candidate tasks, only the one that the endpoint serves is left.
        checks: The checks so far.
        is_local: Whether a failure is of this place, so that another place may succeed.
    """

    def __init__(self, target: Target, where: Where) -> None:
        """Send nothing yet."""
        self.target = target
        self.checks: list[Check] = []
        self.is_local = False
        self._where = where
        self._client = BlockingClient(target.route)
        self._hints: dict[Kind, str] = {}  # of the description, for a refused request
        self._route_hint = ""  # where a refusal named the route that then answered

    def sign_in(self) -> None:
        """Get a token, as a worker does before its first request."""
        try:
            token = self._client.sign_in()
        except SignInError as error:
            self._add_failure("credentials", error.failure.error)
            return
        left_s = self._client.token_ends_at - time.time()
        if left_s <= 0:
            message = f"the token expired {_rounded_span(-left_s)} ago"
            expired = RowError("unauthorized", None, message, retryable=False)
            self._add_failure("credentials", expired)
            self.is_local = token != getattr(self.target.route.credential, "source", None)  # a worker gets its own
            return
        validity = f", valid for another {_rounded_span(left_s)}" if left_s < 1e9 else ""
        self._add("credentials", "passed", _credential_summary(self.target.route) + validity)

    def describe(self) -> None:
        """Get the workspace's description of the endpoint; without one, the request alone decides."""
        route = self.target.route
        subject = None if is_route_optimised(route.url) else Subject.from_url(route.url, route.model)
        if subject is None:
            self._add("description", "skipped", "no workspace describes the endpoint of this URL")
            return
        try:
            response = self._get(subject.url)
            document = read_object(response.body)
            if response.status == 404 and document.get("error_code") == "RESOURCE_DOES_NOT_EXIST":
                names = [each.name for each in read_descriptions(read_object(self._get(subject.list_url).body))]
                message = f"{failure_of(response).error.message.rstrip('.')} (at {route.shown})."
                self._add("description", "failed", message, unknown_name_hint(subject.name, names))
            elif response.succeeded and "name" in document:
                self._check_description(Description.read(document), subject.served)
            else:
                self._add("description", "skipped", f"not available: {_refusal(response)}")
        except SignInError as error:
            self._add("description", "skipped", f"not available: {error}")

    def _get(self, url: str) -> Response:
        return self._client.send("GET", url, None, min(DESCRIBE_TIMEOUT_S, self.target.timeout_s))

    def _check_description(self, description: Description, served: str | None) -> None:
        problem = description.problem(served)
        if problem is not None:
            self._add("description", "failed", *problem)
            return
        for task in self.target.tasks:
            if task.name == description.task:
                self.target = self.target.with_task(task)
        url_hint, task_hint = description.url_hint, description.task_hint(self.target.tasks[0].name)
        if self.target.route.api is None:
            url_hint = url_hint or description.api_hint
        self._hints |= dict.fromkeys(_URL_ERRORS, url_hint)
        self._hints |= dict.fromkeys(_TASK_ERRORS, task_hint or url_hint)
        message = f"{description.name} is {description.state}"
        message += f" and serves {description.kind}" if description.kind else ""
        message += "; it scales to zero, so the first answer may take minutes" if description.scales_to_zero else ""
        self._add("description", "passed", message, url_hint)

    def ask(self) -> None:
        """Send one request of one token for each candidate task, until the endpoint answers one."""
        errors = []
        for task in self.target.tasks:
            target = self.target.with_task(task)
            outcome, latency_s = self._probe(target)
            if isinstance(outcome, Answer) or (is_answered(task, outcome.error) and not self._is_other(outcome.error)):
                self.target = target
                self._add("request", "passed", _answer_summary(task, outcome, latency_s), self._route_hint)
                return
            errors.append(outcome.error)
            if outcome.error.kind not in _TASK_ERRORS and outcome.error.status != 500:
                break
        hint = self._hints.get(errors[0].kind, "")
        if len(errors) > 1 and {error.kind for error in errors} == {"invalid_request"}:
            hint = hint or _MAYBE_CUSTOM
        self._add_failure("request", errors[0], hint)

    def skip_request(self) -> None:
        """Send no request, at Azure: its deployments for batches answer no single requests."""
        self._add("request", "skipped", "a deployment of Azure that takes batches answers no single requests")

    def look_for_batches(self) -> None:
        """Ask for the list of batches, which costs nothing."""
        route, policy = self.target.route, Policy(max_tries=1, give_up_after_s=0, timeout_s=self.target.timeout_s)
        try:
            client = BatchClient(route, Batch(), policy)
            client.check()
        except BatchRequestError as failed:
            self._add(BATCHES, "failed", failed.what, failed.hint)
            self.is_local = failed.error.status is None or failed.error.kind in _UNREACHABLE
            return
        except ConfigError as error:
            self._add(BATCHES, "failed", error.what, error.hint)
            return
        self._add(BATCHES, "passed", f"there is a Batch API at {masked_url(client.urls.batches)}")

    def _is_other(self, error: RowError) -> bool:
        """Return whether the description says that such a refusal is of another task, or another URL."""
        return bool(self._hints.get(error.kind))

    def _probe(self, target: Target) -> tuple[Answer | Failure, float]:
        """Send probes at the route that is set, or else at the one that the first refusal names."""
        route, [task] = target.route, target.tasks
        found = self._probe_in(target, RESPONSES if route.api == "responses" else 0)
        if isinstance(found[0], Answer) or route.api is not None:
            return found
        stated = (task.fallback_format([SAMPLE], 0, found[0].error.message) or 0) & RESPONSES
        if not stated:
            return found
        self._route_hint = _FOUND_ROUTE
        return self._probe_in(target, stated)

    def _probe_in(self, target: Target, first_format: int) -> tuple[Answer | Failure, float]:
        """Send probes until one is not refused for its wire format or its limit; return the outcome and its latency."""
        route, [task] = target.route, target.tasks
        url = responses_url(route.url) if first_format & RESPONSES else route.url
        outcome: Answer | Failure
        for probe, wire_format in probes(task, first_format):
            try:
                inputs = sample_inputs(probe)
                task.encode(inputs, route.model, wire_format)  # with its own parameters
                body = probe.encode(inputs, route.model, wire_format)
                response = self._client.send("POST", url, body, target.timeout_s)
            except (SignInError, UnsendableError) as error:
                return error.failure, 0.0
            outcome, latency_s = probe.decode(response, len(inputs), wire_format), response.latency_s
            if isinstance(outcome, Answer) and inputs:
                refusal = outcome.results[0].error
                return (outcome if refusal is None else Failure(refusal, usage=outcome.usage)), latency_s
            if isinstance(outcome, Answer) or not is_about_format(probe, outcome.error):
                break
        return outcome, latency_s

    def _add(self, name: str, outcome: Outcome, message: str, hint: str = "") -> None:
        self.checks.append(Check(name, self._where, outcome, message, hint))

    def _add_failure(self, name: str, error: RowError, hint: str = "") -> None:
        self.is_local = error.status is None or error.kind in _UNREACHABLE
        check = Check.from_text(name, self._where, "failed", self._client.message_of(error))
        self.checks.append(check._replace(hint=hint) if hint else check)


class DriverChecks(NamedTuple):
    """The driver's checks, and the target with only the task that the endpoint serves.

    `failed` is a failed check that would fail from any other place too.
    """

    checks: list[Check]
    target: Target | None
    failed: Check | None


def run_driver_checks(
    endpoint: Endpoint,
    path: str,
    resolve: Callable[[], Target],
    environ: Mapping[str, str],
    *,
    batch: bool = False,
) -> DriverChecks:
    """Run all checks of the driver, with `batch` those of a Batch API; other arguments are as of `check_address`."""
    checks, target = check_address(endpoint, path, resolve, environ)
    if target is None:
        names = (*NETWORK_CHECKS, *([BATCHES] if batch else []))[len(checks) - 1 :]
        return DriverChecks(checks + skipped(names, "driver", checks[-1]), None, checks[-1])
    run = run_outside_loop(lambda: run_network_checks(target, "driver", batch=batch))
    failed = next((check for check in run.checks if check.outcome == "failed"), None)
    return DriverChecks(checks + run.checks, run.target, None if run.is_local else failed)


def run_network_checks(target: Target, where: Where, *, batch: bool = False) -> CheckRun:
    """Run the checks that need a network; from an executor, only those that may turn out differently there."""
    run = CheckRun(target, where)
    steps = [run.sign_in, run.describe, run.ask] if where == "driver" else [run.sign_in, run.ask]
    names = list(NETWORK_CHECKS if where == "driver" else ("credentials", "request"))
    if batch:
        if is_azure(target.route.url):
            steps[-1] = run.skip_request
        steps.append(run.look_for_batches)
        names.append(BATCHES)
    for step in steps:
        step()
        last = run.checks[-1]
        if last.outcome == "failed":
            run.checks += skipped(names[len(run.checks) :], where, last)
            break
    return run


def skipped(names: Sequence[str], where: Where, failed: Check) -> list[Check]:
    """Return skipped checks, with the failed check as the reason."""
    message = f"not done: the {failed.name} check failed on the {failed.where}"
    return [Check(name, where, "skipped", message) for name in names]


def list_endpoints(route: Route, timeout_s: float = TIMEOUT_S) -> list[Description]:
    """Return a workspace's endpoints; raises `ConfigError` with a row's message if the request fails."""
    client = BlockingClient(route)
    try:
        response = client.send("GET", route.url, None, timeout_s)
        error = None if response.succeeded else failure_of(response).error
    except SignInError as failed:
        error = failed.failure.error
    if error is None:
        return read_descriptions(read_object(response.body))
    check = Check.from_text("endpoints", "driver", "failed", client.message_of(error))
    raise ConfigError(check.message, check.hint or "check DATABRICKS_HOST.")


def _credential_summary(route: Route) -> str:
    """Return the kind of credential and its origin, without the secret."""
    credential = route.credential
    if isinstance(credential, ClientCredentials):
        return f"a token of the OAuth client {credential.client_id} ({credential.origin})"
    if credential.source is None:
        headers = [name for name, _ in route.headers if name.lower() in ("authorization", "api-key")]
        return f"no token, but the header {headers[0]}" if headers else "no token"
    return f"{'a token from a function' if callable(credential.source) else 'a token'} ({credential.origin})"


def _answer_summary(task: Task, outcome: Answer | Failure, latency_s: float) -> str:
    """Return the task, the latency, the model, and the size and tokens of the answer."""
    summary = f"{task.name} was answered in "
    summary += f"{latency_s:.1f} s" if latency_s >= 1 else f"{latency_s * 1000:.0f} ms"
    details = []
    for result in outcome.results if isinstance(outcome, Answer) else ():
        summary += f" by {result.model}" if result.model else ""
        details += [f"a vector of {len(result.embedding) // 4} numbers"] if result.embedding else []
        details += [f"a score of {each['score']:.3g}" for each in result.ranking or ()]
    if outcome.usage is not None and outcome.usage.total_tokens is not None:
        tokens = outcome.usage.total_tokens
        details.append(f"{tokens} token{'' if tokens == 1 else 's'}")
    return f"{summary}: {', '.join(details)}" if details else summary


def _refusal(response: Response) -> str:
    """Return why a response is not a description."""
    if response.succeeded:
        return "the response is not a description"
    error = failure_of(response).error
    return error.message if error.status is None else f"{error.status} {error.message}"


def _rounded_span(seconds: float) -> str:
    """Return a time as `span` does, in whole minutes above two minutes."""
    return span(60 * round(seconds / 60) if seconds > 120 else seconds)
