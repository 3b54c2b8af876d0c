"""Whether another process has ended, on a machine that shows it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spark_llm.engine.process_identity import has_exited, own_identity

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system shows no processes as files")
TELL = "from spark_llm.engine.process_identity import own_identity; print(own_identity(), flush=True); input()"


def test_this_process_has_not_exited() -> None:
    """Its identity consists of characters, digits and underscores."""
    assert own_identity().replace("_", "").isalnum()
    assert own_identity() == own_identity()
    assert not has_exited(own_identity())


def test_a_killed_process_has_exited() -> None:
    """While it runs it has not; killed, it has, before and after its parent waits for it."""
    with subprocess.Popen(
        [sys.executable, "-c", TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        identity = other.stdout.readline().strip()
        assert identity != own_identity()
        assert not has_exited(identity)

        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now, and stays one
        assert has_exited(identity)
    assert has_exited(identity)


def test_a_reused_process_id_is_another_process() -> None:
    """The same ID with another start is a process that has exited."""
    realm, number, began = own_identity().split("_")

    assert has_exited(f"{realm}_{number}_{int(began) + 1}")


@pytest.mark.parametrize("identity", ["", "x", "_", "__", f"{'0' * 16}_1_1", own_identity().partition("_")[0]])
def test_a_process_elsewhere_has_not_exited(identity: str) -> None:
    """Of another host, another container or an invalid identity nothing is known."""
    assert not has_exited(identity)


@pytest.mark.parametrize(("files", "connections"), [(20, 10), (128, 64), (256, 192), (1024, 960)])
def test_connections_stay_below_the_limit_on_open_files(files: int, connections: int) -> None:
    """64 files, or half of them where there are few, stay free for the rest of the process."""
    program = (
        "import resource\n"
        "from spark_llm.engine.process_identity import max_connections\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))\n"
        "print(max_connections())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert connections == int(ran.stdout)
