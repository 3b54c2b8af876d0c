"""The chunk planner, in simulated runs whose rows have a given cost."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spark_llm.errors import HINT, KINDS, ConfigError, Kind
from spark_llm.metering.budget import Budget
from spark_llm.metering.chunking import (
    FATAL_KINDS,
    MIN_CHUNK_ROWS,
    MIN_RATE_ROWS,
    NOT_ROW_ERRORS,
    PILOT_ROWS,
    ChunkPlanner,
    Limits,
    PerRow,
)
from spark_llm.metering.forecast import MARGIN
from spark_llm.metering.tally import Tally

# The rows that wait and the largest chunk; few enough chunks for all of them to be played.
SIZES = st.integers(1, 10_000).flatmap(lambda rows: st.tuples(st.integers(0, min(100_000, 300 * rows)), st.just(rows)))
UNKNOWN = PerRow()

CostOf = Callable[[int, "Run"], int]  # a row's tokens, from its number and what came before


def same(tokens: int) -> CostOf:
    """Give all rows the same cost."""
    return lambda row, run: tokens


TEN = same(10)


@dataclass
class Run:
    """The result of a simulated run: the sizes of its chunks, and its costs."""

    chunks: ChunkPlanner
    sizes: list[int] = field(default_factory=list)
    tokens: int = 0
    usd: float = 0.0
    now_s: float = 0.0

    @property
    def rows(self) -> int:
        """Return a tally of rows."""
        return sum(self.sizes)


def play(
    pending: int,
    limits: Limits,
    guess: PerRow = UNKNOWN,
    *,
    tokens: CostOf = TEN,
    usd_a_token: float = 1e-6,
    chunk_s: float = 0.0,
    row_s: float = 0.0,
) -> Run:
    """Simulate a run until there is no next chunk; every row is answered."""
    run = Run(ChunkPlanner(pending, limits, guess, 0.0))
    while rows := run.chunks.next(run.now_s):
        cost = sum(tokens(row, run) for row in range(run.rows, run.rows + rows))
        run.sizes.append(rows)
        run.tokens += cost
        run.usd += cost * usd_a_token
        run.now_s += chunk_s + rows * row_s
        run.chunks.done(rows, {"mood": answered(rows, cost)}, cost * usd_a_token, run.now_s)
        assert len(run.sizes) <= pending, "it ends"
    return run


def answered(rows: int, tokens: int = 10) -> Tally:
    """Return the tally of rows that were all answered."""
    return Tally(asked=rows, total_tokens=tokens, prompt_tokens=tokens, requests=rows)


def failed(rows: int, kinds: Mapping[Kind, int], tokens: int = 10) -> Tally:
    """Return the tally of rows of which some failed, and some were cancelled."""
    errors = dict(kinds)
    cancelled = errors.pop("cancelled", 0)
    asked = rows - cancelled
    return Tally(asked, errors, total_tokens=tokens, prompt_tokens=tokens, requests=asked, cancelled=cancelled)


def reason_of(run: Run | ChunkPlanner) -> str:
    """Return the reason why it stopped, which ends in a hint."""
    stopped = (run.chunks if isinstance(run, Run) else run).stopped
    assert stopped is not None
    what, hint, step = stopped.partition(HINT)
    assert hint, "there is a next step"
    assert what.endswith(".")
    assert step.endswith(".")
    return stopped


@given(SIZES)
@example((0, 1))
@example((10, 4))
def test_without_a_budget_chunks_are_equal(sizes: tuple[int, int]) -> None:
    """There are as few chunks as possible, none too large, and their sizes differ by one row at most."""
    pending, chunk_rows = sizes
    run = play(pending, Limits(chunk_rows))

    assert pending == run.rows
    assert (0, None) == (run.chunks.left, run.chunks.stopped)
    assert math.ceil(pending / chunk_rows) == len(run.sizes)
    assert max(run.sizes, default=0) <= chunk_rows
    assert max(run.sizes, default=0) - min(run.sizes, default=0) <= 1


@given(SIZES, st.integers(1, 100_000))
def test_a_budget_of_rows_is_exact(sizes: tuple[int, int], rows: int) -> None:
    """The run sends exactly that many rows, in equal chunks; it has no cost to learn."""
    pending, chunk_rows = sizes
    run = play(pending, Limits(chunk_rows, Budget(rows=rows)))
    sent = min(pending, rows)

    assert sent == run.rows
    assert pending - sent == run.chunks.left
    assert math.ceil(sent / chunk_rows) == len(run.sizes)
    assert (pending > rows) == (run.chunks.stopped is not None)
    if pending > rows:
        assert f"the budget of {rows:,} rows is used up: " in reason_of(run)


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    """Draw a budget of any limits."""
    limits: dict[str, Any] = {
        "tokens": draw(st.none() | st.integers(1, 10_000_000)),
        "usd": draw(st.none() | st.floats(1e-6, 1e4)),
        "rows": draw(st.none() | st.integers(1, 100_000)),
        "seconds": draw(st.none() | st.floats(0.01, 1e5)),
    }
    return Budget(**limits) if set(limits.values()) != {None} else Budget(rows=1)


@given(
    sizes=SIZES,
    budget=budgets(),
    tokens=st.integers(1, 5_000),
    looseness=st.floats(1, 100),
    chunk_s=st.floats(0, 20),
    row_s=st.floats(0, 1),
)
def test_rows_of_equal_cost_exceed_no_budget(
    *, sizes: tuple[int, int], budget: Budget, tokens: int, looseness: float, chunk_s: float, row_s: float
) -> None:
    """This holds for every limit, and for any estimate above the truth.

    Seconds have no estimate, so the first chunk may exceed them, and no other.
    """
    (pending, chunk_rows), usd_a_token = sizes, 2e-6
    run = play(
        pending,
        Limits(chunk_rows, budget),
        PerRow(tokens * looseness, tokens * looseness * usd_a_token),
        tokens=same(tokens),
        usd_a_token=usd_a_token,
        chunk_s=chunk_s,
        row_s=row_s,
    )

    assert run.tokens <= (budget.tokens or math.inf)
    assert run.usd <= (budget.usd or math.inf) * (1 + 1e-9)
    assert run.rows <= (budget.rows or math.inf)
    assert run.now_s <= (budget.seconds or math.inf) * (1 + 1e-9) or 1 == len(run.sizes)
    assert pending == run.rows + run.chunks.left
    assert max(run.sizes, default=0) <= chunk_rows
    assert (run.chunks.left > 0) == (run.chunks.stopped is not None)
    assert run.chunks.stopped is None or reason_of(run)


@given(SIZES, st.integers(1, 10_000_000), st.lists(st.floats(0, MARGIN), min_size=1, max_size=50))
def test_rows_up_to_a_tenth_above_the_mean_exceed_no_budget(
    sizes: tuple[int, int], tokens: int, shares: list[float]
) -> None:
    """No row costs more than the mean of all earlier chunks plus a tenth."""
    pending, chunk_rows = sizes

    def drifting(row: int, run: Run) -> int:
        mean = run.tokens / run.rows if run.rows else 1_000
        return math.floor(shares[row % len(shares)] * mean)

    run = play(pending, Limits(chunk_rows, Budget(tokens=tokens)), PerRow(MARGIN * 1_000), tokens=drifting)

    assert run.tokens <= tokens
    assert pending == run.rows + run.chunks.left


@given(SIZES, st.integers(1, 10_000_000), st.integers(1, 5_000), st.floats(1, 100))
def test_the_unused_rest_of_a_budget_is_small(
    sizes: tuple[int, int], budget: int, tokens: int, looseness: float
) -> None:
    """A smaller last chunk uses the rest, until less is left than the smallest chunk may cost."""
    pending, chunk_rows = sizes
    guess = tokens * looseness
    run = play(pending, Limits(chunk_rows, Budget(tokens=budget)), PerRow(guess), tokens=same(tokens))

    if run.chunks.left and run.rows:
        smallest = min(run.chunks.left, max(1, min(MIN_CHUNK_ROWS, chunk_rows // 20)))
        assert budget - run.tokens < smallest * tokens * MARGIN + 1e-6
    elif run.chunks.left:
        assert budget < guess


@given(st.integers(1, 100_000), st.integers(20, 10_000), st.integers(1, 10_000_000), st.integers(1, 5_000))
def test_a_budget_does_not_end_in_many_small_chunks(pending: int, chunk_rows: int, budget: int, tokens: int) -> None:
    """A few chunks learn the cost of a row, a few use the end of the budget, and the others are full."""
    run = play(pending, Limits(chunk_rows, Budget(tokens=budget)), PerRow(tokens * 40), tokens=same(tokens))

    assert len(run.sizes) <= math.ceil(run.rows / chunk_rows) + 8


@given(SIZES, st.floats(1, 1e5), st.floats(0, 20), st.floats(1e-4, 1))
def test_seconds_are_used_up(sizes: tuple[int, int], seconds: float, chunk_s: float, row_s: float) -> None:
    """A run that time ends had no time for a chunk of 1.1 times the first and the smallest cost."""
    pending, chunk_rows = sizes
    run = play(pending, Limits(chunk_rows, Budget(seconds=seconds)), chunk_s=chunk_s, row_s=row_s)

    if run.chunks.left and 1 < len(run.sizes):
        shortest_s = chunk_s + min(run.sizes) * row_s
        largest_row_s = row_s + chunk_s / run.sizes[-1]
        assert seconds - run.now_s <= MARGIN * (shortest_s + MIN_CHUNK_ROWS * largest_row_s) + 1e-6


def test_a_run_with_a_budget_begins_with_small_chunks() -> None:
    """It has 200 rows, then ten times the rows before, then full chunks."""
    tokens = play(12_200, Limits(5_000, Budget(tokens=10**9)), PerRow(500))
    seconds = play(12_200, Limits(5_000, Budget(seconds=10**6)), row_s=0.01)

    assert [PILOT_ROWS, 2_000, 5_000, 5_000] == tokens.sizes
    assert tokens.sizes == seconds.sizes


def test_the_estimate_limits_the_first_chunk() -> None:
    """A few rows that may cost the whole budget are sent, since they seldom do, and show the cost of a row."""
    run = play(100_000, Limits(5_000, Budget(tokens=100_000)), PerRow(4_200), tokens=same(80))

    assert 23 == run.sizes[0]
    assert run.rows * 80 >= 0.95 * 100_000


def test_without_an_estimate_the_first_chunk_is_the_smallest() -> None:
    """It is the only chunk that may exceed the budget."""
    run = play(10_000, Limits(5_000, Budget(tokens=100)), UNKNOWN, tokens=same(30))
    priced = play(10_000, Limits(5_000, Budget(usd=1e9)), PerRow(tokens=30))

    assert [MIN_CHUNK_ROWS] == run.sizes
    assert MIN_CHUNK_ROWS == priced.sizes[0]


def test_a_run_whose_first_row_may_exceed_the_budget_sends_nothing() -> None:
    """The reason names the limit, the rows that are left and the next step."""
    run = play(1_234, Limits(5_000, Budget(tokens=4_000)), PerRow(4_200))

    assert [] == run.sizes
    assert "the budget of 4,000 tokens would be exceeded: 1,234 rows are left. Hint: " in reason_of(run)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(tokens=20_000, usd=5), "the budget of 20,000 tokens would be exceeded"),
        (Budget(tokens=10**9, usd=0.5), "the budget of 0.5 US dollars would be exceeded"),
        (Budget(tokens=10**9, seconds=3_600), "the budget of 3,600 seconds would be exceeded"),
        (Budget(rows=1_000, usd=500), "the budget of 1,000 rows is used up"),
    ],
)
def test_the_reason_names_the_limit_that_was_reached(budget: Budget, words: str) -> None:
    """There may be several limits."""
    run = play(100_000, Limits(5_000, budget), PerRow(10, 1e-4), usd_a_token=1e-5, row_s=0.1)

    assert reason_of(run).startswith(f"{words}: {run.chunks.left:,} rows are left.")


def test_the_last_seconds_are_used_by_a_smaller_chunk() -> None:
    """Its time is estimated from the shortest chunk, since every chunk has a fixed share."""
    run = play(102_200, Limits(5_000, Budget(seconds=170)), chunk_s=5.0, row_s=0.01)
    last = int(((170 - 142) / MARGIN - 7) * 5_000 / 55)  # 142 s went by; 200 rows took 7 s, and 5,000 took 55 s

    assert [200, 2_000, 5_000, 5_000, last] == run.sizes
    assert 160 < run.now_s < 170


def test_time_before_the_first_chunk_counts() -> None:
    """The clock runs from the start of the run, which is neither its first chunk nor the clock's zero."""
    limits = Limits(50, Budget(seconds=60))

    assert 50 == ChunkPlanner(100, limits, UNKNOWN, began_s=1_000.0).next(1_059.0)
    assert 0 == ChunkPlanner(100, limits, UNKNOWN, began_s=1_000.0).next(1_060.0)


