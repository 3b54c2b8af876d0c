"""What of an endpoint's flow is logged, and how often."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.log import DEBUG, INFO, MIN_INTERVAL_S, Flow, FlowLog

LIMITED = Flow(4, paused_until=95.0, wire_formats=(("chat", 1),), limited_by="refusals")
TIMES = st.lists(st.floats(0, 60), min_size=1, max_size=200).map(sorted)


def test_each_change_has_its_message() -> None:
    """A window that grows is DEBUG; an outage, a pause and their ends are INFO."""
    log = FlowLog()
    steps = [
        (Flow(window=8), (DEBUG, "window 1 -> 8")),
        (Flow(window=4), (INFO, "window 8 -> 4")),
        (Flow(4, rate_per_s=3.21), (INFO, "learned a rate of 3.2 requests/s")),
        (Flow(4), (INFO, "no learned rate any more")),
        (Flow(4, saturation=40.4), (INFO, "saturated at 40 requests in flight")),
        (Flow(4), (INFO, "no saturation any more")),
        (Flow(4, outage_since=9.0), (INFO, "an outage began: only faults came back, so only probes are sent")),
        (Flow(4), (INFO, "the outage ended")),
        (Flow(4, paused_until=95.0), (INFO, "paused for 5.0 s by Retry-After")),
        (Flow(4, paused_until=95.0, wire_formats=(("chat", 1),)), (INFO, "chat uses wire format 1")),
        (LIMITED, (DEBUG, "limited by the endpoint's 429s and 503s")),
        (LIMITED._replace(limited_by=None), (DEBUG, "nothing to send")),
    ]

    for number, (flow, expected) in enumerate(steps):
        assert [expected] == list(log.changes(flow, now=10.0 * (number + 1) - 10.0 * (number >= 9)))


def test_nothing_is_logged_without_a_change() -> None:
    """The first state of an endpoint is not logged, nor is an unchanged one."""
    log = FlowLog()

    assert [] == list(log.changes(Flow(), now=0.0))
    assert 1 == len(list(log.changes(Flow(window=2), now=1.0)))
    assert [] == list(log.changes(Flow(window=2), now=100.0))


@given(TIMES, st.lists(st.integers(1, 512), min_size=200, max_size=200))
def test_a_window_has_a_line_a_second_at_most(times: list[float], windows: list[int]) -> None:
    """However often it changes, the last line that is due shows the latest state."""
    log = FlowLog()
    logged = [now for now, window in zip(times, windows, strict=False) for _ in log.changes(Flow(window), now)]

    assert all(after - before >= MIN_INTERVAL_S for before, after in pairwise(logged))
    list(log.changes(Flow(513), now=1_000.0))
    assert [(INFO, "window 513 -> 1")] == list(log.changes(Flow(), now=2_000.0))
