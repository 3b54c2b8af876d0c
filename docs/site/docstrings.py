"""An extension of Griffe, which reads docstrings for mkdocstrings: docstrings as Markdown, as it shows them best.

An example after `>>>` becomes a block of code; Markdown takes the marks for quotations.
"""

import re

import griffe

_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_PROMPT = re.compile(r"^(?:>>>|\.\.\.) ?", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Changes docstrings, and defaults whose name is private."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Put the examples of a docstring into blocks of code."""
        if obj.docstring is not None:
            obj.docstring.value = with_code_blocks(obj.docstring.value)

    def on_function(self, *, func: griffe.Function, **_: object) -> None:
        """Show the value of the default policy, `Policy()`, and not the name of the constant."""
        for parameter in func.parameters:
            if str(parameter.default) == "_DEFAULT_POLICY":
                parameter.default = "Policy()"


def with_code_blocks(docstring: str) -> str:
    """Return a docstring whose examples are blocks of code: with prompts where output follows, else without."""
    return _EXAMPLE.sub(_block, docstring)


def _block(example: re.Match[str]) -> str:
    lines = example[0].splitlines()
    if all(_PROMPT.match(line) for line in lines):
        return f"```python\n{_PROMPT.sub('', example[0])}\n```"
    return f"```pycon\n{example[0]}\n```"
