"""How many rows are asked next, and when a run stops: played with rows that cost what a test says."""

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
    """Let all rows cost the same."""
    return lambda row, run: tokens


TEN = same(10)


@dataclass
class Run:
    """A run that was played: its chunks' sizes, and what it used up."""

    chunks: ChunkPlanner
    sizes: list[int] = field(default_factory=list)
    tokens: int = 0
    usd: float = 0.0
    now_s: float = 0.0

    @property
    def rows(self) -> int:
        """Rows that were asked."""
        return sum(self.sizes)


def play(
    waiting: int,
    limits: Limits,
    guess: PerRow = UNKNOWN,
    *,
    tokens: CostOf = TEN,
    usd_a_token: float = 1e-6,
    chunk_s: float = 0.0,
    row_s: float = 0.0,
) -> Run:
    """Ask until there is no next chunk; every row is answered."""
    run = Run(ChunkPlanner(waiting, limits, guess, 0.0))
    while rows := run.chunks.next(run.now_s):
        cost = sum(tokens(row, run) for row in range(run.rows, run.rows + rows))
        run.sizes.append(rows)
        run.tokens += cost
        run.usd += cost * usd_a_token
        run.now_s += chunk_s + rows * row_s
        run.chunks.done(rows, {"mood": answered(rows, cost)}, cost * usd_a_token, run.now_s)
        assert len(run.sizes) <= waiting, "it ends"
    return run


def answered(rows: int, tokens: int = 10) -> Tally:
    """Return what became of rows that were all answered."""
    return Tally(asked=rows, total_tokens=tokens, prompt_tokens=tokens, requests=rows)


def failed(rows: int, kinds: Mapping[Kind, int], tokens: int = 10) -> Tally:
    """Return what became of rows of which some failed."""
    return Tally(asked=rows, failed=kinds, total_tokens=tokens, prompt_tokens=tokens, requests=rows)


def told(run: Run | ChunkPlanner) -> str:
    """Return why it stopped, which ends in a next step."""
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
def test_without_a_budget_all_rows_are_asked_in_equal_chunks(sizes: tuple[int, int]) -> None:
    """As few chunks as can be, none too large, and their sizes differ by one row at most."""
    waiting, chunk_rows = sizes
    run = play(waiting, Limits(chunk_rows))

    assert waiting == run.rows
    assert (0, None) == (run.chunks.left, run.chunks.stopped)
    assert math.ceil(waiting / chunk_rows) == len(run.sizes)
    assert max(run.sizes, default=0) <= chunk_rows
    assert max(run.sizes, default=0) - min(run.sizes, default=0) <= 1


