"""Every notebook runs from top to bottom on real local models, and is saved with what it shows."""

from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
from nbformat import v4

from notebooks.run import run
from tests.conftest import ROOT

FOLDER = Path(ROOT, "notebooks")
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def shown(notebook: Any) -> list[list[str]]:  # noqa: ANN401 -- nbformat has no types
    """Return the kinds of output under each cell of code that shows something."""
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
    """No cell fails, and every cell that shows something in the saved notebook shows it again."""
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.delenv("SPARK_CONNECT_MODE_ENABLED", raising=False)

    assert shown(v4.reads(path.read_text(encoding="utf-8"))) == shown(run(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_saved_with_its_outputs(path: Path) -> None:
    """The saved notebook has its plot and tables, no error, and no path or token of the machine it ran on."""
    text = path.read_text(encoding="utf-8")
    kinds = {kind for cell in shown(v4.reads(text)) for kind in cell}

    assert {"stream", "display_data"} <= kinds
    assert "error" not in kinds
    assert "image/png" in text
    for private in (ROOT, gettempdir(), str(Path.home()), "Bearer"):
        assert private not in text
