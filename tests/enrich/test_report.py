"""The report of a run, as text, in a notebook and in a table of runs."""

import re
from dataclasses import replace
from datetime import datetime, timezone
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.enrich.report import RUNS_DDL, EnrichReport, limits_text
from spark_llm.errors import HINT, KINDS
from spark_llm.flow.reasons import REASONS
from spark_llm.livecounts.flows import JobFlow
from spark_llm.metering.tally import Tally
from tests.support.tracking import STOPPED

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
WHOLE = st.integers(0, 10**12)
TALLIES = st.builds(Tally, WHOLE, st.dictionaries(st.sampled_from(KINDS), WHOLE), WHOLE, WHOLE, WHOLE, WHOLE, WHOLE)
REPORTS = st.builds(
    EnrichReport,
    run=WORDS,
    target=WORDS,
    started_at=st.datetimes(timezones=st.just(timezone.utc)),
    seconds=st.floats(0, 1e6),
    rows=st.none() | WHOLE,
    asked=WHOLE,
    answered=WHOLE,
    left=WHOLE,
    recovered=WHOLE,
    deleted=WHOLE,
    usd=st.none() | st.floats(0, 1e6),
    stopped=st.none() | st.builds(HINT.join, st.tuples(WORDS, WORDS)),
    columns=st.dictionaries(WORDS, TALLIES, max_size=3),
    limits=st.none() | WORDS,
    notes=st.lists(WORDS, max_size=2),
    out=WHOLE,
    out_batches=WHOLE,
    out_usd=st.none() | st.floats(0, 1e6),
    usd_at_once=st.none() | st.floats(0, 1e6),
    flow=st.none() | st.builds(JobFlow, WHOLE, WHOLE, st.dictionaries(st.sampled_from(list(REASONS)), st.floats(0, 1))),
)
NOTHING = EnrichReport(
    run="0123456789ab",
    target="`t`",
    started_at=datetime(2026, 11, 23, tzinfo=timezone.utc),
    seconds=3.21,
    rows=48_000,
    asked=0,
    answered=0,
    left=0,
    recovered=0,
    deleted=0,
    usd=None,
    stopped=None,
    columns={"mood": Tally()},
)


class Page(HTMLParser):
    """The text of a page, its tags and its styles."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        super().__init__()
        self.text = ""
        self.tags: set[str] = set()
        self.styles: set[str | None] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.add(tag)
        self.styles |= {value for _, value in attrs}

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.text += data


def page_of(report: EnrichReport) -> Page:
    """The text of an HTML page."""
    page = Page()
    page.feed(report._repr_html_())
    page.close()
    return page


def test_a_report_says_first_how_it_ended() -> None:
    """The reason and the next step follow, then the numbers, and those of each column where there are several."""
    assert """\
`main`.`reviews_enriched`: stopped in 8 min 20 s

the budget of 1,500,000 tokens would be exceeded: 1,234 rows are left.
  Hint: run it again with more.

rows       48,000
skipped    34,766 needed nothing
recovered  450 from a run that failed or died
deleted    17 that the source has no more
asked      12,000
answered   11,989
failed     11 in one column or more
left       1,234 still to be asked
requests   12,364
tokens     1,234,567 (1,200,000 of questions, 200,000 of them cached, 34,567 of answers)
cost       $1.23