@given(SIZES, st.integers(1, 100_000))
def test_a_budget_of_rows_is_exact(sizes: tuple[int, int], rows: int) -> None:
    """That many are asked where there are as many, in equal chunks; nothing has to be learned for it."""
    waiting, chunk_rows = sizes
    run = play(waiting, Limits(chunk_rows, Budget(rows=rows)))
    asked = min(waiting, rows)

    assert asked == run.rows
    assert waiting - asked == run.chunks.left
    assert math.ceil(asked / chunk_rows) == len(run.sizes)
    assert (waiting > rows) == (run.chunks.stopped is not None)
    if waiting > rows:
        assert f"the budget of {rows:,} rows is used up: " in told(run)


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
def test_no_budget_is_passed_by_rows_that_cost_the_same(
    *, sizes: tuple[int, int], budget: Budget, tokens: int, looseness: float, chunk_s: float, row_s: float
) -> None:
    """Whatever is limited, and however far above the truth the guess is.

    Nobody can guess seconds, so the first chunk may pass them, and only that one.
    """
    (waiting, chunk_rows), usd_a_token = sizes, 2e-6
    run = play(
        waiting,
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
    assert waiting == run.rows + run.chunks.left
    assert max(run.sizes, default=0) <= chunk_rows
    assert (run.chunks.left > 0) == (run.chunks.stopped is not None)
    assert run.chunks.stopped is None or told(run)


@given(SIZES, st.integers(1, 10_000_000), st.lists(st.floats(0, MARGIN), min_size=1, max_size=50))
def test_tokens_are_kept_by_rows_up_to_a_tenth_above_the_mean(
    sizes: tuple[int, int], tokens: int, shares: list[float]
) -> None:
    """As long as no row costs more than that of the mean of all chunks before it, the budget is not passed."""
    waiting, chunk_rows = sizes

    def drifting(row: int, run: Run) -> int:
        mean = run.tokens / run.rows if run.rows else 1_000
        return math.floor(shares[row % len(shares)] * mean)

    run = play(waiting, Limits(chunk_rows, Budget(tokens=tokens)), PerRow(MARGIN * 1_000), tokens=drifting)

    assert run.tokens <= tokens
    assert waiting == run.rows + run.chunks.left


@given(SIZES, st.integers(1, 10_000_000), st.integers(1, 5_000), st.floats(1, 100))
def test_what_is_left_of_a_budget_is_not_worth_a_chunk(
    sizes: tuple[int, int], budget: int, tokens: int, looseness: float
) -> None:
    """A smaller last chunk is asked instead of none, so that less is left than the smallest one may cost."""
    waiting, chunk_rows = sizes
    guess = tokens * looseness
    run = play(waiting, Limits(chunk_rows, Budget(tokens=budget)), PerRow(guess), tokens=same(tokens))

    if run.chunks.left and run.rows:
        smallest = min(run.chunks.left, max(1, min(MIN_CHUNK_ROWS, chunk_rows // 20)))
        assert budget - run.tokens < smallest * tokens * MARGIN + 1e-6
    elif run.chunks.left:
        assert budget < guess


@given(st.integers(1, 100_000), st.integers(20, 10_000), st.integers(1, 10_000_000), st.integers(1, 5_000))
def test_a_budget_does_not_end_in_many_small_chunks(waiting: int, chunk_rows: int, budget: int, tokens: int) -> None:
    """Learning what a row costs takes a few chunks, and so does the budget's end; the rest are full ones."""
    run = play(waiting, Limits(chunk_rows, Budget(tokens=budget)), PerRow(tokens * 40), tokens=same(tokens))

    assert len(run.sizes) <= math.ceil(run.rows / chunk_rows) + 8


@given(SIZES, st.floats(1, 1e5), st.floats(0, 20), st.floats(1e-4, 1))
def test_seconds_are_used_up(sizes: tuple[int, int], seconds: float, chunk_s: float, row_s: float) -> None:
    """Where time ends the run, it had no time for a chunk of a tenth more than the first and the smallest cost."""
    waiting, chunk_rows = sizes
    run = play(waiting, Limits(chunk_rows, Budget(seconds=seconds)), chunk_s=chunk_s, row_s=row_s)

    if run.chunks.left and 1 < len(run.sizes):
        shortest_s = chunk_s + min(run.sizes) * row_s
        largest_row_s = row_s + chunk_s / run.sizes[-1]
        assert seconds - run.now_s <= MARGIN * (shortest_s + MIN_CHUNK_ROWS * largest_row_s) + 1e-6


def test_a_run_with_a_budget_looks_before_it_leaps() -> None:
    """200 rows, then ten times what was asked, then full chunks."""
    tokens = play(12_200, Limits(5_000, Budget(tokens=10**9)), PerRow(500))
    seconds = play(12_200, Limits(5_000, Budget(seconds=10**6)), row_s=0.01)

    assert [PILOT_ROWS, 2_000, 5_000, 5_000] == tokens.sizes
    assert tokens.sizes == seconds.sizes


def test_the_first_chunk_is_as_small_as_the_guess_says() -> None:
    """A few rows that may cost all of the budget are asked: they seldom do, and show what rows cost."""
    run = play(100_000, Limits(5_000, Budget(tokens=100_000)), PerRow(4_200), tokens=same(80))

    assert 23 == run.sizes[0]
    assert run.rows * 80 >= 0.95 * 100_000


def test_where_nobody_can_guess_the_first_chunk_is_the_smallest() -> None:
    """It is the only one that may pass the budget."""
    run = play(10_000, Limits(5_000, Budget(tokens=100)), UNKNOWN, tokens=same(30))
    priced = play(10_000, Limits(5_000, Budget(usd=1e9)), PerRow(tokens=30))

    assert [MIN_CHUNK_ROWS] == run.sizes
    assert MIN_CHUNK_ROWS == priced.sizes[0]


def test_a_run_whose_first_row_may_pass_the_budget_asks_nothing() -> None:
    """It says which limit, how many rows are left, and what to do."""
    run = play(1_234, Limits(5_000, Budget(tokens=4_000)), PerRow(4_200))

    assert [] == run.sizes
    assert "the budget of 4,000 tokens would be exceeded: 1,234 rows are left. Hint: " in told(run)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(tokens=20_000, usd=5), "the budget of 20,000 tokens would be exceeded"),
        (Budget(tokens=10**9, usd=0.5), "the budget of 0.5 US dollars would be exceeded"),
        (Budget(tokens=10**9, seconds=3_600), "the budget of 3,600 seconds would be exceeded"),
        (Budget(rows=1_000, usd=500), "the budget of 1,000 rows is used up"),
    ],
)
def test_the_limit_that_ended_the_run_is_named(budget: Budget, words: str) -> None:
    """Of several, it is the one that was in the way."""
    run = play(100_000, Limits(5_000, budget), PerRow(10, 1e-4), usd_a_token=1e-5, row_s=0.1)

    assert told(run).startswith(f"{words}: {run.chunks.left:,} rows are left.")


def test_the_last_seconds_are_used_by_a_smaller_chunk() -> None:
    """It is measured by the shortest chunk there was, which costs little more than what each of them costs anyway."""
    run = play(102_200, Limits(5_000, Budget(seconds=170)), chunk_s=5.0, row_s=0.01)
    last = int(((170 - 142) / MARGIN - 7) * 5_000 / 55)  # 142 s went by; 200 rows took 7 s, and 5,000 took 55 s

    assert [200, 2_000, 5_000, 5_000, last] == run.sizes
    assert 160 < run.now_s < 170


def test_time_that_passed_before_the_first_chunk_counts() -> None:
    """The clock runs from the start of the run, which is neither its first chunk nor the clock's zero."""
    limits = Limits(50, Budget(seconds=60))

    assert 50 == ChunkPlanner(100, limits, UNKNOWN, began_s=1_000.0).next(1_059.0)
    assert 0 == ChunkPlanner(100, limits, UNKNOWN, began_s=1_000.0).next(1_060.0)


def test_rows_that_grow_dearer_are_followed() -> None:
    """A chunk that cost more than the ones before it is what the next is measured by, not the mean of all."""
    chunks = ChunkPlanner(100_200, Limits(2_000, Budget(tokens=310_000)), PerRow(1_000), 0.0)
    for expected, tokens in ((200, 10), (2_000, 10), (2_000, 100)):
        assert expected == chunks.next(0.0)
        chunks.done(expected, {"mood": answered(expected, expected * tokens)}, None, 0.0)

    assert int((310_000 - 22_000 - 200_000) / (MARGIN * 100)) == chunks.next(0.0)


def test_rows_that_failed_for_free_do_not_make_the_others_cheap() -> None:
    """The next rows may all be answered: they are measured by those that were."""
    chunks = ChunkPlanner(10_000, Limits(5_000, Budget(tokens=10_000)), PerRow(20), 0.0)
    first = chunks.next(0.0)
    chunks.done(first, {"mood": failed(first, {"timeout": first // 2}, tokens=first // 2 * 20)}, None, 0.0)

    assert (10_000 - first // 2 * 20) // 22 == chunks.next(0.0)


def test_rows_that_failed_at_a_price_are_counted() -> None:
    """Answers that fit no schema are paid as well, also where nothing else came back."""
    chunks = ChunkPlanner(10_000, Limits(5_000, Budget(tokens=10_000)), PerRow(20), 0.0)
    first = chunks.next(0.0)
    chunks.done(first, {"mood": failed(first, {"schema_mismatch": first}, tokens=first * 20)}, None, 0.0)

    assert (10_000 - first * 20) // 22 == chunks.next(0.0)


def test_rows_that_cost_nothing_are_not_limited() -> None:
    """A price of 0 keeps within any budget."""
    assert 10_000 == play(10_000, Limits(5_000, Budget(usd=1e-6)), PerRow(10, 0.0), usd_a_token=0.0).rows


def test_answers_without_tokens_end_a_run_that_has_to_count_them() -> None:
    """A budget that cannot be kept is not left to chance; those of rows and seconds do not need it."""
    silent = Tally(asked=50, requests=50)
    stopped = []
    for budget in (Budget(tokens=1_000), Budget(usd=5), Budget(seconds=60), Budget(rows=80)):
        chunks = ChunkPlanner(100, Limits(50, budget), UNKNOWN, 0.0)
        chunks.done(chunks.next(0.0), {"mood": answered(50), "vector": silent}, 0.1, 1.0)
        stopped.append(chunks.stopped is not None)
    chunks = ChunkPlanner(100, Limits(50, Budget(tokens=1_000)), UNKNOWN, 0.0)
    chunks.done(chunks.next(0.0), {"vector": silent}, None, 1.0)

    assert [True, True, False, False] == stopped
    assert "answers in column 'vector' report no tokens" in told(chunks)
    assert 0 == chunks.next(1.0)


def test_answers_from_a_cache_cost_no_tokens_and_end_nothing() -> None:
    """Nothing was sent for them, so nothing had to be reported."""
    chunks = ChunkPlanner(1_000, Limits(500, Budget(tokens=100_000)), PerRow(20), 0.0)
    chunks.done(chunks.next(0.0), {"mood": Tally(asked=200)}, None, 1.0)

    assert (None, 400) == (chunks.stopped, chunks.next(1.0))


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.001, 1), st.data())
def test_a_run_stops_where_too_many_rows_failed(
    waiting: int, chunk_rows: int, rate: float, data: st.DataObject
) -> None:
    """More than the rate, of the rows of any one column so far: once there were 20, or a whole chunk, or all rows."""
    chunks = ChunkPlanner(waiting, Limits(chunk_rows, None, rate), UNKNOWN, 0.0)
    asked = lost = 0
    while rows := chunks.next(0.0):
        count = data.draw(st.integers(0, rows))
        kinds: dict[Kind, int] = {"timeout": count} if count else {}
        chunks.done(rows, {"good": answered(rows), "bad": failed(rows, kinds)}, None, 0.0)
        asked, lost = asked + rows, lost + count
        enough = asked >= min(MIN_RATE_ROWS, chunk_rows) or asked == waiting

        assert (enough and lost > rate * asked) == (chunks.stopped is not None)
    assert waiting == asked + chunks.left
    if chunks.stopped:
        assert f"{lost:,} of {asked:,} rows failed in column 'bad' ({lost:,} timeout)" in told(chunks)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_that_every_row_would_meet_end_a_run_in_any_case(kind: Kind) -> None:
    """A tenth of the rows of any column is enough; every other error is that row's own."""
    chunks = ChunkPlanner(10_000, Limits(5_000), UNKNOWN, 0.0)
    chunks.done(chunks.next(0.0), {"good": answered(5_000), "bad": failed(5_000, {kind: 500})}, None, 0.0)

    assert (kind in NOT_ROW_ERRORS) == (chunks.stopped is not None)
    assert (0 if kind in NOT_ROW_ERRORS else 5_000) == chunks.next(0.0)
    assert (5_500 if kind in NOT_ROW_ERRORS else 5_000) == chunks.left
    if kind in FATAL_KINDS:
        assert f"the endpoint of column 'bad' answers no row ({kind}): 5,500 rows are left." in told(chunks)


@pytest.mark.parametrize("kind", FATAL_KINDS)
def test_a_few_errors_that_every_row_would_meet_end_nothing(kind: Kind) -> None:
    """Where nearly all were answered, the run goes on; those few rows are left for the next one."""
    chunks = ChunkPlanner(10_000, Limits(5_000), UNKNOWN, 0.0)
    for left in (5_003, 3):
        chunks.done(chunks.next(0.0), {"a": failed(5_000, {kind: 3} if left > 3 else {})}, None, 0.0)
        assert left == chunks.left

    assert (None, 0) == (chunks.stopped, chunks.next(0.0))


def test_an_endpoint_that_answers_nobody_says_why() -> None:
    """The words of its error are the reason, and the error's next step is the run's."""
    chunks = ChunkPlanner(10, Limits(10), UNKNOWN, 0.0)
    trouble = "no endpoint 'lama' Hint: check its name."
    chunks.done(chunks.next(0.0), {"a": failed(10, {"not_found": 10})}, None, 0.0, trouble)

    assert "(not_found: no endpoint 'lama'): 10 rows are left. Hint: check its name. Then run it again" in told(chunks)


def test_cancelled_rows_were_not_asked() -> None:
    """They are still to be done, and end the run; a row that was cancelled in two columns is one row."""
    chunks = ChunkPlanner(200, Limits(100, None, 0.5), UNKNOWN, 0.0)
    mood = failed(100, {"cancelled": 60, "timeout": 20})
    chunks.done(chunks.next(0.0), {"mood": mood, "vector": failed(100, {"cancelled": 40})}, None, 0.0)

    assert (160, 0) == (chunks.left, chunks.next(0.0))
    assert "so many rows failed in column 'mood' (20 timeout) that its tasks stopped: 160 rows" in told(chunks)


def test_cancelled_rows_do_not_hide_a_failure_rate() -> None:
    """The rate is that of the rows that were asked, without them."""
    chunks = ChunkPlanner(100, Limits(100, None, 0.5), UNKNOWN, 0.0)
    chunks.done(chunks.next(0.0), {"mood": failed(100, {"cancelled": 60, "timeout": 25, "quota": 0})}, None, 0.0)

    assert "25 of 40 rows failed in column 'mood' (25 timeout), more than max_failure_rate=0.5 allows: 60" in told(
        chunks
    )


def test_what_ended_a_run_first_is_what_it_says() -> None:
    """Later findings do not change it, and there is no next chunk."""
    chunks = ChunkPlanner(1, Limits(1), UNKNOWN, 0.0)
    chunks.done(chunks.next(0.0), {"a": failed(1, {"quota": 1}), "b": failed(1, {"unauthorized": 1})}, None, 0.0)

    assert "column 'a' answers no row (quota)" in told(chunks)
    assert 0 == chunks.next(0.0)


def test_a_chunk_without_rows_ends_the_run() -> None:
    """The rows that waited are gone, and nothing went wrong."""
    chunks = ChunkPlanner(100, Limits(50), UNKNOWN, 0.0)
    chunks.done(0 * chunks.next(0.0), {}, None, 0.0)

    assert (0, 0, None) == (chunks.next(0.0), chunks.left, chunks.stopped)


def wrong_limits() -> Iterator[tuple[str, object]]:
    """Say what may not be set."""
    yield from (("chunk_rows", value) for value in (0, -1, 1.5, "5000", True, None))
    yield from (("budget", value) for value in (5, "5", {"tokens": 5}))
    yield from (("max_failure_rate", value) for value in (0, -0.1, 1.1, 5, math.nan, "5 %", True))


@pytest.mark.parametrize(("name", "value"), list(wrong_limits()))
def test_limits_that_cannot_be_right_are_refused(name: str, value: object) -> None:
    """The error names the argument and its value, and ends in a next step."""
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=rf"^{name}=.* Hint: .+\."):
        Limits(**arguments)


def test_the_limits_that_are_documented() -> None:
    """5,000 rows in a chunk, no budget, and no failure rate; the bounds themselves are taken."""
    assert Limits(5_000, None, None) == Limits()
    assert (1, 1) == (Limits(chunk_rows=1).chunk_rows, Limits(max_failure_rate=1).max_failure_rate)
