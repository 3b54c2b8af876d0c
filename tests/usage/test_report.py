"""The report of what a column used: its numbers, its text, its HTML and its charts."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter

from spark_llm.errors import KINDS, Kind
from spark_llm.metering.tally import Tally
from spark_llm.usage.report import Latency, UsageReport
from tests.conftest import ROOT

NOTHING = UsageReport(
    column="mood",
    rows=0,
    tally=Tally(),
    examples={},
    attempts=0,
    retries=0,
    requests=None,
    reasoning_tokens=0,
    service_tiers=(),
    latency_ms=None,
    latencies={},
    row_tokens={},
    usd=None,
)
MUCH = UsageReport(
    column="mood",
    rows=12_100,
    tally=Tally(12_000, {"timeout": 2, "rate_limited": 9}, 1_000_000, 34_567, 200_000, 1_034_567, 0, 50_000),
    examples={
        "timeout": "no answer in 120 s",
        "rate_limited": "refused for 600 s; last: " + "Too many\n" * 20 + " Hint: wait.",
    },
    attempts=12_345,
    retries=345,
    requests=12_345,
    reasoning_tokens=4_000,
    service_tiers=("default", "flex"),
    latency_ms=Latency(230.0, 1_220.0, 4_450.0),
    latencies={0.0: 1, 128.0: 6_000, 256.0: 5_999},
    row_tokens={64.0: 12_000},
    usd=1.2345,
    notes=("200,000 cached tokens have the price of prompt tokens, since prices= has no cached.",),
)
COUNTS = st.integers(0, 10**12)
REPORTS = st.builds(
    UsageReport,
    column=st.text(),
    rows=COUNTS,
    tally=st.builds(Tally, COUNTS, st.dictionaries(st.sampled_from(KINDS), COUNTS, max_size=3), *[COUNTS] * 6),
    examples=st.dictionaries(st.sampled_from(KINDS), st.text(), max_size=3),
    attempts=st.none() | COUNTS,
    retries=st.none() | COUNTS,
    requests=st.none() | COUNTS,
    reasoning_tokens=COUNTS,
    service_tiers=st.lists(st.text(), max_size=2).map(tuple),
    latency_ms=st.none() | st.builds(Latency, *[st.floats(0, 1e9)] * 3),
    latencies=st.dictionaries(st.floats(0, 1e9), COUNTS, max_size=3),
    row_tokens=st.dictionaries(st.floats(0, 1e9), COUNTS, max_size=3),
    usd=st.none() | st.floats(0, 1e9),
    notes=st.lists(st.text(), max_size=2).map(tuple),
)


def test_the_text_has_what_is_known() -> None:
    """Numbers of 0 are left out, and an error's example is one short line."""
    assert """\
mood

rows      12,100
asked     12,000
answered  11,989
failed    11
requests  12,345
attempts  12,345 (345 retries)
tokens    1,034,567 (1,000,000 of questions, 200,000 of them cached, 50,000 of them written to the cache, \
34,567 of answers, 4,000 of them reasoning)
tier      default, flex
latency   230 ms median, 1,220 ms p95, 4,450 ms p99
cost      $1.23

error         rows  for example
rate_limited     9  refused for 600 s; last: Too many Too many Too many Too many Too many Too many Too many Too many To…
timeout          2  no answer in 120 s

200,000 cached tokens have the price of prompt tokens, since prices= has no cached.""" == str(MUCH) == repr(MUCH)
    assert "mood\n\nrows   0\nasked  0" == str(NOTHING)


@pytest.mark.waits
def test_rows_that_were_not_asked_are_no_failures() -> None:
    """They are counted apart, and the table of errors has the message that says why."""
    tally = Tally(206, {"invalid_request": 206}, cancelled=94)
    examples: dict[Kind, str] = {
        "invalid_request": "no x",
        "cancelled": "not sent: max_failure_rate=0.2 allows no more",
    }
    report = replace(NOTHING, rows=310, tally=tally, examples=examples)

    assert """\
mood

rows       310
asked      206
answered   0
failed     206
not asked  94 cancelled: their task had stopped

error            rows  for example
invalid_request   206  no x
cancelled          94  not sent: max_failure_rate=0.2 allows no more""" == str(report)
    assert (206, {"invalid_request": 206}, 94) == (report.asked, report.row()["failed"], report.row()["cancelled"])
    assert [94, 206] == bars(report, 1)


