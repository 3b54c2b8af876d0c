"""How an estimate prints: as text, in a notebook, and as plain values."""

import json
from dataclasses import replace

import pytest

from spark_llm.enrich.estimation.report import ColumnEstimate, Estimate

SUMMARY = ColumnEstimate(1_200, 120_000, 36_000, 0.114, "measured on 1,000 answers")
VECTOR = ColumnEstimate(900, 90_000, 0, 0.009, "guessed from the length of the texts")
OPEN = ColumnEstimate(5, 700, None, None, "guessed from the length of the texts; answers: unknown")


def test_it_prints_what_would_be_asked_and_what_that_rests_on() -> None:
    """Rows, tokens and dollars by column, and in all."""
    estimate = Estimate("reviews", 48_000, 1_250, 3, {"summary": SUMMARY, "vector": VECTOR})

    assert """\
reviews: of 48,000 rows 1,250 would be asked, and 3 would be deleted.
column    rows  prompt tokens  completion tokens     cost  rests on
summary  1,200        120,000             36,000    $0.11  measured on 1,000 answers
vector     900         90,000                  0  $0.0090  guessed from the length of the texts
Tokens in all: about 246,000, for $0.12.""" == str(estimate) == repr(estimate)


def test_it_prints_what_batches_would_cost_where_a_column_can_go_through_them() -> None:
    """A column that cannot has no such cost, and then the run has none."""
    summary = replace(SUMMARY, usd_batch=0.057)
    both = Estimate("reviews", 48_000, 1_250, 0, {"summary": summary, "vector": replace(VECTOR, usd_batch=0.0045)})
    one = Estimate("reviews", 48_000, 1_250, 0, {"summary": summary, "vector": VECTOR})

    assert """\
reviews: of 48,000 rows 1,250 would be asked.
column    rows  prompt tokens  completion tokens     cost  by batch  rests on
summary  1,200        120,000             36,000    $0.11   $0.0570  measured on 1,000 answers
vector     900         90,000                  0  $0.0090   $0.0045  guessed from the length of the texts
Tokens in all: about 246,000, for $0.12 at once, or $0.0615 by batch.""" == str(both)
    assert str(one).splitlines()[3:] == [
        "vector     900         90,000                  0  $0.0090            guessed from the length of the texts",
        "Tokens in all: about 246,000, for $0.12.",
    ]
    assert pytest.approx(0.0615) == both.usd_batch
    assert None is one.usd_batch
    html = both._repr_html_()
    assert '<td style="text-align: right">$0.0570</td><td style="text-align: left">measured' in html
    assert "for $0.12 at once, or $0.0615 by batch." in html
    row = json.loads(json.dumps(one.row()))
    assert (None, 0.057, None) == (
        row["usd_batch"],
        row["columns"]["summary"]["usd_batch"],
        row["columns"]["vector"]["usd_batch"],
    )


def test_unknown_numbers_are_shown_as_unknown() -> None:
    """One column of answers of any length makes the sum unknown, and no price makes no cost."""
    estimate = Estimate("reviews", 5, 5, 0, {"summary": OPEN, "vector": VECTOR})

    assert (None, None) == (estimate.total_tokens, estimate.usd)
    assert """\
reviews: of 5 rows 5 would be asked.
column   rows  prompt tokens  completion tokens     cost  rests on
summary     5            700            unknown           guessed from the length of the texts; answers: unknown
vector    900         90,000                  0  $0.0090  guessed from the length of the texts
Tokens in all: unknown.""" == str(estimate)


def test_nothing_to_ask_is_one_line() -> None:
    """The text has one line, and not a table of zeros."""
    none = ColumnEstimate(0, 0, 0, None, "nothing to ask")

    assert "reviews: of 48,000 rows none would be asked." == str(Estimate("reviews", 48_000, 0, 0, {"summary": none}))


def test_a_notebook_shows_a_table_with_names_escaped() -> None:
    """Names come from the user, so nothing in them is HTML."""
    html = Estimate("`<b>`", 48_000, 1_250, 0, {"<i>": SUMMARY})._repr_html_()

    assert "&lt;b&gt;" in html
    assert '<td style="text-align: left">&lt;i&gt;</td><td style="text-align: right">1,200</td>' in html
    assert "<b>" not in html
    assert "<i>" not in html


def test_its_row_is_fit_for_json() -> None:
    """A program reads the same numbers, with null for an unknown one."""
    row = json.loads(json.dumps(Estimate("reviews", 5, 5, 0, {"summary": OPEN}).row()))

    assert ("reviews", 5, 5, 0, None, None) == tuple(
        row[name] for name in ("target", "rows", "to_ask", "deleted", "total_tokens", "usd")
    )
    assert {
        "rows": 5,
        "prompt_tokens": 700,
        "completion_tokens": None,
        "total_tokens": None,
        "usd": None,
        "usd_batch": None,
        "rests_on": "guessed from the length of the texts; answers: unknown",
    } == row["columns"]["summary"]
