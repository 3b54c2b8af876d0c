"""Points of metrics: what counts become, that no total goes down, and what came on top of the last export."""

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS
from spark_llm.metering.operations import ANSWERED, BUCKETS, Histogram, Operations
from spark_llm.metering.tally import Tally
from spark_llm.monitoring.telemetry import conventions
from spark_llm.monitoring.telemetry.points import (
    Points,
    Series,
    as_counters,
    column_points,
    histograms,
    not_below,
    since,
)

COUNTS = st.integers(0, 1_000)
HISTOGRAMS = st.builds(Histogram, st.tuples(*[COUNTS] * BUCKETS), COUNTS)
METRICS = st.sampled_from([conventions.ROWS, conventions.DURATION, conventions.WINDOW])
SERIES = st.builds(Series.of, METRICS, st.dictionaries(st.sampled_from("ab"), COUNTS, max_size=2))


@st.composite
def points(draw: st.DrawFn) -> Points:
    """Return points, each with a number of the kind that its metric has."""
    found: Points = {}
    for series in draw(st.sets(SERIES, max_size=4)):
        found[series] = draw(HISTOGRAMS) if series.metric.kind == "histogram" else draw(COUNTS)
    return found


def numbers(of: Points) -> list[float]:
    """Return all totals of points: counts, buckets and sums."""
    return [
        number
        for series, value in sorted(of.items())
        if series.metric.kind != "gauge"
        for number in ((*value.buckets, value.sum, value.count) if isinstance(value, Histogram) else (value,))
    ]


@given(st.lists(points(), min_size=2, max_size=6))
def test_no_total_goes_down(sent: list[Points]) -> None:
    """Whatever the counts are, each exported number is at least the one before, and at least the count."""
    exported: Points = {}
    for now in sent:
        before, exported = exported, not_below(now, exported)
        totals = {series: exported[series] for series in before if series.metric.kind != "gauge"}

        assert all(more >= less for more, less in zip(numbers(totals), numbers(before), strict=True))
        assert numbers(not_below(exported, now)) == numbers(exported)
        assert {series: now[series] for series in now if series.metric.kind == "gauge"} == {
            series: number for series, number in exported.items() if series.metric.kind == "gauge"
        }


@given(st.lists(points(), min_size=1, max_size=6))
def test_what_came_on_top_adds_up_to_the_total(sent: list[Points]) -> None:
    """The sum of all changes is the last total, and a change that is nothing is left out."""
    exported: Points = {}
    changes: Points = {}
    for now in sent:
        before, exported = exported, not_below(now, exported)
        for series, change in since(exported, before).items():
            known = changes.get(series)
            if isinstance(change, Histogram):
                changes[series] = change.plus(known) if isinstance(known, Histogram) else change
                assert change != Histogram()
            elif series.metric.kind == "gauge" or not isinstance(known, int):
                changes[series] = change
            else:
                changes[series] = known + change
    totals = {series: number for series, number in exported.items() if series.metric.kind != "gauge"}

    assert {series: number for series, number in totals.items() if number not in (0, Histogram())} == {
        series: change for series, change in changes.items() if series.metric.kind != "gauge"
    }


def test_a_columns_numbers_become_points() -> None:
    """Durations are in seconds and by error; a metric that only operations know is left out without them."""
    tally = Tally(asked=5, failed={"timeout": 1}, prompt_tokens=50, completion_tokens=8, requests=9)
    one = Histogram((0, 2, *[0] * 13), 30.0)
    late = Histogram((*[0] * 14, 1), 90_000.0)
    operations = Operations({ANSWERED: one, "timeout": late}, Histogram((0, 0, 4, *[0] * 12), 50), refusals={429: 5})
    found = {
        (series.metric.name, *dict(series.attributes).values()): number
        for series, number in column_points(tally, operations, {}).items()
    }

    assert found == {
        ("spark_llm.rows",): 4,
        ("spark_llm.rows", "timeout"): 1,
        ("spark_llm.requests",): 9,
        ("spark_llm.retries",): 6,
        ("spark_llm.refusals", 429): 5,
        ("gen_ai.client.operation.duration",): Histogram(one.buckets, 0.03),
        ("gen_ai.client.operation.duration", "timeout"): Histogram(late.buckets, 90.0),
        ("gen_ai.client.token.usage", "input"): operations.prompt_tokens,
    }
    assert {"spark_llm.rows", "spark_llm.requests"} == {
        series.metric.name for series in column_points(tally, None, {"spark_llm.column": "mood"})
    }


def test_a_provider_gets_the_counts_and_sums_of_histograms() -> None:
    """An endpoint gets the histograms alone where a provider has the counters."""
    operations = Operations({kind: Histogram((3, *[0] * 14), 12.0) for kind in KINDS[:2]}, Histogram((1, *[0] * 14), 1))
    all_points = column_points(Tally(asked=6, requests=6), operations, {})
    counters = as_counters(all_points)

    assert {"operations": 6, "operation.time": 0.024, "tokens": 1} == {
        name: sum(
            number
            for series, number in counters.items()
            if series.metric.name == f"spark_llm.{name}" and not isinstance(number, Histogram)
        )
        for name in ("operations", "operation.time", "tokens")
    }
    assert not histograms(counters)
    assert {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"} == {
        series.metric.name for series in histograms(all_points)
    }
