"""A capacity that falls to a quarter and comes back, with a picture of the requests in flight."""

import io
from dataclasses import replace
from statistics import fmean

from benchmarks.support.behaviours import Steps
from benchmarks.support.counters import SAMPLE_S, Sample
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, share_figures
from benchmarks.support.session import bench

FULL = Job(Steps(slots=40, low=10, step_s=30.0, median_s=0.2), rows=11_000)
SHORT = Job(Steps(slots=8, low=2, step_s=0.5, median_s=0.02), rows=300)
POINT_S = 0.25  # between two points of the curve


def measure(*, short: bool) -> list[Figure]:
    """Return the share of the capacity that one task uses through both steps, with the picture."""
    job = SHORT if short else FULL
    with bench(job.tasks) as spark:
        outcome = job.run(spark)
        series = spark.endpoint.series()
    steps, counters = job.behaviour, outcome.counters
    took_s, low_s = counters.span_s, min(max(counters.span_s - steps.step_s, 0.0), steps.step_s)
    mean_slots = (steps.slots * (took_s - low_s) + steps.low * low_s) / took_s
    what = f"hidden capacity {steps.slots}, then {steps.low}, then {steps.slots}"
    note = f"{what.capitalize()}: {job.description}; {steps.step_s:g} s each for the first two."
    used_s = counters.service_s / mean_slots
    share, *others = share_figures(
        what, outcome, used_s, share=Goal(at_least=0.9), per_row=Goal(at_most=1.05), note=note
    )
    return [_with_picture(share, series, steps, counters.first_s or 0.0, took_s), *others]


def _with_picture(figure: Figure, series: list[Sample], steps: Steps, first_s: float, took_s: float) -> Figure:
    points = _curve([sample for sample in series if first_s <= sample.at_s <= first_s + took_s], first_s)
    return replace(figure, picture=_svg(points, steps, took_s))


def _curve(samples: list[Sample], first_s: float) -> list[tuple[float, float]]:
    """Return the times since the first request, with the mean requests in flight at each."""
    group_size = round(POINT_S / SAMPLE_S)
    groups = [samples[start : start + group_size] for start in range(0, len(samples), group_size)]
    return [(group[0].at_s - first_s, fmean(sample.in_flight for sample in group)) for group in groups]


def _svg(points: list[tuple[float, float]], steps: Steps, took_s: float) -> str:
    """Return an SVG of the requests in flight over the capacity; its text stays text, to keep it small."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Drawing

    edges = [0.0, steps.step_s, 2 * steps.step_s, max(took_s, 2 * steps.step_s)]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "spark_llm", "font.size": 9}):
        drawing = Drawing(figsize=(8, 3), layout="constrained")
        axes = drawing.subplots()
        axes.stairs(
            [steps.slots, steps.low, steps.slots],
            edges,
            color="black",
            linestyle="--",
            baseline=None,
            label="capacity",
        )
        axes.plot(*zip(*points, strict=True), color="tab:blue", linewidth=1, label="requests in flight")
        axes.set(xlabel="seconds since the first request", ylim=(0, 1.4 * steps.slots), xlim=(0, took_s))
        axes.legend(loc="upper right", ncols=2, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        svg = io.StringIO()
        drawing.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()
