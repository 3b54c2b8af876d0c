"""The charts of a usage report, with matplotlib: this file is imported when one is drawn."""

from collections.abc import Mapping
from io import BytesIO

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from spark_llm.errors import Kind

_ANSWERS, _ERRORS = "#2f6fa7", "#b3452e"
_BIN_RATIO = 2**0.25  # from the start of a bin to its end
_GAP = 0.92  # of a bar's width


class NotebookFigure(Figure):
    """A figure of no window, which a notebook shows as the value of its cell, whatever its backend."""

    def _repr_png_(self) -> bytes:
        image = BytesIO()
        self.savefig(image, format="png")
        return image.getvalue()


def usage_figure(
    title: str, latencies: Mapping[float, int], failed: Mapping[Kind, int], row_tokens: Mapping[float, int]
) -> Figure:
    """Return a figure with three charts: rows by latency in milliseconds, errors by kind, rows by tokens."""
    figure = NotebookFigure(figsize=(11, 3.4), layout="constrained")
    of_latency, of_errors, of_tokens = figure.subplots(1, 3)
    _histogram(of_latency, latencies, "latency of the last attempt, ms")
    _bars(of_errors, failed)
    _histogram(of_tokens, row_tokens, "tokens of a row")
    figure.suptitle(title.replace("$", r"\$"))
    return figure


def _histogram(axes: Axes, bins: Mapping[float, int], label: str) -> None:
    """Draw rows by a number, on an axis of its powers; the bar of 0 stands left of the others."""
    zero = min(filter(None, bins), default=1.0) / _BIN_RATIO**3
    starts = [start or zero for start in bins]
    widths = [start * (_BIN_RATIO - 1) * _GAP for start in starts]
    axes.bar(starts, list(bins.values()), widths, align="edge", color=_ANSWERS)
    if 0 in bins:
        axes.annotate("0", (zero, bins[0]), ha="left", va="bottom")
    axes.set(xscale="log", xlabel=label, ylabel="rows")
    if bins:
        axes.set_xlim(min(starts) / 2, max(starts) * 2)
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    _plain(axes, axes.yaxis, is_empty=not bins)


def _bars(axes: Axes, failed: Mapping[Kind, int]) -> None:
    """Draw errors by kind, the most frequent first."""
    kinds = sorted(failed, key=lambda kind: failed[kind])
    drawn = axes.barh(kinds, [failed[kind] for kind in kinds], color=_ERRORS, height=0.6)
    axes.bar_label(drawn, fmt="{:,.0f}", padding=3)
    axes.margins(x=0.15)
    axes.set(xlabel="errors", ylim=(min(-0.6, len(kinds) - 5), max(len(kinds) - 0.4, 0.6)))
    _plain(axes, axes.xaxis, is_empty=not failed)


def _plain(axes: Axes, counts: Axis, *, is_empty: bool) -> None:
    """Leave out two of the frame's sides; show whole numbers on the axis of counts, and no axis without data."""
    axes.spines[["top", "right"]].set_visible(False)
    counts.set_major_locator(ticker.MaxNLocator(integer=True, nbins=5))
    if is_empty:
        axes.set(xticks=[], yticks=[], title="none")
