"""A hook of MkDocs: pages of the site that are no files of `docs/`, and links between all of them.

README.md is the home page; the changelog, the guide for contributors, the benchmarks, the example and the notebooks are
pages too. Links are written for the checkout, as on GitHub; the hook turns them into links of the site.
"""

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {  # of the checkout, with their place in the site
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "license.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "benchmarks/RESULTS.md": "benchmarks.md",
    "examples/nightly/README.md": "nightly-pipeline.md",
}
PICTURES = {"benchmarks/limit.svg": "images/limit.svg"}
_LINK = re.compile(r"(\]\()(?!https?:|mailto:)([^)#\s]+)")


def on_files(files: Files, config: "MkDocsConfig") -> Files:
    """Add the pages and the pictures of other folders."""
    for source, place in PAGES.items():
        text = ROOT.joinpath(source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text if source.endswith(".md") else f"```text\n{text}```\n"))
    for source, place in PICTURES.items():
        files.append(File.generated(config, place, content=ROOT.joinpath(source).read_bytes()))
    for notebook in sorted(ROOT.glob("notebooks/*.ipynb")):
        for place, content in _rendered(notebook).items():
            files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", files: Files) -> str:  # noqa: ARG001 -- as MkDocs calls it
    """Turn links of the checkout into links of the site."""
    here = page.file.src_uri
    source = _sources().get(here, f"docs/{here}")

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        place = _places().get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(place) is None:
            return match[0]  # MkDocs warns, and a strict build fails
        return match[1] + posixpath.relpath(place, posixpath.dirname(here) or ".")

    return _LINK.sub(link, markdown)


def _places() -> dict[str, str]:
    """Return the place in the site of each file of the checkout outside `docs/`."""
    notebooks = {f"notebooks/{path.name}": f"notebooks/{path.stem}.md" for path in ROOT.glob("notebooks/*.ipynb")}
    return PAGES | PICTURES | notebooks


def _sources() -> dict[str, str]:
    return {place: source for source, place in _places().items()}


def _rendered(notebook: Path) -> dict[str, Any]:
    """Return a notebook as a page, with its pictures, each by its place in the site."""
    text, resources = MarkdownExporter().from_filename(str(notebook))  # type: ignore[no-untyped-call]
    places = {f"notebooks/{notebook.stem}.md": text}
    for name, picture in resources["outputs"].items():
        places[f"notebooks/{notebook.stem}_{name}"] = picture
        places[f"notebooks/{notebook.stem}.md"] = places[f"notebooks/{notebook.stem}.md"].replace(
            f"({name})", f"({notebook.stem}_{name})"
        )
    return places
