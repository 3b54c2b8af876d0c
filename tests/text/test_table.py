"""Tables as text and as HTML."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.text.table import Cell, html_table, text_table

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
TABLES = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(TEXTS, min_size=width, max_size=width), min_size=1, max_size=5)
)


class Page(HTMLParser):
    """The cells of a page, row by row, and its tags."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a row or a cell."""
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        """Add to the current cell."""
        self.rows[-1][-1] += data


def read(html: str) -> Page:
    """Parse a table."""
    page = Page()
    page.feed(html)
    page.close()
    return page


def test_columns_are_as_wide_as_their_longest_cell() -> None:
    """Numbers are aligned right, and no line ends in spaces."""
    rows = [("column", "rows", "from"), ("mood", "1,200", "a guess"), ("v", "7", "")]

    assert """\
column   rows  from
mood    1,200  a guess
v           7""" == text_table(rows, right_aligned=(1,))


def test_a_table_without_rows_is_empty() -> None:
    """There is no width to compute."""
    assert "" == text_table([])
    assert "<table><tbody></tbody></table>" == html_table((), [])


@given(TABLES, st.sets(st.integers(0, 4)))
def test_every_cell_stands_in_its_column(rows: list[list[str]], right_aligned: set[int]) -> None:
    """All lines have each column at the same place, and a cell is padded on one side only."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, line in zip(rows, text_table(rows, right_aligned=right_aligned).split("\n"), strict=True):
        start = 0
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            padded = cell.rjust(width) if place in right_aligned else cell.ljust(width)
            assert padded == line[start : start + width].ljust(width)
            start += width + 2


@given(TABLES, st.booleans())
def test_html_has_the_same_cells(rows: list[list[str]], row_headers: bool) -> None:  # noqa: FBT001 -- drawn
    """Every text is escaped: what a parser reads is the texts, and no text becomes a tag."""
    page = read(html_table(rows[0], rows[1:], row_headers=row_headers, left_aligned=(0,), right_aligned=(1, 2)))

    assert rows == page.rows
    assert page.tags <= {"table", "thead", "tbody", "tr", "th", "td"}


def test_a_cell_may_have_a_note_and_a_colour() -> None:
    """The note is a second line in italics; both texts are escaped."""
    html = html_table(("what",), [[Cell("<b>", note="Hint: <i>", colour="#b3261e")]], left_aligned=(0,))

    assert (
        '<table><thead><tr><th style="text-align: left">what</th></tr></thead><tbody><tr>'
        '<td style="text-align: left; color: #b3261e">&lt;b&gt;<br><em>Hint: &lt;i&gt;</em></td></tr></tbody></table>'
    ) == html


def test_row_headers_are_the_first_cells() -> None:
    """Only in the body: the head has headings anyway."""
    assert ('<table><tbody><tr><th>rows</th><td style="text-align: right">7</td></tr></tbody></table>') == html_table(
        (), [("rows", "7")], right_aligned=(1,), row_headers=True
    )
