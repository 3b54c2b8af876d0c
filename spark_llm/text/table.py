"""Tables as aligned text, and as HTML for a notebook."""

from collections.abc import Container, Iterable, Sequence
from html import escape
from typing import NamedTuple


class Cell(NamedTuple):
    """A cell of an HTML table that has more than its text.

    Attributes:
        text: The text; it is escaped.
        note: A second line in italics, escaped too; empty for none.
        colour: The colour of the text as CSS has it, such as "#b3261e"; empty for the notebook's own.
    """

    text: str
    note: str = ""
    colour: str = ""


def text_table(rows: Iterable[Sequence[str]], *, right_aligned: Container[int] = ()) -> str:
    """Return rows as lines, with columns as wide as their longest cell and two spaces apart.

    `right_aligned` has the places of the columns of numbers, counted from 0. Every row has the same number of cells.
    """
    table = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(_aligned(row, widths, right_aligned)).rstrip(" ") for row in table)


def _aligned(row: Sequence[str], widths: Sequence[int], right_aligned: Container[int]) -> Iterable[str]:
    for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
        if place in right_aligned:
            yield cell.rjust(width)
        else:
            yield cell.ljust(width)


def html_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str | Cell]],
    *,
    left_aligned: Container[int] = (),
    right_aligned: Container[int] = (),
    row_headers: bool = False,
) -> str:
    """Return rows as an HTML table; every text is escaped.

    Args:
        head: The headings; empty for a table without them.
        rows: The cells, row by row.
        left_aligned: Places of the columns that are aligned left, counted from 0.
        right_aligned: Places of the columns that are aligned right. All others are aligned as the notebook has it.
        row_headers: Whether the first cell of a row is its heading.
    """

    def cells(tag: str, row: Iterable[str | Cell]) -> str:
        return "".join(
            _html_cell(
                "th" if row_headers and place == 0 else tag, cell, _alignment(place, left_aligned, right_aligned)
            )
            for place, cell in enumerate(row)
        )

    headings = f"<thead><tr>{cells('th', head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table>{headings}<tbody>{body}</tbody></table>"


def _alignment(place: int, left_aligned: Container[int], right_aligned: Container[int]) -> str:
    side = "left" if place in left_aligned else "right" if place in right_aligned else ""
    return f"text-align: {side}" if side else ""


def _html_cell(tag: str, cell: str | Cell, alignment: str) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    styles = [*([alignment] if alignment else []), *([f"color: {cell.colour}"] if cell.colour else [])]
    style = f' style="{escape("; ".join(styles))}"' if styles else ""
    note = f"<br><em>{escape(cell.note)}</em>" if cell.note else ""
    return f"<{tag}{style}>{escape(cell.text)}{note}</{tag}>"