column   asked  answered  failed  requests     tokens  errors
mood    12,000    11,989      11    12,345  1,034,567  9 rate_limited, 2 timeout
vector   1,200     1,199       1        19    200,000  1 timeout""" == str(STOPPED) == repr(STOPPED)


def test_notes_come_last() -> None:
    """Each new column of the source has a line; a name in it is never read as HTML."""
    noted = EnrichReport(**{**vars(NOTHING), "notes": ("'<b>' was added.", "'c' was left out.")})

    assert f"{NOTHING}\n\n'<b>' was added.\n'c' was left out." == str(noted)
    assert "<p>&#x27;&lt;b&gt;&#x27; was added.</p>" in noted._repr_html_()


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (0, "held by tasks=, per host or per worker: the driver heard no host"),
        (1, "shared over the cluster by the driver (1 host)"),
        (50, "shared over the cluster by the driver (50 hosts)"),
    ],
)
def test_the_report_says_who_kept_the_limits(hosts: int, expected: str) -> None:
    """It is the last line of the numbers, and not in a table of runs."""
    report = replace(STOPPED, columns={}, limits=limits_text(hosts))

    assert f"limits     {expected}" == str(report).splitlines()[-1]
    assert expected in page_of(report).text
    assert "limits" not in report.row()


def test_the_report_says_what_limited_the_requests() -> None:
    """It is one line, and not in a table of runs."""
    flow = JobFlow(40, 38, {"refusals": 0.62, "spark": 0.38})
    report = replace(STOPPED, columns={}, flow=flow)

    assert f"in flight  {flow}" == str(report).splitlines()[-1]
    assert str(flow) in page_of(report).text
    assert "flow" not in report.row()


def test_a_run_that_submitted_says_how_many_rows_are_out_and_what_they_cost() -> None:
    """They are neither asked, nor left, nor skipped, and a table of runs keeps its columns."""
    report = replace(NOTHING, asked=1_000, answered=1_000, out=2_000, out_batches=2, usd=1.2, columns={"mood": Tally()})
    priced = replace(report, out_usd=0.4, usd_at_once=3.2)

    assert """\
`t`: submitted in 3.2 s

rows      48,000
skipped   45,000 needed nothing
asked     1,000
answered  1,000
out       2,000 rows in 2 batches, about $0.40; the next run collects them
cost      $1.20, and $3.20 at once""" == str(priced)
    assert "2,000 rows in 2 batches, about $0.40" in page_of(priced).text
    assert (True, True, 45_000, 45_000) == (priced.done, priced.submitted, priced.skipped, priced.row()["skipped"])
    assert priced.row() == report.row()
    assert "out       2,000 rows in 2 batches; the next run collects them\ncost      $1.20" in str(report)
    assert "\nout      1 row in 1 batch; the next run collects them" in str(replace(NOTHING, out=1, out_batches=1))
    assert str(replace(NOTHING, out=1)).endswith("\nout      1 row; the next run collects them")
    assert str(replace(priced, stopped="spent.")).startswith("`t`: stopped in 3.2 s")
    assert (False, 48_000) == (NOTHING.submitted, NOTHING.skipped)


def test_a_run_with_nothing_to_do_says_little() -> None:
    """What is 0 goes without saying, but that nothing was asked."""
    assert """\
`t`: done in 3.2 s

rows     48,000
skipped  48,000 needed nothing
asked    0""" == str(NOTHING)


def test_what_is_not_known_is_not_0() -> None:
    """Where Spark did not say how many rows the source had, the report says that; what follows from it is null."""
    unknown = replace(STOPPED, rows=None)

    assert "rows       unknown\nrecovered  450" in str(unknown)
    assert "unknown" in page_of(unknown).text
    assert (None, None, None) == (unknown.skipped, unknown.row()["rows"], unknown.row()["skipped"])


def test_what_adds_up_is_added_up() -> None:
    """Over the columns; a row that failed in two of them counts in both."""
    assert {"timeout": 3, "rate_limited": 9} == STOPPED.failed
    assert (12_364, 1_200_000, 34_567) == (STOPPED.requests, STOPPED.prompt_tokens, STOPPED.completion_tokens)
    assert (200_000, 1_234_567) == (STOPPED.cached_tokens, STOPPED.total_tokens)
    assert (34_766, 48_000) == (STOPPED.skipped, NOTHING.skipped)
    assert (False, True) == (STOPPED.done, NOTHING.done)


@given(REPORTS)
def test_a_notebook_shows_what_the_text_says(report: EnrichReport) -> None:
    """Every word of it, in plain tags; whatever a table or a column is called, no name becomes a tag."""
    page = page_of(report)
    texts = [*re.split(r"  +|\n", str(report)), *(part for part in (report.stopped or "").split(HINT) if part)]
    shown = re.sub(r"\s+", "", page.text)

    missing = [words for words in texts if re.sub(r"\s+", "", words.removesuffix(":")) not in shown]
    assert [] == missing
    assert page.tags <= {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}


def test_the_counts_of_a_stopped_column_add_up() -> None:
    """Rows that its tasks did not ask are left, and neither asked nor failed."""
    mood = Tally(206, {"invalid_request": 200, "timeout": 6}, requests=206, cancelled=94)
    report = replace(NOTHING, rows=300, asked=206, left=94, stopped="too many.", columns={"mood": mood})

    assert str(report).endswith("""
