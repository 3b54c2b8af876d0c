"""The page on logging has every line that the library logs. The lines are read from the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from spark_llm.coordination.allotment import SOURCES
from tests.conftest import ROOT

LIBRARY = Path(ROOT, "spark_llm")
LEVELS = ("debug", "info", "warning", "error", "exception")
FLOW = "flow/log.py"  # returns its lines to the dispatcher, which logs them
PLACEHOLDER = re.compile(r"%[\d.]*[sdf]|=?%s")


def parts_of(node: ast.AST) -> list[str] | None:
    """Return what a text says between its values; None for a node that is no text."""
    match node:
        case ast.Constant(value=str() as text):
            return PLACEHOLDER.split(text)
        case ast.JoinedStr(values=values):
            return [str(each.value) if isinstance(each, ast.Constant) else "" for each in values]
        case _:
            return None


def logged(tree: ast.AST) -> Iterator[list[str]]:
    """Yield the texts that a module hands to a logger, or to a function of its own that warns."""
    texts = {
        target.id: parts
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and (parts := parts_of(node.value))
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr), args=[text, *_]) if (
                name.endswith("logger") and attr in LEVELS
            ) or attr == "_warn":
                pass
            case ast.Call(func=ast.Name(id="_warn"), args=[text, *_]):
                pass
            case _:
                continue
        parts = texts.get(text.id) if isinstance(text, ast.Name) else parts_of(text)
        if parts is not None:
            yield parts


def returned(tree: ast.AST) -> Iterator[list[str]]:
    """Yield the texts that functions return."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Return, ast.Lambda)):
            yield from (parts for each in ast.walk(node) if (parts := parts_of(each)) is not None)


@pytest.mark.waits
def test_the_page_on_logging_has_every_line() -> None:
    """Each has its code marks there, with `…` for values; add a new line to the table of its logger."""
    found = [[line] for line in SOURCES.values()]
    for file in LIBRARY.rglob("*.py"):
        if LIBRARY / "serving" not in file.parents:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found += returned(tree) if file == LIBRARY / FLOW else logged(tree)
    texts = [[re.escape(part.strip(" .:")) for part in parts] for parts in found]
    patterns = {".*".join(parts) for parts in texts if re.search("[a-z]{3}", "".join(parts))}
    spans = re.findall(r"`([^`]+)`", Path(ROOT, "docs", "logging.md").read_text(encoding="utf-8"))

    assert 40 <= len(patterns)
    assert [] == [pattern for pattern in sorted(patterns) if not any(re.search(pattern, span) for span in spans)]
