"""Draws README's picture, `docs/images/demo.svg`, from the demo's own output: `python docs/site/picture.py`."""

import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parents[1] / "images" / "demo.svg"
ROWS = 8  # of the table of reviews
_BARE_TABLE = re.compile(r"^\+[-+]+\+$")
_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # from another host


def main() -> None:
    """Run the demo and draw what it prints."""
    command = [str(Path(sys.executable).with_name("spark-llm")), "demo"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    PICTURE.write_text(drawn(excerpt(shown.splitlines())), encoding="utf-8")


def excerpt(lines: list[str]) -> list[str]:
    """Return the lines of the report, and the first rows of the table of reviews."""
    first = next(place for place, line in enumerate(lines) if line.startswith("rows "))
    report = [line for line in lines[first : first + 5] if line]
    start = next(place for place, line in enumerate(lines) if line.startswith("Ten reviews"))
    table = lines[start : start + 4 + ROWS]
    return ["$ spark-llm demo", *report, "", *table, next(line for line in table if _BARE_TABLE.match(line))]


def drawn(lines: list[str]) -> str:
    """Return lines of a terminal as an SVG that loads nothing."""
    console = Console(record=True, width=max(map(len, lines)) + 2, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    for line in lines:
        text = Text(line)
        text.highlight_words(["positive"], "green")
        text.highlight_words(["negative"], "red")
        if line.startswith("$"):
            text.stylize("bold")
        console.print(text, soft_wrap=True)
    return _FONT.sub("", console.export_svg(title="spark_llm", unique_id="demo"))


if __name__ == "__main__":
    main()
