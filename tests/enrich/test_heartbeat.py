"""When a holder that gives no sign of life is taken for gone."""

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.enrich.heartbeat import HEARTBEAT_S, SILENCE_S, HeartbeatMonitor


def test_it_waits_for_several_signs() -> None:
    """A sign that is late, or lost, is not the end."""
    assert SILENCE_S >= 5 * HEARTBEAT_S


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0.0, SILENCE_S)), min_size=1), st.floats(0.0, 1e6))
def test_silence_is_the_time_since_the_last_new_sign(looks: list[tuple[int, float]], start: float) -> None:
    """However often one looks: only a change counts, and only the watcher's own clock."""
    watch, now, seen, since = HeartbeatMonitor(), start, -1, start
    for sign, later in looks:
        now += later
        if sign != seen:
            seen, since = sign, now

        assert (now - since >= SILENCE_S) == watch.is_silent(sign, now)
