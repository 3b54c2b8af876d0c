"""Templates: texts with named fields, parsed once where the UDF is built, filled in for each row on the workers.

What stands in a row is data: it is joined to the template's pieces and never read again, so that braces in it mean
nothing. Knows no column, no wire format, no Spark.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, repeat
from typing import Any

from spark_llm.errors import ConfigError
from spark_llm.protocol.parameters import text
from spark_llm.protocol.values import Content
from spark_llm.text.excerpt import excerpt

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Template:
    """A text with fields: what was written, the pieces around its fields (one more than those), and their names.

    >>> Template.parse("template", "Summarise {title}: {body}").fill({"title": ["Dune"], "body": ["Sand."]})
    ['Summarise Dune: Sand.']
    """

    written: str
    pieces: tuple[str, ...] = field(repr=False)
    fields: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(cls, name: str, written: str) -> "Template":
        """Read a template that the user gave as `name`; raises `ConfigError` for a brace that names no field."""
        pieces, fields, piece, end = list[str](), list[str](), list[str](), 0
        for found in _BRACES.finditer(text(name, written)):
            piece.append(written[end : found.start()])
            end = found.end()
            if found[1] is not None and found[1].isidentifier():
                pieces.append("".join(piece))
                piece = []
                fields.append(found[1])
            elif found[0] in ("{{", "}}"):
                piece.append(found[0][0])
            else:
                raise ConfigError(
                    f"{name}= has {excerpt(found[0], 40)!r} at position {found.start()}, which names no field.",
                    "write a field as its plain name in braces, {title}, and a brace that is text twice: {{ or }}.",
                )
        pieces.append("".join([*piece, written[end:]]))
        return cls(written, tuple(pieces), tuple(fields))

    @property
    def is_bare(self) -> bool:
        """Whether it is one field and nothing else."""
        return self.pieces == ("", "")

    def fill(self, columns: Mapping[str, Sequence[str | None]]) -> list[str | None]:
        """Write the text of each row; one with a null in a field of the template is None. There has to be a field."""
        pieces = map(repeat, self.pieces[1:])
        filled = chain.from_iterable(zip((columns[name] for name in self.fields), pieces, strict=True))
        rows = zip(repeat(self.pieces[0], len(columns[self.fields[0]])), *filled, strict=False)
        return [None if None in row else "".join(row) for row in rows]


@dataclass(frozen=True)
class PromptBuilder:
    """What each row asks, with its fields open: the user's message or the prompt, and the instructions to it."""

    template: Template
    system: Template | None = None
    conversations: bool = False  # whether a field may hold one: see `conversation`

    @classmethod
    def parse(cls, template: str, system: str | None = None, *, conversations: bool = False) -> "PromptBuilder":
        """Read the templates; raises `ConfigError` for one that is broken, and where `template` has no field."""
        parsed = Template.parse("template", template)
        if not parsed.fields:
            raise ConfigError(
                f"template={template!r} has no field, so it would ask the same of every row.",
                'name a column in braces, as in template="Summarise {body}"; what is the same for all goes in system=.',
            )
        return cls(parsed, None if system is None else Template.parse("system", system), conversations)

    @property
    def instructions(self) -> str | None:
        """The instructions where they are the same for every row."""
        return self.system.pieces[0] if self.system is not None and not self.system.fields else None

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names of all fields, each once, in the order in which they first stand."""
        return tuple(dict.fromkeys(self.template.fields + (self.system.fields if self.system else ())))

    @cached_property
    def conversation(self) -> str | None:
        """The field that may hold conversations: it is the whole template, and the instructions do not quote it."""
        (name, *_) = self.template.fields
        quoted = self.system is not None and name in self.system.fields
        return name if self.conversations and self.template.is_bare and not quoted else None

    def asked(self, columns: Mapping[str, Sequence[Any]]) -> list[Content | None]:
        """Return what each row asks, from the values of every field; a row with a null in any of them asks nothing.

        Instructions with fields lead a conversation that has no system message of its own.
        """
        alone = self.conversation
        said: list[Any] = self.template.fill(columns) if alone is None else list(columns[alone])
        if self.system is None or not self.system.fields:
            return said
        told = self.system.fill(columns)
        return [
            None if instructions is None or item is None else _led(instructions, item)
            for instructions, item in zip(told, said, strict=True)
        ]


def _led(system: str, item: Content) -> Content:
    messages = [{"role": "user", "content": item}] if isinstance(item, str) else item
    if any(message and message.get("role") == "system" for message in messages):
        return messages
    return [{"role": "system", "content": system}, *messages]
