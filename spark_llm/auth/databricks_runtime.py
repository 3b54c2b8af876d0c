"""Credentials of the Databricks runtime: the token of the user who runs the notebook or the job."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark import TaskContext

from spark_llm.auth.credentials import Bearer, Workspace
from spark_llm.protocol.urls import host_url

TOKEN_PROPERTY = "spark.databricks.token"  # noqa: S105 -- the name of a task's property, not a token


@dataclass(frozen=True)
class TaskToken:
    """A token function: the token of the Spark task that calls it, or else the driver's."""

    driver_token: str = field(repr=False)

    def __call__(self) -> str:
        """Return the token."""
        task = TaskContext.get()
        return (task.getLocalProperty(TOKEN_PROPERTY) if task is not None else None) or self.driver_token


class Runtime:
    """The credentials provider for a notebook or a job on Databricks."""

    requirement = "a notebook or a job on Databricks"

    def is_available(self, environ: Mapping[str, str]) -> bool:
        """Return whether this is the Databricks runtime."""
        return "DATABRICKS_RUNTIME_VERSION" in environ

    def workspace(self, environ: Mapping[str, str]) -> Workspace | None:  # noqa: ARG002 -- of `CredentialsProvider`
        """Return the notebook's workspace and its token, from the source that databricks-sdk reads too; else None."""
        with contextlib.suppress(ImportError):
            from dbruntime.databricks_repl_context import get_context

            context = get_context()
            if context is not None and context.workspaceUrl and context.apiToken:
                origin = "the notebook's own token"
                token = Bearer.of(TaskToken(context.apiToken), origin, identity=context.apiToken)
                return Workspace(host_url(context.workspaceUrl), token)
        return None
