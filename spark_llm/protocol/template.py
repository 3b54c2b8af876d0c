"""Templates: texts with named fields, parsed when the UDF is built and filled for each row on the workers.

A row's values are data: they are joined to the pieces of the template and never parsed, so braces in them have no
meaning. Knows no column, no wire format, no Spark.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, repeat
from typing import Any

from spark_llm.errors import ConfigError
from spark_llm.protocol.chat.conversation import conversation_of, with_instructions
from spark_llm.protocol.values import Content, Part, Row, RowError
from spark_llm.text.excerpt import excerpt
from spark_llm.validation.texts import check_text

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Template:
    """A text with fields: its source, the pieces around the fields (one more than fields), and the fields' names.

    >>> Template.parse("template", "Summarise {title}: {body}").fill({"title": ["Dune"], "body": ["Sand."]})
    ['Summarise Dune: Sand.']
    """

    source: str
    pieces: tuple[str, ...] = field(repr=False)
    fields: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(
        cls,
        name: str,
        source: str,
        is_field: Callable[[str], bool] = str.isidentifier,
        hint: str = "write a field as a plain name in braces, {title}",
    ) -> "Template":
        """Parse the argument `name`; raises `ConfigError`, with the hint, for a brace without the name of a field."""
        pieces, fields, piece, end = list[str](), list[str](), list[str](), 0
        for found in _BRACES.finditer(check_text(name, source)):
            piece.append(source[end : found.start()])
            end = found.end()
            if found[1] is not None and is_field(found[1]):
                pieces.append("".join(piece))
                piece = []
                fields.append(found[1])
            elif found[0] in ("{{", "}}"):
                piece.append(found[0][0])
            else:
                raise ConfigError(
                    f"{name}= has {excerpt(found[0], 40)!r} at position {found.start()}, which is not a field.",
                    f"{hint}, and double a brace that is text: {{{{ or }}}}.",
                )
        pieces.append("".join([*piece, source[end:]]))
        return cls(source, tuple(pieces), tuple(fields))

    @property
    def is_single_field(self) -> bool:
        """Whether the template is one field and nothing else."""
        return self.pieces == ("", "")

    def renamed(self, names: Mapping[str, str]) -> str:
        """Return the source of the same text, whose fields have other names."""
        pieces = [piece.replace("{", "{{").replace("}", "}}") for piece in self.pieces]
        fields = (f"{{{names[field]}}}" for field in self.fields)
        return "".join([pieces[0], *chain.from_iterable(zip(fields, pieces[1:], strict=True))])

    def fill(self, columns: Mapping[str, Sequence[str | None]]) -> list[str | None]:
        """Return the text of each row; None for a row with a null in a field. The template has at least one field."""
        return [None if None in row else "".join(row) for row in self._rows(columns)]

    def fill_parts(self, columns: Mapping[str, Sequence[Part | RowError | None]]) -> list[Row]:
        """Return the message of each row, with media between its texts; None for a null in a field, else its error."""
        return [None if None in row else _message_of(row) for row in self._rows(columns)]

    def _rows(self, columns: Mapping[str, Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
        """Yield the pieces and the fields of each row, in order."""
        pieces = map(repeat, self.pieces[1:])
        filled = chain.from_iterable(zip((columns[name] for name in self.fields), pieces, strict=True))
        return zip(repeat(self.pieces[0], len(columns[self.fields[0]])), *filled, strict=False)


def _message_of(row: Sequence[Part | RowError]) -> Row:
    parts: list[Part] = []
    for part in row:
        if isinstance(part, RowError):
            return part
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        elif part:
            parts.append(part)
    return [{"role": "user", "content": parts}]


@dataclass(frozen=True)
class PromptBuilder:
    """Builds each row's prompt from a template for the user's message, and one for the instructions."""

    template: Template
    system: Template | None = None
    allows_conversations: bool = False  # whether fields may hold one, or media: `conversation_field`, `takes_media`

    @classmethod
    def parse(cls, template: str, system: str | None = None, *, allows_conversations: bool = False) -> "PromptBuilder":
        """Parse the templates; raises `ConfigError` for a broken one, and for a `template` without fields."""
        parsed = Template.parse("template", template)
        if not parsed.fields:
            raise ConfigError(
                f"template={template!r} has no field, so every row would have the same prompt.",
                'name a column in braces, as in template="Summarise {body}"; text for all rows goes in system=.',
            )
        return cls(parsed, None if system is None else Template.parse("system", system), allows_conversations)

    @property
    def instructions(self) -> str | None:
        """The instructions without fields, which are the same for every row; None where they have fields."""
        return self.system.pieces[0] if self.system is not None and not self.system.fields else None

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names of all fields, each once, in order of their first use."""
        return tuple(dict.fromkeys(self.template.fields + (self.system.fields if self.system else ())))

    @cached_property
    def conversation_field(self) -> str | None:
        """The field that may hold conversations: it is the whole template, and the instructions do not use it."""
        (name, *_) = self.template.fields
        is_quoted = self.system is not None and name in self.system.fields
        return name if self.allows_conversations and self.template.is_single_field and not is_quoted else None

    def takes_media(self, name: str) -> bool:
        """Return whether a field may hold media: not one of the instructions."""
        return self.allows_conversations and not (self.system is not None and name in self.system.fields)

    def build(self, columns: Mapping[str, Sequence[Any]], *, media: bool = False) -> list[Row]:
        """Return each row's prompt from the values of all fields; None for a row with a null in any field.

        `media` says that fields hold media, or errors in their place; a conversation may be its row's error too.
        Instructions with fields become the system message of a conversation that has none of its own.
        """
        field = self.conversation_field
        contents: list[Any] = (
            self.template.fill_parts(columns)
            if media
            else self.template.fill(columns)
            if field is None
            else list(columns[field])
        )
        if self.system is None or not self.system.fields:
            return contents
        systems = self.system.fill(columns)
        return [
            None if system is None else _with_system(content, system)
            for system, content in zip(systems, contents, strict=True)
        ]


def _with_system(content: Content | RowError | None, system: str) -> Row:
    if content is None or isinstance(content, RowError):
        return content
    return with_instructions(conversation_of(content), system)
