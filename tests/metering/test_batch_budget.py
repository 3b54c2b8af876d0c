"""The budget of a job in batches: what is out counts as spent."""

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.metering.batch_budget import BatchBudget, next_step, why_left
from spark_llm.metering.budget import Budget
from spark_llm.metering.chunking import PerRow


def test_without_a_budget_all_rows_may_be_sent() -> None:
    """There is no limit to name either."""
    assert (100, None) == BatchBudget(None, PerRow()).affordable(100)


def test_rows_are_exact() -> None:
    """Rows that this run has sent count, whatever they cost."""
    budget = BatchBudget(Budget(rows=10), PerRow(), sent=7)
    assert (3, "10 rows would be exceeded") == budget.affordable(5)
    assert (2, None) == budget.affordable(2)


def test_a_row_counts_once_however_often_it_is_sent() -> None:
    """Of 10 rows 8 were sent; 5 of these go into the next batch, and 2 further ones."""
    budget = BatchBudget(Budget(rows=10), PerRow(), sent=8)
    assert (7, "10 rows would be exceeded") == budget.affordable(9, again=5)
    assert (7, None) == budget.affordable(7, again=5)
    budget.sent = 10
    assert (5, "10 rows would be exceeded") == budget.affordable(6, again=5)


def test_without_prices_a_row_has_no_cost() -> None:
    """It is unknown, not nothing; a row that is free has a price."""
    for estimate, usd in ((PerRow(5.0), None), (PerRow(5.0, 0.0), 0.0)):
        budget = BatchBudget(None, estimate)
        budget.add(10, 50, 0.0)
        assert usd == budget.row.usd


def test_what_is_out_counts_as_spent_by_the_estimate() -> None:
    """Ten rows of 5 tokens are out, so 50 of 100 tokens are left for as many."""
    budget = BatchBudget(Budget(tokens=100), PerRow(5.0, 0.01), out=10)
    assert (10, "100 tokens would be exceeded") == budget.affordable(50)


def test_the_cost_is_learned_from_answers() -> None:
    """The mean of the answered rows takes the place of the estimate, with a margin of a tenth."""
    budget = BatchBudget(Budget(usd=1.0), PerRow(100.0, 0.10))
    assert (10, "1 US dollars would be exceeded") == budget.affordable(99)
    budget.add(100, 1_000, 0.10)
    assert PerRow(11.0, 0.0011) == PerRow(budget.row.tokens, round(budget.row.usd or 0.0, 9))
    assert 818 == budget.affordable(10_000)[0]


def test_a_cost_without_a_limit_sends_nothing() -> None:
    """No estimate can be kept where the length of an answer has no limit."""
    allowed, limit = BatchBudget(Budget(tokens=100), PerRow()).affordable(5)
    assert (0, True) == (allowed, "has no limit" in str(limit))


def test_the_next_step_fits_the_limit() -> None:
    """A larger budget helps where a limit would be exceeded, and not where no estimate can be kept."""
    for row, step in ((PerRow(), "set max_tokens"), (PerRow(5.0), "run it again with a larger one")):
        budget = BatchBudget(Budget(tokens=4), row)
        _, limit = budget.affordable(5)
        assert next_step(str(limit)).startswith(step)


def test_rows_that_are_left_have_a_reason() -> None:
    """The budget, or a run that only collects, or its time; without such rows there is none."""
    assert why_left(0, "5 rows would be exceeded", sends=True) is None
    for limit, sends, why in (
        (
            "5 rows would be exceeded",
            True,
            "the budget of 5 rows would be exceeded: 2 rows are left. Hint: run it again",
        ),
        (None, False, "this run sends nothing: 2 rows are left. Hint: run it again"),
        (None, True, "the time to wait is over: 2 rows are left. Hint: run it again"),
    ):
        assert str(why_left(2, limit, sends=sends)).startswith(why)


@given(
    st.integers(1, 10**6),
    st.floats(0.1, 10**4),
    st.integers(0, 10**4),
    st.integers(0, 10**5),
)
def test_tokens_are_never_passed_by_the_estimate(total: int, per_row: float, out: int, wanted: int) -> None:
    """What is out and what is sent next cost no more than the limit; more rows would."""
    budget = BatchBudget(Budget(tokens=total), PerRow(per_row), out=out)
    allowed, limit = budget.affordable(wanted)
    assert 0 <= allowed <= wanted
    assert allowed == 0 or (out + allowed) * per_row <= total * (1 + 1e-9)
    assert (limit is None) == (allowed == wanted)