def test_rising_costs_are_followed() -> None:
    """A chunk that cost more per row than the mean gives the forecast of the next."""
    chunks = ChunkPlanner(100_200, Limits(2_000, Budget(tokens=310_000)), PerRow(1_000), 0.0)
    for expected, tokens in ((200, 10), (2_000, 10), (2_000, 100)):
        assert expected == chunks.next(0.0)
        chunks.done(expected, {"mood": answered(expected, expected * tokens)}, None, 0.0)

    assert int((310_000 - 22_000 - 200_000) / (MARGIN * 100)) == chunks.next(0.0)


def test_free_failures_do_not_lower_the_forecast() -> None:
    """The next rows may all be answered, so the forecast is the cost of answered rows."""
    chunks = ChunkPlanner(10_000, Limits(5_000, Budget(tokens=10_000)), PerRow(20), 0.0)
    first = chunks.next(0.0)
    chunks.done(first, {"mood": failed(first, {"timeout": first // 2}, tokens=first // 2 * 20)}, None, 0.0)

    assert (10_000 - first // 2 * 20) // 22 == chunks.next(0.0)


def test_paid_failures_count() -> None:
    """Answers that fit no schema are paid for, even where a chunk has no other answers."""
    chunks = ChunkPlanner(10_000, Limits(5_000, Budget(tokens=10_000)), PerRow(20), 0.0)
    first = chunks.next(0.0)
    chunks.done(first, {"mood": failed(first, {"schema_mismatch": first}, tokens=first * 20)}, None, 0.0)

    assert (10_000 - first * 20) // 22 == chunks.next(0.0)


def test_free_rows_have_no_limit() -> None:
    """A price of 0 stays within any budget."""
    assert 10_000 == play(10_000, Limits(5_000, Budget(usd=1e-6)), PerRow(10, 0.0), usd_a_token=0.0).rows


def test_a_budget_of_tokens_needs_reported_tokens() -> None:
    """Answers without usage end the run; budgets of rows and seconds do not need it."""
    silent = Tally(asked=50, requests=50)
    stopped = []
    for budget in (Budget(tokens=1_000), Budget(usd=5), Budget(seconds=60), Budget(rows=80)):
        chunks = ChunkPlanner(100, Limits(50, budget), UNKNOWN, 0.0)
        chunks.done(chunks.next(0.0), {"mood": answered(50), "vector": silent}, 0.1, 1.0)
        stopped.append(chunks.stopped is not None)
    chunks = ChunkPlanner(100, Limits(50, Budget(tokens=1_000)), UNKNOWN, 0.0)
    chunks.done(chunks.next(0.0), {"vector": silent}, None, 1.0)

    assert [True, True, False, False] == stopped
    assert "answers in column 'vector' report no tokens" in reason_of(chunks)
    assert 0 == chunks.next(1.0)


def test_cached_answers_do_not_end_a_run() -> None:
    """No request was sent for them, so no usage is missing."""
    chunks = ChunkPlanner(1_000, Limits(500, Budget(tokens=100_000)), PerRow(20), 0.0)
    chunks.done(chunks.next(0.0), {"mood": Tally(asked=200)}, None, 1.0)

    assert (None, 400) == (chunks.stopped, chunks.next(1.0))


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.001, 1), st.data())
def test_a_failure_rate_above_the_maximum_ends_the_run(
    pending: int, chunk_rows: int, rate: float, data: st.DataObject
) -> None:
    """It is the rate of one column, once it has 20 rows, or a whole chunk, or all rows."""
    chunks = ChunkPlanner(pending, Limits(chunk_rows, None, rate), UNKNOWN, 0.0)
    asked = lost = 0
    while rows := chunks.next(0.0):
        count = data.draw(st.integers(0, rows))
        kinds: dict[Kind, int] = {"timeout": count} if count else {}
        chunks.done(rows, {"good": answered(rows), "bad": failed(rows, kinds)}, None, 0.0)
        asked, lost = asked + rows, lost + count
        enough = asked >= min(MIN_RATE_ROWS, chunk_rows) or asked == pending

        assert (enough and lost > rate * asked) == (chunks.stopped is not None)
    assert pending == asked + chunks.left
    if chunks.stopped:
        failures = f"{lost:,} of {asked:,} rows failed in column 'bad' ({lost:,} timeout), a rate of {lost / asked:.3g}"
        assert f"{failures}, more than max_failure_rate={rate:g} allows: " in reason_of(chunks)


@pytest.mark.parametrize("kind", KINDS)
def test_fatal_errors_end_the_run(kind: Kind) -> None:
    """A tenth of the rows of any column is enough; all other errors belong to their row."""
    chunks = ChunkPlanner(10_000, Limits(5_000), UNKNOWN, 0.0)
    chunks.done(chunks.next(0.0), {"good": answered(5_000), "bad": failed(5_000, {kind: 500})}, None, 0.0)

    assert (kind in NOT_ROW_ERRORS) == (chunks.stopped is not None)
    assert (0 if kind in NOT_ROW_ERRORS else 5_000) == chunks.next(0.0)
    assert (5_500 if kind in NOT_ROW_ERRORS else 5_000) == chunks.left
    if kind in FATAL_KINDS:
        assert f"the endpoint of column 'bad' answers no row ({kind}): 5,500 rows are left." in reason_of(chunks)


@pytest.mark.parametrize("kind", FATAL_KINDS)
def test_a_few_fatal_errors_do_not_end_the_run(kind: Kind) -> None:
    """Where nearly all rows were answered, the run continues and leaves these rows to the next one."""
    chunks = ChunkPlanner(10_000, Limits(5_000), UNKNOWN, 0.0)
    for left in (5_003, 3):
        chunks.done(chunks.next(0.0), {"a": failed(5_000, {kind: 3} if left > 3 else {})}, None, 0.0)
        assert left == chunks.left

    assert (None, 0) == (chunks.stopped, chunks.next(0.0))


def test_the_reason_quotes_the_fatal_error() -> None:
    """Its message is the reason, and its hint is the run's."""
    chunks = ChunkPlanner(10, Limits(10), UNKNOWN, 0.0)
    trouble = "no endpoint 'lama'. Hint: check its name."
    errors = {"a": trouble, "b": "the error of another column"}
    chunks.done(chunks.next(0.0), {"a": failed(10, {"not_found": 10}), "b": answered(10)}, None, 0.0, errors)

    assert "(not_found: no endpoint 'lama'): 10 rows are left. Hint: check its name. Then run it again" in reason_of(
        chunks
    )


def test_cancelled_rows_end_the_run_and_are_left() -> None:
    """A row that was cancelled in two columns counts as one row."""
    chunks = ChunkPlanner(200, Limits(100, None, 0.5), UNKNOWN, 0.0)
    mood = failed(100, {"cancelled": 60, "timeout": 20})
    chunks.done(chunks.next(0.0), {"mood": mood, "vector": failed(100, {"cancelled": 40})}, None, 0.0)

    assert (160, 0) == (chunks.left, chunks.next(0.0))
    assert (
        "20 of 40 rows failed in column 'mood' (20 timeout), a rate of 0.5, and 60 more were not asked: 160 rows"
    ) in reason_of(chunks)


def test_the_reason_quotes_why_rows_were_cancelled() -> None:
    """Their error names the setting; rows of the other column have an error of their own."""
    chunks = ChunkPlanner(300, Limits(300), UNKNOWN, 0.0)
    why = "not sent: max_failure_rate=0.2 allows fewer than 200; last: invalid_request: no. Hint: leave x out."
    tallies = {"mood": failed(300, {"cancelled": 94, "invalid_request": 206}), "vector": answered(300)}
    chunks.done(chunks.next(0.0), tallies, None, 0.0, {"mood": why, "vector": None})

    assert (
        "206 of 206 rows failed in column 'mood' (206 invalid_request), a rate of 1, and 94 more were not asked (not "
        "sent: max_failure_rate=0.2 allows fewer than 200; last: invalid_request: no): 94 rows are left."
    ) in reason_of(chunks)


def test_cancelled_rows_do_not_lower_the_failure_rate() -> None:
    """The rate is computed without them."""
    chunks = ChunkPlanner(100, Limits(100, None, 0.5), UNKNOWN, 0.0)
    chunks.done(chunks.next(0.0), {"mood": failed(100, {"cancelled": 60, "timeout": 25, "quota": 0})}, None, 0.0)

    assert (
        "25 of 40 rows failed in column 'mood' (25 timeout), a rate of 0.625, more than max_failure_rate=0.5 allows, "
        "and 60 more were not asked: 60 rows are left."
    ) in reason_of(chunks)


def test_the_first_reason_is_kept() -> None:
    """Later findings do not change it, and there is no next chunk."""
    chunks = ChunkPlanner(1, Limits(1), UNKNOWN, 0.0)
    chunks.done(chunks.next(0.0), {"a": failed(1, {"quota": 1}), "b": failed(1, {"unauthorized": 1})}, None, 0.0)

    assert "column 'a' answers no row (quota)" in reason_of(chunks)
    assert 0 == chunks.next(0.0)


def test_a_chunk_without_rows_ends_the_run() -> None:
    """The pending rows were deleted, which is no error."""
    chunks = ChunkPlanner(100, Limits(50), UNKNOWN, 0.0)
    chunks.done(0 * chunks.next(0.0), {}, None, 0.0)

    assert (0, 0, None) == (chunks.next(0.0), chunks.left, chunks.stopped)


def wrong_limits() -> Iterator[tuple[str, object]]:
    """Yield arguments that are not allowed."""
    yield from (("chunk_rows", value) for value in (0, -1, 1.5, "5000", True, None))
    yield from (("budget", value) for value in (5, "5", {"tokens": 5}))
    yield from (("max_failure_rate", value) for value in (0, -0.1, 1.1, 5, math.nan, "5 %", True))


@pytest.mark.parametrize(("name", "value"), list(wrong_limits()))
def test_wrong_limits_are_refused(name: str, value: object) -> None:
    """The error names the argument and its value, and ends in a hint."""
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=rf"^{name}=.* Hint: .+\."):
        Limits(**arguments)


def test_the_default_limits() -> None:
    """A chunk has 5,000 rows, and there is no budget and no failure rate; the bounds themselves are allowed."""
    assert Limits(5_000, None, None) == Limits()
    assert (1, 1) == (Limits(chunk_rows=1).chunk_rows, Limits(max_failure_rate=1).max_failure_rate)
