"""The Python of docs/serving.md, run as it stands."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = Path(ROOT, "docs", "serving.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("section", ["Echo", "Custom models", "Files and batches"])
def test_an_example_prints_what_the_page_says(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line that is printed stands in the comment of its `print`."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0], re.DOTALL)
    exec(code, {})  # noqa: S102 -- it is the page's

    assert re.findall(r"print\(.*\)  # (.*)", code) == capsys.readouterr().out.splitlines()
