"""The thread of an engine's event loop: what it must not do there."""

import subprocess
import sys

import pytest

from spark_llm.serving import LocalEndpoints

_IMPORTS_ON_THE_LOOP = """
import sys, threading
if sys.argv[3] == "asyncio":
    sys.modules["uvloop"] = None
from spark_llm import Endpoint, Policy
from spark_llm.engine.engine import Engine
from spark_llm.protocol.chat.task import Chat

class Finder:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread().name == "spark_llm engine":
            print(name)

sys.meta_path.insert(0, Finder())
chat = Chat()
route = Endpoint(sys.argv[1], token=sys.argv[2]).resolve(chat.route, {})
engine = Engine(route, Policy(), None, ("imports of a first request",))
for chunk in engine.stream(chat, iter([["one", "two"]])):
    assert all(result.error is None for result in chunk)
engine.close()
"""


@pytest.mark.waits
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_nothing_is_imported_on_the_loop(endpoints: LocalEndpoints, loop: str) -> None:
    """An import looks through every jar on a Python worker's path: in a second of it, other workers lose a broker."""
    command = [sys.executable, "-c", _IMPORTS_ON_THE_LOOP, endpoints.invocations("chat"), endpoints.token, loop]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ("", "") == (ran.stdout, ran.stderr)
