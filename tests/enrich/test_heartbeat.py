"""A holder without a new heartbeat is dead after a while."""

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.enrich.heartbeat import HEARTBEAT_S, SILENCE_S, HeartbeatMonitor


def test_several_heartbeats_may_be_lost() -> None:
    """A holder is not dead because one heartbeat is late, or lost."""
    assert SILENCE_S >= 5 * HEARTBEAT_S


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0.0, SILENCE_S)), min_size=1), st.floats(0.0, 1e6))
def test_silence_is_the_time_since_the_last_new_heartbeat(looks: list[tuple[int, float]], start: float) -> None:
    """Only a change counts, however often the monitor looks, and only by its own clock."""
    monitor, now_s, last, last_s = HeartbeatMonitor(), start, -1, start
    for heartbeat, later_s in looks:
        now_s += later_s
        if heartbeat != last:
            last, last_s = heartbeat, now_s

        assert (now_s - last_s >= SILENCE_S) == monitor.is_silent(heartbeat, now_s)
