"""Checks of texts."""

from spark_llm.errors import ConfigError


def check_text(name: str, value: object) -> str:
    """Return a string that is not blank; raise `ConfigError` for any other value."""
    if not isinstance(value, str):
        raise ConfigError(f"{name}={value!r} is not a text.", f"write {name} as a string, or leave it out.")
    if not value.strip():
        raise ConfigError(f"{name}={value!r} is blank.", f"write some text as {name}, or leave it out.")
    return value
