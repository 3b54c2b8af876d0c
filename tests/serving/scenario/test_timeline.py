"""Counts by the second."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving.scenario.timeline import SECONDS, Timeline

STATUS = st.sampled_from([200, 429, 503])
# Requests, each with its arrival, how long it takes, its status (None: the client hung up) and its tokens.
REQUESTS = st.lists(
    st.tuples(st.integers(0, 900), st.integers(0, 400), st.none() | STATUS, st.integers(0, 9)), max_size=30
)


@given(requests=REQUESTS, wait=st.integers(0, 700))
def test_the_series_are_what_happened_in_the_last_five_minutes(
    requests: list[tuple[int, int, int | None, int]], wait: int
) -> None:
    """Each second has its arrivals, tokens, responses and maximum in flight, however long nothing happened."""
    timeline = Timeline()
    events = [
        event
        for begin, length, status, tokens in requests
        for event in ((begin, False, status, tokens), (begin + length, True, status, tokens))
    ]
    last = 0
    for at, is_end, status, tokens in sorted(events, key=lambda event: event[:2]):
        last = at
        if not is_end:
            timeline.add({"requests": 1, "in_flight": 1}, None, at + 0.5)
        elif status is None:
            timeline.add({"in_flight": -1, "disconnects": 1}, None, at + 0.5)
        else:
            timeline.add({"in_flight": -1, "total_tokens": tokens}, status, at + 0.5)
    now = last + wait
    series = timeline.series(now + 0.9)

    seconds = range(now - SECONDS + 1, now + 1)
    arrivals = Counter(begin for begin, *_ in requests)
    ends = [(begin + length, status, tokens) for begin, length, status, tokens in requests]
    assert [arrivals[second] for second in seconds] == series.requests
    assert [sum(t for at, status, t in ends if at == second and status) for second in seconds] == series.tokens
    assert [sum(at == second and not status for at, status, _ in ends) for second in seconds] == series.disconnects
    assert [sum(b <= second <= b + length for b, length, *_ in requests) for second in seconds] == series.in_flight
    counted = {
        status: [sum(at == s and each == status for at, each, _ in ends) for s in seconds] for status in (200, 429, 503)
    }
    assert {status: counts for status, counts in counted.items() if any(counts)} == series.by_status
