"""The aggregates over a column of answers, and the tally and the report that their values make.

Only aggregate functions that Spark also allows beside an action, in `DataFrame.observe`. Each has bounded memory.
Lists travel as JSON: before Spark 4 an observation returns no others. Aggregates are SQL, because classic PySpark takes
about ten calls to Java for each operator of a `Column`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from spark_llm.errors import KINDS
from spark_llm.metering.prices import Price
from spark_llm.metering.tally import TOKENS, Tally
from spark_llm.protocol.identifiers import struct
from spark_llm.usage.answers import AnswerColumn
from spark_llm.usage.report import Latency, UsageReport

_BINS = 256  # of a histogram: more than its values, so it is exact
_BINS_PER_OCTAVE = 4  # from one power of 2 to the next
_NUMBERS = {"attempts": "BIGINT", "latency_ms": "DOUBLE"}
_SHARES = (0.5, 0.95, 0.99)
_DIGITS = 3  # of a latency, so that its percentiles need no more than 900 values for each power of 10


def tally_aggregates(answers: AnswerColumn, tiers: Iterable[str] = ()) -> dict[str, str]:
    """Return the aggregates that make a tally; tokens of these service tiers are counted apart too."""
    kind, tier = answers.field("error", "kind"), answers.field("usage", "service_tier")
    counts = {"asked": f"count({answers.was_asked})"}  # those that were cancelled among them
    counts |= {name: f"sum({answers.tokens(name)})" for name in TOKENS}
    counts |= {f"failed {each}": f"count_if({kind} = '{each}')" for each in KINDS}
    for each in tiers:
        is_billed = f"{tier} = CAST(X'{each.encode('utf-8', 'surrogatepass').hex()}' AS STRING)"
        counts |= {
            f"tier {each} {name}": f"sum(CASE WHEN {is_billed} THEN {answers.tokens(name)} END)" for name in TOKENS
        }
    return counts


def tally_of(values: Mapping[str, Any], tiers: Iterable[str] = ()) -> Tally:
    """Return the tally of the values of `tally_aggregates`, with the same tiers."""
    of_tier = {each: {name: values[f"tier {each} {name}"] for name in TOKENS} for each in tiers}
    failed = {kind: values[f"failed {kind}"] for kind in KINDS if values[f"failed {kind}"]}
    cancelled = failed.pop("cancelled", 0)
    return replace(
        Tally.of_tokens(values),
        asked=(values["asked"] or 0) - cancelled,
        failed=failed,
        cancelled=cancelled,
        tiers={each: Tally.of_tokens(tokens) for each, tokens in of_tier.items()},
    )


def report_aggregates(answers: AnswerColumn, price: Price | None) -> dict[str, str]:
    """Return the aggregates that make a report."""
    kind, message = answers.field("error", "kind"), answers.field("error", "message")
    attempts, latency_ms = (f"CAST({answers.field(name)} AS {to})" for name, to in _NUMBERS.items())
    lists = {
        "service_tiers": f"collect_set(CAST({answers.field('usage', 'service_tier')} AS STRING))",
        "latency": f"percentile({_rounded(latency_ms)}, array({', '.join(map(str, _SHARES))}))",
        "latencies": _histogram(latency_ms),
        "row_tokens": _histogram(answers.tokens("total_tokens")),
    }
    return {
        **tally_aggregates(answers, price.factors if price else ()),
        **{f"example {each}": f"min(CASE WHEN {kind} = '{each}' THEN {message} END)" for each in KINDS},
        "rows": "count(1)",
        "attempts": f"sum({attempts})",
        "retries": f"sum(greatest({attempts} - 1, 0))",
        "requests": f"sum(CAST({answers.field('requests')} AS BIGINT))",
        "reasoning_tokens": f"sum({answers.tokens('reasoning_tokens')})",
        "lists": f"to_json({struct(lists)})",
    }


def report_of(name: str, answers: AnswerColumn, price: Price | None, values: Mapping[str, Any]) -> UsageReport:
    """Return the report of the values of `report_aggregates`; without values there were no rows."""
    values = values or dict.fromkeys(report_aggregates(answers, price))
    tally = tally_of(values, price.factors if price else ())
    attempts = (values["attempts"] or 0) if answers.has("attempts") else None
    requests = attempts if answers.has("text") and answers.has("parsed") else None  # of a chat, so one row in each
    lists = json.loads(values["lists"] or "{}")
    tiers = tuple(sorted(lists.get("service_tiers", ())))
    return UsageReport(
        column=name,
        rows=values["rows"] or 0,
        tally=tally,
        examples={kind: values[f"example {kind}"] or "" for kind in KINDS if values[f"failed {kind}"]},
        attempts=attempts,
        retries=None if attempts is None else values["retries"] or 0,
        requests=(values["requests"] or 0) if answers.has("requests") else requests,
        reasoning_tokens=values["reasoning_tokens"] or 0,
        service_tiers=tiers,
        latency_ms=Latency(*lists["latency"]) if "latency" in lists else None,
        latencies=_bins(lists.get("latencies", ())),
        row_tokens=_bins(lists.get("row_tokens", ())),
        usd=None if price is None else price.cost(tally),
        notes=_notes(answers, price, tally, tiers),
    )


def _notes(answers: AnswerColumn, price: Price | None, tally: Tally, tiers: Iterable[str]) -> tuple[str, ...]:
    if not answers.has("usage"):
        return ("Its answers report no tokens.",)
    return () if price is None else tuple(price.notes(tally, tiers))


def _rounded(number: str) -> str:
    """Return a number with its first three digits."""
    unit = f"pow(10D, floor(log10({number})) - {_DIGITS - 1})"
    return f"CASE WHEN {number} > 0 THEN round({number} / {unit}) * {unit} WHEN {number} = 0 THEN 0D END"


def _histogram(number: str) -> str:
    """Count numbers by bin, from the greatest of a row of powers of 2 that is not above the number; 0 has its own."""
    octave = f"floor(log2({number}) * {_BINS_PER_OCTAVE}) / {_BINS_PER_OCTAVE}"
    start = f"CASE WHEN {number} > 0 THEN pow(2D, {octave}) WHEN {number} = 0 THEN 0D END"
    return f"histogram_numeric({start}, {_BINS})"


def _bins(histogram: Iterable[Mapping[str, float]]) -> dict[float, int]:
    """Return the counts by the start of their bins, in order; partial histograms may have a start more than once."""
    bins = Counter[float]()
    for part in histogram:
        bins[part["x"]] += round(part["y"])
    return dict(sorted(bins.items()))
