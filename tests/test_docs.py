"""The pages name files that exist: paths in code marks, and links to other pages and their headings.

The reference has every public name. `make site` builds the pages, and fails at a warning.
"""

import re
from pathlib import Path
from runpy import run_path
from types import ModuleType

import pytest

import spark_llm
from spark_llm import serving
from spark_llm.cli.local.spark import delta_settings
from tests.conftest import ROOT

PAGES = sorted([*Path(ROOT).glob("*.md"), *Path(ROOT, "docs").rglob("*.md")])
PATH = re.compile(r"`([\w./-]+/[\w.-]+\.py)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
USER_FILES = ("/local_disk0/",)  # paths of the reader's own


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_names_files_that_exist(page: Path) -> None:
    """A path is relative to the checkout or to the package."""
    paths = [path for path in PATH.findall(page.read_text(encoding="utf-8")) if not path.startswith(USER_FILES)]

    assert [] == [path for path in paths if not (Path(ROOT, path).is_file() or Path(ROOT, "spark_llm", path).is_file())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_pages_links_lead_somewhere(page: Path) -> None:
    """To a file of the checkout, and to a heading of its page."""
    links = [(page.parent / file if file else page, anchor) for file, anchor in LINK.findall(page.read_text("utf-8"))]

    assert [] == [str(file) for file, _ in links if not file.exists()]
    assert [] == [f"{file}#{anchor}" for file, anchor in links if anchor and anchor not in anchors(file)]


@pytest.mark.parametrize("module", [spark_llm, serving], ids=lambda module: module.__name__)
def test_the_reference_has_every_public_name(module: ModuleType) -> None:
    """Each name of `spark_llm` and of `spark_llm.serving` has an entry, as a module or by itself."""
    pages = "".join(page.read_text("utf-8") for page in Path(ROOT, "docs", "reference").glob("*.md"))
    shown = set(re.findall(r"^::: spark_llm\.(?:\w+\.)*(\w+)", pages, re.MULTILINE))
    exceptions = {name for name in dir(module) if name.endswith("Error")}
    names = {name for name in dir(module) if not name.startswith("_")} - {"serving"}

    assert set() == names - shown - exceptions
    assert set() == exceptions - set(re.findall(r"\w+", pages))


@pytest.mark.parametrize(
    ("example", "shown"),
    [
        (">>> f(\n...     1\n... )", "```python\nf(\n    1\n)\n```"),
        (">>> f(1)\n2\n>>> f(2)", "```pycon\n>>> f(1)\n2\n>>> f(2)\n```"),
    ],
    ids=["code", "code and output"],
)
def test_an_example_of_a_docstring_is_a_block_of_code(example: str, shown: str) -> None:
    """The site shows no quotation, which Markdown makes of the marks; what is around it stays."""
    with_code_blocks = run_path(str(Path(ROOT, "docs", "site", "docstrings.py")))["with_code_blocks"]

    assert f"Call it.\n\n{shown}\n\nIt is pure." == with_code_blocks(f"Call it.\n\n{example}\n\nIt is pure.")


def test_the_laptops_page_names_the_delta_lake_of_the_demo() -> None:
    """Its session takes the package that the library's own sessions take."""
    page = Path(ROOT, "docs", "start", "laptop.md").read_text("utf-8")

    assert delta_settings("4.2")["spark.jars.packages"] in page
