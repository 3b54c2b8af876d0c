"""The checks of an endpoint, one after the other, from wherever this runs: the driver, the command line, an executor.

What goes wrong is told in a row's own words. Nothing is raised for what is wrong with the endpoint, and no request
waits longer than it is given.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from spark_llm.auth.credentials import ClientCredentials
from spark_llm.auth.tokens import SignInError
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.endpoint.route import Route
from spark_llm.errors import ConfigError, Kind
from spark_llm.protocol.failures import failure_of
from spark_llm.protocol.json_codec import read_object
from spark_llm.protocol.task import Task
from spark_llm.protocol.urls import is_route_optimised
from spark_llm.protocol.values import Answer, Failure, Response, RowError
from spark_llm.readiness.client import ReadinessClient, off_the_loop
from spark_llm.readiness.probe import SAMPLE, asks_on, is_an_answer, questions
from spark_llm.readiness.report import Check, Outcome, Where
from spark_llm.readiness.target import TIMEOUT_S, Target, locate
from spark_llm.readiness.workspace import Description, Subject, listed, unknown_name_hint
from spark_llm.text.format import span

DESCRIBE_S = 10.0  # a description is no model's work, and it can be done without
NETWORK_CHECKS = ("credentials", "description", "request")
_MAY_BE_THE_TASK: tuple[Kind, ...] = ("invalid_request", "invalid_response", "not_found")
_MAY_BE_THE_URL: tuple[Kind, ...] = ("invalid_request", "unauthorized", "not_found")
_BARRED: tuple[Kind, ...] = ("connection", "timeout")


class Visit:
    """An endpoint visited from one place: its checks in order, each with what those before it found.

    Attributes:
        target: What is asked; of several tasks, the one that was found is left.
        checks: What was found.
        barred: Whether nothing was answered at all, which says nothing of other places.
    """

    def __init__(self, target: Target, where: Where) -> None:
        """Ask nothing yet."""
        self.target = target
        self.checks: list[Check] = []
        self.barred = False
        self._where = where
        self._caller = ReadinessClient(target.route)
        self._hints: dict[Kind, str] = {}  # what the description says to a refusal

    def sign_in(self) -> None:
        """Get a token, as a worker does before its first request."""
        try:
            token = self._caller.sign_in()
        except SignInError as error:
            self._fail("credentials", error.failure.error)
            return
        left_s = self._caller.token_ends_at - time.time()
        if left_s <= 0:
            expired = RowError(
                "unauthorized", None, f"the token expired {_to_the_minute(-left_s)} ago", retryable=False
            )
            self._fail("credentials", expired)
            self.barred = token != getattr(self.target.route.credential, "source", None)  # a worker may get another
            return
        lasts = f", good for another {_to_the_minute(left_s)}" if left_s < 1e9 else ""
        self._note("credentials", "passed", _who(self.target.route) + lasts)

    def describe(self) -> None:
        """Ask the workspace what it knows of the endpoint. Without a description the request has the last word."""
        route = self.target.route
        subject = None if is_route_optimised(route.url) else Subject.of(route.url, route.model)
        if subject is None:
            self._note("description", "skipped", "no workspace describes what is asked at this URL")
            return
        try:
            response = self._get(subject.url)
            document = read_object(response.body)
            if response.status == 404 and document.get("error_code") == "RESOURCE_DOES_NOT_EXIST":
                names = [each.name for each in listed(read_object(self._get(subject.list_url).body))]
                words = f"{failure_of(response).error.message.rstrip('.')} (at {route.shown})."
                self._note("description", "failed", words, unknown_name_hint(subject.name, names))
            elif response.succeeded and "name" in document:
                self._judge(Description.read(document), subject.served)
            else:
                self._note("description", "skipped", f"there is none to be had: {_why_none(response)}")
        except SignInError as error:
            self._note("description", "skipped", f"there is none to be had: {error}")

    def _get(self, url: str) -> Response:
        return self._caller.send("GET", url, None, min(DESCRIBE_S, self.target.timeout_s))

    def _judge(self, described: Description, served: str | None) -> None:
        wrong = described.wrong(served)
        if wrong is not None:
            self._note("description", "failed", *wrong)
            return
        for task in self.target.tasks:
            if task.name == described.task:
                self.target = self.target.only(task)
        other_task = described.other_task(self.target.tasks[0].name)
        self._hints |= dict.fromkeys(_MAY_BE_THE_URL, described.own_way)
        self._hints |= dict.fromkeys(_MAY_BE_THE_TASK, other_task or described.own_way)
        words = f"{described.name} is {described.state}" + (f" and serves {described.kind}" if described.kind else "")
        words += "; it scales to zero, so a first answer may take minutes" if described.scales_to_zero else ""
        self._note("description", "passed", words, described.own_way)

    def ask(self) -> None:
        """Send one request of one token, and find the task where it is not known."""
        errors = []
        for task in self.target.tasks:
            target = self.target.only(task)
            outcome, latency_s = self._answer_to(target)
            if isinstance(outcome, Answer) or is_an_answer(outcome.error):
                self.target = target
                self._note("request", "passed", _told(task, outcome, latency_s))
                return
            errors.append(outcome.error)
            if outcome.error.kind not in _MAY_BE_THE_TASK and outcome.error.status != 500:
                break
        self._fail("request", errors[0], self._hints.get(errors[0].kind, ""))

    def _answer_to(self, target: Target) -> tuple[Answer | Failure, float]:
        """Ask the task's smallest questions until one is not refused for its form or its limit."""
        route, [task] = target.route, target.tasks
        outcome: Answer | Failure
        for question, form in questions(task):
            try:
                body = question.encode([SAMPLE], route.model, form)
                response = self._caller.send("POST", route.url, body, target.timeout_s)
            except SignInError as error:
                return error.failure, 0.0
            outcome, latency_s = question.decode(response, 1), response.latency_s
            if isinstance(outcome, Answer):
                refusal = outcome.results[0].error
                return (outcome if refusal is None else Failure(refusal, usage=outcome.usage)), latency_s
            if not asks_on(question, outcome.error):
                break
        return outcome, latency_s

    def _note(self, name: str, outcome: Outcome, message: str, hint: str = "") -> None:
        self.checks.append(Check(name, self._where, outcome, message, hint))

    def _fail(self, name: str, error: RowError, hint: str = "") -> None:
        self.barred = error.status is None or error.kind in _BARRED
        check = Check.of_words(name, self._where, "failed", self._caller.words(error))
        self.checks.append(check._replace(hint=hint) if hint else check)