def test_its_attributes_are_those_of_a_tally() -> None:
    """And of the report of a job."""
    assert (12_000, 11_989, {"timeout": 2, "rate_limited": 9}) == (MUCH.asked, MUCH.answered, MUCH.failed)
    assert (1_000_000, 34_567, 1_034_567) == (MUCH.prompt_tokens, MUCH.completion_tokens, MUCH.total_tokens)
    assert (200_000, 50_000) == (MUCH.cached_tokens, MUCH.cache_write_tokens)


@given(REPORTS)
def test_a_row_is_json(report: UsageReport) -> None:
    """Every number and every list comes back from it."""
    row = report.row()

    assert row == json.loads(json.dumps(row))
    assert (report.total_tokens, report.answered, report.usd) == (row["total_tokens"], row["answered"], row["usd"])


@given(REPORTS)
def test_any_report_is_shown(report: UsageReport) -> None:
    """As text, and as HTML in which every table is closed."""
    page = report._repr_html_()

    assert str(report).startswith(report.column)
    assert page.count("<table>") == page.count("</table>") == 1 + bool(report.failed)


def test_texts_are_no_tags() -> None:
    """Names come from tables, messages and tiers from servers."""
    page = UsageReport(
        **{
            **vars(MUCH),
            "column": "<script>alert(1)</script>",
            "examples": {"timeout": "<img src=x onerror=alert(1)>"},
            "service_tiers": ("<b>",),
            "notes": ("<i>",),
        }
    )._repr_html_()

    assert [] == re.findall(r"<(?:script|img|b|i)\b", page)
    assert ["&lt;script&gt;", "&lt;img", "&lt;b&gt;", "&lt;i&gt;"] == [
        found for tag in ("script&gt;", "img", "b&gt;", "i&gt;") for found in re.findall(rf"&lt;{tag}", page)[:1]
    ]


def bars(report: UsageReport, place: int) -> list[float]:
    """Return the lengths of the bars in one of the charts."""
    axes = report.plot().axes[place]
    return [bar.get_width() if place == 1 else bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]


def test_the_plot_has_a_bar_for_each_count() -> None:
    """Rows by latency, errors by kind, rows by tokens."""
    assert [1, 6_000, 5_999] == bars(MUCH, 0)
    assert [2, 9] == bars(MUCH, 1)
    assert [12_000] == bars(MUCH, 2)
    assert ["timeout", "rate_limited"] == [label.get_text() for label in MUCH.plot().axes[1].get_yticklabels()]


@pytest.mark.parametrize("report", [NOTHING, UsageReport(**{**vars(MUCH), "column": "$a_b"})])
def test_any_plot_is_drawn(report: UsageReport, tmp_path: Path) -> None:
    """Also one without rows, and with a name that matplotlib would read as a formula."""
    report.plot().savefig(tmp_path / "plot.png")


def test_a_notebook_shows_the_plot() -> None:
    """The value of a cell is an image, whatever the backend."""
    shown = DisplayFormatter().format(MUCH.plot())  # type: ignore[no-untyped-call]  # IPython gives it no types

    assert shown[0]["image/png"].startswith(b"\x89PNG")


def test_without_matplotlib_the_plot_says_how_to_get_it() -> None:
    """The report itself needs none."""
    program = """
import sys
sys.modules["matplotlib"] = None
from tests.usage.test_report import NOTHING
print(NOTHING)
NOTHING.plot()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout.startswith("mood")
    assert "Hint: pip install 'spark-llm-endpoints[plot]'." in done.stderr
