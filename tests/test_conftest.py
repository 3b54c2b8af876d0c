"""What `conftest.py` arranges for a whole run."""

import pytest


def test_parallel_processes_keep_their_groups(request: pytest.FixtureRequest) -> None:
    """Without groups no test fails, but each process starts Spark and a browser, and a run takes twice as long."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("one process runs all tests")

    assert "tests/test_conftest.py" == request.node.nodeid.rpartition("@")[2]
