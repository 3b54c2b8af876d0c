"""Long texts as chunks that a model takes: where they are cut, where they begin, and under which heading they stand.

The cuts are those of the package `semantic-text-splitter`: at the largest units that fit, paragraphs before sentences
before words. Headings are those that the parser of `markdown-it-py` finds. Both come with the extra `split`.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_llm.errors import ConfigError, InputTypeError
from spark_llm.flow.batcher import BYTES_PER_TOKEN
from spark_llm.schemas import TEXT_CHUNKS
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.numbers import check_whole

By = Literal["sentence", "markdown", "tokens"]

_LINE_BREAK = re.compile(r"\r\n?|\n")  # as the parser counts lines


class TextChunk(NamedTuple):
    """A part of a text: its number from 0 on, its first character from 0 on, itself, and its heading if it has one."""

    position: int
    start: int
    text: str
    heading: str | None


@checks_arguments
def split_text(
    column: Column | str, size: int, overlap: int = 0, *, by: By = "sentence", tokenizer: str | None = None
) -> Column:
    """Return the chunks of a text as `schemas.TEXT_CHUNKS`: cut at paragraphs, else at sentences, else at words.

    >>> parts = df.select("id", F.explode(split_text("body", 1_000, by="markdown")).alias("chunk"))

    No model is asked. A null gives a null, and a blank text no chunk. Workers need the extra `split`.

    Args:
        column: The texts.
        size: The most characters of a chunk; tokens with `by="tokens"`.
        overlap: How much of a chunk, at most, the next one begins with.
        by: "sentence"; "markdown", to cut at headings first, and to give each chunk its heading; or "tokens".
        tokenizer: A file `tokenizer.json` of Hugging Face, which this process reads. Default: a token for 3 bytes.

    Raises:
        ConfigError: A number, `by` or the tokenizer is invalid, or the extra is not installed.
        InputTypeError: The column is not of strings; raised at its first row.
    """
    return TextSplitter.of(size, overlap, by, tokenizer).column(F.col(column) if isinstance(column, str) else column)


@dataclass(frozen=True)
class TextSplitter:
    """How texts are cut: `size` and `overlap` are characters, or tokens with `by="tokens"`.

    `tokenizer` is the JSON of a tokenizer of Hugging Face; without it tokens are estimated.
    """

    size: int
    overlap: int = 0
    by: By = "sentence"
    tokenizer: str | None = None

    @classmethod
    def of(cls, size: int, overlap: int, by: By, tokenizer: str | None) -> "TextSplitter":
        """Check the arguments of `split_text`, of which `tokenizer` is the path of a file; raises `ConfigError`."""
        if by not in get_args(By):
            raise ConfigError(f"by={by!r} is not a way to split.", f"choose one of {', '.join(get_args(By))}.")
        check_whole("size", size, 1)
        check_whole("overlap", overlap, 0, size - 1)
        if tokenizer is not None and by != "tokens":
            raise ConfigError(f"tokenizer= has no effect with by={by!r}.", 'pass by="tokens", or leave it out.')
        splitter = cls(size, overlap, by, None if tokenizer is None else _read(tokenizer))
        try:
            _package_splitter(splitter)
        except ImportError as error:
            hint = "pip install 'spark-llm-endpoints[split]', on the workers too."
            raise ConfigError(f"split_text needs {error.name}, which is not installed.", hint) from None
        except Exception as error:  # noqa: BLE001 -- of no class of its own
            raise ConfigError(f"tokenizer={tokenizer!r} is no tokenizer ({error}).", _TOKENIZER) from None
        return splitter

    def chunks(self, text: str | None) -> list[TextChunk] | None:
        """Return the chunks of a text, in order; none for a blank one, and None for a null."""
        if text is None:
            return None
        if not isinstance(text, str):
            raise InputTypeError(
                f"split_text was called on values of the type {type(text).__name__}.", "cast the column to a string."
            )
        found = _package_splitter(self).chunk_indices(text)
        headings = _headings(text) if self.by == "markdown" else []
        return [
            TextChunk(position, start, chunk, _heading_at(headings, start))
            for position, (start, chunk) in enumerate(found)
        ]

    def column(self, text: Column) -> Column:
        """Return the column of chunks of a column of texts."""
        return F.udf(lambda value: self.chunks(value), TEXT_CHUNKS)(text)  # noqa: PLW0108 -- Spark reads type hints


_TOKENIZER = "name a tokenizer.json of Hugging Face, or leave it out: tokens are then estimated."


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"tokenizer={path!r} cannot be read ({error}).", _TOKENIZER) from None


@lru_cache(8)
def _package_splitter(splitter: TextSplitter) -> Any:  # noqa: ANN401 -- a class without types
    import markdown_it  # noqa: F401 -- the second package of the extra
    import semantic_text_splitter as package

    if splitter.by == "markdown":
        return package.MarkdownSplitter(splitter.size, splitter.overlap)
    if splitter.by == "sentence":
        return package.TextSplitter(splitter.size, splitter.overlap)
    if splitter.tokenizer is None:
        return package.TextSplitter.from_callback(_estimated_tokens, splitter.size, splitter.overlap)
    return package.TextSplitter.from_huggingface_tokenizer_str(splitter.tokenizer, splitter.size, splitter.overlap)


def _estimated_tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)


def _headings(text: str) -> list[tuple[int, str]]:
    """Return where each heading begins, and its text without marks."""
    starts = [0, *(found.end() for found in _LINE_BREAK.finditer(text))]
    tokens = _parse_markdown()(text)
    return [
        (starts[token.map[0]], _plain(inline.children or []))
        for token, inline in pairwise(tokens)
        if token.type == "heading_open" and token.map is not None
    ]


@lru_cache(1)
def _parse_markdown() -> Callable[[str], list[Any]]:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").parse


def _plain(children: list[Any]) -> str:
    return "".join(" " if child.type in {"softbreak", "hardbreak"} else child.content for child in children).strip()


def _heading_at(headings: list[tuple[int, str]], start: int) -> str | None:
    place = bisect_right(headings, start, key=lambda heading: heading[0])
    return headings[place - 1][1] if place else None