asked     206
answered  0
failed    206 (200 invalid_request, 6 timeout)
left      94 still to be asked
requests  206""")
    assert (206, 94) == (sum(report.failed.values()), report.cancelled)
    assert "errors" not in str(replace(report, columns={"mood": Tally(206), "vector": Tally(206)}))


def test_a_notebook_of_any_colour_can_be_read() -> None:
    """Nothing has a colour of its own."""
    assert {"text-align: left"} == page_of(STOPPED).styles


def test_a_name_is_no_tag() -> None:
    """Names come from tables."""
    names = {"<script>": Tally(1), "<b>": Tally(2)}
    page = EnrichReport(**{**vars(NOTHING), "target": "<i>", "stopped": "<u>", "columns": names})._repr_html_()

    assert [] == re.findall(r"<script|<b>|<i>|<u>", page)
    assert ["&lt;script&gt;", "&lt;b&gt;"] == re.findall(r"&lt;(?:script|b)&gt;", page)


def test_a_table_of_runs_stays_as_it_is() -> None:
    """A table of an earlier version takes the reports of this one: new numbers go into its maps."""
    assert (
        """\
run string, target string, started_at timestamp, seconds double, stopped string, rows bigint, asked bigint, \
answered bigint, failed map<string, bigint>, skipped bigint, left bigint, recovered bigint, deleted bigint, \
requests bigint, prompt_tokens bigint, completion_tokens bigint, cached_tokens bigint, total_tokens bigint, \
usd double, columns map<string, map<string, bigint>>"""
        == RUNS_DDL
    )


def fits(value: object, kind: str) -> bool:
    """Return whether a value is one of a Spark type, as PySpark checks it."""
    if kind.startswith("map<string, "):
        inner = kind.removeprefix("map<string, ").removesuffix(">")
        return isinstance(value, dict) and all(type(name) is str and fits(each, inner) for name, each in value.items())
    if kind == "bigint":
        return type(value) is int and abs(value) < 2**63
    if kind == "timestamp":
        return isinstance(value, datetime) and value.tzinfo is not None
    return type(value) is {"string": str, "double": float}[kind]


@given(REPORTS)
def test_a_row_fits_the_table(report: EnrichReport) -> None:
    """Every column of it, and none besides; only the reason, the cost and the source's rows may be null."""
    row = report.row()
    columns = [column.split(" ", 1) for column in re.split(r", (?=\w+ )", RUNS_DDL)]

    assert {name for name, _ in columns} == set(row)
    assert [] == [name for name, kind in columns if row[name] is not None and not fits(row[name], kind)]
    assert {name for name, value in row.items() if value is None} <= {"stopped", "usd", "rows", "skipped"}


def test_a_row_says_what_each_column_came_to() -> None:
    """As `columns['mood']['failed_timeout']`, in SQL."""
    assert {
        "asked": 12_000,
        "answered": 11_989,
        "failed_timeout": 2,
        "failed_rate_limited": 9,
        "prompt_tokens": 1_000_000,
        "completion_tokens": 34_567,
        "cached_tokens": 200_000,
        "total_tokens": 1_034_567,
        "requests": 12_345,
        "cache_write_tokens": 0,
        "cancelled": 0,
        "image_tokens": 0,
        "audio_tokens": 0,
    } == dict(STOPPED.row()["columns"])["mood"]  # type: ignore[call-overload]
