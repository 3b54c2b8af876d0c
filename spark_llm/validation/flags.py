"""Checks of flags: a text such as "no" is neither True nor False."""

from spark_llm.errors import ConfigError


def check_flag(name: str, value: object, *, owner: str = "") -> bool:
    """Return True or False; raise `ConfigError` for any other value. `owner` is the class that has the parameter."""
    if not isinstance(value, bool):
        given = f"{owner}({name}={value!r})" if owner else f"{name}={value!r}"
        raise ConfigError(f"{given} is neither True nor False.", "leave it out for the default.")
    return value
