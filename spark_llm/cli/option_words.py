"""Hints about an endpoint's parameters in the words of the command line or of a job's file, not of Python."""

import re
from collections.abc import Mapping

COMMAND_LINE: Mapping[str, str] = {
    "model": "--model NAME",
    "served_model": "--served-model NAME",
    "token": "--token-file FILE",
    "ca_bundle": "--ca-bundle FILE",
    "allow_http": "--allow-http",
    "api": "--api responses",
}
JOB_FILE: Mapping[str, str] = {
    "model": 'model = "NAME"',
    "served_model": 'served_model = "NAME"',
    "token": 'token_env = "VARIABLE"',
    "ca_bundle": 'ca_bundle = "FILE"',
    "allow_http": "allow_http = true",
    "api": 'api = "responses"',
}
_NAMES = "|".join(COMMAND_LINE)
_IN_PYTHON = re.compile(
    rf"Endpoint\([^()]*?\b({_NAMES})=[^()]*\)"  # as in Endpoint(url, model=…)
    rf"|(?<!\ba )\b({_NAMES})=(?:ClientCredentials\(…\)|…)?"  # as in token=…, but not in "a token= that renews itself"
)


def reworded(hint: str, words: Mapping[str, str]) -> str:
    """Return a hint with each parameter of `Endpoint` as `words` write it."""
    return _IN_PYTHON.sub(lambda found: words[found[1] or found[2]], hint)
