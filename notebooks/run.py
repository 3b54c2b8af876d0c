"""Runs notebooks from top to bottom and saves their outputs: `python notebooks/run.py`, or `run` from a test.

Outputs on stderr, such as warnings of Spark's JVM, are dropped; an error in a cell is an error here.
"""

import sys
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbformat import v4

from spark_llm.cli.local.java import ensure_java

FOLDER = Path(__file__).parent


def run(path: Path) -> Any:  # noqa: ANN401 -- nbformat has no types
    """Run one notebook in a fresh kernel and return it with its outputs; raises `CellExecutionError`."""
    ensure_java()
    notebook = v4.reads(path.read_text(encoding="utf-8"))
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the times of this run
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main() -> None:
    """Run every notebook of this folder, or those in the arguments, and save them."""
    for path in [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        path.write_text(v4.writes(run(path)) + "\n", encoding="utf-8")
        print(f"{path.name}: ran")


if __name__ == "__main__":
    main()
