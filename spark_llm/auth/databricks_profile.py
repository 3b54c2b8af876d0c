"""Credentials of Databricks configuration profiles: the only door to databricks-sdk, which is optional.

A token or an OAuth client travels to the workers, never the SDK's own object, which works on one machine only.
"""

import configparser
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spark_llm.auth.credentials import Bearer, ClientCredentials, Credential, Workspace
from spark_llm.errors import ConfigError
from spark_llm.protocol.urls import host_url


class Profile:
    """The credentials provider for ~/.databrickscfg: the profile of DATABRICKS_CONFIG_PROFILE, or the default one."""

    requirement = "a profile in ~/.databrickscfg, and databricks-sdk (pip install 'spark-llm-endpoints[databricks]')"

    def is_available(self, environ: Mapping[str, str]) -> bool:
        """Return whether the file has the profile, for the workspace of DATABRICKS_HOST if that is set."""
        if not _sdk_is_installed():
            return False
        _, section = _selected_profile(environ)
        host, wanted = host_url(section.get("host", "")), host_url(environ.get("DATABRICKS_HOST", ""))
        return bool(host) and wanted in ("", host)

    def workspace(self, environ: Mapping[str, str]) -> Workspace:
        """Authenticate with the profile; raise `ConfigError` if databricks-sdk cannot."""
        name, _ = _selected_profile(environ)
        return _sign_in(name)


def workspace_of_profile(name: str) -> Workspace:
    """Authenticate with a profile by its name; raise `ConfigError` if databricks-sdk is missing or fails."""
    if not _sdk_is_installed():
        raise ConfigError(
            f"The profile {name!r} is read by databricks-sdk, which is not installed.",
            "pip install 'spark-llm-endpoints[databricks]'.",
        )
    return _sign_in(name)


def workspace_of_config(config: Any, origin: str) -> Workspace:  # noqa: ANN401 -- databricks.sdk.core.Config, which need not be installed
    """Return the workspace of a `databricks.sdk.core.Config`, with a credential that travels."""
    return Workspace(host_url(str(config.host)), _credential(config, origin))


def _credential(config: Any, origin: str) -> Credential:  # noqa: ANN401 -- as above
    if config.auth_type == "pat":
        return Bearer.of(config.token, origin)
    if config.auth_type == "oauth-m2m":
        token_url = config.databricks_oidc_endpoints.token_endpoint
        return ClientCredentials(config.client_id, config.client_secret, token_url, origin=origin)
    # Only this machine can renew any other credential, so its current token travels.
    scheme, _, token = config.authenticate().get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise ConfigError(
            f"{origin} authenticates by {config.auth_type}, which gives no token that could travel to the workers.",
            "use a personal access token or an OAuth client (DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET).",
        )
    return Bearer.of(token, f"{origin}: {config.auth_type}, as it was when the UDF was made")


def _sign_in(name: str) -> Workspace:
    from databricks.sdk.core import Config

    try:
        return workspace_of_config(Config(profile=name), f"the profile {name}")
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"databricks-sdk cannot authenticate with the profile {name!r}: {type(error).__name__}.",
            f"run databricks auth profiles, or databricks auth login --profile {name}.",
        ) from error


def _selected_profile(environ: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """Return the profile's name and its entries; no entries if the file or the profile does not exist."""
    file = configparser.ConfigParser(interpolation=None)
    name = environ.get("DATABRICKS_CONFIG_PROFILE") or "DEFAULT"
    try:
        file.read(Path(environ.get("DATABRICKS_CONFIG_FILE") or "~/.databrickscfg").expanduser(), encoding="utf-8")
        if not environ.get("DATABRICKS_CONFIG_PROFILE"):
            name = file.get("__settings__", "default_profile", fallback=name)
        return name, file[name]
    except (OSError, ValueError, KeyError, RuntimeError, configparser.Error):
        return name, {}


def _sdk_is_installed() -> bool:
    try:
        return importlib.util.find_spec("databricks.sdk") is not None
    except ModuleNotFoundError:
        return False
