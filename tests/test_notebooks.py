"""Every notebook runs from top to bottom on real local models, and is saved with its outputs."""

from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
from nbformat import v4

from notebooks.run import run
from tests.conftest import ROOT

FOLDER = Path(ROOT, "notebooks")
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def output_kinds(notebook: Any) -> list[list[str]]:  # noqa: ANN401 -- nbformat has no types
    """Return the kinds of output of each code cell that has outputs."""
    kinds = [[output["output_type"] for output in cell.get("outputs", [])] for cell in notebook.cells]
    return [found for found in kinds if found]


@pytest.mark.spark
@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    NOTEBOOKS,
    ids=lambda path: path.stem,
)
def test_a_notebook_runs_from_top_to_bottom(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cell fails, and each cell has outputs of the same kinds as in the saved notebook."""
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.delenv("SPARK_CONNECT_MODE_ENABLED", raising=False)

    assert output_kinds(v4.reads(path.read_text(encoding="utf-8"))) == output_kinds(run(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_saved_with_its_outputs(path: Path) -> None:
    """The saved notebook has its plot and tables, no error, and no path or token of the machine it ran on."""
    text = path.read_text(encoding="utf-8")
    kinds = {kind for cell in output_kinds(v4.reads(text)) for kind in cell}

    assert {"stream", "display_data"} <= kinds
    assert "error" not in kinds
    assert "image/png" in text
    for private in (ROOT, gettempdir(), str(Path.home()), "Bearer"):
        assert private not in text
