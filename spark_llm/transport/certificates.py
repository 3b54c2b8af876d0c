"""Certificates that the user adds to those of the system: the text of a PEM file, or a path."""

import ssl

from spark_llm.errors import ConfigError

_MARK = "-----BEGIN"  # only a text has it


def check_ca_bundle(value: object) -> None:
    """Raise `ConfigError` for what is neither the text of a PEM file nor a path.

    A text is parsed. A path is one of the workers, so no file is looked for here.
    """
    if isinstance(value, str) and _MARK in value:
        ssl_context(value)
    elif not isinstance(value, str) or not value.strip() or not value.isprintable():
        given = f"A text of {len(value):,} characters" if isinstance(value, str) else repr(value)
        raise ConfigError(
            f"Endpoint(ca_bundle=…): {given} is not a bundle of certificates.",
            f"pass the text of a PEM file, with its {_MARK} lines, or a path that exists on every worker.",
        )


def ssl_context(ca_bundle: str | None) -> ssl.SSLContext | None:
    """Return a context that trusts these certificates besides the system's; None without a bundle."""
    if ca_bundle is None:
        return None
    context = ssl.create_default_context()
    is_text = _MARK in ca_bundle
    try:
        context.load_verify_locations(None if is_text else ca_bundle, cadata=ca_bundle if is_text else None)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, FileNotFoundError) else "no certificates in PEM"
        raise ConfigError(
            f"ca_bundle cannot be used: {'its text' if is_text else ca_bundle}: {reason}.",
            "use a path that exists on every worker, or pass the text of the file, which travels there.",
        ) from None
    return context
