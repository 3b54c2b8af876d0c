"""Hints about an endpoint's parameters, in the words of where they were given."""

import pytest

from spark_llm.cli.option_words import COMMAND_LINE, JOB_FILE, reworded


@pytest.mark.parametrize(
    ("hint", "shell", "file"),
    [
        ('pass Endpoint(url, model="…"), or a URL.', "pass --model NAME, or a URL.", 'pass model = "NAME", or a URL.'),
        ("trust it: Endpoint(…, ca_bundle=…).", "trust it: --ca-bundle FILE.", 'trust it: ca_bundle = "FILE".'),
        ("leave it out, and pass token=.", "… pass --token-file FILE.", '… pass token_env = "VARIABLE".'),
        ("or token=ClientCredentials(…).", "or --token-file FILE.", 'or token_env = "VARIABLE".'),
        ("or Endpoint(…, allow_http=True) there.", "or --allow-http there.", "or allow_http = true there."),
        ("a base URL needs model=…; any", "a base URL needs --model NAME; any", 'a base URL needs model = "NAME"; any'),
        ("pass served_model=.", "pass --served-model NAME.", 'pass served_model = "NAME".'),
    ],
)
def test_parameters_are_named_as_they_were_given(hint: str, shell: str, file: str) -> None:
    """On the command line they are options, in a job's file keys."""
    for words, expected in ((COMMAND_LINE, shell), (JOB_FILE, file)):
        assert reworded(hint, words).endswith(expected.removeprefix("…"))


@pytest.mark.parametrize(
    "hint", ["check the URL.", "a token= that renews itself.", "set DATABRICKS_TOKEN.", "mymodel=…"]
)
def test_other_hints_stay(hint: str) -> None:
    """Only a parameter of `Endpoint` is reworded."""
    assert hint == reworded(hint, COMMAND_LINE)