class Found(NamedTuple):
    """What the driver's checks found: of several tasks, the one that is served is left in `target`.

    `failed` is a check that failed in a way that would be the same from any other place.
    """

    checks: list[Check]
    target: Target | None
    failed: Check | None


def check_here(endpoint: Endpoint, path: str, resolve: Callable[[], Target], environ: Mapping[str, str]) -> Found:
    """Make all checks of the driver; the arguments are those of `locate`."""
    checks, target = locate(endpoint, path, resolve, environ)
    if target is None:
        return Found(checks + skipped(NETWORK_CHECKS[len(checks) - 1 :], "driver", checks[-1]), None, checks[-1])
    visited = off_the_loop(lambda: visit(target, "driver"))
    failed = next((check for check in visited.checks if check.outcome == "failed"), None)
    return Found(checks + visited.checks, visited.target, None if visited.barred else failed)


def visit(target: Target, where: Where) -> Visit:
    """Make the checks that need a network; from an executor only those that may turn out differently there."""
    visited = Visit(target, where)
    steps = (visited.sign_in, visited.describe, visited.ask) if where == "driver" else (visited.sign_in, visited.ask)
    names = NETWORK_CHECKS if where == "driver" else ("credentials", "request")
    for step in steps:
        step()
        failed = visited.checks[-1]
        if failed.outcome == "failed":
            visited.checks += skipped(names[len(visited.checks) :], where, failed)
            break
    return visited


def skipped(names: Sequence[str], where: Where, failed: Check) -> list[Check]:
    """Return checks that cannot be done because another one failed."""
    why = f"not done: the check of the {failed.name} failed on the {failed.where}"
    return [Check(name, where, "skipped", why) for name in names]


def endpoints_at(route: Route, timeout_s: float = TIMEOUT_S) -> list[Description]:
    """Return a workspace's endpoints; raises `ConfigError` in the words of a row where it does not list them."""
    caller = ReadinessClient(route)
    try:
        response = caller.send("GET", route.url, None, timeout_s)
        error = None if response.succeeded else failure_of(response).error
    except SignInError as failed:
        error = failed.failure.error
    if error is None:
        return listed(read_object(response.body))
    words = Check.of_words("endpoints", "driver", "failed", caller.words(error))
    raise ConfigError(words.message, words.hint or "check DATABRICKS_HOST.")


def _who(route: Route) -> str:
    """Say who is asking, and where the secret comes from."""
    credential = route.credential
    if isinstance(credential, ClientCredentials):
        return f"a token of the OAuth client {credential.client_id} ({credential.origin})"
    if credential.source is None:
        own = [name for name, _ in route.headers if name.lower() in ("authorization", "api-key")]
        return f"no token, but the header {own[0]}" if own else "no token is sent"
    return f"{'a token that a function returned' if callable(credential.source) else 'a token'} ({credential.origin})"


def _told(task: Task, outcome: Answer | Failure, latency_s: float) -> str:
    """Say what came back, how soon, and what it cost."""
    words = f"{task.name} was answered in " + (f"{latency_s:.1f} s" if latency_s >= 1 else f"{latency_s * 1000:.0f} ms")
    told = []
    if isinstance(outcome, Answer):
        [result] = outcome.results
        words += f" by {result.model}" if result.model else ""
        told += [f"a vector of {len(result.embedding) // 4} numbers"] if result.embedding else []
    if outcome.usage is not None and outcome.usage.total_tokens is not None:
        tokens = outcome.usage.total_tokens
        told.append(f"{tokens} token{'' if tokens == 1 else 's'}")
    return f"{words}: {', '.join(told)}" if told else words


def _why_none(response: Response) -> str:
    if response.succeeded:
        return "what came back is no description"
    error = failure_of(response).error
    return error.message if error.status is None else f"{error.status} {error.message}"


def _to_the_minute(seconds: float) -> str:
    """Return a time in two units, in whole minutes where it is longer than two."""
    return span(60 * round(seconds / 60) if seconds > 120 else seconds)
