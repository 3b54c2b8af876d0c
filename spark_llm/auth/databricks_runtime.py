"""Databricks' own runtime: who runs this notebook or this task there, without a token being set anywhere."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark import TaskContext

from spark_llm.auth.credentials import Bearer, Workspace
from spark_llm.protocol.urls import host_url

TOKEN_PROPERTY = "spark.databricks.token"  # noqa: S105 -- the name of a task's property, not a token


@dataclass(frozen=True)
class TaskToken:
    """The token of the task that it is called in, as the runtime gives it; else the one of the driver."""

    of_driver: str = field(repr=False)

    def __call__(self) -> str:
        """Return the token."""
        task = TaskContext.get()
        return (task.getLocalProperty(TOKEN_PROPERTY) if task is not None else None) or self.of_driver


class Runtime:
    """The identity of whoever runs the notebook or the job."""

    requires = "a notebook or a job on Databricks"

    def is_here(self, environ: Mapping[str, str]) -> bool:
        """Return whether this is Databricks' runtime."""
        return "DATABRICKS_RUNTIME_VERSION" in environ

    def workspace(self, environ: Mapping[str, str]) -> Workspace | None:  # noqa: ARG002 -- `Login` has it
        """Return the notebook's workspace and its token, as databricks-sdk finds them too."""
        with contextlib.suppress(ImportError):
            from dbruntime.databricks_repl_context import get_context

            context = get_context()
            if context is not None and context.workspaceUrl and context.apiToken:
                origin = "the notebook's own token"
                token = Bearer.of(TaskToken(context.apiToken), origin, identity=context.apiToken)
                return Workspace(host_url(context.workspaceUrl), token)
        return None
